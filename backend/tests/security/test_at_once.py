"""Concurrent requests to several processes: the limits hold for all of them together.

The server trusts no proxy. Each client has its own address of the loopback network.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any, TypeVar

import httpx
import pytest

from tests.databases import execute, migrated_database
from tests.postgres import fetch
from tests.processes import DEADLINE, GUNICORN, PASSWORD, Api, Checkout, serving
from tests.security.test_brute_force import MAX_PER_ACCOUNT, MAX_PER_ADDRESS

pytestmark = pytest.mark.e2e

Result = TypeVar("Result")

_addresses = (f"127.1.{number // 250}.{number % 250 + 1}" for number in itertools.count())
_names = (f"user{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with migrated_database() as url:
        yield url


@pytest.fixture(scope="module")
def server(checkout: Checkout, database: str) -> Iterator[Api]:
    with serving(
        checkout,
        GUNICORN,
        DATABASE_URL=database,
        WEB_CONCURRENCY="2",
        FORWARDED_ALLOW_IPS="203.0.113.1",
    ) as api:
        yield api


def client_of(server: Api) -> httpx.Client:
    """Return a client at an unused address, without TLS to save setup time."""
    transport = httpx.HTTPTransport(local_address=next(_addresses), verify=False)
    return httpx.Client(base_url=server.url, transport=transport, timeout=DEADLINE)


def bearer(server: Api, name: str) -> dict[str, str]:
    """Register a user from an unused address; return their Authorization header."""
    with client_of(server) as client:
        return Api(process=server.process, client=client, url=server.url).bearer(name)


def request_from_new_address(server: Api, method: str, path: str, **request: Any) -> httpx.Response:
    """Send a request from an unused address on a new connection."""
    with client_of(server) as client:
        return client.request(method, path, **request)


def run_concurrently(actions: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run all actions at the same time; return their results."""
    ready = Barrier(len(actions))

    def run(action: Callable[[], Result]) -> Result:
        ready.wait(DEADLINE)
        return action()

    with ThreadPoolExecutor(len(actions)) as threads:
        return list(threads.map(run, actions))


def log_in(server: Api, name: str, password: str = PASSWORD) -> httpx.Response:
    form = {"username": name, "password": password}
    return request_from_new_address(server, "POST", "/auth/login", data=form)


def refresh(server: Api, token: str) -> httpx.Response:
    return request_from_new_address(server, "POST", "/auth/refresh", json={"refresh_token": token})


@pytest.fixture
def user(server: Api) -> str:
    name = next(_names)
    assert server.register(name).status_code == 201
    return name


class TestRefresh:
    def test_concurrent_refreshes_get_the_same_successor(
        self, server: Api, database: str, user: str
    ) -> None:
        parent = log_in(server, user).json()["refresh_token"]
        answers = run_concurrently([lambda: refresh(server, parent)] * 20)
        assert [answer.status_code for answer in answers] == [200] * 20
        (child,) = {answer.json()["refresh_token"] for answer in answers}
        for answer in answers:
            headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
            assert server.client.get("/auth/me", headers=headers).status_code == 200
        query = "SELECT 1 FROM user_sessions JOIN users u ON u.id = user_id WHERE u.username = $1"
        assert len(fetch(database, query, user)) == 1
        assert refresh(server, child).status_code == 200

    def test_concurrent_reuse_is_refused_and_recorded_once(
        self, server: Api, database: str, user: str
    ) -> None:
        parent = log_in(server, user).json()["refresh_token"]
        child = refresh(server, parent).json()["refresh_token"]
        execute(database, "UPDATE user_sessions SET last_used_at = last_used_at - interval '11 s'")
        answers = run_concurrently([lambda: refresh(server, parent)] * 20)
        assert [answer.status_code for answer in answers] == [401] * 20
        assert refresh(server, child).status_code == 401
        query = """SELECT 1 FROM audit_events JOIN users u ON u.id = subject_id
            WHERE action = 'REFRESH_REUSED' AND u.username = $1"""
        assert len(fetch(database, query, user)) == 1


