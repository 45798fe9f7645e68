"""Deletion of orphaned images, discarded files and interrupted uploads."""

import asyncio
import shutil
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy import bindparam, delete, exists, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.logging import get_logger
from app.db.session import Database
from app.models.media import ArticleMedia, DiscardedFolder, Media
from app.services.media.storage import Storage, is_folder
from app.services.media.uploading import RESERVATION_LIFETIME

logger = get_logger(__name__)

BATCH_SIZE = 1000
CLAIM_DURATION = timedelta(minutes=10)
"""How long a process has exclusive use of a claimed folder. Then another process may retry."""

_IS_REFERENCED = exists(literal(1)).where(ArticleMedia.media_id == Media.id)
_ORPHANED = (
    select(Media.id)
    .where(Media.owner_id.is_(None), ~_IS_REFERENCED)
    .order_by(Media.id)
    .limit(BATCH_SIZE)
    .with_for_update(skip_locked=True)
)
_DISCARDED = (
    select(DiscardedFolder.folder)
    .where(DiscardedFolder.discarded_at <= bindparam("now"))
    .order_by(DiscardedFolder.discarded_at, DiscardedFolder.folder)
    .limit(BATCH_SIZE)
)
_CLAIMABLE = (
    select(DiscardedFolder.folder)
    .where(
        DiscardedFolder.folder == bindparam("name"),
        DiscardedFolder.discarded_at <= bindparam("now"),
    )
    .with_for_update(skip_locked=True)
)
_CLAIM = (
    update(DiscardedFolder)
    .where(DiscardedFolder.folder == _CLAIMABLE.scalar_subquery())
    .values(discarded_at=bindparam("until"))
    .returning(DiscardedFolder.folder)
)
_DELETE = delete(DiscardedFolder).where(DiscardedFolder.folder == bindparam("name"))


async def delete_orphaned(session: AsyncSession) -> None:
    """Delete images without an owner that no article references."""
    media_ids = list(await session.scalars(_ORPHANED))
    if media_ids:  # the rows are locked: this statement sees references added in the meantime
        await session.execute(delete(Media).where(Media.id.in_(media_ids), ~_IS_REFERENCED))


async def remove_discarded(database: Database, *, storage: Storage) -> None:
    """Delete the files of deleted images and of uploads that were not completed.

    Each folder is claimed first by setting a later date. Other processes then skip it, and an
    upload that still wants to use the folder fails. No database connection is held while files
    are deleted. Raises OSError after all folders were tried.
    """
    async with database.autocommit() as connection:
        folders = list(await connection.scalars(_DISCARDED, {"now": clock.now()}))
    failed: OSError | None = None
    for folder in filter(is_folder, folders):
        try:
            await _remove(folder, database, storage)
        except OSError as error:
            failed = error
    if failed is not None:
        raise failed


async def _remove(folder: str, database: Database, storage: Storage) -> None:
    now = clock.now()
    async with database.autocommit() as connection:
        parameters = {"name": folder, "now": now, "until": now + CLAIM_DURATION}
        if await connection.scalar(_CLAIM, parameters) is None:
            return
    await storage.delete(folder)
    async with database.autocommit() as connection:
        await connection.execute(_DELETE, {"name": folder})


async def remove_abandoned(storage: Storage) -> None:
    """Delete the temporary files of interrupted uploads."""
    await asyncio.to_thread(_remove_abandoned, storage.incoming)


def _remove_abandoned(incoming: Path) -> None:
    if not incoming.is_dir():
        return
    for directory in incoming.iterdir():
        if directory.is_symlink():  # uploads do not create symbolic links
            continue
        if time.time() - _last_change(directory) > RESERVATION_LIFETIME.total_seconds():
            shutil.rmtree(directory, ignore_errors=True)
            logger.info("An interrupted upload was removed")


def _last_change(directory: Path) -> float:
    """Return the time of the last change in a directory; now, if it is being deleted."""
    try:
        return max(each.lstat().st_mtime for each in (directory, *directory.rglob("*")))
    except FileNotFoundError:
        return time.time()
