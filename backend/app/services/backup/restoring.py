"""Restoring a backup into an empty database.

Everything is checked before the database changes: the manifest, the dump, and each file of an image
while it is stored. The dump is loaded last, in one transaction.
"""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

import asyncpg

from app.core.config import Settings
from app.db import revisions
from app.services.backup import listing, programs
from app.services.backup.checking import check_database, load_file
from app.services.backup.creating import connected, count_rows, owner_url
from app.services.backup.encryption import NoKey
from app.services.backup.errors import BackupError
from app.services.backup.listing import Image
from app.services.backup.manifest import DATABASE, Manifest, choose, part_name
from app.services.backup.progress import Progress, ignore_progress
from app.services.backup.targets import Target
from app.services.media.storage import Storage, is_folder, is_media_file

_TABLES = """
    SELECT quote_ident(relname) FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
      AND relname NOT IN ('alembic_version', 'job_runs')
    ORDER BY relname
"""
"""Tables that must have no rows. Runs of jobs are recorded in new installations, too."""
_HAS_OBJECTS = """
    SELECT EXISTS (SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace)
        OR EXISTS (SELECT FROM pg_proc WHERE pronamespace = 'public'::regnamespace)
"""


async def restore(
    settings: Settings,
    backup: str | None,
    *,
    target: Target,
    key: NoKey,
    storage: Storage,
    progress: Progress = ignore_progress,
) -> Manifest:
    """Restore a backup, by default the newest; return its manifest.

    The database must have no rows. It has the tables of the backup afterwards, so migrate it.
    Raises BackupError, ServiceUnavailable.
    """
    manifest = await asyncio.to_thread(choose, target, backup, key)
    if not revisions.is_known(manifest.revision):
        raise BackupError(
            f"{manifest.id} was made by a newer release, {manifest.version} with the migration "
            f"{manifest.revision}: use that release to restore it"
        )
    url = owner_url(settings)
    async with connected(url) as connection:
        await _require_empty(connection)
        major = connection.get_server_version().major
    await asyncio.to_thread(check_database, target, manifest, key)
    await _restore_images(target, manifest, key, storage, progress)
    async with connected(url) as connection:
        await _clear(connection)
    name = part_name(manifest.id, DATABASE, key)
    await asyncio.to_thread(programs.load, url, major=major, target=target, name=name, key=key)
    async with connected(url) as connection:
        await _compare(connection, manifest)
    return manifest


async def restore_images(
    backup: str | None,
    *,
    target: Target,
    key: NoKey,
    storage: Storage,
    progress: Progress = ignore_progress,
) -> Manifest:
    """Restore only the images of a backup; return its manifest. The database is not used.

    Images that are there already are not written again. Raises BackupError.
    """
    manifest = await asyncio.to_thread(choose, target, backup, key)
    await _restore_images(target, manifest, key, storage, progress)
    return manifest


async def _require_empty(connection: "asyncpg.Connection[Any]") -> None:
    for row in await connection.fetch(_TABLES):
        if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {row[0]})"):  # noqa: S608 - quoted
            raise BackupError(
                f"The database is not empty: {row[0]} has rows. Restore into a new database, with "
                "createdb, or stop the backend and drop this one first"
            )


async def _clear(connection: "asyncpg.Connection[Any]") -> None:
    """Drop the tables, which are empty, of a migrated database."""
    async with connection.transaction():
        if not await connection.fetchval(_HAS_OBJECTS):
            return
        await _require_empty(connection)
        await connection.execute("DROP SCHEMA public CASCADE")
        await connection.execute("CREATE SCHEMA public")
        await connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")


async def _restore_images(
    target: Target,
    manifest: Manifest,
    key: NoKey,
    storage: Storage,
    progress: Progress,
) -> None:
    count = 0
    with listing.opened(target, manifest, key) as images:
        for image in images:
            await _restore_image(target, image, key, storage)
            count += 1
            progress(count, manifest.images + manifest.withdrawn)


async def _restore_image(target: Target, image: Image, key: NoKey, storage: Storage) -> None:
    names_are_valid = all(is_media_file(image.folder, file.name) for file in image.files)
    if not is_folder(image.folder) or not names_are_valid:
        raise BackupError(f"The list of images has a wrong name: {image.folder}")
    try:
        sizes = [await storage.size(image.folder, file.name) for file in image.files]
        if sizes == [file.bytes for file in image.files]:
            return  # a folder never changes
        await storage.delete(image.folder)
        await asyncio.to_thread(storage.incoming.mkdir, parents=True, exist_ok=True)
        directory = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=storage.incoming))
        try:
            for file in image.files:
                data = await asyncio.to_thread(load_file, target, file, key)
                await asyncio.to_thread((directory / file.name).write_bytes, data)
            await storage.put(image.folder, directory)
            if image.withdrawn:
                await storage.withdraw(image.folder)
        finally:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
    except OSError as error:
        raise BackupError(f"The image {image.folder} cannot be stored: {error}") from error


async def _compare(connection: "asyncpg.Connection[Any]", manifest: Manifest) -> None:
    """Raise BackupError if rows differ from those of the snapshot."""
    for table, expected in manifest.counts.items():
        found, checksum = await count_rows(connection, table)
        if found != expected:
            raise BackupError(f"{table} has {found} rows after the restore, but had {expected}")
        if checksum != manifest.checksums[table]:
            raise BackupError(f"Rows of {table} differ from the backup after the restore")
