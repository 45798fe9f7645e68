"""Deletion of expired rows."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from app.core.logging import get_logger
from app.db.session import Database
from app.jobs.steps import run_steps
from app.services import idempotency, job_runs, limits, outbox, retention
from app.services.accounts import account_tokens, rate_limits, sessions
from app.services.articles import changes, previews, tags, trash
from app.services.bulk import imports
from app.services.community.comments import writing as comments
from app.services.integrations import events, webhooks
from app.services.purging import in_batches

logger = get_logger(__name__)

LOCK = 0x686F757365
"""The key of the advisory lock: "house" in ASCII."""

STEPS: Mapping[str, Callable[[Database], Awaitable[int]]] = {
    "sessions": partial(in_batches, purge=sessions.purge),
    "attempts": partial(in_batches, purge=rate_limits.purge),
    "account tokens": partial(in_batches, purge=account_tokens.purge),
    "preview links": partial(in_batches, purge=previews.purge),
    "mails": partial(in_batches, purge=outbox.purge),
    "job runs": partial(in_batches, purge=job_runs.purge),
    "idempotency keys": partial(in_batches, purge=idempotency.purge),
    "limit uses": limits.purge_uses,
    "upload reservations": partial(in_batches, purge=limits.purge_reservations),
    "interrupted imports": partial(in_batches, purge=imports.end_lost),
    "imports": partial(in_batches, purge=imports.purge),
    "articles": partial(in_batches, purge=trash.purge),
    "comments": partial(in_batches, purge=comments.purge),
    "changes": changes.purge,
    "webhook deliveries": partial(in_batches, purge=webhooks.purge),
    "events": partial(in_batches, purge=events.purge),
    "revisions": retention.purge_revisions,
    "audit events": retention.purge_events,
    "tags": tags.clean_up,  # last: emptying the trash leaves unused tags
}
"""What to delete, in this order. Each step returns the number of rows."""


async def delete_expired(database: Database) -> int:
    """Delete all expired rows, unless another process is doing so; return how many.

    Raises StepsFailed.
    """
    async with database.exclusively(LOCK) as is_held:
        if not is_held:
            logger.info("another process is deleting expired rows")
            return 0
        return await run_steps({name: partial(_run, database, name) for name in STEPS})


async def _run(database: Database, name: str) -> int:
    rows = await STEPS[name](database)
    if rows:
        logger.info(f"deleted {rows} expired {name}")
    return rows
