"""Imports of any size need little memory, and can be interrupted, cancelled and repeated.

A stalled export holds no database connection.
"""

import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from tests.databases import execute, migrated_database
from tests.imports import finished
from tests.postgres import fetch, holding, wait_until_blocked
from tests.processes import Api, Checkout, output_of, pressroom, serving, wait_until

pytestmark = pytest.mark.e2e

MB = 1024 * 1024
COUNT = "SELECT count(*) AS n FROM articles"
TIMEOUT_SECONDS = 120.0


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with migrated_database() as url:
        yield url


@pytest.fixture(scope="module")
def server(checkout: Checkout, database: str) -> Iterator[Api]:
    with serving(checkout, DATABASE_URL=database) as api:
        yield api


def records(
    count: int, *, size: int = 100, prefix: str = "a", tagged: int | None = None
) -> Iterator[bytes]:
    """Yield records whose content has about this size. Record `tagged` has a tag, `prefix`."""
    sentence = "The Engine weaves algebraical patterns. "
    text = sentence * (size // len(sentence) + 1)
    for number in range(count):
        record = {
            "title": f"Title {number}",
            "slug": f"{prefix}-{number}",
            "content": f"```\n{text}\n```",  # code is rendered fast
            "published_at": "2020-01-01T00:00:00Z",
            "tags": [prefix] if number == tagged else [],
        }
        yield json.dumps(record).encode() + b"\n"


def post(api: Api, headers: dict[str, str], body: Iterator[bytes] | bytes) -> dict[str, int]:
    response = api.client.post(
        "/articles/import",
        content=body,
        headers={**headers, "Content-Type": "application/x-ndjson"},
        timeout=TIMEOUT_SECONDS,
    )
    report = finished(api.client, response, headers)
    assert report["state"] == "completed", report
    return {name: report[name] for name in ("created", "updated", "unchanged", "failed")}


def report(
    created: int = 0, updated: int = 0, unchanged: int = 0, failed: int = 0
) -> dict[str, int]:
    return {"created": created, "updated": updated, "unchanged": unchanged, "failed": failed}


class Memory:
    """The memory of a process."""

    def __init__(self, api: Api) -> None:
        self._folder = Path(f"/proc/{api.process.pid}")
        if not (self._folder / "clear_refs").exists():
            pytest.skip("no /proc to measure memory with")
        (self._folder / "clear_refs").write_text("5")  # reset the peak

    @property
    def peak(self) -> float:
        """Return the peak in megabytes."""
        lines = (self._folder / "status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / MB


def test_memory_stays_flat(server: Api) -> None:
    """Sources that are several times as large need hardly more memory."""
    headers = server.bearer(f"big-{uuid4().hex[:8]}")
    prefix = uuid4().hex[:8]
    memory = Memory(server)
    post(server, headers, records(20, size=100_000, prefix=f"{prefix}-first"))
    before = memory.peak
    assert post(server, headers, records(120, size=100_000, prefix=prefix)) == report(created=120)
    assert post(server, headers, (b"x" * MB for _ in range(40))) == report(failed=1)
    assert post(server, headers, (b"[" * MB + b"\n" for _ in range(5))) == report(failed=5)
    size = 0
    with server.client.stream("GET", "/articles/export", headers=headers) as response:
        for chunk in response.iter_bytes():
            size += len(chunk)
    assert size > 140 * 100_000
    print(f"memory grew from {before:.0f} to {memory.peak:.0f} MB at most")
    assert memory.peak - before < 20


ASYNC = {"Prefer": "respond-async", "Content-Type": "application/x-ndjson"}


@contextmanager
def stopped_in_second_batch(database: str, prefix: str) -> Iterator[None]:
    """Let an import with the tag `prefix` in its second batch wait for this transaction."""
    columns = ", ".join(f"'{prefix}'" for _ in range(3))
    with holding(database, f"INSERT INTO tags (name, slug, key) VALUES ({columns})"):
        yield


def wait_for_second_batch(database: str, prefix: str) -> None:
    stored = f"{COUNT} WHERE slug LIKE '{prefix}-%'"
    wait_until(lambda: fetch(database, stored)[0]["n"] == 500, "the first batch is stored")
    wait_until_blocked(database)


def test_killed_import_is_completed_by_the_next(
    checkout: Checkout, server: Api, database: str
) -> None:
    prefix = uuid4().hex[:8]
    mine = f"{COUNT} WHERE slug LIKE '{prefix}-%'"
    lines = list(records(1200, prefix=prefix, tagged=700))
    with (
        serving(checkout, DATABASE_URL=database) as killed_api,
        stopped_in_second_batch(database, prefix),
    ):
        headers = killed_api.bearer(f"killed-{prefix}")
        answer = killed_api.client.post(
            "/articles/import", content=iter(lines), headers={**headers, **ASYNC}
        )
        assert answer.status_code == 202
        wait_for_second_batch(database, prefix)
        killed_api.process.kill()
    assert fetch(database, mine)[0]["n"] == 500

    def state() -> str:
        found = server.client.get(answer.headers["Location"], headers=headers)
        return str(found.json()["state"])

    def post_again() -> httpx.Response:
        typed = {**headers, "Content-Type": "application/x-ndjson"}
        return server.client.post("/articles/import", content=iter(lines), headers=typed)

    assert state() == "running"  # another process may run it
    assert post_again().json()["code"] == "import_in_progress"
    a_minute_later = "UPDATE imports SET active_at = active_at - interval '1 minute'"
    fetch(database, f"{a_minute_later} WHERE finished_at IS NULL")
    assert state() == "interrupted"
    report_of_next = finished(server.client, post_again(), headers)
    assert report_of_next["created"] == 700
    assert report_of_next["unchanged"] == 500
    assert state() == "interrupted"
    assert fetch(database, mine)[0]["n"] == 1200
    records_left = fetch(
        database,
        "SELECT count(*) AS n FROM import_records r JOIN articles a ON a.id = article_id"
        f" WHERE slug LIKE '{prefix}-%'",
    )
    assert records_left[0]["n"] == 1200


def test_import_is_interrupted_by_a_shutdown(
    checkout: Checkout, server: Api, database: str
) -> None:
    prefix = uuid4().hex[:8]
    mine = f"{COUNT} WHERE slug LIKE '{prefix}-%'"
    with (
        serving(checkout, DATABASE_URL=database) as stopped_api,
        stopped_in_second_batch(database, prefix),
    ):
        headers = stopped_api.bearer(f"stopped-{prefix}")
        body = records(1200, prefix=prefix, tagged=700)
        answer = stopped_api.client.post(
            "/articles/import", content=body, headers={**headers, **ASYNC}
        )
        wait_for_second_batch(database, prefix)
        stopped_api.process.send(signal.SIGTERM)
        stopped_api.process.wait()
    found = server.client.get(answer.headers["Location"], headers=headers).json()
    assert (found["state"], found["created"]) == ("interrupted", 500)
    assert fetch(database, mine)[0]["n"] == 500
    assert "send the same import again" in found["message"]


def test_disconnected_client_imports_nothing(server: Api, database: str) -> None:
    prefix = uuid4().hex[:8]
    headers = server.bearer(f"gone-{prefix}")
    lines = list(records(600, prefix=prefix))
    address = urlsplit(server.url)
    unfinished = "SELECT count(*) AS n FROM imports WHERE state = 'receiving'"
    with socket.create_connection((address.hostname or "", address.port or 0)) as client:
        head = {**headers, "Host": address.netloc, "Content-Length": str(sum(map(len, lines)))}
        head["Content-Type"] = "application/x-ndjson"
        text = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        client.sendall(f"POST /articles/import HTTP/1.1\r\n{text}\r\n".encode())
        client.sendall(b"".join(lines[:550]))
        wait_until(lambda: fetch(database, unfinished)[0]["n"] == 1, "it is being received")
    wait_until(lambda: fetch(database, unfinished)[0]["n"] == 0, "it has stopped")
    assert fetch(database, f"{COUNT} WHERE slug LIKE '{prefix}-%'")[0]["n"] == 0
    assert post(server, headers, iter(lines)) == report(created=600)
    assert "unhandled exception" not in server.process.log


def test_concurrent_imports_of_one_file(checkout: Checkout, server: Api, database: str) -> None:
    """Of one user, one import runs at a time, in any process."""
    prefix = uuid4().hex[:8]
    lines = list(records(1000, prefix=prefix))
    headers = server.bearer(f"twice-{prefix}")

    def send(api: Api) -> httpx.Response:
        typed = {**headers, "Content-Type": "application/x-ndjson"}
        return api.client.post(
            "/articles/import", content=iter(lines), headers=typed, timeout=TIMEOUT_SECONDS
        )

    with serving(checkout, DATABASE_URL=database) as other, ThreadPoolExecutor() as threads:
        sending = [threads.submit(send, api) for api in (server, other) * 2]
        answers = [sent.result() for sent in sending]
        accepted = [answer for answer in answers if answer.is_success]
        ended = [finished(server.client, answer, headers) for answer in accepted]
    refused = [answer for answer in answers if not answer.is_success]
    assert {answer.json()["code"] for answer in refused} <= {"import_in_progress"}
    assert sum(found["created"] for found in ended) == 1000
    assert sum(found["unchanged"] for found in ended) == 1000 * (len(ended) - 1)
    assert all(found["failed"] == found["updated"] == 0 for found in ended)
    (row,) = fetch(
        database,
        "SELECT count(*) AS n, count(DISTINCT a.slug) AS slugs, max(version) AS version,"
        " (SELECT count(*) FROM changes c WHERE c.slug LIKE '" + prefix + "-%') AS changes"
        f" FROM articles a WHERE slug LIKE '{prefix}-%'",
    )
    assert tuple(row) == (1000, 1000, 1, 1000)


def test_stalled_export_holds_no_connection(checkout: Checkout, database: str) -> None:
    with serving(checkout, DATABASE_URL=database, DATABASE_POOL_SIZE="1") as api:
        headers = api.bearer("slow")
        execute(
            database,
            "INSERT INTO articles (title, content, author_id) SELECT 'Large', repeat('x', 100000),"
            " id FROM users, generate_series(1, 150) WHERE username = 'slow'",
        )
        with api.client.stream("GET", "/articles/export", headers=headers) as slow:
            assert slow.status_code == 200
            for _ in range(20):
                assert api.client.get("/articles", headers=headers).status_code == 200
            assert post(api, headers, b"{}") == report(failed=1)


def test_command_shows_progress(checkout: Checkout, own_database: str, tmp_path: Path) -> None:
    path = tmp_path / "articles.ndjson"
    path.write_bytes(b"".join(records(600)))
    settings = {"DATABASE_URL": own_database, "BCRYPT_COST": "4"}
    with pressroom(checkout, "seed", "--users", "1", "--articles", "1", **settings) as seeded:
        assert seeded.wait() == 0, seeded.log
    for expected in ("created 600", "unchanged 600"):
        arguments = ("import", str(path), "--author", "writer1")
        with pressroom(checkout, *arguments, **settings) as imported:
            assert imported.wait() == 0, imported.log
            assert "Importing" in output_of(imported)
            assert "100%" in output_of(imported)
            assert expected in output_of(imported)
    exported = tmp_path / "out" / "all"
    with pressroom(checkout, "export", str(exported), **settings) as process:
        assert process.wait() == 0, process.log
        assert "Exported 601 articles" in output_of(process)
    assert len(list(exported.glob("*.md"))) == 601
