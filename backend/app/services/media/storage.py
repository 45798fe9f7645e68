"""Media storage: a local directory or a bucket.

Each image has a folder with a random name. Any client that knows the name may read the files.
A folder is created atomically and never changes until it is deleted.
"""

import asyncio
import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from app.core.config import Settings
from app.core.logging import get_logger
from app.models.media import FOLDER_PATTERN
from app.services.media.bucket import BucketStorage
from app.services.media.formats import CONTENT_TYPES

logger = get_logger(__name__)

BUCKET_ADVICE = "check S3_BUCKET, S3_ENDPOINT_URL and the keys"

_FOLDER = re.compile(FOLDER_PATTERN)
_NAME = re.compile(rf"[a-z0-9]{{1,20}}\.(?:{'|'.join(CONTENT_TYPES)})")

_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

CHUNK_BYTES = 256 * 1024


class Storage(Protocol):
    """A media storage. Its methods raise OSError on failure."""

    incoming: Path
    """A local directory for uploads in progress. Old entries may be deleted."""

    async def put(self, folder: str, files: Path) -> None:
        """Store the files of the directory `files` as `folder`. The directory may be moved."""

    async def size(self, folder: str, name: str) -> int | None:
        """Return the size of a file in bytes; None if it does not exist."""

    def read(self, folder: str, name: str, *, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes of a file from `start` to `end` (exclusive)."""

    async def load(self, folder: str) -> Mapping[str, bytes]:
        """Return the files of a folder by name, also of a withdrawn one; none if it is missing."""

    async def withdraw(self, folder: str) -> None:
        """Keep a folder if it exists, but no longer serve it."""

    async def withdrawn(self) -> Sequence[str]:
        """Return the withdrawn folders."""

    async def restore(self, folder: str) -> None:
        """Serve a withdrawn folder again."""

    async def delete(self, folder: str) -> None:
        """Delete a folder if it exists, withdrawn or not."""


class LocalStorage:
    """Stores images in a directory, which several processes and nginx may share."""

    def __init__(self, directory: Path) -> None:
        self.incoming = directory / "incoming"
        self._files = directory / "files"
        self._deleted = directory / "deleted"

    async def put(self, folder: str, files: Path) -> None:
        await asyncio.to_thread(self._put, folder, files)

    def _put(self, folder: str, files: Path) -> None:
        for file in files.iterdir():
            file.chmod(0o644)  # nginx reads the files as another user
            _fsync(file)
        files.chmod(0o755)
        _fsync(files)
        _move(files, self._files / folder)

    async def size(self, folder: str, name: str) -> int | None:
        return await asyncio.to_thread(self._size, folder, name)

    def _size(self, folder: str, name: str) -> int | None:
        try:
            with self._open(folder, name) as file:
                return os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return None

    def _open(self, folder: str, name: str) -> BinaryIO:
        """Open a file of an image. Raises FileNotFoundError for other files, such as links.

        nginx opens the files with the same restrictions (`disable_symlinks`).
        """
        if not is_media_file(folder, name):
            raise FileNotFoundError
        try:
            parent = os.open(self._files / folder, os.O_DIRECTORY | _OPEN_FLAGS)
            try:
                descriptor = os.open(name, _OPEN_FLAGS, dir_fd=parent)
            finally:
                os.close(parent)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.EMLINK, errno.ENOTDIR, errno.ENXIO}:
                raise FileNotFoundError from error
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError
        return os.fdopen(descriptor, "rb")

    async def read(self, folder: str, name: str, *, start: int, end: int) -> AsyncIterator[bytes]:
        file = await asyncio.to_thread(self._open, folder, name)
        try:
            await asyncio.to_thread(file.seek, start)
            while start < end:
                chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, end - start))
                if not chunk:
                    break
                start += len(chunk)
                yield chunk
        finally:
            file.close()

    async def load(self, folder: str) -> Mapping[str, bytes]:
        return await asyncio.to_thread(self._load, folder)

    def _load(self, folder: str) -> Mapping[str, bytes]:
        # It may be withdrawn, or restored, while it is read.
        for parent in (self._files, self._deleted, self._files):
            try:
                return {
                    file.name: file.read_bytes()
                    for file in sorted((parent / folder).iterdir())
                    if is_media_file(folder, file.name) and not file.is_symlink()
                }
            except FileNotFoundError:
                continue
        return {}

    async def withdraw(self, folder: str) -> None:
        with suppress(FileNotFoundError):
            await asyncio.to_thread(_move, self._files / folder, self._deleted / folder)

    async def withdrawn(self) -> Sequence[str]:
        if not self._deleted.is_dir():
            return []
        return [path.name for path in await asyncio.to_thread(lambda: [*self._deleted.iterdir()])]

    async def restore(self, folder: str) -> None:
        if (self._files / folder).exists():  # from a copy of the storage
            await asyncio.to_thread(_delete, self._deleted / folder)
        else:
            await asyncio.to_thread(_move, self._deleted / folder, self._files / folder)

    async def delete(self, folder: str) -> None:
        await asyncio.to_thread(_delete, self._files / folder, self._deleted / folder)


def _move(source: Path, target: Path) -> None:
    """Rename a directory. Its new parent is readable for nginx."""
    if not target.parent.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.parent.chmod(0o755)
    source.rename(target)
    _fsync(target.parent)


def _delete(*directories: Path) -> None:
    for directory in directories:
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:  # another process deleted the folder, or part of it
            if directory.exists():
                raise


def _fsync(path: Path) -> None:
    """Flush a file or the entries of a directory to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_storage(settings: Settings) -> Storage:
    """Return the configured storage. It performs no I/O before its first use."""
    directory = settings.media_dir or settings.data_dir / "media"
    if settings.s3_bucket is None:
        return LocalStorage(directory)
    return BucketStorage(settings.s3_bucket, settings=settings, incoming=directory / "incoming")


def new_folder() -> str:
    """Return a folder name of 128 random bits: access to an image requires its URL."""
    return secrets.token_hex(16)


def is_folder(name: str) -> bool:
    """Return whether this is a valid folder name. Nothing else is ever deleted."""
    return _FOLDER.fullmatch(name) is not None


def is_media_file(folder: str, name: str) -> bool:
    """Return whether these are valid folder and file names. Nothing else is ever opened."""
    return is_folder(folder) and _NAME.fullmatch(name) is not None


async def verify(storage: Storage) -> None:
    """Store, find and delete a file. Raises OSError if that is not possible."""
    folder = new_folder()
    storage.incoming.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=storage.incoming) as upload:
        files = Path(upload) / "test"
        files.mkdir()
        (files / "test.png").write_bytes(b"test")
        await storage.put(folder, files)
    try:
        stored = await storage.size(folder, "test.png")
    finally:
        await storage.delete(folder)
    if stored is None:
        raise OSError("a stored file was not found")


@asynccontextmanager
async def verified(storage: Storage, bucket: str | None) -> AsyncIterator[None]:
    """Log at the start of the block if the bucket cannot be used. The block does not wait."""

    async def report() -> None:
        try:
            await verify(storage)
        except OSError as error:
            logger.warning(f"the bucket {bucket} does not work: {error}; {BUCKET_ADVICE}")

    task = None if bucket is None else asyncio.create_task(report(), name="bucket")
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
