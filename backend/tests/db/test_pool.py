"""The pools: FIFO order, timeouts, cancelled waiters, and connections that end at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from app.core.errors import ServiceUnavailable
from app.db.connecting import connect_to
from app.db.pool import EnginePool, FifoPool, ReadPool
from app.db.reading import Reader
from app.db.session import Database
from tests.processes import DEADLINE


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(
        database_url, poolclass=FifoPool, pool_size=1, max_overflow=0, pool_timeout=0.5
    )
    yield engine
    await engine.dispose()


async def use(engine: AsyncEngine) -> int | None:
    """Acquire a connection, execute a statement and release the connection."""
    async with engine.connect() as connection:
        value: int | None = await connection.scalar(text("SELECT 1"))
        return value


async def until_waiting(engine: AsyncEngine, count: int) -> None:
    """Return once `count` tasks wait for a connection."""
    pool: Any = engine.pool
    while len(pool._pool.tasks._waiting) < count:  # noqa: ASYNC110 - the pool has no event
        await asyncio.sleep(0)


async def test_waiting_tasks_are_served_in_order(engine: AsyncEngine) -> None:
    served: list[str] = []

    async def serve(name: str) -> None:
        await use(engine)
        served.append(name)

    async with engine.connect():
        tasks = []
        for number in range(5):
            tasks.append(asyncio.create_task(serve(f"waiter {number}")))
            await until_waiting(engine, number + 1)
    tasks.append(asyncio.create_task(serve("newcomer")))
    await asyncio.gather(*tasks)
    assert served == [*(f"waiter {number}" for number in range(5)), "newcomer"]


async def test_waiting_times_out(engine: AsyncEngine) -> None:
    async with engine.connect():
        with pytest.raises(PoolTimeout):
            await use(engine)
    assert await use(engine) == 1


async def test_cancelled_waiter_leaves_the_connection_to_the_next(
    engine: AsyncEngine,
) -> None:
    async with engine.connect():
        cancelled, next_one = asyncio.create_task(use(engine)), asyncio.create_task(use(engine))
        await until_waiting(engine, 2)
        cancelled.cancel()
    assert await next_one == 1
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert await use(engine) == 1


async def test_connection_of_a_cancelled_waiter_is_passed_on(
    engine: AsyncEngine,
) -> None:
    holder = await engine.connect()
    cancelled = asyncio.create_task(use(engine))
    await until_waiting(engine, 1)
    await holder.close()  # assigns the connection to the waiting task, which has not run yet
    cancelled.cancel()
    assert await use(engine) == 1


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_failed_connect_wakes_the_next_task(database_url: str, is_cancelled: bool) -> None:
    fails = asyncio.Event()
    attempts: list[str] = []

    async def connect(**_: Any) -> "asyncpg.Connection[Any]":
        attempts.append("")
        if len(attempts) == 1:
            await fails.wait()
            raise OSError
        return await connect_to(database_url)

    engine = create_async_engine(
        database_url,
        poolclass=FifoPool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=2 * DEADLINE,
        connect_args={"async_creator_fn": connect},
    )
    first, second = asyncio.create_task(use(engine)), asyncio.create_task(use(engine))
    async with asyncio.timeout(DEADLINE):
        await until_waiting(engine, 1)
        if is_cancelled:
            first.cancel()
        else:
            fails.set()
        with pytest.raises(asyncio.CancelledError if is_cancelled else OSError):
            await first
        assert await second == 1
    await engine.dispose()


async def test_connection_that_ends_after_the_handshake_is_unavailable(database_url: str) -> None:
    """Its first statements are part of opening it, so other servers may be tried."""

    async def connect(**_: Any) -> "asyncpg.Connection[Any]":
        connection = await connect_to(database_url)
        connection.terminate()
        return connection

    async def connect_and_ask() -> "asyncpg.Connection[Any]":
        connection = await connect()
        await connection.fetchval("SELECT 1")
        return connection

    engine = create_async_engine(database_url, connect_args={"async_creator_fn": connect})
    pool = EnginePool(engine)
    for each in (ReadPool(connect_and_ask, size=1, timeout=0.5), pool):
        for _ in range(2):
            with pytest.raises(ServiceUnavailable):
                await each.acquire()
    database = Database(
        sessions=async_sessionmaker(engine),
        reader=Reader(pool),
        connect_to_primary=engine.connect,
        hold_lock=lambda number: nullcontext(True),
    )
    with pytest.raises(ServiceUnavailable):
        async with database.autocommit():
            pass
    with pytest.raises(ServiceUnavailable):
        async with database.unit_of_work() as session:
            await session.connection()
    await engine.dispose()
