"""Databases of the tests' own, made on whatever server there is and dropped afterwards."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, async_sessionmaker

from app.core.config import BACKEND_DIR, PROJECT_DIR
from app.db import embedded, migrate
from app.db.reading import Reader
from app.db.session import Database

TEST_SERVER_DIR = PROJECT_DIR / ".data" / "test-postgres"
TEMPLATE_LOCK = 0x74656D706C617465
EMPTY = (
    "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"
)


@cache
def server_url() -> str:
    """The server to test on: DATABASE_URL's where it is set, else an embedded one."""
    url = os.environ.get("DATABASE_URL")
    if not url:
        url = embedded.start(TEST_SERVER_DIR, durable=False)
        os.environ["DATABASE_URL"] = url
    return url


@contextmanager
def temporary_database(options: str = EMPTY) -> Iterator[str]:
    """A new database, as a SQLAlchemy URL."""
    name = f"pressroom_test_{uuid4().hex[:12]}"
    execute(server_url(), f"CREATE DATABASE {name} {options}")
    try:
        yield url_of(name)
    finally:
        execute(server_url(), f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def migrated_database() -> Iterator[str]:
    """A new database with this release's tables."""
    with temporary_database(f"TEMPLATE {template_database()}") as url:
        yield url


@cache
def template_database() -> str:
    """The name of a database with this release's tables, which is created where there is none.

    It stays on the server: further runs use it, as long as the migrations are the same.
    """
    files = sorted((BACKEND_DIR / "alembic").rglob("*.py"))
    name = f"pressroom_template_{sha256(b''.join(map(Path.read_bytes, files))).hexdigest()[:12]}"

    async def create() -> None:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(server_url()))
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", TEMPLATE_LOCK)
            is_there = "SELECT 1 FROM pg_database WHERE datname = $1 AND datistemplate"
            if not await connection.fetchval(is_there, name):
                await connection.execute(f"DROP DATABASE IF EXISTS {name}")  # half migrated
                await connection.execute(f"CREATE DATABASE {name} {EMPTY}")
                await asyncio.to_thread(migrate.upgrade, url_of(name))
                await connection.execute(f"ALTER DATABASE {name} IS_TEMPLATE true")
        finally:
            await connection.close()

    asyncio.run(create())
    return name


def url_of(database: str) -> str:
    """The address of a database on the server, as SQLAlchemy takes it."""
    url = make_url(server_url()).set(drivername="postgresql+asyncpg", database=database)
    return url.render_as_string(hide_password=False)


def execute(url: str, *statements: str) -> None:
    """Run statements, each in a transaction of its own, outside of any event loop."""

    async def run() -> None:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(url))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


def driver_url(url: str) -> str:
    """A SQLAlchemy URL as asyncpg takes it."""
    return url.replace("postgresql+asyncpg://", "postgresql://", 1)


def database_within(connection: AsyncConnection) -> Database:
    """The application's way to the database within the transaction of `connection`."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[AsyncConnection]:
        yield connection

    sessions = async_sessionmaker(
        connection, expire_on_commit=False, join_transaction_mode="create_savepoint"
    )
    reader = Reader(JoinedPool(connection))
    return Database(sessions=sessions, reader=reader, connect_to_primary=connect)


class JoinedPool:
    """A reader's pool that has nothing but the driver's connection below one of SQLAlchemy's.

    What is read is in the test's transaction, and counted by whoever listens to that connection.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    def acquire_idle(self) -> None:
        return None

    async def acquire(self) -> "JoinedPool":
        return self

    def release(self, connection: object, *, is_broken: bool = False) -> None:
        pass

    def is_closed(self) -> bool:
        return False

    async def fetch(self, sql: str, *arguments: Any, record_class: Any) -> list[Any]:
        connection = self._connection.sync_connection
        for note in connection.dispatch.before_cursor_execute:
            note(connection, None, sql, arguments, None, False)
        raw = await self._connection.get_raw_connection()
        rows: list[Any] = await raw.driver_connection.fetch(
            sql, *arguments, record_class=record_class
        )
        return rows
