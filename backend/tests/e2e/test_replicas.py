"""Reads on streaming replicas: a client reads its own writes, whatever the replica does.

The replica lags, stops and is promoted while two processes serve. Each request goes to the other
process, without headers or cookies that name a position.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import cycle
from typing import NamedTuple

import asyncpg
import httpx
import psutil
import pytest

from app.services.health import PRIMARY_LOST
from tests.postgres import ClusterMember, cluster, fetch, holding, processes_of
from tests.processes import DEADLINE, GUNICORN, Api, Checkout, serving, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.checkout]

MAX_LAG = 1.0
ROUNDS = 20
LOST = "the primary of DATABASE_URL does not answer"
PRIMARY_BACK = "the primary answers again"


class Site(NamedTuple):
    """Two processes with the same primary and replica, and a writer."""

    primary: ClusterMember
    replica: ClusterMember
    apis: list[Api]
    headers: dict[str, str]

    def clients(self) -> Iterator[httpx.Client]:
        """Yield the clients of the processes in turn."""
        return cycle([each.client for each in self.apis])


@contextmanager
def site(checkout: Checkout, *, replicas: int = 1) -> Iterator[Site]:
    with cluster(replicas) as members, ExitStack() as stack:
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in members)
        settings = {
            "DATABASE_URL": f"postgresql://postgres@{hosts}/pressroom",
            "DATABASE_READ_URL": f"postgresql://postgres@{hosts}/pressroom",
            "DATABASE_READ_MAX_LAG": str(MAX_LAG),
        }
        apis = [stack.enter_context(serving(checkout, **settings)) for _ in range(2)]
        yield Site(members[0], members[1], apis, apis[0].bearer("writer"))


@pytest.fixture(scope="module")
def shared(checkout: Checkout) -> Iterator[Site]:
    with site(checkout) as found:
        yield found


READERS = """
    SELECT client_port FROM pg_stat_activity
    WHERE application_name = 'pressroom' AND query LIKE '%articles%'
      AND query_start > clock_timestamp() - interval '1 second'
