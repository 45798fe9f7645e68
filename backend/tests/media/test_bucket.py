"""Media storage in a bucket, with a local S3-compatible server."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import Settings
from app.db.session import Database
from app.jobs.media import clean_up_media
from app.services.media.bucket import BucketStorage
from app.services.media.storage import Storage, new_folder, open_storage, verified
from tests.buckets import new_bucket, refusing, s3_server
from tests.factories import bearer, create_user
from tests.images import image_bytes, opened

KEYS = {"s3_access_key_id": "testing", "s3_secret_access_key": "testing"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(server: str) -> Iterator[Any]:
    with new_bucket(server, "images") as bucket:
        yield bucket


@pytest.fixture
def storage(
    app: FastAPI, settings: Settings, server: str, bucket: object, tmp_path: Path
) -> Storage:
    changes = {"s3_bucket": "images", "s3_endpoint_url": server, "media_dir": tmp_path, **KEYS}
    app.state.storage = open_storage(settings.model_copy(update=changes))
    assert isinstance(app.state.storage, BucketStorage)
    return app.state.storage


def files_in(directory: Path) -> list[Path]:
    return [each for each in directory.rglob("*") if each.is_file()]


def names(bucket: Any) -> list[str]:
    return sorted(each.key.rpartition("/")[2] for each in bucket.objects.all())


async def test_image_lifecycle_in_a_bucket(
    client: httpx.AsyncClient,
    session: AsyncSession,
    database: Database,
    storage: Storage,
    bucket: Any,
    tmp_path: Path,
) -> None:
    headers = bearer(await create_user(session))
    answer = await client.post(
        "/media", files={"file": image_bytes("PNG", size=(700, 500))}, headers=headers
    )
    assert answer.status_code == 201, answer.text
    assert names(bucket) == ["320.webp", "640.webp", "picture.png"]
    assert {each.Object().content_type for each in bucket.objects.all()} == {
        "image/png",
        "image/webp",
    }
    assert files_in(tmp_path) == []
    path = httpx.URL(answer.json()["url"]).path
    read = await client.get(path)
    assert opened(read.content).size == (700, 500)
    assert read.headers["Content-Type"] == "image/png"
    assert read.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert read.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    part = await client.get(path, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, read.content[100:200])
    assert (await client.head(path)).headers["Content-Length"] == str(len(read.content))
    known = {"If-None-Match": read.headers["ETag"]}
    assert (await client.get(path, headers=known)).status_code == 304
    assert (await client.get(f"/media/{new_folder()}/picture.png")).status_code == 404
    assert (await client.get(path.replace("picture", "1280"))).status_code == 404
    deleted = await client.delete(f"/media/{answer.json()['id']}", headers=headers)
    assert deleted.status_code == 204
    await clean_up_media(database, storage)
    assert (await client.get(path)).status_code == 404
    folder = path.split("/")[2]
    assert await storage.withdrawn() == [folder]
    await storage.restore(folder)
    assert (await client.get(path)).content == read.content
    await storage.withdraw(folder)
    assert names(bucket) == ["320.webp", "640.webp", "picture.png"]
    await storage.delete(folder)
    assert names(bucket) == []


async def test_large_file_and_missing_folder(
    storage: Storage, bucket: object, tmp_path: Path
) -> None:
    content = os.urandom(6 * 1024 * 1024)  # a multipart upload, because it exceeds 5 MB
    files = tmp_path / "files"
    files.mkdir()
    (files / "picture.jpg").write_bytes(content)
    folder = new_folder()
    await storage.put(folder, files)
    assert await storage.size(folder, "picture.jpg") == len(content)
    pieces = [
        each async for each in storage.read(folder, "picture.jpg", start=10, end=len(content))
    ]
    assert b"".join(pieces) == content[10:]
    assert len(pieces) > 1
    await storage.delete(folder)
    await storage.delete(folder)
    assert await storage.size(folder, "picture.jpg") is None


async def test_unreachable_bucket_returns_503(
    client: httpx.AsyncClient,
    app: FastAPI,
    session: AsyncSession,
    settings: Settings,
    server: str,
    tmp_path: Path,
) -> None:
    """No file and no row remain, and the response does not contain the keys."""
    changes = {"s3_bucket": "nobodys", "s3_endpoint_url": server, "media_dir": tmp_path, **KEYS}
    app.state.storage = open_storage(settings.model_copy(update=changes))
    headers = bearer(await create_user(session))
    answer = await client.post("/media", files={"file": image_bytes()}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert files_in(tmp_path) == []
    read = await client.get(f"/media/{new_folder()}/picture.jpg")
    assert read.status_code in {404, 503}


@pytest.mark.parametrize(
    ("settings_subset", "reason"),
    [
        ({"s3_bucket": "b", "s3_access_key_id": "k"}, "S3_SECRET_ACCESS_KEY is missing"),
        ({"s3_bucket": "b", "s3_secret_access_key": "k"}, "S3_ACCESS_KEY_ID is missing"),
        ({"s3_access_key_id": "k"}, "S3_ACCESS_KEY_ID needs S3_BUCKET"),
        ({"s3_endpoint_url": "https://s3.example"}, "S3_ENDPOINT_URL needs S3_BUCKET"),
    ],
)
def test_incomplete_bucket_settings_are_rejected_in_production(
    settings_subset: dict[str, Any], reason: str
) -> None:
    production: dict[str, Any] = {
        "environment": "production",
        "secret_key": "x" * 40,
        "allowed_hosts": ["a.example"],
        "cors_origins": ["https://www.example.com"],
        "database_url": "postgresql://db/pressroom",
    }
    with pytest.raises(ValueError, match=reason):
        Settings(**production, **settings_subset)
    Settings(**{**production, "s3_bucket": "b", **KEYS})
    Settings(**production, s3_bucket="b")  # credentials from the machine's role


async def report_of(storage: Storage, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what is logged about the bucket at the start."""
    async with verified(storage, "images"):
        await asyncio.gather(*(each for each in asyncio.all_tasks() if each.get_name() == "bucket"))
    return [each.getMessage() for each in caplog.records if each.name.startswith("app.")]


async def test_bucket_without_rights_is_reported_at_the_start(
    settings: Settings,
    server: str,
    bucket: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    changes = {"s3_bucket": "images", "media_dir": tmp_path, **KEYS}
    with refusing(server, after=0) as endpoint:
        storage = open_storage(settings.model_copy(update={**changes, "s3_endpoint_url": endpoint}))
        (message,) = await report_of(storage, caplog)
    assert (
        "the bucket images does not work: the bucket failed: PermissionDeniedError;"
        " check S3_BUCKET, S3_ENDPOINT_URL and the keys"
    ) in message
    assert files_in(tmp_path) == []


async def test_usable_bucket_is_not_reported(
    storage: Storage, bucket: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert await report_of(storage, caplog) == []
    assert names(bucket) == []


async def test_check_that_is_interrupted_leaves_nothing_behind(
    storage: Storage, bucket: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(folder: str, name: str) -> int | None:
        assert names(bucket) == [name]
        raise OSError("no connection")

    monkeypatch.setattr(storage, "size", fail)
    (message,) = await report_of(storage, caplog)
    assert "no connection" in message
    assert names(bucket) == []
