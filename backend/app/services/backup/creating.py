"""Creation of a backup.

One transaction exports its snapshot. pg_dump reads the database in it, and the images are those of
its rows. Their files are copied afterwards: files of images that are deleted meanwhile are kept for
MEDIA_KEEP_DELETED_HOURS. Images that were deleted before are copied, too, while their files are
kept: a database that is recovered to an earlier moment refers to them.
"""

import asyncio
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import IO, Any, NamedTuple

import asyncpg
import pyrage

from app import __version__
from app.core import clock
from app.core.config import Settings
from app.db.connecting import connect_to
from app.services.backup import listing, programs
from app.services.backup.encryption import NoKey
from app.services.backup.errors import BackupError
from app.services.backup.listing import File, Image, blob_path, image_of
from app.services.backup.manifest import (
    DATABASE,
    MEDIA_LIST,
    Manifest,
    Part,
    encode,
    manifest_name,
    newest,
    part_name,
)
from app.services.backup.progress import Progress, ignore_progress
from app.services.backup.targets import Target, locked
from app.services.media.storage import Storage, is_folder

AT_ONCE = 4
"""Images that are copied at the same time. Their files are in memory."""
COUNTED = ("users", "articles", "article_revisions", "comments", "media")
"""Tables whose rows are counted and hashed, for a comparison after a restore."""
_COUNT = """
    SELECT count(*), coalesce(sum(('x' || left(md5(each::text), 15))::bit(60)::bigint), 0)::text
    FROM {} AS each
"""
_MEDIA = """
    SELECT folder, bytes FROM media
    UNION ALL
    SELECT folder, NULL FROM discarded_folders
    ORDER BY folder
"""


class Snapshot(NamedTuple):
    """What was read in the snapshot, besides the dump."""

    postgresql: int
    revision: str
    counts: dict[str, int]
    checksums: dict[str, str]
    images: Sequence[tuple[str, int | None]]
    """Folders and the total sizes of their files, ordered by folder; None for deleted images."""
    database: Part


def owner_url(settings: Settings) -> str:
    """Return the URL of the role that owns the tables."""
    return settings.database_owner_url or settings.database_url or ""


async def create(
    settings: Settings,
    *,
    target: Target,
    key: NoKey,
    storage: Storage,
    progress: Progress = ignore_progress,
) -> Manifest:
    """Make a backup. Only a complete one gets a manifest. Raises BackupError, ServiceUnavailable.

    Files that the target has already are not written again, so a failed backup can be repeated.
    """
    if settings.media_keep_deleted_hours == 0:
        raise BackupError(
            "Set MEDIA_KEEP_DELETED_HOURS to 1 or more: with 0, images that are deleted during a "
            "backup are missing in it"
        )
    async with locked(target):
        started_at, started = clock.now(), time.monotonic()
        backup = f"{started_at:%Y%m%dT%H%M%S%fZ}-{secrets.token_hex(4)}"
        previous = await asyncio.to_thread(newest, target, key)
        snapshot = await _read_database(settings, target=target, key=key, backup=backup)
        copying = _Copying(target, key, storage, snapshot.images, progress)
        media_list = await copying.run(backup, previous)
        manifest = Manifest(
            id=backup,
            created_at=started_at,
            seconds=round(time.monotonic() - started, 3),
            version=__version__,
            revision=snapshot.revision,
            postgresql=snapshot.postgresql,
            key=key.id,
            database=snapshot.database,
            media_list=media_list,
            images=copying.images,
            withdrawn=copying.withdrawn,
            files=copying.files,
            media_bytes=copying.bytes,
            uploaded_bytes=copying.uploaded_bytes,
            missing=copying.missing,
            counts=snapshot.counts,
            checksums=snapshot.checksums,
        )
        await asyncio.to_thread(_complete, target, manifest, key)
    return manifest


def _complete(target: Target, manifest: Manifest, key: NoKey) -> None:
    target.put(manifest_name(manifest.id), encode(manifest, key))


_SESSION = {
    "application_name": "pressroom backup",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # The text of rows, whose checksums are compared.
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "extra_float_digits": "1",
}


async def count_rows(connection: "asyncpg.Connection[Any]", table: str) -> tuple[int, str]:
    """Return the number of rows of a table, and the sum of their checksums."""
    quoted = '"' + table.replace('"', '""') + '"'
    count, checksum = (await connection.fetch(_COUNT.format(quoted)))[0]
    return count, checksum


