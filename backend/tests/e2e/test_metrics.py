"""Metrics of several processes: counts survive the end of workers, and nothing stops requests."""

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.postgres import holding
from tests.processes import (
    GUNICORN,
    HOST,
    PRODUCTION,
    Api,
    Checkout,
    connected,
    free_port,
    get,
    pressroom,
    serving,
    wait_until,
)

pytestmark = pytest.mark.e2e

SHORT = (
    "import app.exporter as e; e.MAX_AGE_SECONDS = 0; e.RETRY_SECONDS = 0.1;"
    " import app.core.metrics as m; m.WRITE_SECONDS = 0.2"
)
"""Values are not reused, and are written soon."""
ARTICLES = {"route": "/articles", "method": "GET", "status": "2xx"}
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Metrics:
    """The metrics port of a server."""

    def __init__(self, port: int) -> None:
        self.url = f"http://{HOST}:{port}/metrics"

    def response(self) -> httpx.Response | None:
        try:
            return get(self.url, timeout=20)
        except httpx.TransportError:
            return None

    def samples(self) -> Samples:
        response = wait_until(self.response, "the port of the metrics answers")
        assert response.status_code == 200
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples().get((name, tuple(sorted(labels.items()))))

    def requests(self, **labels: str) -> float | None:
        return self.value("pressroom_http_requests_total", **ARTICLES | labels)


@contextmanager
def measured(
    checkout: Checkout, database: str, *, first: str = SHORT, **settings: str
) -> Iterator[tuple[Api, Metrics]]:
    port = int(settings.pop("METRICS_PORT", 0)) or free_port()
    options = PRODUCTION | settings | {"DATABASE_URL": database, "METRICS_PORT": str(port)}
    with serving(checkout, GUNICORN, first=first, **options) as api:
        yield api, Metrics(port)


@pytest.fixture(scope="module")
def shared(checkout: Checkout, module_database: str) -> Iterator[tuple[Api, Metrics]]:
    """A server with one worker. Each test counts the requests of another route."""
    with measured(checkout, module_database) as found:
        yield found


def workers_of(api: Api) -> list[int]:
    """Return the processes of the workers: those that have the API's socket open."""
    port = httpx.URL(api.url).port
    inodes = {
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
    }

    def listens(pid: int) -> bool:
        opened: set[str] = set()
        with suppress(FileNotFoundError, PermissionError):  # the process ends
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(FileNotFoundError):
                    opened.add(str(descriptor.readlink()))
        return not opened.isdisjoint({f"socket:[{inode}]" for inode in inodes})

    children = Path(f"/proc/{api.process.pid}/task/{api.process.pid}/children").read_text()
    return [pid for pid in map(int, children.split()) if listens(pid)]


def directory_of(api: Api) -> Path:
    """Return the folder in which the workers write."""

    def find() -> Path | None:
        for pid in workers_of(api):
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                if "pressroom-metrics-" in line:
                    return Path(line.split()[-1]).parent
        return None

    return wait_until(find, "a worker writes")


def test_two_workers_and_their_replacements_lose_no_count(
    checkout: Checkout, module_database: str
) -> None:
    recycling = (
        f"{SHORT}\nfrom gunicorn.config import MaxRequests; import gunicorn.app.base as b\n"
        "load = b.Application.load_config\n"
        "def limited(self):\n    load(self)\n    self.cfg.set('max_requests', 10)\n"
        "    self.cfg.set('max_requests_jitter', 0)\n"
        "b.Application.load_config = limited"
    )
    settings = {"first": recycling, "WEB_CONCURRENCY": "2"}
    with measured(checkout, module_database, **settings) as (api, metrics):
        before, sent = set(workers_of(api)), 0

        def are_replaced() -> bool:
            nonlocal sent
            for _ in range(5):
                answered = get(f"{api.url}/articles")  # a new connection, and so any worker
                assert answered.status_code == 200
            sent += 5
            return before.isdisjoint(workers_of(api))

        wait_until(are_replaced, "new workers", log=api.process.log)
        while sent < 50:
            are_replaced()
        wait_until(lambda: metrics.requests() == sent, "all requests are counted", seconds=20)
        files = sorted(path.name for path in directory_of(api).iterdir())
        assert {name.rpartition("_")[2] for name in files} <= {"0.db", "1.db", "2.db"}, files
        assert metrics.value("pressroom_http_requests_in_flight") in {0, 1}


def test_killed_worker_leaves_counts_and_no_gauges(
    shared: tuple[Api, Metrics], module_database: str
) -> None:
    api, metrics = shared

    def flying() -> float | None:
        return metrics.value("pressroom_http_requests_in_flight")

    for _ in range(5):
        assert api.client.get("/articles").status_code == 200
    wait_until(lambda: metrics.requests() == 5, "the requests are counted", seconds=20)
    with ThreadPoolExecutor(1) as threads:
        with holding(module_database, "LOCK TABLE tags IN ACCESS EXCLUSIVE MODE"):
            blocked = threads.submit(get, f"{api.url}/tags")
            wait_until(lambda: flying() == 1, "the request is in flight", seconds=20)
            (worker,) = workers_of(api)
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: worker not in workers_of(api), "the worker ends")
        assert isinstance(blocked.exception(), httpx.TransportError)
    wait_until(lambda: flying() == 0, "nothing is in flight", seconds=20)
    assert get(f"{api.url}/articles").status_code == 200
    wait_until(lambda: metrics.requests() == 6, "the counts go on", seconds=20)


