"""Deletion of orphaned images, discarded files and interrupted uploads.

The files of a deleted image are withdrawn first: they are no longer served, but kept for
MEDIA_KEEP_DELETED_HOURS. A copy of the storage then agrees with an older dump of the database.
"""

import asyncio
import shutil
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy import (
    ARRAY,
    BigInteger,
    DateTime,
    String,
    any_,
    bindparam,
    delete,
    exists,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from app.core import clock
from app.core.config import get_settings
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
    .returning(DiscardedFolder.bytes, DiscardedFolder.withdrawn_at)
)
_SET_WITHDRAWN = (
    update(DiscardedFolder)
    .where(DiscardedFolder.folder == bindparam("name"))
    .values(withdrawn_at=bindparam("now"), discarded_at=bindparam("delete_at"))
)
# Otherwise, a user could fill the disk by uploading and deleting images.
_EXPIRE_EXCESS = text("""
    UPDATE discarded_folders SET discarded_at = :now WHERE folder IN (
      SELECT folder FROM (
        SELECT folder, discarded_at, owner_id,
          sum(bytes) OVER (PARTITION BY owner_id ORDER BY discarded_at DESC, folder) AS total
        FROM discarded_folders WHERE owner_id IS NOT NULL AND withdrawn_at IS NOT NULL
      ) AS kept
      LEFT JOIN limit_overrides AS override
        ON override.user_id = kept.owner_id AND override.kind = 'media_bytes'
      WHERE kept.discarded_at > :now AND kept.total > coalesce(override.amount, :quota))
""").bindparams(
    bindparam("now", type_=DateTime(timezone=True)), bindparam("quota", type_=BigInteger())
)
"""Make the oldest withdrawn folders of a user due if all of them exceed the user's quota."""
_DELETE = delete(DiscardedFolder).where(DiscardedFolder.folder == bindparam("name"))
_REFERENCED = select(Media.folder).where(
    Media.folder == any_(bindparam("folders", type_=ARRAY(String)))
)
_INSERT_IF_MISSING = insert(DiscardedFolder).on_conflict_do_nothing()


async def delete_orphaned(database: Database) -> int:
    """Delete images without an owner that no article references; return how many."""
    async with database.unit_of_work() as session:
        media_ids = list(await session.scalars(_ORPHANED))
        if media_ids:  # the rows are locked: this statement sees references added in the meantime
            await session.execute(delete(Media).where(Media.id.in_(media_ids), ~_IS_REFERENCED))
    return len(media_ids)


async def remove_discarded(database: Database, *, storage: Storage) -> int:
    """Withdraw and delete the files of deleted images, and of uploads that were not completed.

    Returns the number of folders.

    Each folder is claimed first by setting a later date. Other processes then skip it, and an
    upload that still wants to use the folder fails. No database connection is held while files
    are deleted. Raises OSError after all folders were tried.
    """
    now, quota = clock.now(), get_settings().media_quota_bytes
    async with database.autocommit() as connection:
        await connection.execute(_EXPIRE_EXCESS, {"now": now, "quota": quota})
        folders = list(await connection.scalars(_DISCARDED, {"now": now}))
    failed: OSError | None = None
    for folder in filter(is_folder, folders):
        try:
            await _remove(folder, database, storage)
        except OSError as error:
            failed = error
    if failed is not None:
        raise failed
    return len(folders)


async def _remove(folder: str, database: Database, storage: Storage) -> None:
    now = clock.now()
    async with database.autocommit() as connection:
        parameters = {"name": folder, "now": now, "until": now + CLAIM_DURATION}
        claimed = (await connection.execute(_CLAIM, parameters)).one_or_none()
    if claimed is None:
        return
    keep = timedelta(hours=get_settings().media_keep_deleted_hours)
    is_image = claimed.bytes is not None
    if is_image and claimed.withdrawn_at is None and keep:
        await storage.withdraw(folder)
        async with database.autocommit() as connection:
            withdrawn = {"name": folder, "now": now, "delete_at": now + keep}
            await connection.execute(_SET_WITHDRAWN, withdrawn)
        return
    await storage.delete(folder)
    async with database.autocommit() as connection:
        await connection.execute(_DELETE, {"name": folder})


async def restore_referenced(database: Database, *, storage: Storage) -> int:
    """Serve withdrawn folders again whose image exists after a restore; return their number.

    Other withdrawn folders that the restored database does not know are deleted later.
    """
    folders = [folder for folder in await storage.withdrawn() if is_folder(folder)]
    count = 0
    for number in range(0, len(folders), BATCH_SIZE):
        batch = folders[number : number + BATCH_SIZE]
        async with database.autocommit() as connection:
            referenced = list(await connection.scalars(_REFERENCED, {"folders": batch}))
        for folder in referenced:
            await storage.restore(folder)
        count += len(referenced)
        now = clock.now()
        keep = timedelta(hours=get_settings().media_keep_deleted_hours)
        unknown = [
            {"folder": folder, "discarded_at": now + keep, "withdrawn_at": now}
            for folder in set(batch).difference(referenced)
        ]
        if unknown:
            async with database.autocommit() as connection:
                await connection.execute(_INSERT_IF_MISSING, unknown)
    return count


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
