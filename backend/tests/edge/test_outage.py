"""Without a database or a backend, public pages stay available, and requests time out."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.edge.load import ended_by_hold
from tests.edge.stack import ORIGIN, Stack, is_cached, publish, register, wait_for_state
from tests.processes import wait_until


@pytest.fixture(scope="module")
def page(stack: Stack) -> str:
    """Create a public page."""
    with stack.client() as client:
        return f"/articles/{publish(client, register(client))['id']}"


@pytest.fixture(scope="module")
def withdrawn(stack: Stack) -> str:
    """Cache a public page and withdraw it, so that it is no longer found."""
    with stack.client() as client:
        author = register(client)
        path = f"/articles/{publish(client, author)['id']}"
        assert is_cached(client, path)
        client.patch(path, json={"published": False}, headers=author)
        wait_until(lambda: client.get(path).status_code == 404, "it is withdrawn")
    return path


@pytest.fixture(scope="module")
def without(
    stack: Stack, page: str, withdrawn: str, request: pytest.FixtureRequest
) -> Iterator[None]:
    """Cache the page, and stop one service of the stack for all tests without it."""
    with stack.client() as client:
        assert is_cached(client, page)
    stack.project.output("stop", "--timeout", "5", request.param)
    yield
    stack.recover()


without_a_database = pytest.mark.parametrize("without", ["db"], indirect=True)
without_a_backend = pytest.mark.parametrize("without", ["backend"], indirect=True)


@without_a_database
@pytest.mark.usefixtures("without")
def test_stale_pages_without_a_database(
    stack: Stack, client: httpx.Client, page: str, withdrawn: str
) -> None:
    """The page is served although the backend has answered 503, but not one that was withdrawn."""
    wait_until(partial(_is_stale_after, stack, client, page, 503), "a 503 of the page")
    assert wait_for_state(client, page, "STALE").status_code == 200
    # withdraw.sh may have deleted the cached 404.
    assert client.get(withdrawn).status_code in {404, 503}
    other = client.get("/tags?limit=7")
    assert (other.status_code, other.headers["X-Cache"]) == (503, "MISS")
    assert other.headers["Retry-After"] == "5"
    assert client.get("/health/ready").status_code == 503
    assert client.get("/health/live").status_code == 200
    stack.project.output("start", "db")
    wait_until(lambda: client.get("/tags?limit=7").status_code == 200, "recovery")
    wait_for_state(client, page, "HIT", "REVALIDATED")


def _is_stale_after(stack: Stack, client: httpx.Client, path: str, status: int) -> bool:
    """Request a page; return whether nginx served its copy in place of a response of `status`."""
    request_id = uuid4().hex
    client.get(path, headers={"X-Request-ID": request_id})
    log = stack.project.output("logs", "--tail", "50", "nginx")
    (line,) = (line for line in log.splitlines() if request_id in line)
    return '"cache":"STALE"' in line and f'"upstream_status":"{status}"' in line


FROM_PAGE = {"Origin": ORIGIN, "Connection": "close"}  # nginx closes it, because of the body
LARGE = {"content": b"x" * 6 * 1024 * 1024, "headers": FROM_PAGE}
HELD: Mapping[str, Mapping[str, Any]] = {
    "/users": {"json": {}},
    "/media": LARGE,
    "/articles/import": LARGE,
}
"""Requests, by path, that nginx holds until it answers 503."""


@pytest.fixture(scope="module")
def answers(stack: Stack, without: None) -> Mapping[str, httpx.Response]:
    """Send the held requests at the same time, because each takes 15 s. Return the responses."""

    def post(path: str) -> httpx.Response:
        with stack.client() as client:
            return client.post(path, **HELD[path])

    with ThreadPoolExecutor(len(HELD)) as pool:
        return dict(zip(HELD, pool.map(post, HELD), strict=True))


@without_a_backend
def test_waiting_request_ends_with_503(
    without: None, answers: Mapping[str, httpx.Response]
) -> None:
    answer = answers["/users"]
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.json()["code"] == "service_unavailable"
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


@without_a_backend
@pytest.mark.parametrize("path", ["/media", "/articles/import"])
def test_upload_without_a_backend_gets_a_json_error(
    client: httpx.Client, without: None, answers: Mapping[str, httpx.Response], path: str
) -> None:
    """Also above the limit for other bodies, which does not apply to uploads. Pages can read it."""
    answer = answers[path]
    assert answer.status_code == 503
    assert answer.json()["code"] == "service_unavailable"
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    asked = {**FROM_PAGE, "Access-Control-Request-Method": "POST"}
    preflight = client.options(path, headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN


@without_a_backend
@pytest.mark.usefixtures("without")
def test_stale_pages_and_waiting_requests_without_a_backend(
    stack: Stack, client: httpx.Client, page: str
) -> None:
    """It is the last test without a backend, because it starts the backend."""
    for _ in range(3):
        assert wait_for_state(client, page, "STALE").status_code == 200
    answers: dict[str, httpx.Response] = {}

    def send(name: str, method: str, path: str) -> None:
        answers[name] = httpx.request(method, stack.url + path, timeout=40, json={})

    calls = {"read": ("GET", "/tags?limit=8"), "write": ("POST", "/users")}
    threads = [
        threading.Thread(target=send, args=(name, *request)) for name, request in calls.items()
    ]
    for thread in threads:
        thread.start()
    probe = client.get("/health/ready")
    assert probe.status_code == 503  # probes do not wait
    stack.project.output("start", "backend")
    for thread in threads:
        thread.join(60)
    for name, status in (("read", 200), ("write", 422)):
        answer = answers[name]
        seconds = answer.elapsed.total_seconds()
        assert answer.status_code == status or ended_by_hold(answer.status_code, seconds)
