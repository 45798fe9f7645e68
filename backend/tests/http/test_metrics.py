"""Metrics of requests: clients cannot create labels, and every metric is documented."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample
from sqlalchemy import text

from app.core import clock, metrics
from app.core.config import PROJECT_DIR, Settings
from app.core.threads import FairThreadPool
from app.db.session import Database
from app.db.writing import fetch
from app.jobs.measuring import measured
from app.services import gauges
from app.services.gauges import ContentCounts, read_gauges
from tests.factories import PASSWORD, create_article, create_comment, create_media, create_user
from tests.http.test_middleware import Clients, client_of

__all__ = ["client_of"]

REQUESTS = "pressroom_http_requests_total"


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[metrics.Recorder]:
    yield metrics.start(tmp_path, "0")
    metrics.stop()


def samples(recorder: metrics.Recorder) -> list[Sample]:
    recorder.write()
    collect: Any = MultiProcessCollector
    families = collect(None, path=str(recorder.directory)).collect()
    return [sample for family in families for sample in family.samples]


def labels_of(recorder: metrics.Recorder, name: str) -> dict[tuple[str, ...], float]:
    names = (metrics.COUNTERS.get(name) or metrics.GAUGES[name]).labels
    return {
        tuple(sample.labels[label] for label in names): sample.value
        for sample in samples(recorder)
        if sample.name == name
    }


async def test_random_paths_methods_and_hosts_are_one_label(
    client_of: Clients, recorder: metrics.Recorder
) -> None:
    async with client_of(allowed_hosts=["testserver"]) as client:
        for number in range(30):
            await client.get(f"/nowhere/{number}")
            await client.get(f"/articles/{number}")
            await client.head(f"/articles/{number}/")
            await client.get(f"/api/articles/none-{number}")
            await client.get(f"/api/nowhere-{number}")
            await client.get(f"/read/none-{number}")
            await client.get(f"/studio/none-{number}")
            await client.request(f"METHOD{number}", "/articles")
            await client.get("/articles", headers={"Host": f"host-{number}.example.com"})
    counted = labels_of(recorder, REQUESTS)
    assert counted["/articles/{article_id}", "GET", "4xx"] == 30
    assert counted["/articles/{article_id}", "HEAD", "4xx"] == 30
    assert counted["/api/articles/{slug}", "GET", "4xx"] == 30
    assert {method for _, method, _ in counted} == {"GET", "HEAD", "other"}
    assert len(counted) < 12, counted
    assert counted["other", "GET", "4xx"] >= 60
    assert not any("none" in route or "nowhere" in route for route, _, _ in counted)


async def test_duration_is_a_histogram(
    client: httpx.AsyncClient, recorder: metrics.Recorder
) -> None:
    await client.get("/health/live")
    found = {
        sample.labels.get("le", sample.name): sample.value
        for sample in samples(recorder)
        if sample.labels.get("route") == "/health/live"
        and sample.name.startswith("pressroom_http_request_duration")
    }
    assert found["+Inf"] == found["pressroom_http_request_duration_seconds_count"] == 1
    assert 0 < found["pressroom_http_request_duration_seconds_sum"] < 60
    bounds = [float(bound) for bound in found if bound[0].isdigit()]
    assert sorted(bounds) == list(metrics.BUCKETS)


async def test_logins_are_counted_by_result(
    client: httpx.AsyncClient, database: Database, recorder: metrics.Recorder
) -> None:
    async with database.unit_of_work() as session:
        user = await create_user(session)
        name = user.username
    for password in (PASSWORD, "wrong"):
        await client.post("/auth/login", data={"username": name, "password": password})
    assert labels_of(recorder, "pressroom_logins_total") == {("ok",): 1, ("refused",): 1}
    for _ in range(100):
        wrong = await client.post("/auth/login", data={"username": name, "password": "wrong"})
        if wrong.status_code == 429:
            break
    assert labels_of(recorder, "pressroom_logins_total")["limited",] == 1
    assert labels_of(recorder, "pressroom_limited_requests_total")["attempts",] == 1


async def test_work_that_waits_for_threads(recorder: metrics.Recorder) -> None:
    pool = FairThreadPool("tested", size=1, what="tests", max_jobs=5)
    await pool.run(lambda: None)
    waits = [each for each in samples(recorder) if each.labels.get("queue") == "tested"]
    assert {each.value for each in waits if each.labels.get("le") == "+Inf"} == {1}


async def test_process_is_measured(own_database: str, recorder: metrics.Recorder) -> None:
    database = Database.from_settings(Settings(database_url=own_database, metrics_port=9100))
    async with measured(database):
        await database.reader.scalar(text("SELECT 1"))
        await database.primary.scalar(text("SELECT 1"))
        async with database.autocommit() as connection:
            await connection.execute(text("SELECT 1"))
        async with database.unit_of_work() as session:
            await fetch(session, text("SELECT 1"))
    await database.dispose()
    assert labels_of(recorder, "pressroom_pool_connections") == {}  # removed at the end
    statements = [
        each
        for each in samples(recorder)
        if each.name == "pressroom_statement_duration_seconds_count"
    ]
    assert {each.labels["pool"]: each.value for each in statements} == {"read": 1, "write": 3}


async def test_counts_of_the_content_are_read_every_five_minutes(
    own_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database.from_settings(Settings(database_url=own_database))
    counts = ContentCounts()

    async def read() -> tuple[dict[tuple[str, ...], float], bool]:
        found = await read_gauges(database, counts)
        names = ("articles", "comments", "users", "media_files")
        shown = {
            (each.name.removeprefix("pressroom_"), *each.labels): each.value
            for each in found.gauges
            if each.name.removeprefix("pressroom_") in names
        }
        return shown, found.collectors[gauges.CONTENT]

    now = clock.now()
    async with database.unit_of_work() as session:
        author = await create_user(session)
        await create_user(session, is_active=False)
        article = await create_article(session, author=author)
        await create_article(session, author=author, published=False)
        await create_article(session, author=author, published_at=now + timedelta(days=1))
        await create_article(session, author=author, archived_at=now)
        await create_article(session, author=author, published=False, deleted_at=now)
        await create_comment(session, article=article, author=author)
        await create_media(session, owner=author)
    expected: dict[tuple[str, ...], float] = {
        **{("articles", state): 1 for state in ("published", "scheduled", "drafts", "archived")},
        ("articles", "trash"): 1,
        ("comments",): 1,
        ("media_files",): 1,
        **{("users", state): 1 for state in ("active", "disabled")},
    }
    assert await read() == (expected, True)
    async with database.unit_of_work() as session:
        await session.execute(text("ALTER TABLE comments RENAME TO renamed"))
    assert await read() == (expected, True)
    monkeypatch.setattr(gauges, "CONTENT_SECONDS", 0)
    assert await read() == ({}, False)
    async with database.unit_of_work() as session:
        await session.execute(text("ALTER TABLE renamed RENAME TO comments"))
    assert await read() == (expected, True)
    await database.dispose()


def test_a_slot_continues_its_counts(tmp_path: Path) -> None:
    for _ in range(3):
        recorder = metrics.Recorder(tmp_path, "0")
        recorder.count("pressroom_logins_total", "ok")
        recorder.in_flight = 1
        recorder.write()
        assert labels_of(recorder, "pressroom_http_requests_in_flight") == {(): 1}
        recorder.close()
        assert labels_of(recorder, "pressroom_http_requests_in_flight") == {}
    assert labels_of(recorder, "pressroom_logins_total") == {("ok",): 3}


def test_nothing_is_counted_without_a_recorder() -> None:
    assert metrics.recorder() is None
    metrics.count("pressroom_logins_total", "ok")


@pytest.mark.checkout
def test_every_metric_is_documented() -> None:
    page = (PROJECT_DIR / "docs" / "operations" / "metrics.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `(pressroom_[a-z_]+)(?:\{([a-z,]+)\})?` \|", page, re.MULTILINE)
    defined = {**metrics.COUNTERS, **metrics.HISTOGRAMS, **metrics.GAUGES, **metrics.SHARED}
    assert {name: tuple(filter(None, labels.split(","))) for name, labels in documented} == {
        name: definition.labels for name, definition in defined.items()
    }