"""


def read_on(member: ClusterMember, apis: list[Api]) -> bool:
    """Return whether all processes have just read articles from the server."""
    try:
        ports = {row["client_port"] for row in fetch(member.url, READERS)}
    except asyncpg.PostgresError:  # the replay cancels statements and connections
        return False
    processes = [psutil.Process(api.process.pid) for api in apis]
    return all(
        any(each.laddr.port in ports for each in process.net_connections()) for process in processes
    )


def wait_until_used(site: Site) -> None:
    """Wait until both processes read from the replica."""

    def is_used() -> bool:
        for api in site.apis:
            assert api.client.get("/articles").status_code == 200
        return read_on(site.replica, site.apis)

    wait_until(is_used, "the replica is used", log=site.apis[0].process.log)


def create_and_change(site: Site, number: int) -> list[str]:
    """Create an article, read it, change it with its entity tag; return what was wrong."""
    wrong, clients, headers = [], site.clients(), site.headers
    new = {"title": f"Article {number}", "content": "First version.", "published": True}
    created = next(clients).post("/articles", json=new, headers=headers)
    assert created.status_code == 201, created.text
    path = f"/articles/{created.json()['id']}"
    for who in ({}, headers):
        found = next(clients).get(path, headers=who)
        if found.status_code != 200:
            wrong.append(f"{found.status_code} after 201")
    listed = next(clients).get("/articles", params={"limit": 1}).json()
    if created.json()["id"] not in [each["id"] for each in listed]:
        wrong.append("not in the list")
    tag = next(clients).get(path, headers=headers).headers.get("ETag", "")
    change = {"content": f"Version {time.monotonic()}"}
    changed = next(clients).patch(path, json=change, headers={**headers, "If-Match": tag})
    if changed.status_code != 200:
        wrong.append(f"{changed.status_code} with the tag just read")
    contents = [next(clients).get(path, headers=who).json()["content"] for who in ({}, headers)]
    wrong += ["the old version after PATCH" for each in contents if each != change["content"]]
    return wrong


def test_client_reads_its_own_writes(shared: Site) -> None:
    wait_until_used(shared)
    wrong = [each for number in range(ROUNDS) for each in create_and_change(shared, number)]
    assert wrong == []
    wait_until_used(shared)


def test_client_reads_its_own_writes_while_the_replay_is_paused(shared: Site) -> None:
    wait_until_used(shared)
    shared.replica.execute("SELECT pg_wal_replay_pause()")
    try:
        wrong = [each for number in range(ROUNDS) for each in create_and_change(shared, number)]
        assert wrong == []
        ready = shared.apis[0].client.get("/health/ready")
        assert ready.status_code == 200
        assert any(str(shared.replica.port) in each for each in ready.json()["warnings"])
    finally:
        shared.replica.execute("SELECT pg_wal_replay_resume()")
    wait_until_used(shared)
    assert shared.apis[0].client.get("/health/ready").json()["warnings"] == []


def test_stopped_replica_fails_no_request(shared: Site) -> None:
    wait_until_used(shared)
    shared.replica.stop("immediate")
    try:
        wrong = [each for number in range(ROUNDS) for each in create_and_change(shared, number)]
        assert wrong == []
        ready = shared.apis[0].client.get("/health/ready")
        assert ready.status_code == 200
        [warning] = ready.json()["warnings"]
        assert f"The replica 127.0.0.1:{shared.replica.port} does not answer" in warning
    finally:
        shared.replica.start()
    wait_until_used(shared)


def test_promoted_replica_takes_over(checkout: Checkout) -> None:
    """Reads go on, and writes come back, without a restart and without a lost article."""
    with site(checkout) as found:
        wait_until_used(found)
        clients, acknowledged = found.clients(), []

        def create() -> int:
            new = {"title": "During a failover", "content": "Text.", "published": True}
            answer = next(clients).post("/articles", json=new, headers=found.headers)
            if answer.status_code == 201:
                acknowledged.append(answer.json()["id"])
            else:
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["Retry-After"]) > 0
            return answer.status_code

        def read() -> None:
            answer = next(clients).get("/articles", headers=found.headers)
            assert answer.status_code == 200, answer.text

        for _ in range(10):
            assert create() == 201
        found.primary.stop("immediate")
        for _ in range(40):
            read()
        assert create() == 503
        for _ in range(10):
            read()
        found.replica.promote()
        promoted_at = time.monotonic()
        wait_until(lambda: create() == 201, "writes are back", log=found.apis[0].process.log)
        assert time.monotonic() - promoted_at < 5
        for _ in range(20):
            read()
        for _ in range(10):
            assert create() == 201
        for article_id in acknowledged:
            assert next(clients).get(f"/articles/{article_id}").status_code == 200
        assert found.apis[0].client.get("/health/ready").status_code == 200
        assert "unhandled exception" not in found.apis[0].process.log
        assert "[error" not in found.apis[0].process.log


def test_primary_that_hangs_blocks_neither_reads_nor_probes(shared: Site) -> None:
    """Its connections stay open, as those to a host that was cut off. Probes wait four seconds."""
    wait_until_used(shared)
    api, processes = shared.apis[0], processes_of(shared.primary.directory)
    new = {"title": "During an outage", "content": "Text.", "published": True}
    with ThreadPoolExecutor(1) as threads:
        for each in processes:
            each.suspend()
        try:
            write = threads.submit(
                api.client.post, "/articles", json=new, headers=shared.headers, timeout=DEADLINE
            )
            wait_until(lambda: LOST in api.process.log, "the loss is noticed")
            for path in ("/health/ready", "/articles", "/auth/me"):
                answer = api.client.get(path, headers=shared.headers, timeout=4)
                assert answer.status_code == 200, answer.text
            assert PRIMARY_LOST in api.client.get("/health/ready").json()["warnings"]
            refused = write.result(20)
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) > 0
        finally:
            for each in processes:
                each.resume()
    for each_api in shared.apis:
        wait_until(partial(is_back, each_api), "the primary is back", log=each_api.process.log)
        answer = each_api.client.post("/articles", json=new, headers=shared.headers)
        assert answer.status_code == 201, answer.text


def is_back(api: Api) -> bool:
    return PRIMARY_BACK in api.process.log


def test_servers_of_other_clusters_are_refused(shared: Site, checkout: Checkout) -> None:
    """The replica of a copy has the identifier of the cluster, and what only the copy has."""
    with cluster(replicas=0, is_new=True) as [other], cluster(replicas=1) as [copy, replica]:
        for number in range(3):
            copy.execute("SELECT pg_switch_wal()")
            copy.execute(f"CREATE TABLE filler{number} AS SELECT generate_series(1, 1000)")
        problems = {
            other.port: "belongs to another cluster or database than DATABASE_URL",
            copy.port: "is neither a replica nor the primary of DATABASE_URL",
            replica.port: "is ahead of the primary: it belongs to another cluster",
        }
        hosts = ",".join(f"127.0.0.1:{port}" for port in problems)
        settings = {
            "DATABASE_URL": shared.primary.url,
            "DATABASE_READ_URL": f"postgresql://postgres@{hosts}/pressroom",
        }
        with serving(checkout, **settings) as api:
            headers = api.bearer("first")
            found = [f"127.0.0.1:{port} {problem}" for port, problem in problems.items()]
            warnings = [f"The replica {each}" for each in found]
            wait_until(
                lambda: api.client.get("/health/ready").json()["warnings"] == warnings,
                "the warnings are shown",
                log=api.process.log,
            )
            for each in found:
                assert f"DATABASE_READ_URL: {each}" in api.process.log
            assert api.client.get("/auth/me", headers=headers).status_code == 200


def test_url_of_a_replica_is_no_primary(shared: Site, checkout: Checkout) -> None:
    with serving(checkout, DATABASE_URL=shared.replica.url) as api:
        ready = api.client.get("/health/ready")
        assert ready.status_code == 503
        assert "DATABASE_URL leads to a replica" in ready.json()["message"]


def test_too_many_connections_are_a_warning(shared: Site, checkout: Checkout) -> None:
    settings = {"DATABASE_URL": shared.primary.url, "DATABASE_POOL_SIZE": "30"}
    with serving(checkout, GUNICORN, WEB_CONCURRENCY="2", **settings) as api:
        [warning] = api.client.get("/health/ready").json()["warnings"]
        assert warning.startswith("1 host may open 122 connections, but PostgreSQL accepts 97:")


def test_full_server_is_named(checkout: Checkout) -> None:
    full = cluster(replicas=0, parameters="max_connections = 20\n")
    with full as [primary], ExitStack() as stack:
        with suppress(asyncpg.TooManyConnectionsError):
            while True:
                stack.enter_context(holding(primary.url, "SELECT"))
        api = stack.enter_context(serving(checkout, DATABASE_URL=primary.url))
        ready = api.client.get("/health/ready")
        assert ready.status_code == 503
        assert "PostgreSQL has no free connection" in ready.json()["message"]


def test_streams_tell_only_what_can_be_read(shared: Site) -> None:
    """An event arrives when every process can read the article."""
    wait_until_used(shared)
    shared.replica.execute("SELECT pg_wal_replay_pause()")
    try:
        watching, reading = shared.apis[1].client, shared.apis[0].client
        with watching.stream("GET", "/changes/stream", params={"topic": "changes"}) as stream:
            lines = stream.iter_lines()
            next(lines)
            new = {"title": "Told", "content": "Text.", "published": True}
            with ThreadPoolExecutor(1) as threads:
                created = threads.submit(
                    reading.post, "/articles", json=new, headers=shared.headers
                )
                data = next(line for line in lines if line.startswith("data") and "told" in line)
                slug = json.loads(data.removeprefix("data:"))["slug"]
                for api in shared.apis:
                    assert api.client.get(f"/articles/by-slug/{slug}").status_code == 200
                assert created.result().status_code == 201
    finally:
        shared.replica.execute("SELECT pg_wal_replay_resume()")
