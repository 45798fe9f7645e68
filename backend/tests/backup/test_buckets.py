"""Backups in a bucket, with a local S3-compatible server."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.backup.conftest import Site, error_of
from tests.buckets import new_bucket, refusing, s3_server
from tests.commands import fetch, run

pytestmark = pytest.mark.usefixtures("restored_environment")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(encrypted: Site, server: str) -> Iterator[Any]:
    with new_bucket(server, "backups") as bucket:
        encrypted.set(
            BACKUP_TARGET="s3://backups/blog",
            BACKUP_S3_ENDPOINT_URL=server,
            BACKUP_S3_ACCESS_KEY_ID="testing",
            BACKUP_S3_SECRET_ACCESS_KEY="testing",
        )
        yield bucket


def names(bucket: Any) -> list[str]:
    return [each.key for each in bucket.objects.all()]


def test_round_trip(
    encrypted: Site,
    bucket: Any,
    empty: Callable[[], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = encrypted.contents()
    first, second = encrypted.create(capsys), encrypted.create(capsys)
    assert (second["images"], second["uploaded_bytes"]) == (5, 0)
    assert all(name.startswith("blog/") for name in names(bucket))
    assert "blog/lock" not in names(bucket)
    assert run("backup", "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["backups"]
    assert [each["id"] for each in listed] == [first["id"], second["id"]]
    assert run("backup", "prune", "--keep", "1", "--keep-days", "0") == 0
    assert not [name for name in names(bucket) if first["id"] in name]
    assert run("backup", "verify") == 0
    url = empty()
    assert run("backup", "restore") == 0
    assert encrypted.contents() == before
    assert len(fetch(url, "SELECT 1 FROM media")) == 5


@pytest.mark.parametrize("after", [0, 1, 2, 5, 12])
def test_bucket_that_refuses_in_the_middle(
    encrypted: Site,
    bucket: Any,
    server: str,
    capsys: pytest.CaptureFixture[str],
    after: int,
) -> None:
    """The lock, the dump, 10 files, the list and the manifest are uploaded."""
    with refusing(server, after=after) as url:
        encrypted.set(BACKUP_S3_ENDPOINT_URL=url)
        error = error_of(capsys, "create")
    assert "The target s3://backups/blog failed: " in error
    assert "access is denied" in error or "it answered 403 Forbidden" in error
    assert "testing" not in error
    encrypted.set(BACKUP_S3_ENDPOINT_URL=server)
    assert "There is no usable backup" in error_of(capsys, "verify")
    assert encrypted.create(capsys)["images"] == 5
    assert run("backup", "verify") == 0


def test_two_at_once(encrypted: Site, bucket: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bucket.put_object(Key="blog/lock", Body=b"")
    assert "Another backup is being made" in error_of(capsys, "create")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BACKUP_TARGET", "s3://", "BACKUP_TARGET is not valid"),
        ("BACKUP_TARGET", "s3://nobodys", "the bucket does not exist"),
        ("BACKUP_S3_SECRET_ACCESS_KEY", "", "Set both BACKUP_S3_ACCESS_KEY_ID and"),
        ("BACKUP_S3_ENDPOINT_URL", "http://127.0.0.1:1", "The target s3://backups/blog failed"),
    ],
)
def test_wrong_setting(
    encrypted: Site,
    bucket: object,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    message: str,
) -> None:
    encrypted.set(**{name: value})
    assert message in error_of(capsys, "create")
