"""Media storage in an Amazon S3 bucket, or in any S3-compatible service."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from app.core.config import Settings
from app.services.media.formats import CONTENT_TYPES

if TYPE_CHECKING:
    from obstore.store import S3Config  # declared in the stubs only

CHUNK_BYTES = 256 * 1024
DELETED = "deleted"
"""The prefix of withdrawn folders."""


def open_bucket(
    bucket: str,
    *,
    prefix: str | None = None,
    region: str,
    endpoint: str | None,
    access_key_id: str | None,
    secret_access_key: str | None,
) -> S3Store:
    """Return a bucket. Without keys, the credentials are those of the machine's role."""
    config: S3Config = {"region": region, "virtual_hosted_style_request": False}
    if endpoint is not None:
        config["endpoint"] = endpoint
    if access_key_id is not None and secret_access_key is not None:
        config["access_key_id"] = access_key_id
        config["secret_access_key"] = secret_access_key
    return S3Store(
        bucket,
        prefix=prefix,
        config=config,
        client_options={
            "allow_http": (endpoint or "").startswith("http:"),
            "connect_timeout": "5s",
            "timeout": "60s",
        },
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
    )


class BucketStorage:
    """Stores images as objects named `folder/file`."""

    def __init__(self, bucket: str, *, settings: Settings, incoming: Path) -> None:
        self.incoming = incoming
        self._store = open_bucket(
            bucket,
            region=settings.s3_region,
            endpoint=settings.s3_endpoint_url,
            access_key_id=settings.s3_access_key_id,
            secret_access_key=settings.s3_secret_access_key,
        )

    async def put(self, folder: str, files: Path) -> None:
        with _map_errors():
            for file in await asyncio.to_thread(lambda: sorted(files.iterdir())):
                content_type = CONTENT_TYPES[file.suffix.removeprefix(".")]
                await obstore.put_async(
                    self._store,
                    f"{folder}/{file.name}",
                    file,
                    attributes={"Content-Type": content_type},
                )

    async def size(self, folder: str, name: str) -> int | None:
        try:
            with _map_errors():
                return (await obstore.head_async(self._store, f"{folder}/{name}"))["size"]
        except FileNotFoundError:
            return None

    async def read(self, folder: str, name: str, *, start: int, end: int) -> AsyncIterator[bytes]:
        with _map_errors():
            response = await obstore.get_async(
                self._store, f"{folder}/{name}", options={"range": (start, end)}
            )
            async for chunk in response.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    async def load(self, folder: str) -> Mapping[str, bytes]:
        files: dict[str, bytes] = {}
        # Files are moved one by one while it is withdrawn: one may be in either place.
        for prefix in (folder, f"{DELETED}/{folder}", folder):
            with _map_errors():
                async for objects in obstore.list(self._store, prefix=prefix):
                    for item in objects:
                        name = item["path"].rpartition("/")[2]
                        if name in files:
                            continue
                        with suppress(FileNotFoundError, NotFoundError):
                            response = await obstore.get_async(self._store, item["path"])
                            files[name] = bytes(await response.bytes_async())
        return files

    async def withdraw(self, folder: str) -> None:
        await self._move(folder, f"{DELETED}/{folder}")

    async def withdrawn(self) -> Sequence[str]:
        folders: set[str] = set()
        with _map_errors():
            async for objects in obstore.list(self._store, prefix=DELETED):
                folders.update(item["path"].split("/")[1] for item in objects)
        return sorted(folders)

    async def restore(self, folder: str) -> None:
        await self._move(f"{DELETED}/{folder}", folder)

    async def _move(self, source: str, target: str) -> None:
        with _map_errors():
            async for objects in obstore.list(self._store, prefix=source):
                for item in objects:
                    name = item["path"].rpartition("/")[2]
                    await obstore.rename_async(self._store, item["path"], f"{target}/{name}")

    async def delete(self, folder: str) -> None:
        with _map_errors():
            for prefix in (folder, f"{DELETED}/{folder}"):
                async for objects in obstore.list(self._store, prefix=prefix):
                    await obstore.delete_async(self._store, [item["path"] for item in objects])


@contextmanager
def _map_errors() -> Iterator[None]:
    """Raise OSError for errors of the bucket, without their messages: these may quote a key."""
    try:
        yield
    except (NotFoundError, FileNotFoundError):
        raise FileNotFoundError from None
    except BaseError as error:
        raise OSError(f"the bucket failed: {type(error).__name__}") from None
