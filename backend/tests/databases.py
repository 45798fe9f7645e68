"""Temporary databases for tests, on the server of DATABASE_URL or an embedded one."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, TypeAlias, TypeVar, cast
from uuid import uuid4

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, async_sessionmaker

from app.core.config import BACKEND_DIR, PROJECT_DIR
from app.db import embedded, migrate
from app.db.base import Base
from app.db.reading import Reader
from app.db.session import Database

Connection: TypeAlias = "asyncpg.Connection[Any]"
Result = TypeVar("Result")

TEST_SERVER_DIR = PROJECT_DIR / ".data" / "test-postgres"
RESTART_SEQUENCES = """
    SELECT setval(oid::regclass, 1, false) FROM pg_class
    WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace
"""
TEMPLATE_LOCK = 0x74656D706C617465
EMPTY = (
    "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"
)

_kept: dict[str, tuple[asyncio.Runner, Connection]] = {}


@cache
def server_url() -> str:
    """Return the URL of the server: DATABASE_URL if it is set, otherwise an embedded server."""
    url = os.environ.get("DATABASE_URL")
    if not url:
        url = embedded.start(TEST_SERVER_DIR, durable=False)
        os.environ["DATABASE_URL"] = url
    return url


@contextmanager
def temporary_database(options: str = EMPTY) -> Iterator[str]:
    """Create a database and drop it afterwards; yield its SQLAlchemy URL."""
    name = f"pressroom_test_{uuid4().hex[:12]}"
    execute(server_url(), f"CREATE DATABASE {name} {options}")
    try:
        yield url_of(name)
    finally:
        execute(server_url(), f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def migrated_database() -> Iterator[str]:
    """Create a database with the tables of this release, as a copy of the template.

    Copying its files takes half the CPU time of writing them to the write-ahead log.
    """
    with temporary_database(f"TEMPLATE {template_database()} STRATEGY FILE_COPY") as url:
        yield url


@cache
def migrations_hash() -> str:
    files = sorted((BACKEND_DIR / "alembic").rglob("*.py"))
    return sha256(b"".join(map(Path.read_bytes, files))).hexdigest()[:12]


@cache
def template_database() -> str:
    """Return the name of a database with the tables of this release; create it if it is missing.

    It stays on the server. Later runs use it until the migrations change.
    """
    name = f"pressroom_template_{migrations_hash()}"

    async def create() -> None:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(server_url()))
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", TEMPLATE_LOCK)
            exists = "SELECT 1 FROM pg_database WHERE datname = $1 AND datistemplate"
            if not await connection.fetchval(exists, name):
                await connection.execute(
                    f"DROP DATABASE IF EXISTS {name}"
                )  # an interrupted run left it
                await connection.execute(f"CREATE DATABASE {name} {EMPTY}")
                upgrade = partial(migrate.upgrade, application_url=application_url(url_of(name)))
                await asyncio.to_thread(upgrade, url_of(name))
                await connection.execute(f"ALTER DATABASE {name} IS_TEMPLATE true")
        finally:
            await connection.close()

    asyncio.run(create())
    return name


def url_of(database: str) -> str:
    """Return the SQLAlchemy URL of a database on the server."""
    url = make_url(server_url()).set(drivername="postgresql+asyncpg", database=database)
    return url.render_as_string(hide_password=False)


def application_url(url: str) -> str:
    """Return the URL of a migrated database for a role that may not change its schema."""
    role = make_url(url).set(username="pressroom_test_app", password="pressroom-test-app")
    return role.render_as_string(hide_password=False)


@contextmanager
def kept_connection(url: str) -> Iterator[None]:
    """Let `with_connection` use one connection to a database.

    Opening one takes longer than most statements, and its process learns about each table anew.
    """
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        connection = runner.run(connect(url))
        _kept[url] = runner, connection
        try:
            yield
        finally:
            del _kept[url]
            connection.terminate()


async def connect(url: str) -> Connection:
    """Open a connection that keeps no plans: tests change tables."""
    return await asyncpg.connect(driver_url(url), statement_cache_size=0)


def with_connection(url: str, work: Callable[[Connection], Awaitable[Result]]) -> Result:
    """Do `work` with a connection, without a running event loop."""
    if url in _kept and current_thread() is main_thread():
        runner, connection = _kept[url]
        return runner.run(_and_reset(connection, work))

    async def run() -> Result:
        connection = await connect(url)
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(run())


async def _and_reset(
    connection: Connection, work: Callable[[Connection], Awaitable[Result]]
) -> Result:
    try:
        return await work(connection)
    finally:
        await connection.reset()


def execute(url: str, *statements: str) -> None:
    """Run statements, each in its own transaction, without a running event loop."""

    async def run(connection: Connection) -> None:
        for statement in statements:
            await connection.execute(statement)

    with_connection(url, run)


async def run(database: Database, statement: str, **parameters: Any) -> None:
    """Execute a statement in a transaction of its own."""
    async with database.unit_of_work() as session:
        await session.execute(text(statement), parameters)


@cache
def delete_all_rows() -> str:
    """Return a statement that empties all tables: for a few rows faster than TRUNCATE."""
    deletions = " ".join(f"DELETE FROM {table.name};" for table in Base.metadata.sorted_tables)
    without_triggers = "SET LOCAL session_replication_role = replica;"
    return f"DO $$ BEGIN {without_triggers} {deletions} END $$"


def save_all_rows() -> str:
    """Return a statement that copies all tables to a schema `saved`."""
    names = [table.name for table in Base.metadata.sorted_tables]
    copies = " ".join(f"CREATE TABLE saved.{name} AS TABLE {name};" for name in names)
    return f"DO $$ BEGIN CREATE SCHEMA saved; {copies} END $$"


def restore_all_rows() -> str:
    """Return a statement that replaces all rows by those of `save_all_rows`."""
    statements = ["SET LOCAL session_replication_role = replica;"]  # without triggers
    for table in Base.metadata.sorted_tables:
        columns = ", ".join(each.name for each in table.columns if each.computed is None)
        statements.append(
            f"DELETE FROM {table.name}; INSERT INTO {table.name} ({columns})"
            f" OVERRIDING SYSTEM VALUE SELECT {columns} FROM saved.{table.name};"
        )
    return f"DO $$ BEGIN {' '.join(statements)} END $$"


def driver_url(url: str) -> str:
    """Return a SQLAlchemy URL in the form that asyncpg accepts."""
    return url.replace("postgresql+asyncpg://", "postgresql://", 1)


def database_within(connection: AsyncConnection) -> Database:
    """Return a Database whose sessions and reader use the transaction of `connection`."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[AsyncConnection]:
        yield connection

    @asynccontextmanager
    async def hold_lock(lock: int) -> AsyncIterator[bool]:
        yield True

    sessions = async_sessionmaker(
        connection, expire_on_commit=False, join_transaction_mode="create_savepoint"
    )
    reader = Reader(JoinedPool(connection))
    return Database(
        sessions=sessions, reader=reader, connect_to_primary=connect, hold_lock=hold_lock
    )


