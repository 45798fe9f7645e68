"""The reader: compilation, conversion and errors of statements, and its connection pool."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Integer,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import Settings
from app.core.enums import Role
from app.core.errors import InvalidInput, ServiceUnavailable
from app.db.connections import Connections
from app.db.pool import ConnectionPool, ReadPool
from app.db.reading import Reader
from app.db.session import Database
from app.models import Article, User
from tests.factories import create_article, create_user
from tests.processes import DEADLINE


@pytest.fixture
def reader(database: Database) -> Reader:
    return database.reader


@pytest.fixture
async def real(settings: Settings) -> AsyncIterator[Reader]:
    """Return a reader with its own pool of two connections."""
    changes = {"database_pool_size": 2, "database_pool_timeout": 0.2}
    database = Database.from_settings(settings.model_copy(update=changes))
    yield database.reader
    await database.dispose()


class TestRows:
    async def test_row_values_by_name_index_and_unpacking(self, reader: Reader) -> None:
        rows = await reader.execute(select(literal(1).label("one"), literal("a").label("letter")))
        (row,) = rows.all()
        assert (row.one, row["letter"], row[0]) == (1, "a", 1)
        one, letter = row
        assert (one, letter) == (1, "a")
        assert not hasattr(row, "other")

    async def test_one_and_one_or_none_check_the_row_count(self, reader: Reader) -> None:
        numbers = text("SELECT generate_series(1, :count) AS number")
        assert await reader.scalars(numbers, {"count": 3}) == [1, 2, 3]
        assert await reader.scalar(numbers, {"count": 3}) == 1
        assert await reader.scalar(numbers, {"count": 0}) is None
        none, one, two = [await reader.execute(numbers, {"count": n}) for n in range(3)]
        assert none.one_or_none() is None
        assert one.one_or_none() == one.one() == one[0]
        for rows in (none, two):
            with pytest.raises(ValueError, match="row"):
                rows.one()
        with pytest.raises(ValueError, match="got 2"):
            two.one_or_none()

    async def test_enumerations_and_json_are_converted(
        self, reader: Reader, session: AsyncSession
    ) -> None:
        editor = await create_user(session, role=Role.EDITOR)
        await create_article(session, author=editor)
        row = (await reader.execute(select(User.id, User.role, User.name))).one()
        assert (row.id, row.name) == (editor.id, editor.name)
        assert row.role is Role.EDITOR
        assert await reader.scalar(select(Article.toc)) == []

    async def test_json_is_parsed_on_pooled_connections(self, real: Reader) -> None:
        assert await real.scalar(text("""SELECT '{"a": [1]}'::jsonb""")) == {"a": [1]}


class TestStatements:
    async def test_parameters_override_default_values(self, reader: Reader) -> None:
        more = bindparam("more", 1, type_=Integer)
        statement = select((literal(40) + more).label("sum"), more.label("more"))
        assert tuple((await reader.execute(statement)).one()) == (41, 1)
        assert tuple((await reader.execute(statement, {"more": 2})).one()) == (42, 2)

    async def test_missing_parameter_raises(self, reader: Reader) -> None:
        with pytest.raises(TypeError, match="no value for one, two"):
            await reader.execute(text("SELECT :one, :two, :three"), {"three": 3})

    async def test_in_with_a_list_is_rejected(self, reader: Reader) -> None:
        with pytest.raises(TypeError, match="ANY"):
            await reader.execute(select(User.id).where(User.id.in_([1, 2])))

    async def test_invalid_value_raises_invalid_input(self, real: Reader) -> None:
        with pytest.raises(InvalidInput):
            await real.execute(
                text("SELECT cast(cast(:letter AS text) AS int)"), {"letter": "a" * 3}
            )
        with pytest.raises(InvalidInput):
            await real.execute(text("SELECT cast(:letter AS text)"), {"letter": "\0"})
        assert await real.scalar(text("SELECT 1")) == 1

    async def test_wrong_statement_raises_the_driver_error(self, real: Reader) -> None:
        with pytest.raises(Exception, match="no_such_table") as raised:
            await real.execute(text("SELECT * FROM no_such_table"))
        assert not isinstance(raised.value, ServiceUnavailable | InvalidInput)
        assert await real.scalar(text("SELECT 1")) == 1


KEYS = text(
    "SELECT key, count(*) OVER () AS together FROM unnest(cast(:keys AS bigint[])) AS key"
    " WHERE key < 10"
)
"""The rows of the keys below 10. `together`: how many of them the statement has read."""

LOCKING_KEYS = text(
    "SELECT key, CAST(pg_advisory_xact_lock_shared(1843) AS text)"
    " FROM unnest(CAST(:keys AS bigint[])) AS key"
)
WAITS = """SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event = 'advisory' AND query LIKE '%AS key'"""


async def until_waiting(pool: ConnectionPool) -> None:
    """Let tasks run until one waits for a connection."""
    assert isinstance(pool, ReadPool)
    while not pool.state.waiting:  # noqa: ASYNC110 - the pool has no event
        await asyncio.sleep(0)


class TestFind:
    async def test_each_call_has_its_statement_while_a_connection_is_idle(
        self, real: Reader
    ) -> None:
        for connection in [await acquire(real.pool), await acquire(real.pool)]:
            real.pool.release(connection)
        rows = await asyncio.gather(real.find(KEYS, 1), real.find(KEYS, 2))
        assert [(row.key, row.together) for row in rows] == [(1, 1), (2, 1)]

    async def test_calls_that_wait_for_a_connection_share_a_statement(self, real: Reader) -> None:
        held = [await acquire(real.pool), await acquire(real.pool)]
        finding = [asyncio.create_task(real.find(KEYS, key)) for key in (1, 2, 10, 2, 3)]
        await asyncio.sleep(0)
        finding[4].cancel()
        for connection in held:
            real.pool.release(connection)
        first, second, none, again = await asyncio.gather(*finding[:4])
        assert none is None
        assert again is second
        assert (first.key, second.key) == (1, 2)
        assert first.together == second.together == 3
        assert (await real.find(KEYS, 1)).together == 1

    async def test_failure_of_the_statement_fails_all_its_calls(self, real: Reader) -> None:
        held = [await acquire(real.pool), await acquire(real.pool)]
        for finding in [asyncio.create_task(real.find(KEYS, key)) for key in (1, 2)]:
            with pytest.raises(ServiceUnavailable):  # after the timeout of the pool
                await finding
        for connection in held:
            real.pool.release(connection)
        assert (await real.find(KEYS, 1)).together == 1

    async def test_cancelled_call_cancels_no_other(self, real: Reader) -> None:
        held = [await acquire(real.pool), await acquire(real.pool)]
        first, *others = (asyncio.create_task(real.find(KEYS, key)) for key in (1, 2, 3))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        for connection in held:
            real.pool.release(connection)
        assert [row.key for row in await asyncio.gather(*others)] == [2, 3]

    async def test_call_that_times_out_fails_no_other(self, real: Reader) -> None:
        held = [await acquire(real.pool), await acquire(real.pool)]
        first = asyncio.create_task(real.find(KEYS, 1))
        await until_waiting(real.pool)
        second = asyncio.create_task(real.find(KEYS, 2))
        with pytest.raises(ServiceUnavailable):
            await first
        for connection in held:
            real.pool.release(connection)
        assert (await second).key == 2

    async def test_calls_do_not_wait_for_a_connection_that_another_opens(
        self, real: Reader, settings: Settings
    ) -> None:
        is_open = asyncio.Event()

        async def connect() -> Any:
            if opened:
                await is_open.wait()
            return await Connections(settings).connect_to_read()

        opened: list[Any] = []
        pool = ReadPool(connect, size=2, timeout=DEADLINE)
        reader = Reader(pool)
        opened.append(await acquire(pool))
        opening = asyncio.create_task(reader.find(KEYS, 1))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(reader.find(KEYS, 2))
        await asyncio.sleep(0)
        pool.release(opened[0])
        async with asyncio.timeout(DEADLINE):
            assert (await waiting).together == 1
            assert (await reader.find(KEYS, 3)).together == 1  # the connection is idle
        assert not opening.done()
        is_open.set()
        assert (await opening).together == 1
        await pool.close()

    @pytest.mark.parametrize("waits", [True, False])
    async def test_no_call_joins_while_a_connection_is_opened(
        self, settings: Settings, waits: bool
    ) -> None:
        is_open = asyncio.Event()

        async def connect() -> Any:
            if len(held) == 2:
                await is_open.wait()
            return await Connections(settings).connect_to_read()

        held: list[Any] = []
        pool = ReadPool(connect, size=2, timeout=DEADLINE)
        reader = Reader(pool)
        held += [await acquire(pool)]
        held += [await acquire(pool)]
        first = asyncio.create_task(reader.find(KEYS, 1))
        if waits:
            await until_waiting(pool)
        else:
            await asyncio.sleep(0)  # its statement has its own task, which has not started
        pool.release(held[0], is_broken=True)  # the first call replaces it
        await asyncio.sleep(0)
        second = asyncio.create_task(reader.find(KEYS, 2))
        for _ in range(3):
            await asyncio.sleep(0)
        assert pool.state.waiting == 1
        pool.release(held[1])
        async with asyncio.timeout(DEADLINE):
            assert (await second).together == 1
        assert not first.done()
        is_open.set()
        assert (await first).together == 1
        await pool.close()

    async def test_call_that_is_cancelled_during_the_statement_cancels_no_other(
        self, real: Reader, settings: Settings
    ) -> None:
        blocker = await Connections(settings).connect_to_read()
        held = [await acquire(real.pool), await acquire(real.pool)]
        await blocker.execute("SELECT pg_advisory_lock(1843)")
        first, *others = (asyncio.create_task(real.find(LOCKING_KEYS, key)) for key in (1, 2, 3))
        await until_waiting(real.pool)
        for connection in held:
            real.pool.release(connection)
        async with asyncio.timeout(DEADLINE):
            while not await blocker.fetchval(WAITS):
                pass
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            await blocker.execute("SELECT pg_advisory_unlock(1843)")
            assert [row.key for row in await asyncio.gather(*others)] == [2, 3]
        await blocker.close()

    async def test_row_that_cannot_be_converted_fails_only_its_own_call(self, real: Reader) -> None:
        keys = func.unnest(bindparam("keys", type_=ARRAY(BigInteger))).column_valued("key")
        role = literal_column("CASE key WHEN 2 THEN 'unknown' ELSE 'admin' END", User.role.type)
        statement = select(keys.label("key"), role.label("role"))
        held = [await acquire(real.pool), await acquire(real.pool)]
        tasks = [asyncio.create_task(real.find(statement, key)) for key in (1, 2, 3)]
        await asyncio.sleep(0)
        for connection in held:
            real.pool.release(connection)
        async with asyncio.timeout(DEADLINE):
            found: Any = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) is LookupError for each in found] == [False, True, False]
        assert (found[0].role, found[2].role) == (Role.ADMIN, Role.ADMIN)

    async def test_many_cancelled_calls_leave_the_last_one(self, real: Reader) -> None:
        held = [await acquire(real.pool), await acquire(real.pool)]
        *cancelled, last = (asyncio.create_task(real.find(KEYS, 1)) for _ in range(1200))
        await asyncio.sleep(0)
        for each in cancelled:
            each.cancel()
            with pytest.raises(asyncio.CancelledError):
                await each
        for connection in held:
            real.pool.release(connection)
        assert (await last).key == 1


class FakeConnection:
    """The part of a connection's interface that the pool uses."""

    def __init__(self) -> None:
        self.closed = False

    def is_closed(self) -> bool:
        return self.closed

    def terminate(self) -> None:
        self.closed = True

    async def close(self) -> None:
        self.closed = True


