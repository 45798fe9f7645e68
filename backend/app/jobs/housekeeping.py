"""Deleting what has had its time."""

from app.db.session import Database
from app.services import (
    account_tokens,
    attempts,
    changes,
    idempotency,
    limits,
    mail,
    previews,
    sessions,
    trash,
)
from app.services.comments import writing as comments


async def tidy_up(database: Database) -> None:
    """Delete old sessions, attempts, tokens, links, mails and changes; what was deleted long ago.

    Each in a unit of work of its own.
    """
    for service in (
        sessions,
        attempts,
        account_tokens,
        previews,
        mail,
        changes,
        idempotency,
        limits,
        trash,
        comments,
    ):
        async with database.unit_of_work() as session:
            await service.purge(session)
