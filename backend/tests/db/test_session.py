"""Units of work and read connections, on real connections where the promise is about those."""

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from app.core.config import Settings
from app.core.errors import ServiceUnavailable
from app.db import session as session_module
from app.db.pool import ReadPool
from app.db.session import Database, readable_url
from app.models import User
from tests.databases import driver_url, execute
from tests.factories import create_user


@pytest.fixture
async def real(settings: Settings, database_url: str) -> AsyncIterator[Database]:
    """A database with pools of one connection each, whose commits are real."""
    database = Database.from_settings(
        settings.model_copy(update={"database_pool_size": 1, "database_pool_timeout": 0.2})
    )
    yield database
    await database.dispose()


async def read_one(database: Database) -> int | None:
    """One value, by a read connection."""
    value: int | None = await database.reader.scalar(text("SELECT 1"))
    return value


@pytest.fixture
def _no_users_afterwards(database_url: str):
    yield
    execute(database_url, "TRUNCATE users CASCADE")


@pytest.mark.usefixtures("_no_users_afterwards")
async def test_a_unit_of_work_commits_at_its_end(real: Database) -> None:
    async with real.unit_of_work() as session:
        user = await create_user(session)
        assert await real.reader.scalar(select(User.id)) is None
    assert await real.reader.scalar(select(User.id)) == user.id


async def test_a_unit_of_work_rolls_back_on_an_exception(real: Database) -> None:
    async def fail() -> None:
        async with real.unit_of_work() as session:
            await create_user(session)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await real.reader.scalar(select(User.id)) is None


async def test_each_read_is_a_transaction_of_its_own(real: Database) -> None:
    first = await real.reader.scalar(text("SELECT txid_current()"))
    second = await real.reader.scalar(text("SELECT txid_current()"))
    assert first != second


async def test_a_statement_cannot_outlast_its_timeout(
    settings: Settings, database_url: str
) -> None:
    changes = {"database_url": database_url, "database_statement_timeout": 0.1}
    database = Database.from_settings(settings.model_copy(update=changes))

    with pytest.raises(ServiceUnavailable):
        await database.reader.execute(text("SELECT pg_sleep(30)"))
    await database.dispose()


async def test_a_server_that_says_nothing_is_given_up(
    settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the client's own clock: what would end a statement is not there to do it."""
    monkeypatch.setattr(session_module, "MAX_STATEMENT_SECONDS", 0)
    monkeypatch.setattr(session_module, "COMMAND_TIMEOUT_MARGIN_SECONDS", 0.3)
    changes = {"database_url": database_url, "database_pool_size": 1}
    never = text("SET statement_timeout = 0"), text("SELECT pg_sleep(30)")
    seconds = {"database_statement_timeout": 0.2}
    database = Database.from_settings(settings.model_copy(update={**changes, **seconds}))

    async def write() -> None:
        async with database.unit_of_work() as session:
            for statement in never:
                await session.execute(statement)

    async def read() -> None:
        for statement in never:
            await database.reader.execute(statement)

    started = time.monotonic()
    for use in (write, read):
        with pytest.raises(ServiceUnavailable):
            await use()
    assert time.monotonic() - started < 10
    async with database.unit_of_work() as session:
        assert await session.scalar(text("SELECT 1")) == 1
    assert await read_one(database) == 1
    await database.dispose()


async def test_a_transaction_that_does_nothing_is_ended(
    settings: Settings, database_url: str
) -> None:
    changes = {"database_url": database_url, "database_statement_timeout": 0.1}
    database = Database.from_settings(settings.model_copy(update=changes))

    async def idle() -> None:
        async with database.unit_of_work() as session:
            await session.execute(text("SELECT 1"))
            await asyncio.sleep(0.6)  # twice the time-out, and some more
            await session.execute(text("SELECT 1"))

    with pytest.raises(ServiceUnavailable):
        await idle()
    await database.dispose()


async def test_connections_are_in_utc_and_have_a_name(real: Database) -> None:
    assert await real.reader.scalar(text("SHOW timezone")) == "UTC"
    assert await real.reader.scalar(text("SHOW application_name")) == "pressroom"


async def test_an_empty_pool_is_an_unavailable_service(real: Database) -> None:
    slow = asyncio.create_task(real.reader.execute(text("SELECT pg_sleep(0.5)")))
    await asyncio.sleep(0)  # it has taken the connection
    with pytest.raises(ServiceUnavailable):
        await read_one(real)
    await slow
    assert await read_one(real) == 1


async def test_a_terminated_connection_is_replaced(real: Database, database_url: str) -> None:
    pid = await real.reader.scalar(text("SELECT pg_backend_pid()"))
    killer = await asyncpg.connect(driver_url(database_url))
    await killer.execute("SELECT pg_terminate_backend($1)", pid)
    await killer.close()

    pool = real.reader.pool
    assert isinstance(pool, ReadPool)
    while not pool._idle[0].is_closed():  # noqa: ASYNC110 - the driver has no event for it
        await asyncio.sleep(0)
    assert await read_one(real) == 1  # nobody is refused


async def test_a_primary_that_became_a_standby_is_left(real: Database) -> None:
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
async def test_no_server_is_an_unavailable_service(
    settings: Settings, change: dict[str, object]
) -> None:
    database = Database.from_settings(settings.model_copy(update=change))

    with pytest.raises(ServiceUnavailable):
        await read_one(database)
    await database.dispose()


async def test_an_unknown_database_is_an_unavailable_service(
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


async def test_integrity_errors_reach_the_service(real: Database) -> None:
    async def insert_twice() -> None:
        async with real.unit_of_work() as session:
            await create_user(session, username="same", email="a@example.com")
            await create_user(session, username="SAME", email="b@example.com")

    with pytest.raises(IntegrityError):
        await insert_twice()


async def test_reads_go_to_the_replica_where_there_is_one(settings: Settings) -> None:
    away = "postgresql+asyncpg://nobody@127.0.0.1:1/none"
    database = Database.from_settings(settings.model_copy(update={"database_read_url": away}))
    async with database.unit_of_work() as session:
        assert await session.scalar(text("SELECT 1")) == 1

    with pytest.raises(ServiceUnavailable):
        await read_one(database)
    await database.dispose()


def test_a_database_needs_an_address(settings: Settings) -> None:
    with pytest.raises(ValueError, match="DATABASE_URL is not set"):
        Database.from_settings(settings.model_copy(update={"database_url": None}))


def test_a_printed_url_has_no_password() -> None:
    assert "secret" not in readable_url("postgresql+asyncpg://u:secret@h/d")
