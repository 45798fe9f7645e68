"""A request with an Idempotency-Key is executed once, on any replica, even if the first replica
crashes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from uuid import uuid4

import httpx
import pytest

from tests.databases import migrated_database
from tests.postgres import fetch, holding, wait_until_blocked
from tests.processes import Api, Checkout, serving, wait_until
from tests.security.test_at_once import run_concurrently

pytestmark = pytest.mark.e2e

ADDRESS = {"label": "home", "line1": "1 Street", "city": "Town", "country": "GB"}
COUNT = "SELECT count(*) FROM addresses WHERE user_id = $1"


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with migrated_database() as url:
        yield url


@pytest.fixture(scope="module")
def replica(checkout: Checkout, database: str) -> Iterator[Api]:
    with serving(checkout, DATABASE_URL=database) as api:
        yield api


@pytest.fixture
def killed_replica(checkout: Checkout, database: str) -> Iterator[Api]:
    with serving(checkout, DATABASE_URL=database) as api:
        yield api


class Writer:
    """A user who repeats one request."""

    def __init__(self, api: Api) -> None:
        self.headers = api.bearer(f"writer-{uuid4().hex[:8]}")
        self.headers["Idempotency-Key"] = str(uuid4())
        self.id: int = api.client.get("/users/me", headers=self.headers).json()["id"]

    def send(self, api: Api) -> httpx.Response:
        url = f"/users/{self.id}/addresses"
        return api.client.post(url, json=ADDRESS, headers=self.headers)


def is_replay(response: httpx.Response) -> bool:
    return "Idempotency-Replayed" in response.headers


@pytest.mark.parametrize("table", ["addresses", "idempotency_keys"])
def test_killed_request_changes_nothing(
    replica: Api, killed_replica: Api, database: str, table: str
) -> None:
    """The replica is killed while it adds the row, or while it stores the response."""
    writer = Writer(replica)
    with ThreadPoolExecutor(1) as threads:
        with holding(database, f"LOCK TABLE {table} IN EXCLUSIVE MODE"):
            sent = threads.submit(writer.send, killed_replica)
            wait_until_blocked(database)
            meanwhile = writer.send(replica)
            assert meanwhile.status_code == 409
            assert meanwhile.json()["code"] == "request_in_progress"
            assert meanwhile.headers["Retry-After"] == "1"
            killed_replica.process.kill()
            with pytest.raises(httpx.TransportError):
                sent.result()
        assert fetch(database, COUNT, writer.id)[0][0] == 0

        def carried_out() -> httpx.Response | None:
            answer = writer.send(replica)
            return None if answer.status_code == 409 else answer

        made = wait_until(carried_out, "PostgreSQL notices that the process is gone")
    assert (made.status_code, is_replay(made)) == (201, False)
    again = writer.send(replica)
    assert (again.content, is_replay(again)) == (made.content, True)
    assert fetch(database, COUNT, writer.id)[0][0] == 1


def test_other_replica_repeats_the_response_after_a_crash(
    replica: Api, killed_replica: Api, database: str
) -> None:
    writer = Writer(replica)
    made = writer.send(killed_replica)
    assert made.status_code == 201
    killed_replica.process.kill()
    again = writer.send(replica)
    assert (again.content, is_replay(again)) == (made.content, True)
    assert fetch(database, COUNT, writer.id)[0][0] == 1


def test_one_of_many_requests_on_two_replicas_is_executed(
    replica: Api, killed_replica: Api, database: str
) -> None:
    for _ in range(3):
        writer = Writer(replica)
        answers = run_concurrently(
            [partial(writer.send, api) for api in (replica, killed_replica) * 10]
        )
        made = [answer for answer in answers if answer.status_code == 201]
        assert sum(not is_replay(answer) for answer in made) == 1
        assert len({answer.content for answer in made}) == 1
        refused = {answer.json()["code"] for answer in answers if answer not in made}
        assert refused <= {"request_in_progress"}
        assert fetch(database, COUNT, writer.id)[0][0] == 1
