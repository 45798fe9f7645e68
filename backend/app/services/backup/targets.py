"""Where backups are stored: a folder, or a bucket.

backups/<id>/manifest.json      written last: without it, a backup is incomplete
backups/<id>/database.dump      what pg_dump wrote
backups/<id>/media.ndjson       the list of the images
media/<2 characters>/<name>     files of images, which all backups share
lock                            exists while a backup is made or deleted
"""

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import LocalStore, ObjectStore

from app.core import clock
from app.core.config import PROJECT_DIR, Settings
from app.services.backup.errors import BackupError
from app.services.media.bucket import open_bucket

BACKUPS = "backups"
MEDIA = "media"
LOCK = "lock"
LOCK_SECONDS = 300
"""The time after which a lock that was not renewed is ignored: its process was killed."""
RENEWAL_SECONDS = 60
CHUNK_BYTES = 256 * 1024
_REASONS: dict[type[Exception], str] = {
    NotFoundError: "the bucket does not exist",
    FileNotFoundError: "the bucket does not exist",
    PermissionDeniedError: "access is denied",
    PermissionError: "access is denied",
    UnauthenticatedError: "the credentials are not accepted",
}


class Stored(NamedTuple):
    """An object in a target."""

    name: str
    bytes: int
    modified_at: datetime