class FailingConnection(FakeConnection):
    """A connection on which every statement raises `failure`."""

    failure: Exception

    async def fetch(self, *arguments: Any, **options: Any) -> Any:
        raise self.failure


@pytest.mark.parametrize(
    ("failure", "expected", "is_kept"),
    [
        (asyncpg.InternalClientError("another operation"), ServiceUnavailable, False),
        (asyncpg.ConnectionDoesNotExistError("terminated"), ServiceUnavailable, False),
        (asyncpg.AdminShutdownError("terminated"), ServiceUnavailable, False),
        (ConnectionResetError(), ServiceUnavailable, False),
        (TimeoutError(), ServiceUnavailable, False),
        (asyncpg.QueryCanceledError("too slow"), ServiceUnavailable, True),
        (asyncpg.DeadlockDetectedError("no"), ServiceUnavailable, True),
        (asyncpg.NumericValueOutOfRangeError("no"), InvalidInput, True),
        (
            asyncpg.InterfaceError("one argument is wanted"),
            asyncpg.InterfaceError,
            False,
        ),
        (asyncpg.UndefinedTableError("no"), asyncpg.UndefinedTableError, True),
        (ZeroDivisionError(), ZeroDivisionError, False),
    ],
)
async def test_driver_errors_are_translated(
    failure: Exception, expected: type[Exception], is_kept: bool
) -> None:
    connection: Any = FailingConnection()
    connection.failure = failure
    pool = ReadPool(lambda: connection, size=1, timeout=1)
    pool._idle.append(connection)
    with pytest.raises(expected):
        await Reader(pool).execute(text("SELECT 1"))
    assert (not connection.closed) is is_kept


