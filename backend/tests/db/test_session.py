"""Units of work and readers, mostly on real connections."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from app.core.config import Settings
from app.core.errors import ServiceUnavailable
from app.db import connections
from app.db import session as session_module
from app.db.pool import ReadPool
from app.db.session import Database, readable_url
from app.db.writing import fetch
from app.models import User
from tests.databases import delete_all_rows, driver_url, execute
from tests.factories import create_user
from tests.processes import DEADLINE


@pytest.fixture
async def real(settings: Settings, database_url: str) -> AsyncIterator[Database]:
    """Return a database with pools of one connection each, and with real commits."""
    database = Database.from_settings(
        settings.model_copy(update={"database_pool_size": 1, "database_pool_timeout": 0.2})
    )
    yield database
    await database.dispose()


async def read_one(database: Database) -> int | None:
    """Read a value with the reader."""
    value: int | None = await database.reader.scalar(text("SELECT 1"))
    return value


@pytest.fixture
def _no_users_afterwards(database_url: str) -> Iterator[None]:
    yield
    execute(database_url, delete_all_rows())


@pytest.mark.usefixtures("_no_users_afterwards")
async def test_unit_of_work_commits_at_its_end(real: Database) -> None:
    async with real.unit_of_work() as session:
        user = await create_user(session)
        assert await real.reader.scalar(select(User.id)) is None
    assert await real.reader.scalar(select(User.id)) == user.id


async def test_unit_of_work_rolls_back_on_an_exception(real: Database) -> None:
    async def fail() -> None:
        async with real.unit_of_work() as session:
            await create_user(session)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await real.reader.scalar(select(User.id)) is None


async def test_each_read_has_its_own_transaction(real: Database) -> None:
    first = await real.reader.scalar(text("SELECT txid_current()"))
    second = await real.reader.scalar(text("SELECT txid_current()"))
    assert first != second


async def test_slow_statement_times_out(settings: Settings, database_url: str) -> None:
    changes = {"database_url": database_url, "database_statement_timeout": 0.1}
    database = Database.from_settings(settings.model_copy(update=changes))

    with pytest.raises(ServiceUnavailable):
        await database.reader.execute(text("SELECT pg_sleep(30)"))
    await database.dispose()


@pytest.fixture
def impatient_settings(
    settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Return settings with which the client waits half a second for a statement."""
    monkeypatch.setattr(session_module, "MAX_STATEMENT_SECONDS", 0)
    monkeypatch.setattr(connections, "COMMAND_TIMEOUT_MARGIN_SECONDS", 0.3)
    changes = {"database_url": database_url, "database_statement_timeout": 0.2}
    return settings.model_copy(update=changes)


async def test_unresponsive_server_times_out(impatient_settings: Settings) -> None:
    """The timeout of the client applies if PostgreSQL does not cancel the statement."""
    one = impatient_settings.model_copy(update={"database_pool_size": 1})
    never = text("SET statement_timeout = 0"), text("SELECT pg_sleep(300)")
    database = Database.from_settings(one)

    async def write() -> None:
        async with database.unit_of_work() as session:
            for statement in never:
                await session.execute(statement)

    async def write_on_driver() -> None:
        async with database.unit_of_work() as session:
            for statement in never:
                await fetch(session, statement)

    async def read() -> None:
        for statement in never:
            await database.reader.execute(statement)

    for use in (write, write_on_driver, read):
        with pytest.raises(ServiceUnavailable):
            async with asyncio.timeout(DEADLINE):
                await use()
    async with database.unit_of_work() as session:
        assert await session.scalar(text("SELECT 1")) == 1
    assert await read_one(database) == 1
    await database.dispose()


async def test_connections_that_do_not_respond_are_replaced(impatient_settings: Settings) -> None:
    """As after a network failure: packets on these connections are dropped."""
    two = impatient_settings.model_copy(update={"database_pool_size": 2})
    database = Database.from_settings(two)

    async def write() -> None:
        async with database.unit_of_work() as session:
            await session.execute(text("SELECT 1"))

    async with database.autocommit() as first, database.autocommit() as second:
        for each in (first, second):
            raw: Any = (await each.get_raw_connection()).driver_connection
            raw._transport.pause_reading()
    with pytest.raises(ServiceUnavailable):
        await write()
    await write()
    assert database.pool_states()["write"].in_use == 0
    await database.dispose()


