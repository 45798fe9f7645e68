"""Two processes with a replica, as two databases: none reads less than the other has committed."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from sqlalchemy import ARRAY, BigInteger, any_, bindparam, column, func, select, table, text

from app.core.config import PROJECT_DIR, Settings
from app.core.database_url import normalize
from app.db import replicas
from app.db.pool import ReadPool
from app.db.replicas import Positions, Replica, choice, servers_of
from app.db.session import Database
from tests.postgres import ClusterMember, cluster

pytestmark = pytest.mark.checkout

MAX_LAG = 1.0
ROUNDS = 30
POOL_SIZE = 5
_NOTES = table("notes", column("id"))
_CREATE = "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY)"
_INSERT = text("INSERT INTO notes DEFAULT VALUES RETURNING id")
_BY_KEYS = select(_NOTES.c.id.label("key")).where(
    _NOTES.c.id == any_(bindparam("keys", type_=ARRAY(BigInteger)))
)
_LATEST = select(func.max(_NOTES.c.id))
_LATEST_LATER = select(func.max(_NOTES.c.id), func.pg_sleep(0.01))
_IN_RECOVERY = select(func.pg_is_in_recovery())
_PORT = select(func.inet_server_port())
_SLEEP = select(func.pg_sleep(bindparam("seconds")))
NO_HOST = "does-not-exist.invalid"


@pytest.fixture(scope="module")
def members() -> Iterator[list[ClusterMember]]:
    with cluster() as members:
        members[0].execute(_CREATE)
        yield members


def several(settings: Settings, members: Sequence[ClusterMember], **changes: str) -> Settings:
    """Return settings with the replicas of a cluster; `changes` replaces URLs."""
    hosts = ",".join(f"127.0.0.1:{each.port}" for each in members[1:])
    urls = {
        "database_url": members[0].url,
        "database_read_url": f"postgresql://postgres@{hosts}/pressroom",
        **changes,
    }
    normalized = {
        name: normalize(url, password=None, folder=PROJECT_DIR) for name, url in urls.items()
    }
    own = {"database_read_max_lag": MAX_LAG, "database_pool_size": POOL_SIZE}
    return settings.model_copy(update={**normalized, **own})


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[Database]:
    database = Database.from_settings(settings)
    await database.primary.scalar(_PORT)  # so that the first commit does not wait for a connection
    database.follow_servers()
    yield database
    await database.dispose()


@pytest.fixture(scope="module")
async def both(settings: Settings, members: list[ClusterMember]) -> AsyncIterator[list[Database]]:
    """Two databases that know the replica."""
    own = several(settings, members)
    async with started(own) as first, started(own) as second:
        yield [first, second]


@pytest.fixture
async def databases(both: list[Database]) -> list[Database]:
    """Return two databases that use the replica."""
    for each in both:
        await until_replica_is_used(each)
    return both


async def until_replica_is_used(database: Database) -> None:
    deadline = time.monotonic() + 60
    while not await database.reader.scalar(_IN_RECOVERY):
        assert time.monotonic() < deadline
        await database.primary.scalar(_SLEEP, {"seconds": 0.05})


async def commit(database: Database) -> int:
    """Commit a row, and return its number."""
    async with database.unit_of_work() as session:
        written: int = await session.scalar(_INSERT)
    return written


async def lost_writes(writer: Database, reader: Database) -> int:
    """Return after how many of several commits the reader did not have the row."""
    lost = 0
    for _ in range(ROUNDS):
        written = await commit(writer)
        lost += await reader.reader.scalar(_LATEST) != written
    return lost


async def test_commit_ends_when_the_replica_has_it(databases: list[Database]) -> None:
    assert await lost_writes(*databases) == 0
    for each in databases:
        assert await each.reader.scalar(_IN_RECOVERY)


async def test_paused_replica_is_skipped_and_not_awaited(
    databases: list[Database], members: list[ClusterMember]
) -> None:
    await asyncio.to_thread(members[1].execute, "SELECT pg_wal_replay_pause()")
    try:
        started = time.monotonic()
        while time.monotonic() - started < 3 * MAX_LAG:
            assert await lost_writes(*databases) == 0
        started = time.monotonic()
        assert await lost_writes(*databases) == 0
        assert time.monotonic() - started < MAX_LAG * ROUNDS / 2
        assert not await databases[1].reader.scalar(_IN_RECOVERY)
    finally:
        await asyncio.to_thread(members[1].execute, "SELECT pg_wal_replay_resume()")
    await until_replica_is_used(databases[1])


async def test_found_row_is_not_read_by_an_earlier_call_on_a_replica(
    databases: list[Database], members: list[ClusterMember]
) -> None:
    """The replica of the earlier call may not have what the later call must find."""
    reader, old = databases[0].reader, await commit(databases[1])
    assert databases[0].replication is not None
    pool = databases[0].replication.usable()
    assert pool is not None
    held = [pool.acquire_idle() or await pool.acquire() for _ in range(POOL_SIZE)]
    primary = reader.pool
    of_primary = [primary.acquire_idle() or await primary.acquire() for _ in range(POOL_SIZE)]
    earlier = asyncio.create_task(reader.find(_BY_KEYS, old))
    await asyncio.sleep(0)
    await asyncio.to_thread(members[1].execute, "SELECT pg_wal_replay_pause()")
    try:
        new = await commit(databases[1])
        later = asyncio.create_task(reader.find(_BY_KEYS, new))
        await asyncio.sleep(0)
        for each in of_primary:
            primary.release(each)
        assert (await later).key == new
        assert not earlier.done()
        for each in held:
            pool.release(each)
        assert (await earlier).key == old
        assert await reader.find(_BY_KEYS, new + 1) is None
    finally:
        await asyncio.to_thread(members[1].execute, "SELECT pg_wal_replay_resume()")
    await until_replica_is_used(databases[0])
    assert (await reader.find(_BY_KEYS, new)).key == new


@pytest.mark.parametrize(
    "change",
    [
        lambda members: {},
        lambda members: {
            "database_read_url": members[1].url.replace("127.0.0.1", f"{NO_HOST},127.0.0.1")
        },
        lambda members: {"database_direct_url": f"{members[1].url}?sslmode=disable"},
    ],
    ids=[
        "as the others",
        "with a name that cannot be resolved",
        "with the direct URL of a replica",
    ],
)
async def test_new_process_waits_for_replicas_that_others_use(
    settings: Settings,
    databases: list[Database],
    members: list[ClusterMember],
    change: Callable[[list[ClusterMember]], dict[str, str]],
) -> None:
    await asyncio.to_thread(members[1].execute, "SELECT pg_wal_replay_pause()")
    try:
        async with started(several(settings, members, **change(members))) as new:
            written = await commit(new)
            assert await databases[0].reader.scalar(_LATEST) == written
    finally:
        await asyncio.to_thread(members[1].execute, "SELECT pg_wal_replay_resume()")
    await until_replica_is_used(databases[0])


async def test_new_process_waits_until_the_replicas_are_known(
    settings: Settings,
    databases: list[Database],
    members: list[ClusterMember],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name server does not answer yet."""
    loop = asyncio.get_running_loop()
    resolve, answers = loop.getaddrinfo, asyncio.Event()

    async def resolve_later(host: Any, port: Any, **options: Any) -> Any:
        if host == NO_HOST:
            await answers.wait()
        return await resolve(host, port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", resolve_later)
    url = members[1].url.replace("127.0.0.1", f"{NO_HOST},127.0.0.1")
    await asyncio.to_thread(members[1].execute, "SELECT pg_wal_replay_pause()")
    try:
        async with started(several(settings, members, database_read_url=url)) as new:
            written = await commit(new)
            assert await databases[0].reader.scalar(_LATEST) == written
    finally:
        answers.set()
        await asyncio.to_thread(members[1].execute, "SELECT pg_wal_replay_resume()")
    await until_replica_is_used(databases[0])


async def test_name_that_cannot_be_resolved_is_reported(
    settings: Settings, members: list[ClusterMember]
) -> None:
    url = f"postgresql://postgres@127.0.0.1:{members[1].port},{NO_HOST}/pressroom"
    async with started(several(settings, members, database_read_url=url)) as database:
        await until_replica_is_used(database)
        assert database.replication is not None
        assert database.replication.problems() == [f"The replica {NO_HOST}:5432 does not answer"]


async def test_without_a_primary_the_most_advanced_replica_serves(settings: Settings) -> None:
    """The other one is hardly behind, but lacks what is acknowledged."""
    with cluster(2) as members:
        await asyncio.to_thread(members[0].execute, _CREATE)
        ports = {each.port: each for each in members}
        async with started(several(settings, members)) as database:
            await until_replica_is_used(database)
            preferred = ports[await database.reader.scalar(_PORT)]
            await asyncio.to_thread(preferred.execute, "SELECT pg_wal_replay_pause()")
            write = asyncio.create_task(commit(database))
            while await database.primary.scalar(_LATEST) is None:
                await database.primary.scalar(_SLEEP, {"seconds": 0.01})
            await asyncio.to_thread(members[0].stop, "immediate")
            written = await write
            acknowledged_at = time.monotonic()
            while time.monotonic() - acknowledged_at < 2 * MAX_LAG:
                assert await database.reader.scalar(_LATEST_LATER) == written


def a_replica() -> Replica:
    async def connect() -> "asyncpg.Connection[Any]":
        raise NotImplementedError

    return Replica(
        "a replica",
        connect_probe=connect,
        connect_to_read=connect,
        open_pool=lambda connect: ReadPool(connect, size=1, timeout=1),
        max_lag=MAX_LAG,
        usable_from=0.0,
    )


def test_replica_is_used_while_it_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    replica, positions, now = a_replica(), Positions(resolution=0.1), 0.0
    monkeypatch.setattr(replicas, "time", SimpleNamespace(monotonic=lambda: now))
    for position in range(8):
        now = position * MAX_LAG / 4
        positions.add(position, now)
        replica.note_position(position, positions, asked_at=now, reference=now)
    assert replica.is_usable(now)
    fresh_at, now = now, now + MAX_LAG / 4
    positions.add(8, now)
    replica.note_position(7, positions, asked_at=now, reference=now)
    assert replica.is_usable(fresh_at + 0.9 * MAX_LAG)
    assert not replica.is_usable(fresh_at + 1.1 * MAX_LAG)


def test_replica_that_was_not_asked_is_awaited() -> None:
    """The process may have been stopped for a moment, while others use the replica."""
    replica, positions, now = a_replica(), Positions(resolution=0.1), time.monotonic()
    assert replica.is_awaited(now)
    positions.add(2, now - 2 * MAX_LAG)
    replica.note_position(1, positions, asked_at=now, reference=now)
    assert not replica.is_awaited(now), "no process uses it"
    assert replica.is_awaited(now + 100 * MAX_LAG), "it may have caught up"
    replica.note_failure(now + 100 * MAX_LAG)
    assert replica.is_awaited(now + 101 * MAX_LAG)
    assert not replica.is_awaited(now + 102 * MAX_LAG)


def test_processes_of_a_host_and_of_all_hosts_use_different_replicas() -> None:
    assert {choice("host", process, among=2) for process in (7, 8)} == {0, 1}
    assert {choice(f"host-{number}", 7, among=2) for number in range(20)} == {0, 1}


def test_positions_tell_what_a_replica_has() -> None:
    positions = Positions(resolution=0.1)
    for at, position in enumerate([100, 200, 200, 300]):
        positions.add(position, float(at))
    assert positions.fresh_at(99) == float("-inf")
    assert positions.fresh_at(100) == 0.0
    assert positions.fresh_at(299) == 2.0, "nothing was written in the meantime"
    assert positions.fresh_at(300) == 3.0
    assert positions.behind_since(100) == 1.0
    assert positions.behind_since(300) == float("inf")


def test_positions_are_kept_with_their_resolution() -> None:
    positions = Positions(resolution=1.0)
    for number in range(1000):
        positions.add(number, number / 100)
    assert len(positions) < 25
    assert positions.fresh_at(999) == 9.99


@pytest.mark.parametrize(
    ("hosts", "names"),
    [
        ({"host": ["127.0.0.1", "127.0.0.2"], "port": [1, 2]}, ["127.0.0.1:1", "127.0.0.2:2"]),
        ({"host": "/run/postgresql"}, ["/run/postgresql:5432"]),
        ({}, ["localhost:5432"]),
    ],
)
async def test_each_host_is_a_server(hosts: dict[str, object], names: list[str]) -> None:
    found = await servers_of({"user": "reader", "target_session_attrs": "any", **hosts})
    assert list(found) == names
    for address in found.values():
        assert address["user"] == "reader"
        assert "target_session_attrs" not in address


@pytest.mark.parametrize(
    ("addresses", "servers"),
    [
        (["10.0.0.1"], ["db"]),
        (["10.0.0.2", "10.0.0.1"], ["10.0.0.1", "10.0.0.2"]),
        (["10.0.0.1", "fd00::1"], ["db"]),
        (["10.0.0.1", "fd00::1", "10.0.0.2", "fd00::2"], ["10.0.0.1", "10.0.0.2"]),
        (["fd00::1", "fd00::2"], ["fd00::1", "fd00::2"]),
    ],
    ids=["one", "several", "one with both families", "several with both families", "IPv6"],
)
async def test_each_address_of_a_name_is_a_server(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str], servers: list[str]
) -> None:
    async def resolve(*_: Any, **__: Any) -> list[Any]:
        families = [socket.AF_INET6 if ":" in each else socket.AF_INET for each in addresses]
        return [
            (family, socket.SOCK_STREAM, 6, "", (each, 5432))
            for family, each in zip(families, addresses, strict=True)
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    known: dict[str, Sequence[str]] = {}
    expected = [f"{each}:5432" for each in servers]
    assert list(await servers_of({"host": "db", "port": 5432}, known)) == expected

    async def fail(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
    assert list(await servers_of({"host": "db", "port": 5432}, known)) == expected
    assert list(await servers_of({"host": "db", "port": 5432})) == ["db:5432"]
