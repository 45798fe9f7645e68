"""Copies of the images of an old site: from folders, or else from the site itself.

An image is stored once for each content, and found again by its address and by its content. So an
import that is repeated, or was killed, copies only what is missing.
"""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import LargeBinary, Row, any_, bindparam, select
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import COMMAND_LINE
from app.core.config import get_settings
from app.core.errors import InvalidMedia
from app.db.session import Database
from app.models.bulk import MediaCopy
from app.models.media import Media
from app.services.bulk.fetching import FetchedFile, Fetcher, NotFetched
from app.services.bulk.folders import Folders
from app.services.bulk.records import record_key
from app.services.bulk.references import ImageTarget, without_size
from app.services.media.rows import image_url
from app.services.media.storage import Storage
from app.services.media.uploading import (
    StoredUpload,
    delete_files,
    insert_media,
    storage_errors,
    store_image,
)

MAX_ALT = 500
AT_ONCE = 8
"""Files that are copied at the same time: each takes temporary space."""

_COPIES = (
    select(MediaCopy.key, Media.folder, Media.content_type)
    .join(Media, Media.id == MediaCopy.media_id)
    .where(MediaCopy.key == any_(bindparam("keys", type_=ARRAY(LargeBinary))))
)
_BY_KEY = select(MediaCopy.media_id).where(MediaCopy.key == bindparam("key", type_=LargeBinary))
_INSERT = insert(MediaCopy).on_conflict_do_nothing().returning(MediaCopy.media_id)


class WantedImage(NamedTuple):
    """An image that an article shows."""

    target: ImageTarget
    owner_id: int
    """The author of the article, to whose images the copy belongs."""
    alt: str = ""


class _Exists(Exception):
    """Another process has copied the same content meanwhile."""


class Copier:
    """Copies images for one source."""

    def __init__(
        self,
        database: Database,
        *,
        source: str,
        storage: Storage,
        folders: Folders,
        fetcher: Fetcher | None,
    ) -> None:
        self.folders = folders
        self.fetcher = fetcher
        self._database = database
        self._source = source
        self._storage = storage
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._storing = asyncio.Lock()
        self._failed: dict[str, str] = {}
        """Why images were not copied, by their identity."""

    async def copy(self, wanted: Iterable[WantedImage]) -> Mapping[str, str]:
        """Copy images. Return the reasons by identity for those that were not copied.

        Raises ServiceUnavailable if the storage or the database fails.
        """
        first = {each.target.identity: each for each in reversed(list(wanted))}
        missing = [each for identity, each in first.items() if identity not in self._failed]
        tasks = [asyncio.create_task(self._try_copy(each)) for each in missing]
        try:
            await asyncio.gather(*tasks)
        finally:  # if one fails, or the import is interrupted
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return {identity: self._failed[identity] for identity in first if identity in self._failed}

    async def _try_copy(self, wanted: WantedImage) -> None:
        try:
            async with self._slots, _temporary_directory(self._storage) as directory:
                fetched = await self._obtain(wanted.target, directory / "upload")
                async with self._storing:
                    await self._store(wanted, fetched)
        except (NotFetched, InvalidMedia) as error:
            self._failed[wanted.target.identity] = str(error)

    async def _obtain(self, target: ImageTarget, path: Path) -> FetchedFile:
        """Write the file to `path`. Raises NotFetched."""
        max_bytes = get_settings().media_max_bytes
        try:
            return await asyncio.to_thread(
                self.folders.copy, target.files, path, max_bytes=max_bytes
            )
        except NotFetched:
            if self.fetcher is None or not target.url:
                raise
        try:
            return await self.fetcher.fetch(target.url, path, max_bytes=max_bytes)
        except NotFetched as error:
            page, mark, query = target.url.partition("?")
            whole = without_size(page)
            if whole is None or not error.is_missing:
                raise
            return await self.fetcher.fetch(whole + mark + query, path, max_bytes=max_bytes)

    async def _store(self, wanted: WantedImage, fetched: FetchedFile) -> None:
        """Store a file, unless its content is stored. Raises InvalidMedia, ServiceUnavailable."""
        key = copy_key(self._source, wanted.target.identity)
        content_key = copy_key(self._source, fetched.digest.hex())
        async with self._database.unit_of_work() as session:
            media_id = await session.scalar(_BY_KEY, {"key": content_key})
            if media_id is not None:
                await session.execute(_INSERT, {"key": key, "media_id": media_id})
                return
        stored = await store_image(
            self._database,
            storage=self._storage,
            file=fetched.path,
            owner_id=wanted.owner_id,
            alt=wanted.alt[:MAX_ALT],
        )
        try:
            async with self._database.unit_of_work() as session:
                await _insert(session, stored, wanted.owner_id, keys=(content_key, key))
        except _Exists:
            await delete_files(self._storage, stored)
            await self._store(wanted, fetched)
        except IntegrityError:
            await delete_files(self._storage, stored)
            raise NotFetched("the account of the author was deleted meanwhile") from None
        except BaseException:
            await delete_files(self._storage, stored)
            raise


async def _insert(
    session: AsyncSession, stored: StoredUpload, owner_id: int, *, keys: tuple[bytes, bytes]
) -> None:
    """Add an image with the keys of its content and its address. Raises _Exists."""
    media = await insert_media(session, stored, owner_id=owner_id, actor_id=COMMAND_LINE.id)
    content_key, key = keys
    if await session.scalar(_INSERT, {"key": content_key, "media_id": media.id}) is None:
        raise _Exists
    await session.execute(_INSERT, {"key": key, "media_id": media.id})


def copy_key(source: str, name: str) -> bytes:
    """Return the key of an image: a digest of the source, and of its address or content."""
    return record_key(source, f"image {name}")


async def find_copies(
    database: Database, *, source: str, identities: Collection[str]
) -> Mapping[str, str]:
    """Return the URLs of copied images by their identity in the source."""
    keys = {copy_key(source, identity): identity for identity in identities}
    if not keys:
        return {}
    async with database.autocommit() as connection:  # a replica may lag behind
        rows: Iterable[Row[Any]] = await connection.execute(_COPIES, {"keys": list(keys)})
    return {keys[bytes(row.key)]: image_url(row) for row in rows}


@asynccontextmanager
async def _temporary_directory(storage: Storage) -> AsyncIterator[Path]:
    directory = storage.incoming / secrets.token_hex(16)
    with storage_errors():
        await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True)
    try:
        yield directory
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
