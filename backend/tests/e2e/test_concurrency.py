"""One of several concurrent registrations of a name succeeds. An exhausted pool returns 503 in
time. Password hashing and rendering hold no connections and do not block other requests."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import httpx
import pytest

from tests.databases import migrated_database
from tests.postgres import fetch, holding, wait_until_blocked
from tests.processes import DEADLINE, PASSWORD, Api, Checkout, serving, wait_until

pytestmark = pytest.mark.e2e

LOGINS = 6


def test_one_concurrent_registration_of_an_email_succeeds(api: Api, api_database: str) -> None:
    def register(number: int) -> int:
        email = "".join(
            letter.upper() if number >> place & 1 else letter
            for place, letter in enumerate("crowded")
        )
        account = {
            "email": f"{email}@example.com",
            "username": f"crowded{number}",
            "name": "One of Many",
            "password": PASSWORD,
        }
        return api.client.post("/users", json=account).status_code

    with ThreadPoolExecutor(20) as threads:
        statuses = list(threads.map(register, range(20)))

    assert sorted(statuses) == [201] + 19 * [409]
    query = "SELECT id FROM users WHERE lower(email) = 'crowded@example.com'"
    assert len(fetch(api_database, query)) == 1


@pytest.fixture(scope="module")
def small_database() -> Iterator[str]:
    with migrated_database() as url:
        yield url


@pytest.fixture(scope="module")
def small_api(checkout: Checkout, small_database: str) -> Iterator[Api]:
    """Start an API with one connection per pool, in which hashing takes long."""
    with serving(
        checkout,
        DATABASE_URL=small_database,
        DATABASE_POOL_SIZE="1",
        DATABASE_POOL_TIMEOUT="0.5",
        BCRYPT_COST="11",
    ) as api:
        yield api


def test_exhausted_pool_returns_503_and_recovers(small_api: Api, small_database: str) -> None:
    client, headers = small_api.client, small_api.bearer("writer")
    draft = {"title": "Contended", "content": "Somebody locks this row."}
    article = client.post("/articles", json=draft, headers=headers).json()
    path, change = f"/articles/{article['id']}", {"title": "Changed"}

    with ThreadPoolExecutor(1) as threads:
        with holding(
            small_database, f"SELECT 1 FROM articles WHERE id = {article['id']} FOR UPDATE"
        ):
            blocked = threads.submit(client.patch, path, json=change, headers=headers)
            wait_until_blocked(small_database)
            refused = small_api.register("too-many")
            assert not blocked.done()
        assert blocked.result().status_code == 200

    assert refused.status_code == 503
    assert refused.json()["code"] == "service_unavailable"
    assert int(refused.headers["Retry-After"]) > 0
    assert small_api.register("too-many").status_code == 201


def test_concurrent_logins_hold_no_connections(small_api: Api) -> None:
    small_api.register("stormy")
    reads: list[int] = []
    with ThreadPoolExecutor(LOGINS) as threads:
        logins = [threads.submit(small_api.log_in, "stormy") for _ in range(LOGINS)]
        while wait(logins, timeout=0.01).not_done:
            reads.append(small_api.client.get("/articles").status_code)

    assert {login.result().status_code for login in logins} == {200}
    assert set(reads) == {200}
    # If hashing ran in the event loop, reads would wait for each hash.
    assert len(reads) > 3 * LOGINS


def test_concurrent_long_texts_hold_no_connections(small_api: Api) -> None:
    """Each text takes a second until it is rejected. A user has two requests in progress."""
    client, writer, reader = small_api.client, small_api.bearer("long"), small_api.bearer("calm")
    article = {"title": "Calm", "content": "Nobody has to wait for it.", "published": True}
    url = f"/articles/{client.post('/articles', json=article, headers=reader).json()['id']}"
    token = small_api.log_in("calm").json()["refresh_token"]
    long_article = {"title": "Storm", "content": "Some *words* and `code`.\n\n" * 40_000}
    answers: set[int] = set()

    def post() -> httpx.Response:
        return client.post("/articles", json=long_article, headers=writer)

    with ThreadPoolExecutor(3) as threads:
        posted = [threads.submit(post) for _ in range(3)]

        def all_are_answered() -> bool:
            nonlocal token
            answers.add(client.put(f"{url}/favorite", headers=reader).status_code)
            refreshed = client.post("/auth/refresh", json={"refresh_token": token})
            answers.add(refreshed.status_code)
            token = refreshed.json()["refresh_token"]
            return all(each.done() for each in posted)

        wait_until(all_are_answered, "all long texts are answered", seconds=3 * DEADLINE)

    assert answers == {200}
    statuses = [each.result().status_code for each in posted]
    assert set(statuses) == {422, 429}
    assert {each.result().json()["code"] for each in posted} == {
        "content_too_complex",
        "too_many_at_once",
    }
