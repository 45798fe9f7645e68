"""Removing what nobody wants any more: pictures, their files, and half-done uploads."""

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
from app.services.media.uploading import LASTS

logger = get_logger(__name__)

AT_ONCE = 1000
CLAIMED_FOR = timedelta(minutes=10)
"""For how long only the process that claimed a folder deletes it; then any may try again."""

_SHOWN = exists(literal(1)).where(ArticleMedia.media_id == Media.id)
_NOBODYS = (
    select(Media.id)
    .where(Media.owner_id.is_(None), ~_SHOWN)
    .order_by(Media.id)
    .limit(AT_ONCE)
    .with_for_update(skip_locked=True)
)
_DISCARDED = (
    select(DiscardedFolder.folder)
    .where(DiscardedFolder.discarded_at <= bindparam("now"))
    .order_by(DiscardedFolder.discarded_at, DiscardedFolder.folder)
    .limit(AT_ONCE)
)
_FREE = (
    select(DiscardedFolder.folder)
    .where(
        DiscardedFolder.folder == bindparam("name"),
        DiscardedFolder.discarded_at <= bindparam("now"),
    )
    .with_for_update(skip_locked=True)
)
_CLAIM = (
    update(DiscardedFolder)
    .where(DiscardedFolder.folder == _FREE.scalar_subquery())
    .values(discarded_at=bindparam("until"))
    .returning(DiscardedFolder.folder)
)
_FORGET = delete(DiscardedFolder).where(DiscardedFolder.folder == bindparam("name"))


async def purge(session: AsyncSession) -> None:
    """Delete pictures whose owner has left and that no article shows."""
    media_ids = list(await session.scalars(_NOBODYS))
    if media_ids:  # locked: whatever shows one of them by now is seen by this statement
        await session.execute(delete(Media).where(Media.id.in_(media_ids), ~_SHOWN))


async def remove_discarded(database: Database, *, storage: Storage) -> None:
    """Delete the files of pictures that are deleted, or that never came to be.

    Each is claimed first, by a later date: other processes leave it alone, and an upload that is
    just about to keep the files finds that it may not. No connection is held while files are
    deleted. Raises OSError once all have been tried.
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
        parameters = {"name": folder, "now": now, "until": now + CLAIMED_FOR}
        if await connection.scalar(_CLAIM, parameters) is None:
            return
    await storage.delete(folder)
    async with database.autocommit() as connection:
        await connection.execute(_FORGET, {"name": folder})


async def remove_abandoned(storage: Storage) -> None:
    """Delete what an upload that was interrupted has left where it was worked on."""
    await asyncio.to_thread(_remove_abandoned, storage.incoming)


def _remove_abandoned(incoming: Path) -> None:
    if not incoming.is_dir():
        return
    for directory in incoming.iterdir():
        if directory.is_symlink():  # no upload makes one
            continue
        if time.time() - _last_change(directory) > LASTS.total_seconds():
            shutil.rmtree(directory, ignore_errors=True)
            logger.info("An interrupted upload was removed")


def _last_change(directory: Path) -> float:
    """When something last happened in a directory; now, where it is just going away."""
    try:
        return max(each.lstat().st_mtime for each in (directory, *directory.rglob("*")))
    except FileNotFoundError:
        return time.time()
