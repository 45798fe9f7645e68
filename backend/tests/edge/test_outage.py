"""Without a database or a backend, public pages stay available, and requests time out."""

import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.edge.stack import Stack, is_cached, publish, register, wait_for_state
from tests.processes import wait_until


@pytest.fixture
def page(client: httpx.Client) -> str:
    """Create a public page and cache it."""
    path = f"/articles/{publish(client, register(client))['id']}"
    assert is_cached(client, path)
    return path


@pytest.fixture
def without(stack: Stack, page: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """Stop one service of the stack."""
    stack.project.output("stop", "--timeout", "5", request.param)
    yield
    stack.recover()


without_a_database = pytest.mark.parametrize("without", ["db"], indirect=True)
without_a_backend = pytest.mark.parametrize("without", ["backend"], indirect=True)


@without_a_database
@pytest.mark.usefixtures("without")
def test_stale_pages_without_a_database(stack: Stack, client: httpx.Client, page: str) -> None:
    for _ in range(3):
        assert wait_for_state(client, page, "STALE").status_code == 200
    other = client.get("/tags?limit=7")
    assert (other.status_code, other.headers["X-Cache"]) == (503, "MISS")
    assert other.headers["Retry-After"] == "5"
    assert client.get("/health/ready").status_code == 503
    assert client.get("/health/live").status_code == 200
    stack.project.output("start", "db")
    wait_until(lambda: client.get("/tags?limit=7").status_code == 200, "recovery")
    wait_for_state(client, page, "HIT", "REVALIDATED")


@without_a_backend
@pytest.mark.usefixtures("without")
def test_stale_pages_and_waiting_requests_without_a_backend(
    stack: Stack, client: httpx.Client, page: str
) -> None:
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
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "read": 200,
        "write": 422,
    }


@without_a_backend
@pytest.mark.usefixtures("without")
def test_waiting_request_ends_with_503(client: httpx.Client) -> None:
    answer = client.post("/users", json={})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.json()["code"] == "service_unavailable"
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
