"""Where the files of pictures are kept: a folder on this machine, or a bucket.

Each picture has a folder of its own, whose name nobody can guess: who knows it may read what is in
it. A folder appears as a whole and never changes, until it goes.
"""

import asyncio
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Protocol

from app.core.config import Settings
from app.services.media.bucket import BucketStorage
from app.services.media.formats import CONTENT_TYPES

FOLDER = r"[0-9a-f]{32}"
_FOLDER = re.compile(FOLDER)
_NAME = re.compile(rf"[a-z0-9]{{1,20}}\.(?:{'|'.join(CONTENT_TYPES)})")

_SAFELY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

PIECE = 256 * 1024


class Storage(Protocol):
    """What keeps files. Its methods raise OSError where it cannot."""

    incoming: Path
    """A folder on this machine for what is being worked on; what is old in it may go."""

    async def put(self, folder: str, files: Path) -> None:
        """Keep the files of the directory `files`, which may be moved, as `folder`."""

    async def size(self, folder: str, name: str) -> int | None:
        """How many bytes a file has; None where there is no such file."""

    def read(self, folder: str, name: str, *, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes of a file from `start` up to, and without, `end`."""

    async def delete(self, folder: str) -> None:
        """Forget a folder; whether or not it is there."""


class LocalStorage:
    """Keeps pictures below a directory, which several processes and nginx may share."""

    def __init__(self, directory: Path) -> None:
        self.incoming = directory / "incoming"
        self._files = directory / "files"

    async def put(self, folder: str, files: Path) -> None:
        await asyncio.to_thread(self._put, folder, files)

    def _put(self, folder: str, files: Path) -> None:
        for file in files.iterdir():
            file.chmod(0o644)  # nginx, another user, reads it
            _to_disk(file)
        files.chmod(0o755)
        _to_disk(files)
        if not self._files.is_dir():
            self._files.mkdir(parents=True, exist_ok=True)
            self._files.chmod(0o755)
        files.rename(self._files / folder)
        _to_disk(self._files)

    async def size(self, folder: str, name: str) -> int | None:
        return await asyncio.to_thread(self._size, folder, name)

    def _size(self, folder: str, name: str) -> int | None:
        try:
            with self._open(folder, name) as file:
                return os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return None

    def _open(self, folder: str, name: str) -> BinaryIO:
        """A file of a picture. Raises FileNotFoundError for what is none: a link, for example.

        nginx opens the files in the same way (`disable_symlinks`).
        """
        if not is_address(folder, name):
            raise FileNotFoundError
        try:
            parent = os.open(self._files / folder, os.O_DIRECTORY | _SAFELY)
            try:
                descriptor = os.open(name, _SAFELY, dir_fd=parent)
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
                piece = await asyncio.to_thread(file.read, min(PIECE, end - start))
                if not piece:
                    break
                start += len(piece)
                yield piece
        finally:
            file.close()

    async def delete(self, folder: str) -> None:
        await asyncio.to_thread(self._delete, folder)

    def _delete(self, folder: str) -> None:
        try:
            shutil.rmtree(self._files / folder)
        except FileNotFoundError:  # at the same time, by another process, or before
            if (self._files / folder).exists():
                raise


def _to_disk(path: Path) -> None:
    """Have the disk itself know a file, or what is in a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_storage(settings: Settings) -> Storage:
    """The storage that the settings name. Nothing is created or asked before it is used."""
    directory = settings.media_dir or settings.data_dir / "media"
    if settings.s3_bucket is None:
        return LocalStorage(directory)
    return BucketStorage(settings.s3_bucket, settings=settings, incoming=directory / "incoming")


def new_folder() -> str:
    """A name of 128 random bits: whoever has an address may see the picture, nobody else."""
    return secrets.token_hex(16)


def is_folder(name: str) -> bool:
    """Whether this could be a picture's folder; nothing else is ever deleted."""
    return _FOLDER.fullmatch(name) is not None


def is_address(folder: str, name: str) -> bool:
    """Whether these could be a folder and a file of ours; nothing else is ever looked for."""
    return is_folder(folder) and _NAME.fullmatch(name) is not None
