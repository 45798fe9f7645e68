"""Deleting what has had its time."""

from collections.abc import Awaitable, Callable
from functools import partial

from app.db.session import Database
from app.services import (
    account_tokens,
    attempts,
    changes,
    idempotency,
    limits,
    mail,
    previews,
    retention,
    sessions,
    tags,
    trash,
)
from app.services.comments import writing as comments
from app.services.purging import Purge, in_batches

_BY_BATCH: tuple[Purge, ...] = (
    sessions.purge,
    attempts.purge,
    account_tokens.purge,
    previews.purge,
    mail.purge,
    idempotency.purge,
    limits.purge,
    trash.purge,
    comments.purge,
)


async def tidy_up(database: Database) -> None:
    """Delete old sessions, attempts, tokens, links, mails, revisions, audit events and changes.

    What was deleted long ago goes for good. A kind that fails does not keep the others: the first
    error is raised once all have been tried.
    """
    work: list[Callable[[], Awaitable[object]]] = [
        partial(in_batches, database, purge) for purge in _BY_BATCH
    ]
    work += [partial(changes.purge, database), partial(retention.apply, database)]
    work.append(partial(tags.clean_up, database))  # last: the trash was emptied
    failed: Exception | None = None
    for step in work:
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - raised below
            failed = failed or error
    if failed is not None:
        raise failed
