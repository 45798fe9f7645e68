"""Deleting what has had its time."""

from app.db.session import Database
from app.services import account_tokens, attempts, mail, sessions


async def tidy_up(database: Database) -> None:
    """Delete old sessions, attempts, tokens and mails, in a unit of work each."""
    for service in (sessions, attempts, account_tokens, mail):
        async with database.unit_of_work() as session:
            await service.purge(session)
