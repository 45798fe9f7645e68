"""The reader: what it compiles, converts and refuses, and how its pool shares connections."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Integer, bindparam, literal, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import Settings
from app.core.errors import InvalidInput, ServiceUnavailable
from app.core.roles import Role
from app.db.pool import ReadPool
from app.db.reading import Reader
from app.db.session import Database
from app.models import Article, User
from tests.factories import create_article, create_user


@pytest.fixture
def reader(database: Database) -> Reader:
    return database.reader


@pytest.fixture
async def real(settings: Settings) -> AsyncIterator[Reader]:
    """A reader with two connections of its own."""
    changes = {"database_pool_size": 2, "database_pool_timeout": 0.2}
    database = Database.from_settings(settings.model_copy(update=changes))
    yield database.reader
    await database.dispose()


class TestRows:
    async def test_values_by_name_place_and_unpacking(self, reader: Reader) -> None:
        rows = await reader.execute(select(literal(1).label("one"), literal("a").label("letter")))
        (row,) = rows.all()
        assert (row.one, row["letter"], row[0]) == (1, "a", 1)
        one, letter = row
        assert (one, letter) == (1, "a")
        assert not hasattr(row, "other")

    async def test_as_many_as_are_expected(self, reader: Reader) -> None:
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
        with pytest.raises(ValueError, match="2 rows"):
            two.one_or_none()

    async def test_enumerations_and_json_are_what_the_columns_say(
        self, reader: Reader, session: AsyncSession
    ) -> None:
        editor = await create_user(session, role=Role.EDITOR)
        await create_article(session, author=editor)
        row = (await reader.execute(select(User.id, User.role, User.name))).one()
        assert (row.id, row.name) == (editor.id, editor.name)
        assert row.role is Role.EDITOR
        assert await reader.scalar(select(Article.toc)) == []

    async def test_json_is_parsed_on_connections_of_its_own_too(self, real: Reader) -> None:
        assert await real.scalar(text("""SELECT '{"a": [1]}'::jsonb""")) == {"a": [1]}


class TestStatements:
    async def test_a_statements_own_values_and_those_that_are_given(self, reader: Reader) -> None:
        more = bindparam("more", 1, type_=Integer)
        statement = select((literal(40) + more).label("sum"), more.label("more"))
        assert tuple((await reader.execute(statement)).one()) == (41, 1)
        assert tuple((await reader.execute(statement, {"more": 2})).one()) == (42, 2)

    async def test_a_value_that_is_forgotten_is_not_null(self, reader: Reader) -> None:
        with pytest.raises(TypeError, match="no value for one, two"):
            await reader.execute(text("SELECT :one, :two, :three"), {"three": 3})

    async def test_a_list_of_unknown_length_is_refused_when_it_is_written(
        self, reader: Reader
    ) -> None:
        with pytest.raises(TypeError, match="ANY"):
            await reader.execute(select(User.id).where(User.id.in_([1, 2])))

    async def test_a_value_that_cannot_be_is_the_callers_mistake(self, real: Reader) -> None:
        with pytest.raises(InvalidInput):
            await real.execute(
                text("SELECT cast(cast(:letter AS text) AS int)"), {"letter": "a" * 3}
            )
        with pytest.raises(InvalidInput):
            await real.execute(text("SELECT cast(:letter AS text)"), {"letter": "\0"})
        assert await real.scalar(text("SELECT 1")) == 1

    async def test_a_wrong_statement_is_ours_and_quotes_no_row(self, real: Reader) -> None:
        with pytest.raises(Exception, match="no_such_table") as raised:
            await real.execute(text("SELECT * FROM no_such_table"))
        assert not isinstance(raised.value, ServiceUnavailable | InvalidInput)
        assert await real.scalar(text("SELECT 1")) == 1


class Connection:
    """What the pool asks of one."""

    def __init__(self) -> None:
        self.closed = False

    def is_closed(self) -> bool:
        return self.closed

    def terminate(self) -> None:
        self.closed = True

    async def close(self) -> None:
        self.closed = True


class Refusing(Connection):
    """Fails with `failure` whenever it is asked."""

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
async def test_what_the_driver_raises(
    failure: Exception, expected: type[Exception], is_kept: bool
) -> None:
    connection = Refusing()
    connection.failure = failure
    pool = ReadPool(lambda: connection, size=1, timeout=1)  # type: ignore[arg-type]
    pool._idle.append(connection)  # type: ignore[arg-type]
    with pytest.raises(expected):
        await Reader(pool).execute(text("SELECT 1"))
    assert (not connection.closed) is is_kept


class Opening:
    """Makes connections, or fails to."""

    def __init__(self) -> None:
        self.opened: list[Connection] = []
        self.fails = False

    async def __call__(self) -> Any:
        await asyncio.sleep(0)
        if self.fails:
            raise ServiceUnavailable
        self.opened.append(Connection())
        return self.opened[-1]


@pytest.fixture
def opening() -> Opening:
    return Opening()


@pytest.fixture
def pool(opening: Opening) -> ReadPool:
    return ReadPool(opening, size=2, timeout=0.2)


async def taken(pool: ReadPool) -> Any:
    return pool.acquire_idle() or await pool.acquire()


class TestPool:
    async def test_the_last_one_used_is_taken_first_and_no_more_are_opened(
        self, pool: ReadPool, opening: Opening
    ) -> None:
        first, second = await taken(pool), await taken(pool)
        pool.release(first)
        pool.release(second)
        assert await taken(pool) is second
        assert await taken(pool) is first
        assert len(opening.opened) == 2

    async def test_who_waits_longest_is_next(self, pool: ReadPool) -> None:
        held = [await taken(pool), await taken(pool)]
        served: list[int] = []

        async def serve(number: int) -> None:
            connection = await taken(pool)
            served.append(number)
            pool.release(connection)

        tasks = [asyncio.create_task(serve(number)) for number in range(6)]
        await asyncio.sleep(0)
        for connection in held:
            pool.release(connection)
        await asyncio.gather(*tasks)
        assert served == list(range(6))

    async def test_waiting_has_an_end(self, pool: ReadPool, opening: Opening) -> None:
        held = [await taken(pool), await taken(pool)]
        with pytest.raises(ServiceUnavailable):
            await taken(pool)
        for connection in held:
            pool.release(connection)
        assert await taken(pool) in opening.opened

    async def test_what_is_handed_to_one_who_gives_up_goes_to_the_next(
        self, pool: ReadPool
    ) -> None:
        held = [await taken(pool), await taken(pool)]
        leaver, patient = (asyncio.create_task(taken(pool)) for _ in range(2))
        await asyncio.sleep(0)
        pool.release(held[0])
        leaver.cancel()
        assert await patient is held[0]
        with pytest.raises(asyncio.CancelledError):
            await leaver

    @pytest.mark.parametrize("how", ["broken", "closed"])
    async def test_a_broken_one_makes_room_for_whoever_waits(
        self, pool: ReadPool, opening: Opening, how: str
    ) -> None:
        held = [await taken(pool), await taken(pool)]
        waiting = asyncio.create_task(taken(pool))
        await asyncio.sleep(0)
        held[0].closed = how == "closed"
        pool.release(held[0], is_broken=how == "broken")
        assert await waiting is opening.opened[2]
        assert held[0].closed

    async def test_what_died_while_it_was_idle_is_not_given_out(self, pool: ReadPool) -> None:
        first, second = await taken(pool), await taken(pool)
        for connection in (first, second):
            pool.release(connection)
            connection.closed = True
        fresh = {await taken(pool), await taken(pool)}
        assert not fresh & {first, second}

    async def test_who_cannot_open_one_leaves_the_room_to_others(
        self, pool: ReadPool, opening: Opening
    ) -> None:
        opening.fails = True
        for _ in range(5):
            with pytest.raises(ServiceUnavailable):
                await taken(pool)
        opening.fails = False
        assert len({await taken(pool), await taken(pool)}) == 2

    async def test_closing_closes_what_is_idle_and_what_comes_back(self, pool: ReadPool) -> None:
        first, second = await taken(pool), await taken(pool)
        pool.release(first)
        await pool.close()
        assert (first.closed, second.closed) == (True, False)
        pool.release(second)
        assert second.closed


async def test_whoever_gives_up_on_a_read_does_not_leave_it_to_the_next(real: Reader) -> None:
    """The answer to a statement that was given up would otherwise be read by somebody else."""
    slow = asyncio.create_task(real.execute(text("SELECT pg_sleep(5)")))
    await asyncio.sleep(0.1)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    found = await asyncio.gather(*(real.scalar(text("SELECT 7")) for _ in range(6)))
    assert found == [7] * 6
