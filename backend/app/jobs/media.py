"""Deletion of orphaned media and abandoned uploads."""

from functools import partial

from app.db.session import Database
from app.jobs.steps import run_steps
from app.services.media import discarding
from app.services.media.storage import Storage


async def clean_up_media(database: Database, storage: Storage) -> int:
    """Delete orphaned media, the files of deleted media, and abandoned uploads; return how many.

    Raises StepsFailed.
    """
    return await run_steps(
        {
            "orphaned": partial(discarding.delete_orphaned, database),
            "discarded": partial(discarding.remove_discarded, database, storage=storage),
            "abandoned": partial(discarding.remove_abandoned, storage),
        }
    )