class TestPasswordGuesses:
    @pytest.mark.parametrize("exists", [True, False], ids=["a user's", "nobody's"])
    def test_concurrent_guesses_get_no_extra_attempts(
        self, server: Api, database: str, user: str, exists: bool
    ) -> None:
        name = user if exists else next(_names)
        answers = run_concurrently([lambda: log_in(server, name, "wrong")] * 50)
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {401, 429}
        assert statuses.count(401) <= MAX_PER_ACCOUNT

    def test_guesses_count_across_processes_and_restarts(
        self, server: Api, checkout: Checkout, database: str, user: str
    ) -> None:
        statuses = [log_in(server, user, "wrong").status_code for _ in range(MAX_PER_ACCOUNT + 1)]
        assert statuses[-1] == 429
        closed = "UPDATE attempts SET closed_until = closed_until + interval '1 minute'"
        execute(database, closed)
        with serving(checkout, DATABASE_URL=database) as another:
            assert log_in(another, user).status_code == 429
            assert log_in(another, "nobody-yet").status_code == 401

    def test_forwarded_address_of_untrusted_client_is_ignored(self, server: Api) -> None:
        statuses = []
        with client_of(server) as client:
            for number in range(MAX_PER_ADDRESS + 1):
                forged = {"X-Forwarded-For": f"198.51.100.{number}", "X-Real-IP": "198.51.100.1"}
                form = {"username": next(_names), "password": "wrong"}
                response = client.post("/auth/login", data=form, headers=forged)
                statuses.append(response.status_code)
        assert statuses[-1] == 429


Removal = tuple[str, str, dict[str, str] | None]

REMOVALS: dict[str, Removal] = {
    "demotes": ("PATCH", "/users/{}/role", {"role": "author"}),
    "disables": ("POST", "/users/{}/disable", None),
    "deletes": ("DELETE", "/users/{}", {"password": PASSWORD}),
}


def remove(server: Api, how: str, target: int, headers: dict[str, str]) -> int:
    method, path, body = REMOVALS[how]
    response = request_from_new_address(
        server, method, path.format(target), headers=headers, json=body
    )
    return response.status_code


class TestLastAdmin:
    ROUNDS = 2

    @pytest.mark.parametrize("whom", ["the other", "themselves"])
    @pytest.mark.parametrize(
        ("first", "second"), list(itertools.combinations_with_replacement(REMOVALS, 2))
    )
    def test_concurrent_removals_leave_one_administrator(
        self, server: Api, database: str, first: str, second: str, whom: str
    ) -> None:
        for _ in range(self.ROUNDS):
            execute(database, "UPDATE users SET role = 'author' WHERE role = 'admin'")
            admins = [next(_names) for _ in range(2)]
            headers = [bearer(server, name) for name in admins]
            names = ", ".join(f"'{name}'" for name in admins)
            execute(database, f"UPDATE users SET role = 'admin' WHERE username IN ({names})")
            ids = [server.client.get("/users/me", headers=each).json()["id"] for each in headers]
            targets = ids if whom == "themselves" else ids[::-1]

            removals = [
                partial(remove, server, how, target, actor)
                for how, target, actor in zip((first, second), targets, headers, strict=True)
            ]
            statuses = run_concurrently(removals)
            assert sorted(status < 300 for status in statuses) == [False, True], statuses
            # 503: the account is being deleted.
            assert set(statuses) <= {200, 204, 401, 403, 404, 409, 503}
            left = "SELECT 1 FROM users WHERE role = 'admin' AND is_active"
            assert len(fetch(database, left)) == 1


@pytest.mark.parametrize("size", [60_000, 1_000_000])
def test_huge_token_is_a_client_error(server: Api, size: int) -> None:
    headers = {"Authorization": f"Bearer {'x' * size}"}
    response = request_from_new_address(server, "GET", "/auth/me", headers=headers)
    assert 400 <= response.status_code < 500
    assert server.client.get("/health/live").status_code == 200
