"""Promise: without PostgreSQL the process lives and answers 503 with Retry-After, never 500, and
serves again by itself once PostgreSQL is back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from app.db import migrate
from tests import postgres
from tests.postgres import TERMINATE, fetch, holding, wait_until_blocked
from tests.processes import DEADLINE, Api, Checkout, serving, wait_until

pytestmark = pytest.mark.e2e

POOL_SIZE = 4
POOLED_CONNECTIONS = 2 * POOL_SIZE  # one pool for writing, one for reading
DRAFT = {"title": "In flight", "content": "Written while the server went."}


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """A migrated server that is down."""
    with postgres.server() as server:
        migrate.upgrade(server.url)
        server.stop()
        yield server


@pytest.fixture(scope="module")
def orphan(checkout: Checkout, server: postgres.Server) -> Iterator[Api]:
    """An API that was started while its server was down."""
    with serving(
        checkout,
        DATABASE_URL=server.url,
        DATABASE_POOL_SIZE=str(POOL_SIZE),
        DATABASE_POOL_TIMEOUT="5",
    ) as api:
        yield api


@pytest.fixture
def running(orphan: Api, server: postgres.Server) -> Api:
    """The same API, with the server up."""
    server.start()
    wait_until(lambda: is_ready(orphan), "the API is ready", log=orphan.process.log)
    return orphan


def is_ready(api: Api) -> bool:
    return api.client.get("/health/ready").status_code == 200


def refresh(api: Api) -> httpx.Response:
    """A request that writes, if only it knew what: 401, as often as one likes."""
    unknown = {"refresh_token": f"prt_1_{'x' * 65}"}
    return api.client.post("/auth/refresh", json=unknown)


def assert_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    body = answer.json()
    assert set(body) == {"success", "message", "detail", "code", "request_id"}
    assert (body["success"], body["code"]) == (False, "service_unavailable")
    assert "not available" in body["message"]


def fill_pools(api: Api) -> None:
    """Use every connection that the pools may open, all at the same time.

    By a client that keeps none: of one that does, a thread may close as too old what another is
    about to use.
    """
    none_kept = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    with (
        httpx.Client(base_url=api.url, timeout=DEADLINE, limits=none_kept) as client,
        ThreadPoolExecutor(4 * POOL_SIZE) as threads,
    ):
        fresh = replace(api, client=client)
        readers = [threads.submit(client.get, "/articles") for _ in range(4 * POOL_SIZE)]
        refreshes = [threads.submit(refresh, fresh) for _ in range(4 * POOL_SIZE)]
    assert {request.result().status_code for request in readers} == {200}
    assert {request.result().status_code for request in refreshes} == {401}


def assert_recovers(api: Api) -> None:
    """Each pooled connection may cost one request a 503, no request anything else."""
    reads = [api.client.get("/articles") for _ in range(2 * POOL_SIZE)]
    refreshes = [refresh(api) for _ in range(2 * POOL_SIZE)]
    unavailable = [answer for answer in reads + refreshes if answer.status_code == 503]
    assert len(unavailable) <= POOLED_CONNECTIONS
    for answer in unavailable:
        assert_unavailable(answer)
    assert {answer.status_code for answer in reads} <= {200, 503}
    assert {answer.status_code for answer in refreshes} <= {401, 503}
    assert (reads[-1].status_code, refreshes[-1].status_code) == (200, 401)


def test_starts_without_postgresql_and_recovers(orphan: Api, server: postgres.Server) -> None:
    assert orphan.client.get("/health/live").status_code == 200
    assert_unavailable(orphan.client.get("/health/ready"))
    assert_unavailable(orphan.client.get("/articles"))
    assert_unavailable(orphan.log_in("anybody"))
    assert_unavailable(orphan.register("anybody"))

    server.start()
    wait_until(lambda: is_ready(orphan), "the API is ready", log=orphan.process.log)
    assert orphan.client.get("/articles").json() == []
    assert orphan.register("survivor").status_code == 201
    assert "unhandled exception" not in orphan.process.log


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_stopped_postgresql_returns_503(running: Api, server: postgres.Server, mode: str) -> None:
    fill_pools(running)
    server.stop(mode)
    assert running.client.get("/health/live").status_code == 200
    for _ in range(POOLED_CONNECTIONS + 1):
        assert_unavailable(running.client.get("/articles"))
        assert_unavailable(refresh(running))
    assert_unavailable(running.client.get("/health/ready"))

    server.start()
    wait_until(lambda: is_ready(running), "the API is ready", log=running.process.log)
    assert_recovers(running)
    assert "unhandled exception" not in running.process.log


def test_terminated_connections_are_replaced(running: Api, server: postgres.Server) -> None:
    fill_pools(running)
    assert len(fetch(server.url, TERMINATE)) > POOL_SIZE
    assert_recovers(running)
    assert "unhandled exception" not in running.process.log


def test_connection_lost_during_a_request_is_503(running: Api, server: postgres.Server) -> None:
    headers = running.bearer("survivor")
    with (
        ThreadPoolExecutor(1) as threads,
        holding(server.url, "LOCK TABLE articles IN ACCESS EXCLUSIVE MODE"),
    ):
        writing = threads.submit(running.client.post, "/articles", json=DRAFT, headers=headers)
        wait_until_blocked(server.url)
        fetch(server.url, TERMINATE)
        assert_unavailable(writing.result())
    assert fetch(server.url, "SELECT id FROM articles") == []