async def test_idle_transaction_times_out(settings: Settings, database_url: str) -> None:
    changes = {"database_url": database_url, "database_statement_timeout": 0.1}
    database = Database.from_settings(settings.model_copy(update=changes))

    async def idle() -> None:
        async with database.unit_of_work() as session:
            pid = await session.scalar(text("SELECT pg_backend_pid()"))
            async with asyncio.timeout(DEADLINE):
                while await observer.fetchval(count_backends, pid):
                    pass
            await session.execute(text("SELECT 1"))

    count_backends = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1"
    observer = await asyncpg.connect(driver_url(database_url))

    with pytest.raises(ServiceUnavailable):
        await idle()
    await observer.close()
    await database.dispose()


async def test_connections_use_utc_and_an_application_name(real: Database) -> None:
    assert await real.reader.scalar(text("SHOW timezone")) == "UTC"
    assert await real.reader.scalar(text("SHOW application_name")) == "pressroom"


async def test_exhausted_pool_raises_service_unavailable(real: Database) -> None:
    pool = real.reader.pool
    held = pool.acquire_idle() or await pool.acquire()
    with pytest.raises(ServiceUnavailable):
        await read_one(real)
    pool.release(held)
    assert await read_one(real) == 1


async def test_terminated_connection_is_replaced(real: Database, database_url: str) -> None:
    pid = await real.reader.scalar(text("SELECT pg_backend_pid()"))
    killer = await asyncpg.connect(driver_url(database_url))
    await killer.execute("SELECT pg_terminate_backend($1)", pid)
    await killer.close()

    pool = real.reader.pool
    assert isinstance(pool, ReadPool)
    while not pool._idle[0].is_closed():  # noqa: ASYNC110 - the driver has no event for it
        await asyncio.sleep(0)
    assert await read_one(real) == 1


async def test_demoted_primary_causes_a_reconnect(real: Database) -> None:
    async def write_read_only() -> int | None:
        async with real.unit_of_work() as session:
            pid: int | None = await session.scalar(text("SELECT pg_backend_pid()"))
            await session.execute(text("SET TRANSACTION READ ONLY"))
            pids.append(pid)
            await session.execute(text("DELETE FROM users"))
            return pid

    pids: list[int | None] = []
    for _ in range(2):
        with pytest.raises(ServiceUnavailable):
            await write_read_only()
    assert pids[0] != pids[1]


@pytest.mark.parametrize(
    "change",
    [
        {"database_url": "postgresql+asyncpg://nobody@127.0.0.1:1/none"},
        {"database_url": "postgresql+asyncpg://u@no-such-host.invalid/none"},
    ],
)
async def test_unreachable_server_raises_service_unavailable(
    settings: Settings, change: dict[str, object]
) -> None:
    database = Database.from_settings(settings.model_copy(update=change))

    with pytest.raises(ServiceUnavailable):
        await read_one(database)
    await database.dispose()


async def test_unknown_database_raises_service_unavailable(
    settings: Settings, database_url: str
) -> None:
    url = database_url.replace("pressroom_test_", "pressroom_gone_")
    database = Database.from_settings(settings.model_copy(update={"database_url": url}))

    async def write() -> None:
        async with database.unit_of_work() as session:
            await session.execute(text("SELECT 1"))

    with pytest.raises(ServiceUnavailable):
        await write()
    await database.dispose()


async def test_integrity_error_is_not_translated(real: Database) -> None:
    async def insert_twice() -> None:
        async with real.unit_of_work() as session:
            await create_user(session, username="same", email="a@example.com")
            await create_user(session, username="SAME", email="b@example.com")

    with pytest.raises(IntegrityError):
        await insert_twice()


async def test_reads_use_the_primary_without_a_replica(settings: Settings) -> None:
    away = "postgresql+asyncpg://nobody@127.0.0.1:1/none"
    changes = {"database_read_url": away, "database_read_max_lag": 0.2}
    database = Database.from_settings(settings.model_copy(update=changes))
    database.follow_servers()
    assert await read_one(database) == 1
    async with database.unit_of_work() as session:
        assert await session.scalar(text("SELECT 1")) == 1
    await database.dispose()


def test_database_url_is_required(settings: Settings) -> None:
    with pytest.raises(ValueError, match="DATABASE_URL is not set"):
        Database.from_settings(settings.model_copy(update={"database_url": None}))


def test_readable_url_has_no_password() -> None:
    assert "secret" not in readable_url("postgresql+asyncpg://u:secret@h/d")
