"""Concurrent uploads respect the quota, and failed uploads leave no files, even if the process is
killed."""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.databases import execute, migrated_database
from tests.images import image_bytes, png
from tests.postgres import fetch
from tests.processes import GUNICORN, Api, Checkout, serving, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def media_database() -> Iterator[str]:
    with migrated_database() as url:
        yield url


def files(directory: Path) -> list[Path]:
    return [each for each in directory.rglob("*") if each.is_file()]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def one_connection(checkout: Checkout, media_database: str, storage: Path) -> Iterator[Api]:
    """A server with one connection per pool, which stores images in `storage`."""
    settings = {"DATABASE_POOL_SIZE": "1", "DATABASE_POOL_TIMEOUT": "1", "MEDIA_DIR": str(storage)}
    with serving(checkout, DATABASE_URL=media_database, **settings) as api:
        yield api


def test_concurrent_uploads_respect_the_quota(
    checkout: Checkout, media_database: str, one_connection: Api, tmp_path: Path
) -> None:
    content = image_bytes("PNG")
    headers = one_connection.bearer("measuring")
    first = one_connection.client.post("/media", files={"file": content}, headers=headers).json()
    settings = {
        "DATABASE_URL": media_database,
        "MEDIA_DIR": str(tmp_path),
        "MEDIA_QUOTA_BYTES": str(first["bytes"] * 3),
    }
    with serving(checkout, GUNICORN, WEB_CONCURRENCY="2", **settings) as api:
        headers = api.bearer("greedy")

        def upload(_: int) -> int:
            return api.client.post("/media", files={"file": content}, headers=headers).status_code

        with ThreadPoolExecutor(12) as threads:
            statuses = sorted(threads.map(upload, range(12)))
        # A reservation is as large as the request, so fewer than three may fit at once.
        kept = statuses.count(201)
        assert 1 <= kept <= 3, api.process.log
        assert set(statuses) <= {201, 409, 429}, api.process.log
        listed = api.client.get("/media", headers=headers).json()
        assert len(listed) == kept
        assert api.client.get(httpx.URL(listed[0]["url"]).path).status_code == 200
    assert len({file.parent for file in files(tmp_path)}) == kept


def test_files_of_a_failed_commit_are_deleted_later(
    checkout: Checkout, own_database: str, tmp_path: Path
) -> None:
    """Files are stored before the commit, and a row schedules their deletion."""
    refuse = (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'disk full' USING ERRCODE = '53100'; END $$"
    )
    trigger = (
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON media DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    execute(own_database, refuse, trigger)
    with serving(checkout, DATABASE_URL=own_database, MEDIA_DIR=str(tmp_path)) as api:
        answer = api.client.post(
            "/media", files={"file": image_bytes()}, headers=api.bearer("unlucky")
        )
        assert (answer.status_code, answer.json()["code"]) == (503, "database_full")
    folders = {file.parent.name for file in files(tmp_path)}
    noted = fetch(own_database, "SELECT folder FROM discarded_folders")
    assert {row[0] for row in noted} == folders
    assert fetch(own_database, "SELECT 1 FROM media") == []


def test_disconnected_client_leaves_no_files(one_connection: Api, storage: Path) -> None:
    api, incoming, before = one_connection, storage / "incoming", files(storage)
    headers = api.bearer("impatient")
    head = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n'

    def body() -> Iterator[bytes]:
        yield head + image_bytes()
        wait_until(lambda: files(incoming), "the upload begins", log=api.process.log)
        raise ConnectionError("the line is cut")

    with pytest.raises(ConnectionError):
        api.client.post(
            "/media",
            content=body(),
            headers={**headers, "Content-Type": "multipart/form-data; boundary=x"},
        )
    wait_until(lambda: list(incoming.iterdir()) == [], "it is gone", log=api.process.log)
    assert files(storage) == before
    assert "Traceback" not in api.process.log
    assert api.client.get("/health/live").status_code == 200


def test_files_of_a_killed_process_are_deleted_later(
    checkout: Checkout, media_database: str, tmp_path: Path
) -> None:
    with serving(checkout, DATABASE_URL=media_database, MEDIA_DIR=str(tmp_path)) as api:
        headers = api.bearer("victim")
        large = png(4000, 4000)

        def upload() -> None:
            with pytest.raises(httpx.TransportError):
                api.client.post("/media", files={"file": large}, headers=headers)

        thread = threading.Thread(target=upload)
        thread.start()
        wait_until(lambda: files(tmp_path) != [], "the upload begins", log=api.process.log)
        api.process.send(signal.SIGKILL)
        thread.join()
    # All remaining files are in places that are cleaned up after an hour.
    assert {file.relative_to(tmp_path).parts[0] for file in files(tmp_path)} == {"incoming"}


def test_upload_holds_no_connection_while_receiving(one_connection: Api, storage: Path) -> None:
    api, incoming, meanwhile = one_connection, storage / "incoming", list[httpx.Response]()
    headers = api.bearer("slow")
    form = {**headers, "Content-Type": "multipart/form-data; boundary=x"}
    article = {"title": "Meanwhile", "content": "Written while an image comes in."}

    def body() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        wait_until(lambda: files(incoming), "the upload begins", log=api.process.log)
        meanwhile.append(api.client.post("/articles", json=article, headers=headers))
        yield image_bytes() + b"\r\n--x--"

    assert api.client.post("/media", content=body(), headers=form).status_code == 201
    assert [each.status_code for each in meanwhile] == [201]