@asynccontextmanager
async def rolled_back(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Open a connection in a transaction that is rolled back at the end."""
    async with engine.connect() as connection:
        transaction = await connection.begin()
        yield connection
        await transaction.rollback()


@asynccontextmanager
async def savepoint_of(connection: AsyncConnection) -> AsyncIterator[None]:
    """Undo the changes of a test on a connection that a module shares."""
    savepoint = await connection.begin_nested()
    yield
    await savepoint.rollback()


class JoinedPool:
    """A reader's pool with only the driver connection of a SQLAlchemy connection.

    Reads run in the transaction of the test, and event listeners of the connection count them.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    is_busy = False

    def acquire_idle(self) -> None:
        return None

    async def acquire(self, opening: object = None) -> "asyncpg.Connection[Any]":
        return cast("asyncpg.Connection[Any]", self)  # a reader calls only `fetch`

    def release(self, connection: object, *, is_broken: bool = False) -> None:
        pass

    def is_closed(self) -> bool:
        return False

    async def fetch(self, sql: str, *arguments: Any, record_class: Any) -> list[Any]:
        connection = self._connection.sync_connection
        assert connection is not None
        for note in connection.dispatch.before_cursor_execute:
            note(connection, None, sql, arguments, None, False)
        driver: Any = (await self._connection.get_raw_connection()).driver_connection
        rows: list[Any] = await driver.fetch(sql, *arguments, record_class=record_class)
        return rows