def test_taken_port_is_one_sentence_and_the_service_goes_on(
    checkout: Checkout, module_database: str
) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with measured(checkout, module_database, METRICS_PORT=str(port)) as (api, metrics):
            sentence = f"Cannot serve metrics on {HOST}:{port}"
            wait_until(lambda: sentence in api.process.log, "the log names the port")
            assert api.client.get("/articles").status_code == 200
            taken.close()
            wait_until(
                lambda: metrics.value("pressroom_database_up") == 1,
                "metrics",
                seconds=20,
                log=api.process.log,
            )
            assert api.process.log.count(sentence) == 1
            assert "Traceback" not in api.process.log


def test_hanging_database_stops_neither_requests_nor_scrapes(
    shared: tuple[Api, Metrics], module_database: str
) -> None:
    api, metrics = shared

    def is_up(collector: str) -> float | None:
        return metrics.value("pressroom_collector_up", collector=collector)

    wait_until(lambda: is_up("outbox") == 1, "the collector works", seconds=20)
    with holding(module_database, "LOCK TABLE mails IN ACCESS EXCLUSIVE MODE"):
        samples = metrics.samples()
        shown = {
            dict(labels)["collector"]: value
            for (name, labels), value in samples.items()
            if name == "pressroom_collector_up"
        }
        assert shown["outbox"] == 0
        assert shown["media"] == 1
        assert not any(
            name == "pressroom_outbox_messages" and ("kind", "mail") in labels
            for name, labels in samples
        )
        assert get(f"{api.url}/search?q=engine").status_code == 200
    wait_until(lambda: is_up("outbox") == 1, "the collector works again", seconds=20)


def test_unreachable_database_is_shown(checkout: Checkout) -> None:
    with socket.create_server((HOST, 0)) as silent:  # accepts, and never answers
        url = f"postgresql://pressroom@{HOST}:{silent.getsockname()[1]}/pressroom"
        impatient = f"{SHORT}; e.STATEMENT_SECONDS = 0.2"
        settings = {"first": impatient, "DATABASE_CONNECT_TIMEOUT": "0.5"}
        with measured(checkout, url, **settings) as (api, metrics):
            shown = metrics.samples()
            assert shown[("pressroom_database_up", ())] == 0
            assert not any(name == "pressroom_outbox_messages" for name, _ in shown)
            assert api.client.get("/health/live").status_code == 200
            live = {"route": "/health/live", "method": "GET", "status": "2xx"}
            wait_until(lambda: metrics.requests(**live), "requests are counted", seconds=20)


def test_only_get_metrics_is_served(shared: tuple[Api, Metrics]) -> None:
    api, metrics = shared
    metrics.samples()
    base = metrics.url.removesuffix("/metrics")
    for path in ("/", "/metrics/", "/articles", "/debug", "/health/live"):
        assert get(base + path).status_code == 404
    assert httpx.post(metrics.url, verify=False).status_code == 405
    assert get(f"{api.url}/metrics").status_code == 404


def test_metrics_end_with_the_server(checkout: Checkout, module_database: str) -> None:
    with measured(checkout, module_database) as (api, metrics):
        metrics.samples()
        directory = directory_of(api)
        api.process.send(signal.SIGTERM)
        assert api.process.wait() == 0
        wait_until(lambda: metrics.response() is None, "the port is free", seconds=10)
        assert not directory.exists()


def test_command(checkout: Checkout, module_database: str, tmp_path: Path) -> None:
    port = free_port()
    settings: dict[str, Any] = {"DATABASE_URL": module_database, "METRICS_PORT": str(port)}
    with pressroom(checkout, "metrics", METRICS_DIR=str(tmp_path), **settings) as first:
        assert Metrics(port).value("pressroom_database_up") == 1
        with pressroom(checkout, "metrics", **settings) as second:
            assert second.wait() == 1
            assert "choose another METRICS_PORT" in " ".join(second.log.split())
        first.send(signal.SIGTERM)
        first.wait()
    with pressroom(checkout, "metrics", DATABASE_URL=module_database) as off:
        assert off.wait() == 1
        assert "METRICS_PORT is 0" in off.log


def test_development_server_has_metrics(checkout: Checkout, module_database: str) -> None:
    port, metrics = free_port(), Metrics(free_port())
    settings = {
        "DATABASE_URL": module_database,
        "METRICS_PORT": metrics.url.rpartition(":")[2].removesuffix("/metrics"),
        "MEDIA_DIR": str(checkout.logs / "media"),
    }
    with (
        pressroom(checkout, "serve", "--port", str(port), **settings) as process,
        connected(process, port) as api,
    ):
        assert api.client.get("/articles").status_code == 200
        wait_until(lambda: metrics.requests() == 1, "the request is counted", seconds=30)
        process.send(signal.SIGTERM)
        process.wait()
        wait_until(lambda: metrics.response() is None, "the port is free", seconds=10)