class Connector:
    """Opens connections, or raises ServiceUnavailable while `fails` is set."""

    def __init__(self) -> None:
        self.opened: list[FakeConnection] = []
        self.fails = False

    async def __call__(self) -> Any:
        await asyncio.sleep(0)
        if self.fails:
            raise ServiceUnavailable
        self.opened.append(FakeConnection())
        return self.opened[-1]


@pytest.fixture
def connector() -> Connector:
    return Connector()


@pytest.fixture
def pool(connector: Connector) -> ReadPool:
    return ReadPool(connector, size=2, timeout=0.2)


async def acquire(pool: ConnectionPool) -> Any:
    return pool.acquire_idle() or await pool.acquire()


class TestPool:
    async def test_most_recently_used_connection_is_reused_first(
        self, pool: ReadPool, connector: Connector
    ) -> None:
        first, second = await acquire(pool), await acquire(pool)
        pool.release(first)
        pool.release(second)
        assert await acquire(pool) is second
        assert await acquire(pool) is first
        assert len(connector.opened) == 2

    async def test_waiting_tasks_are_served_in_order(self, pool: ReadPool) -> None:
        held = [await acquire(pool), await acquire(pool)]
        served: list[int] = []

        async def serve(number: int) -> None:
            connection = await acquire(pool)
            served.append(number)
            pool.release(connection)

        tasks = [asyncio.create_task(serve(number)) for number in range(6)]
        await asyncio.sleep(0)
        for connection in held:
            pool.release(connection)
        await asyncio.gather(*tasks)
        assert served == list(range(6))

    async def test_waiting_times_out(self, pool: ReadPool, connector: Connector) -> None:
        held = [await acquire(pool), await acquire(pool)]
        with pytest.raises(ServiceUnavailable):
            await acquire(pool)
        for connection in held:
            pool.release(connection)
        assert await acquire(pool) in connector.opened

    async def test_connection_of_a_cancelled_waiter_is_passed_on(self, pool: ReadPool) -> None:
        held = [await acquire(pool), await acquire(pool)]
        cancelled, next_task = (asyncio.create_task(acquire(pool)) for _ in range(2))
        await asyncio.sleep(0)
        pool.release(held[0])
        cancelled.cancel()
        assert await next_task is held[0]
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    @pytest.mark.parametrize("how", ["broken", "closed"])
    async def test_broken_connection_is_replaced_for_the_next_waiter(
        self, pool: ReadPool, connector: Connector, how: str
    ) -> None:
        held = [await acquire(pool), await acquire(pool)]
        waiting = asyncio.create_task(acquire(pool))
        await asyncio.sleep(0)
        held[0].closed = how == "closed"
        pool.release(held[0], is_broken=how == "broken")
        assert await waiting is connector.opened[2]
        assert held[0].closed

    async def test_closed_idle_connection_is_not_reused(self, pool: ReadPool) -> None:
        first, second = await acquire(pool), await acquire(pool)
        for connection in (first, second):
            pool.release(connection)
            connection.closed = True
        fresh = {await acquire(pool), await acquire(pool)}
        assert not fresh & {first, second}

    async def test_failed_connect_releases_its_slot(
        self, pool: ReadPool, connector: Connector
    ) -> None:
        connector.fails = True
        for _ in range(5):
            with pytest.raises(ServiceUnavailable):
                await acquire(pool)
        connector.fails = False
        assert len({await acquire(pool), await acquire(pool)}) == 2

    async def test_close_closes_idle_and_released_connections(self, pool: ReadPool) -> None:
        first, second = await acquire(pool), await acquire(pool)
        pool.release(first)
        await pool.close()
        assert (first.closed, second.closed) == (True, False)
        pool.release(second)
        assert second.closed


IS_SLEEPING = """SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event = 'PgSleep'"""


async def test_cancelled_read_does_not_affect_the_next_read(real: Reader) -> None:
    """Otherwise the next task could read the result of the cancelled statement."""
    slow = asyncio.create_task(real.execute(text("SELECT pg_sleep(300)")))
    async with asyncio.timeout(DEADLINE):
        while not await real.scalar(text(IS_SLEEPING)):
            pass
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    values = await asyncio.gather(*(real.scalar(text("SELECT 7")) for _ in range(6)))
    assert values == [7] * 6
