"""Cleanup of orphaned media and interrupted uploads."""

from app.db.session import Database
from app.services.media import discarding
from app.services.media.storage import Storage


async def tidy_media(database: Database, storage: Storage) -> None:
    """Delete orphaned media, discarded files and interrupted uploads."""
    async with database.unit_of_work() as session:
        await discarding.delete_orphaned(session)
    await discarding.remove_discarded(database, storage=storage)
    await discarding.remove_abandoned(storage)