class Target:
    """A folder or a bucket. Methods block, so call them in threads. They raise BackupError."""

    def __init__(self, store: ObjectStore, *, name: str, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder
        self.name = name

    def put(self, name: str, data: bytes, *, is_new: bool = False) -> bool:
        """Write an object atomically. With `is_new`, return False if it exists."""
        with self.errors():
            try:
                mode: Any = "create" if is_new else "overwrite"
                obstore.put(self._store, name, data, mode=mode)
                self.sync(name)
            except AlreadyExistsError:
                return False
        return True

    def get(self, name: str) -> bytes | None:
        """Return the contents of an object, or None if it does not exist."""
        with self.errors():
            try:
                return bytes(obstore.get(self._store, name).bytes())
            except (NotFoundError, FileNotFoundError):
                return None

    def size(self, name: str) -> int | None:
        """Return the size of an object in bytes, or None if it does not exist."""
        with self.errors():
            try:
                return obstore.head(self._store, name)["size"]
            except (NotFoundError, FileNotFoundError):
                return None

    def modified_at(self, name: str) -> datetime | None:
        """Return when an object was written, or None if it does not exist."""
        with self.errors():
            try:
                return obstore.head(self._store, name)["last_modified"]
            except (NotFoundError, FileNotFoundError):
                return None

    def reader(self, name: str) -> "Reader":
        """Return a stream of the contents of an object."""
        with self.errors():
            try:
                response = obstore.get(self._store, name)
            except (NotFoundError, FileNotFoundError):
                raise BackupError(f"{name} is missing in {self.name}") from None
        return Reader(response.stream(min_chunk_size=CHUNK_BYTES), self)

    def writer(self, name: str) -> "Writer":
        """Return a stream that becomes an object when it is closed."""
        with self.errors():
            return Writer(obstore.open_writer(self._store, name), self, name)

    def objects(self, prefix: str) -> Iterator[Stored]:
        """Yield the objects below a prefix."""
        with self.errors():
            for batch in obstore.list(self._store, prefix=prefix):
                for each in batch:
                    yield Stored(each["path"], each["size"], each["last_modified"])

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders in a folder, in order."""
        with self.errors():
            found = obstore.list_with_delimiter(self._store, prefix=prefix)["common_prefixes"]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def delete(self, *names: str) -> None:
        """Delete objects; those that are missing are ignored."""
        with self.errors():
            for name in names:
                with suppress(NotFoundError, FileNotFoundError):
                    obstore.delete(self._store, name)

    def sync(self, name: str) -> None:
        """Wait until an object is on the disk: the manifest must not be there before it."""
        if self._folder is not None:
            for path in (self._folder / name, (self._folder / name).parent):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise BackupError for errors of the store."""
        try:
            yield
        except (BaseError, OSError) as error:
            reason = self._reason(error)
            raise BackupError(f"The target {self.name} failed: {reason}") from None

    def _reason(self, error: Exception) -> str:
        if self._folder is not None:
            return str(error).partition("\n")[0]
        # The messages of a bucket may quote a key.
        status = re.search(r"\b[45]\d\d [A-Z][a-z]+(?: [A-Z][a-z]+)*", str(error))
        other = f"it answered {status[0]}" if status else f"no answer ({type(error).__name__})"
        return _REASONS.get(type(error), other)


class Reader:
    """The contents of an object, as a stream."""

    def __init__(self, chunks: Any, target: Target) -> None:
        self._chunks = iter(chunks)
        self._target = target
        self._rest = b""
        self._digest = hashlib.sha256()
        self.bytes = 0
        self.error: BackupError | None = None
        """The first error, because pyrage replaces it with its own."""

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        """Return up to `size` bytes; none at the end. Raises BackupError."""
        if not self._rest:
            try:
                with self._target.errors():
                    self._rest = bytes(next(self._chunks, b""))
            except BackupError as error:
                self.error = error
                raise
            self._digest.update(self._rest)
            self.bytes += len(self._rest)
        chunk, self._rest = self._rest[:size], self._rest[size:]
        return chunk

    @property
    def sha256(self) -> str:
        """The checksum of what was read."""
        return self._digest.hexdigest()


class Writer:
    """An object that is being written. It counts and hashes what it stores."""

    def __init__(self, file: Any, target: Target, name: str) -> None:
        self._file = file
        self._name = name
        self._target = target
        self._digest = hashlib.sha256()
        self.bytes = 0
        self.error: BackupError | None = None
        """The first error, because pyrage replaces it with its own."""

    def write(self, data: bytes) -> int:
        """Write all bytes. Raises BackupError."""
        try:
            with self._target.errors():
                self._file.write(data)
        except BackupError as error:
            self.error = error
            raise
        self._digest.update(data)
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: parts of an object are never visible."""

    def close(self) -> None:
        """Complete the object. Raises BackupError."""
        with self._target.errors():
            self._file.close()
            self._target.sync(self._name)

    @property
    def sha256(self) -> str:
        """The checksum of what was written."""
        return self._digest.hexdigest()


def open_target(settings: Settings, given: str | None) -> Target:
    """Return the target `given`, or that of BACKUP_TARGET. Raises BackupError."""
    name = given or settings.backup_target
    if name is None:
        raise BackupError("Set BACKUP_TARGET, or pass --target: the folder of the backups")
    if name.startswith("s3://"):
        return _open_bucket(settings, name)
    path = PROJECT_DIR / Path(name).expanduser()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BackupError(f"The folder {path} cannot be created: {error.strerror}") from None
    return Target(LocalStore(path), name=str(path), folder=path)


def _open_bucket(settings: Settings, name: str) -> Target:
    bucket, _, prefix = name.removeprefix("s3://").strip("/").partition("/")
    if not bucket:
        raise BackupError("BACKUP_TARGET is not valid: write s3://bucket or s3://bucket/prefix")
    key_id, secret = settings.backup_s3_access_key_id, settings.backup_s3_secret_access_key
    if (key_id is None) is not (secret is None):
        raise BackupError("Set both BACKUP_S3_ACCESS_KEY_ID and BACKUP_S3_SECRET_ACCESS_KEY")
    store = open_bucket(
        bucket,
        prefix=prefix or None,
        region=settings.backup_s3_region,
        endpoint=settings.backup_s3_endpoint_url,
        access_key_id=key_id,
        secret_access_key=secret,
    )
    return Target(store, name=name)


@asynccontextmanager
async def locked(target: Target) -> AsyncIterator[None]:
    """Exclude other processes that make or delete backups. Raises BackupError if there is one."""
    await asyncio.to_thread(_acquire, target)
    renewal = asyncio.create_task(_renew(target))
    try:
        yield
    finally:
        renewal.cancel()
        with suppress(asyncio.CancelledError, BackupError):
            await renewal
        with suppress(BackupError):  # it expires
            await asyncio.to_thread(target.delete, LOCK)


def _acquire(target: Target) -> None:
    if target.put(LOCK, b"", is_new=True):
        return
    held_since = target.modified_at(LOCK)
    if held_since and clock.now() - held_since < timedelta(seconds=LOCK_SECONDS):
        raise BackupError(
            f"Another backup is being made or deleted in {target.name}. If its process was killed, "
            f"try again in {LOCK_SECONDS // 60} minutes"
        )
    target.put(LOCK, b"")


async def _renew(target: Target) -> None:
    while True:
        await asyncio.sleep(RENEWAL_SECONDS)
        with suppress(BackupError):  # writing the backup reports it
            await asyncio.to_thread(target.put, LOCK, b"")
