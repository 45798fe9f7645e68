"""The server of the metrics, called in this process: tests/e2e/test_metrics.py starts it."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import asyncpg
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app import exporter
from app.core import metrics
from app.core.config import Settings, SetupError
from app.exporter import Exporter, listen
from app.services.gauges import COLLECTORS
from tests.databases import driver_url, execute
from tests.processes import DEADLINE, HOST, free_port

Values = dict[tuple[str, tuple[str, ...]], float]


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[metrics.Recorder]:
    yield metrics.start(tmp_path, "0")
    metrics.stop()


@asynccontextmanager
async def client_of(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    server = Exporter(settings)
    transport = httpx.ASGITransport(server)
    async with httpx.AsyncClient(transport=transport, base_url="http://metrics") as client:
        yield client
    database = server._gauges._database  # its process never closes it
    if database is not None:
        await database.dispose()


async def values(client: httpx.AsyncClient) -> Values:
    response = await client.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


@pytest.fixture
def always_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "MAX_AGE_SECONDS", -1)


async def test_counts_of_processes_and_gauges_are_added(
    own_database: str, recorder: metrics.Recorder, tmp_path: Path
) -> None:
    recorder.set("pressroom_job_last_success_timestamp_seconds", 1.0, "backup")
    recorder.count("pressroom_logins_total", "ok")
    recorder.write()
    await asyncio.to_thread(
        execute,
        own_database,
        "INSERT INTO job_runs (job, started_at, finished_at, host)"
        " VALUES ('backup', now(), now(), 'a'), ('other', now(), now(), 'a')",
    )
    settings = Settings(database_url=own_database, metrics_dir=tmp_path, metrics_port=9100)
    async with client_of(settings) as client:
        found = await values(client)
    assert found["pressroom_database_up", ()] == 1
    assert found["pressroom_logins_total", ("ok",)] == 1
    assert found["pressroom_disk_free_bytes", ("media",)] > 0
    for job in ("backup", "other"):
        assert found["pressroom_job_last_success_timestamp_seconds", (job,)] > 1e9
    down = {labels for (name, labels), value in found.items() if name.endswith("_up") and not value}
    assert down == set()


@pytest.mark.usefixtures("always_read")
async def test_late_deliveries_and_events_are_measured(own_database: str) -> None:
    """Only what this server could send now is late, and only to receivers that answer."""
    columns = "owner_id, failures, is_active, disabled_reason"
    deliver = (
        "INSERT INTO webhook_deliveries"
        " (webhook_id, message_id, kind, article_id, created_at, next_attempt_at)"
        " SELECT id, gen_random_uuid(), 'article.updated', {0}, now(), now() + '{1}'"
        " FROM webhooks WHERE {2}"
    )
    execute_all = partial(asyncio.to_thread, execute, own_database)
    await execute_all(
        "INSERT INTO users (email, username, name, hashed_password, is_active)"
        " VALUES ('a@example.com', 'a', 'A', 'x', true), ('b@example.com', 'b', 'B', 'x', false)",
        "INSERT INTO webhooks (url, events, payload_version, sealed_secret, event_xid, event_id,"
        f" {columns}) SELECT 'https://example.com', '{{}}', 1, 's', 0, 0, * FROM (VALUES"
        " (1, 0, true, NULL), (1, 1, true, NULL), (1, 9, false, 'gone'), (1, 0, false, NULL),"
        " (2, 0, true, NULL)) AS of_users",
        deliver.format(7, "-1 hour", "id > 1"),
        deliver.format(7, "1 hour", "id = 1"),
        deliver.format(7, "-1 hour", "id = 1"),
    )
    other = await asyncpg.connect(driver_url(own_database))
    async with client_of(Settings(database_url=own_database, metrics_port=9100)) as client:
        found = await values(client)
        states = ("working", "failing", "disabled", "inactive")
        assert [found["pressroom_webhooks", (state,)] for state in states] == [2, 1, 1, 1]
        assert found["pressroom_outbox_oldest_age_seconds", ("webhook",)] == 0
        # Transactions of other databases of the server hold the events of the users back.
        assert found["pressroom_events_lag_seconds", ()] < 60

        await execute_all(deliver.format(8, "-1 minute", "id = 1"))
        await other.execute("BEGIN; SELECT pg_current_xact_id()")
        await execute_all(
            "INSERT INTO events (kind, data, occurred_at)"
            " VALUES ('user.created', '{}', now() - interval '1 minute')"
        )
        found = await values(client)
        assert 60 <= found["pressroom_outbox_oldest_age_seconds", ("webhook",)] < 3600
        assert 60 <= found["pressroom_events_lag_seconds", ()] < 3600

        await other.close()
        async with asyncio.timeout(DEADLINE):
            while (await values(client))["pressroom_events_lag_seconds", ()]:
                pass


@pytest.mark.usefixtures("always_read")
async def test_unreachable_database_and_certificate_are_shown(tmp_path: Path) -> None:
    address = f"{HOST}:{free_port()}"
    settings = Settings(
        database_url=f"postgresql+asyncpg://nobody@{address}/none",
        metrics_tls_address=address,
        metrics_dir=tmp_path / "missing",
        metrics_port=9100,
    )
    async with client_of(settings) as client:
        for _ in range(2):
            found = await values(client)
            assert found["pressroom_database_up", ()] == 0
            assert found["pressroom_collector_up", ("certificate",)] == 0
            assert found["pressroom_collector_up", ("outbox",)] == 0
            assert found["pressroom_collector_up", ("disk",)] == 1


async def test_unexpected_failure_is_shown(
    own_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(exporter, "read_gauges", fail)
    async with client_of(Settings(database_url=own_database, metrics_port=9100)) as client:
        found = await values(client)
    assert found["pressroom_database_up", ()] == 0


async def test_slow_values_are_left_out(own_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "SCRAPE_SECONDS", 0)
    async with client_of(Settings(database_url=own_database, metrics_port=9100)) as client:
        found = await values(client)
    assert {found["pressroom_collector_up", (name,)] for name in COLLECTORS} == {0}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/articles", 404), ("POST", "/metrics", 405)],
)
async def test_there_is_nothing_else(method: str, path: str, status: int) -> None:
    async with client_of(Settings(metrics_port=9100)) as client:
        assert (await client.request(method, path)).status_code == status


async def test_without_a_database_its_gauges_are_missing() -> None:
    async with client_of(Settings(database_url=None, metrics_port=9100)) as client:
        found = await values(client)
    assert ("pressroom_database_up", ()) not in found


def test_port_that_is_taken_is_named() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=rf"{HOST}:{port} .*choose another METRICS_PORT"):
            listen(Settings(metrics_host=HOST, metrics_port=port))
    with listen(Settings(metrics_host=HOST, metrics_port=port)) as listener:
        assert listener.getsockname()[1] == port


async def test_server_ends_with_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "PARENT_SECONDS", 0.01)
    parent = os.getppid()
    settings = Settings(metrics_host=HOST, metrics_port=free_port(), database_url=None)
    listener = listen(settings)
    url = f"http://{HOST}:{settings.metrics_port}/metrics"
    server = asyncio.create_task(exporter._serve(settings, listener, parent=parent))
    async with httpx.AsyncClient() as client:
        while (await client.get(url)).status_code != 200:
            pass
    assert not server.done()
    monkeypatch.setattr(os, "getppid", lambda: parent + 1)
    async with asyncio.timeout(DEADLINE):
        await server


def test_directory_is_recognized(tmp_path: Path) -> None:
    directory = exporter.create_directory()
    try:
        assert exporter.is_created(directory)
        assert not exporter.is_created(tmp_path)
    finally:
        directory.rmdir()
