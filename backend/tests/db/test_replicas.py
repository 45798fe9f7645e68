"""Two processes with a replica, as two databases: none reads less than the other has committed."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import bindparam, column, func, select, table, text

from app.core.config import Settings
from app.db.replicas import Positions, servers_of
from app.db.session import Database
from tests.postgres import ClusterMember, cluster

pytestmark = pytest.mark.checkout

MAX_LAG = 1.0
ROUNDS = 30
_NOTES = table("notes", column("id"))
_INSERT = text("INSERT INTO notes DEFAULT VALUES RETURNING id")
_LATEST = select(func.max(_NOTES.c.id))
_IN_RECOVERY = select(func.pg_is_in_recovery())
_SLEEP = select(func.pg_sleep(bindparam("seconds")))


@pytest.fixture(scope="module")
def members() -> Iterator[list[ClusterMember]]:
    with cluster() as members:
        members[0].execute("CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY)")
        yield members


@pytest.fixture
async def databases(
    settings: Settings, members: list[ClusterMember]
) -> AsyncIterator[list[Database]]:
    """Return two databases that use the replica."""
    asyncpg_urls = [each.url.replace("postgresql:", "postgresql+asyncpg:") for each in members]
    several = settings.model_copy(
        update={
            "database_url": asyncpg_urls[0],
            "database_read_url": asyncpg_urls[1],
            "database_read_max_lag": MAX_LAG,
        }
    )
    databases = [Database.from_settings(several) for _ in range(2)]
    for each in databases:
        each.follow_servers()
    for each in databases:
        await until_replica_is_used(each)
    yield databases
    for each in databases:
        await each.dispose()


async def until_replica_is_used(database: Database) -> None:
    deadline = time.monotonic() + 60
    while not await database.reader.scalar(_IN_RECOVERY):
        assert time.monotonic() < deadline
        await database.primary.scalar(_SLEEP, {"seconds": 0.05})


async def lost_writes(writer: Database, reader: Database) -> int:
    """Return after how many of several commits the reader did not have the row."""
    lost = 0
    for _ in range(ROUNDS):
        async with writer.unit_of_work() as session:
            written = await session.scalar(_INSERT)
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
