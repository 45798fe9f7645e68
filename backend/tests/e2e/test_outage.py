"""Without PostgreSQL, the process returns 503 with Retry-After and no 500. It recovers without a
restart."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace

import httpx
import pytest

from tests import postgres
from tests.postgres import TERMINATE, fetch, holding, wait_until_blocked
from tests.processes import DEADLINE, Api, Checkout, serving, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.checkout]

POOL_SIZE = 4
POOLED_CONNECTIONS = 2 * POOL_SIZE  # one pool for writing, one for reading
DRAFT = {"title": "In flight", "content": "Written while the server went."}


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """Create a migrated database server that is stopped."""
    with postgres.server() as server:
        server.stop()
        yield server


def serving_with(server: postgres.Server, checkout: Checkout) -> AbstractContextManager[Api]:
    return serving(
        checkout,
        DATABASE_URL=server.url,
        DATABASE_POOL_SIZE=str(POOL_SIZE),
        DATABASE_POOL_TIMEOUT="5",
    )


@pytest.fixture
def api_without_database(checkout: Checkout, server: postgres.Server) -> Iterator[Api]:
    """Start an API while its database server is stopped."""
    if postgres.processes_of(server.directory):
        server.stop()
    with serving_with(server, checkout) as api:
        yield api


@pytest.fixture(scope="module")
def api(checkout: Checkout, server: postgres.Server) -> Iterator[Api]:
    with serving_with(server, checkout) as api:
        yield api


@pytest.fixture
def running_api(api: Api, server: postgres.Server) -> Api:
    """Start the database server of the API."""
    server.start()
    wait_until(
        lambda: is_ready(api),
        "the API is ready",
        log=api.process.log,
    )
    return api


def is_ready(api: Api) -> bool:
    return api.client.get("/health/ready").status_code == 200


def refresh(api: Api) -> httpx.Response:
    """Send a request that uses the pool for writing and returns 401."""
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
    """Open all connections of the pools with concurrent requests.

    The client has no persistent connections: a thread could close an expired one that another
    thread is about to use.
    """
    without_keepalive = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    with (
        httpx.Client(
            base_url=api.url, timeout=DEADLINE, limits=without_keepalive, verify=False
        ) as client,
        ThreadPoolExecutor(4 * POOL_SIZE) as threads,
    ):
        fresh = replace(api, client=client)
        readers = [threads.submit(client.get, "/articles") for _ in range(4 * POOL_SIZE)]
        refreshes = [threads.submit(refresh, fresh) for _ in range(4 * POOL_SIZE)]
    assert {request.result().status_code for request in readers} == {200}
    assert {request.result().status_code for request in refreshes} == {401}


def assert_recovers(api: Api) -> None:
    """Check that each pooled connection causes at most one 503, and no other error."""
    reads = [api.client.get("/articles") for _ in range(2 * POOL_SIZE)]
    refreshes = [refresh(api) for _ in range(2 * POOL_SIZE)]
    unavailable = [answer for answer in reads + refreshes if answer.status_code == 503]
    assert len(unavailable) <= POOLED_CONNECTIONS
    for answer in unavailable:
        assert_unavailable(answer)
    assert {answer.status_code for answer in reads} <= {200, 503}
    assert {answer.status_code for answer in refreshes} <= {401, 503}
    assert (reads[-1].status_code, refreshes[-1].status_code) == (200, 401)


def test_starts_without_postgresql_and_recovers(
    api_without_database: Api, server: postgres.Server
) -> None:
    assert api_without_database.client.get("/health/live").status_code == 200
    assert_unavailable(api_without_database.client.get("/health/ready"))
    assert_unavailable(api_without_database.client.get("/articles"))
    assert_unavailable(api_without_database.log_in("anybody"))
    assert_unavailable(api_without_database.register("anybody"))

    server.start()
    wait_until(
        lambda: is_ready(api_without_database),
        "the API is ready",
        log=api_without_database.process.log,
    )
    assert api_without_database.client.get("/articles").status_code == 200
    assert api_without_database.register("survivor").status_code == 201
    assert "unhandled exception" not in api_without_database.process.log


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_stopped_postgresql_returns_503(
    running_api: Api, server: postgres.Server, mode: str
) -> None:
    fill_pools(running_api)
    server.stop(mode)
    assert running_api.client.get("/health/live").status_code == 200
    for _ in range(POOLED_CONNECTIONS + 1):
        assert_unavailable(running_api.client.get("/articles"))
        assert_unavailable(refresh(running_api))
    assert_unavailable(running_api.client.get("/health/ready"))

    server.start()
    wait_until(lambda: is_ready(running_api), "the API is ready", log=running_api.process.log)
    assert_recovers(running_api)
    assert "unhandled exception" not in running_api.process.log


def test_terminated_connections_are_replaced(running_api: Api, server: postgres.Server) -> None:
    fill_pools(running_api)
    assert len(fetch(server.url, TERMINATE)) > POOL_SIZE
    assert_recovers(running_api)
    assert "unhandled exception" not in running_api.process.log


def test_connection_lost_during_a_request_is_503(running_api: Api, server: postgres.Server) -> None:
    headers = running_api.bearer("survivor")
    with (
        ThreadPoolExecutor(1) as threads,
        holding(server.url, "LOCK TABLE articles IN ACCESS EXCLUSIVE MODE"),
    ):
        writing = threads.submit(running_api.client.post, "/articles", json=DRAFT, headers=headers)
        wait_until_blocked(server.url)
        fetch(server.url, TERMINATE)
        assert_unavailable(writing.result())
    assert fetch(server.url, "SELECT id FROM articles") == []
