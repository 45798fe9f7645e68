"""Removing pictures that nobody wants, and what was left of uploads."""

from app.db.session import Database
from app.services.media import discarding
from app.services.media.storage import Storage


async def tidy_media(database: Database, storage: Storage) -> None:
    """Delete pictures without anybody, the files of those that are gone, and half-done uploads."""
    async with database.unit_of_work() as session:
        await discarding.purge(session)
    await discarding.remove_discarded(database, storage=storage)
    await discarding.remove_abandoned(storage)
