"""Deletion of orphaned media and abandoned uploads."""

from app.db.session import Database
from app.services.media import discarding
from app.services.media.storage import Storage


async def clean_up_media(database: Database, storage: Storage) -> None:
    """Delete orphaned media, the files of deleted media, and abandoned uploads."""
    async with database.unit_of_work() as session:
        await discarding.delete_orphaned(session)
    await discarding.remove_discarded(database, storage=storage)
    await discarding.remove_abandoned(storage)
