"""Deletion of expired rows."""

from collections.abc import Awaitable, Callable
from functools import partial

from app.db.session import Database
from app.services import idempotency, limits, outbox, retention
from app.services.accounts import account_tokens, rate_limits, sessions
from app.services.articles import changes, previews, tags, trash
from app.services.community.comments import writing as comments
from app.services.purging import Purge, in_batches

_BATCH_PURGES: tuple[Purge, ...] = (
    sessions.purge,
    rate_limits.purge,
    account_tokens.purge,
    previews.purge,
    outbox.purge,
    idempotency.purge,
    limits.purge,
    trash.purge,
    comments.purge,
)


async def delete_expired(database: Database) -> None:
    """Delete expired sessions, attempts, tokens, links, mails, revisions, audit events and changes.

    Articles and comments in the trash are deleted permanently after their retention time. All steps
    run even if one fails; the first exception is raised at the end.
    """
    steps: list[Callable[[], Awaitable[object]]] = [
        partial(in_batches, database, purge) for purge in _BATCH_PURGES
    ]
    steps += [partial(changes.purge, database), partial(retention.apply, database)]
    steps.append(partial(tags.clean_up, database))  # last: emptying the trash leaves unused tags
    first_error: Exception | None = None
    for step in steps:
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - raised below
            first_error = first_error or error
    if first_error is not None:
        raise first_error
