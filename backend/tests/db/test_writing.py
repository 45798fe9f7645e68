"""Statements of units of work on the driver, on real connections."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import Integer, bindparam, select, text
from sqlalchemy.exc import IntegrityError

from app.core.config import Settings
from app.core.errors import ServiceUnavailable
from app.db.session import Database
from app.db.writing import fetch, fetch_value
from tests.databases import driver_url
from tests.processes import DEADLINE

_PID = text("SELECT pg_backend_pid()")
_TRANSACTION = text("SELECT pg_current_xact_id()::text")
_ONE = select(bindparam("value", type_=Integer))
_INSERT = text("INSERT INTO limit_uses VALUES ('user 0', 'comments', 1, 1, 1, now())")
_COUNT = text("SELECT count(*) FROM limit_uses")
_VIOLATION = text("INSERT INTO follows VALUES (1, 2, now())")
_SLEEP = text("SELECT pg_sleep(300)")


@pytest.fixture
async def real(settings: Settings, database_url: str) -> AsyncIterator[Database]:
    """Return a database with a pool of one connection."""
    database = Database.from_settings(
        settings.model_copy(update={"database_url": database_url, "database_pool_size": 1})
    )
    yield database
    await database.dispose()


async def test_statements_share_the_transaction_of_the_session(real: Database) -> None:
    async with real.unit_of_work() as session:
        transaction = await fetch_value(session, _TRANSACTION)
        assert await session.scalar(_TRANSACTION) == transaction
        async with session.begin_nested():
            assert await fetch_value(session, _ONE, {"value": 1}) == 1
        await session.rollback()
        assert await fetch_value(session, _TRANSACTION) != transaction


async def test_statements_are_rolled_back(real: Database) -> None:
    async def fail() -> None:
        async with real.unit_of_work() as session:
            await fetch(session, _INSERT)
            assert await session.scalar(_COUNT) == 1
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await real.reader.scalar(_COUNT) == 0


async def test_a_savepoint_undoes_a_statement(real: Database) -> None:
    async with real.unit_of_work() as session:
        await fetch(session, _ONE, {"value": 1})
        savepoint = await session.begin_nested()
        await fetch(session, _INSERT)
        await savepoint.rollback()
        assert await fetch_value(session, _COUNT) == 0


async def test_errors_are_those_of_the_session(real: Database) -> None:
    async with real.unit_of_work() as session:
        with pytest.raises(IntegrityError) as caught:
            await fetch(session, _VIOLATION)
        cause = caught.value.orig.__cause__ if caught.value.orig else None
        assert isinstance(cause, asyncpg.ForeignKeyViolationError)
        assert cause.constraint_name == "fk_follows_follower_id"
        assert cause.detail == "hidden"
        await session.rollback()
        assert await fetch_value(session, _ONE, {"value": 2}) == 2


async def test_terminated_connection_is_replaced(real: Database, database_url: str) -> None:
    async def lose() -> None:
        async with real.unit_of_work() as session:
            pid = await fetch_value(session, _PID)
            other = await asyncpg.connect(driver_url(database_url))
            await other.execute("SELECT pg_terminate_backend($1, 10000)", pid)
            await other.close()
            await fetch(session, _PID)

    with pytest.raises(ServiceUnavailable):
        await lose()
    async with real.unit_of_work() as session:
        assert await fetch_value(session, _ONE, {"value": 3}) == 3


async def test_cancelled_connection_is_replaced(real: Database) -> None:
    """The result of an interrupted statement must not become that of the next one."""

    async def wait(pids: list[int]) -> None:
        async with real.unit_of_work() as session:
            pids.append(await fetch_value(session, _PID))
            await fetch(session, _SLEEP)

    pids: list[int] = []
    task = asyncio.create_task(wait(pids))
    async with asyncio.timeout(DEADLINE):
        while not await real.reader.scalar(  # noqa: ASYNC110 - PostgreSQL has no event for it
            text("SELECT count(*) FROM pg_stat_activity WHERE query = :query AND state = 'active'"),
            {"query": _SLEEP.text},
        ):
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with real.unit_of_work() as session:
        assert await fetch_value(session, _PID) not in pids


async def test_autocommit_has_no_transaction(real: Database) -> None:
    async with real.autocommit() as connection:
        first = await fetch_value(connection, _TRANSACTION)
        assert await fetch_value(connection, _TRANSACTION) != first