@asynccontextmanager
async def connected(url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """Open a connection without time limits: a pool's would end a long transaction."""
    connection = await connect_to(url, server_settings=_SESSION)
    try:
        yield connection
    except asyncpg.PostgresError as error:
        raise BackupError(f"PostgreSQL refused: {error}") from error
    finally:
        await connection.close()


async def _read_database(
    settings: Settings, *, target: Target, key: NoKey, backup: str
) -> Snapshot:
    url = owner_url(settings)
    async with (
        connected(url) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        revision = await _revision(connection)
        major = connection.get_server_version().major
        rows = {table: await count_rows(connection, table) for table in COUNTED}
        images = [tuple(row) for row in await connection.fetch(_MEDIA)]
        # The transaction must stay open until pg_dump has imported its snapshot.
        size, checksum = await asyncio.to_thread(
            programs.dump,
            url,
            major=major,
            snapshot=await connection.fetchval("SELECT pg_export_snapshot()"),
            target=target,
            name=part_name(backup, DATABASE, key),
            key=key,
        )
    return Snapshot(
        postgresql=major,
        revision=revision,
        counts={table: count for table, (count, _) in rows.items()},
        checksums={table: digest for table, (_, digest) in rows.items()},
        images=images,
        database=Part(bytes=size, sha256=checksum),
    )


async def _revision(connection: "asyncpg.Connection[Any]") -> str:
    try:
        return str(await connection.fetchval("SELECT version_num FROM alembic_version"))
    except asyncpg.UndefinedTableError:
        raise BackupError("The database has no tables: run `pressroom migrate`") from None


class _Copying:
    """The copy of the files of images, and its numbers."""

    def __init__(
        self,
        target: Target,
        key: NoKey,
        storage: Storage,
        images: Sequence[tuple[str, int | None]],
        progress: Progress,
    ) -> None:
        self._target = target
        self._key = key
        self._storage = storage
        self._rows = images
        self._progress = progress
        self.images = self.withdrawn = self.files = self.bytes = self.uploaded_bytes = 0
        self.missing: list[str] = []

    async def run(self, backup: str, previous: Manifest | None) -> Part:
        """Copy all files, and store the list. Images of the previous backup are not read again."""
        with tempfile.TemporaryFile() as spool:
            if previous is None:
                await self._copy_all(spool, iter(()))
            else:
                with listing.opened(self._target, previous, self._key) as known:
                    await self._copy_all(spool, known)
            spool.seek(0)
            name = part_name(backup, MEDIA_LIST, self._key)
            return await asyncio.to_thread(self._store_list, spool, name)

    def _store_list(self, spool: IO[bytes], name: str) -> Part:
        writer = self._target.writer(name)
        try:
            self._key.encrypt_stream(spool, writer)
        except pyrage.EncryptError as error:
            raise writer.error or BackupError(f"The list of images: {error}") from None
        writer.close()
        return Part(bytes=writer.bytes, sha256=writer.sha256)

    async def _copy_all(self, spool: IO[bytes], known: Iterator[Image]) -> None:
        candidate = next(known, None)
        for start in range(0, len(self._rows), AT_ONCE):
            copies = []
            for folder, size in self._rows[start : start + AT_ONCE]:
                while candidate is not None and candidate.folder < folder:
                    candidate = next(known, None)
                is_known = candidate is not None and candidate.folder == folder
                copies.append(self._copy(folder, size, candidate if is_known else None))
            for image in await asyncio.gather(*copies):
                if image is not None:
                    spool.write(image.encode())
            self._progress(min(start + AT_ONCE, len(self._rows)), len(self._rows))

    async def _copy(self, folder: str, size: int | None, known: Image | None) -> Image | None:
        """Copy the files of an image, without a size a deleted one; return None if missing."""
        withdrawn = size is None
        if known is not None and size in {known.size, None} and await self._has_all(known):
            image = known._replace(withdrawn=withdrawn)
        else:
            contents = await self._load(folder, size)
            if contents is None:
                if not withdrawn:
                    self.missing.append(folder)
                return None
            image = image_of(folder, contents, withdrawn=withdrawn)
            for file in image.files:
                await asyncio.to_thread(self._store, file, contents[file.name])
        self.images += not withdrawn
        self.withdrawn += withdrawn
        self.files += len(image.files)
        self.bytes += image.size
        return image

    async def _load(self, folder: str, size: int | None) -> Mapping[str, bytes] | None:
        """Read the files of an image. They never change: a wrong size means that one is missing."""
        if not is_folder(folder):
            return None
        try:
            for _ in range(2):  # a folder may be withdrawn while it is read
                contents = await self._storage.load(folder)
                if contents and size in {sum(map(len, contents.values())), None}:
                    return contents
        except OSError as error:
            raise BackupError(f"The image {folder} cannot be read: {error}") from error
        return None

    async def _has_all(self, image: Image) -> bool:
        return await asyncio.to_thread(
            lambda: all(self._target.size(blob_path(file, self._key)) for file in image.files)
        )

    def _store(self, file: File, data: bytes) -> None:
        path = blob_path(file, self._key)
        if self._target.size(path) is None:
            self._target.put(path, self._key.encrypt(data))
            self.uploaded_bytes += len(data)
