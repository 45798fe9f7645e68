"""Databases of the tests' own, made on whatever server there is and dropped afterwards."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.config import PROJECT_DIR
from app.db import embedded, migrate

TEST_SERVER_DIR = PROJECT_DIR / ".data" / "test-postgres"


def server_url() -> str:
    """The server to test on: DATABASE_URL's where it is set, else an embedded one."""
    url = os.environ.get("DATABASE_URL")
    if not url:
        url = embedded.start(TEST_SERVER_DIR, durable=False)
        os.environ["DATABASE_URL"] = url
    return url


@contextmanager
def temporary_database(*, template: str = "template0") -> Iterator[str]:
    """A new database, as a SQLAlchemy URL; a copy of `template` where one is given."""
    name = f"pressroom_test_{uuid4().hex[:12]}"
    url = make_url(server_url()).set(drivername="postgresql+asyncpg")
    execute(
        url.render_as_string(hide_password=False),
        f"CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'"
        " LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'",
    )
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        drop = f"DROP DATABASE {name} WITH (FORCE)"
        execute(url.render_as_string(hide_password=False), drop)


@contextmanager
def migrated_database() -> Iterator[str]:
    """A new database with this release's tables."""
    with temporary_database() as url:
        migrate.upgrade(url)
        yield url


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
    return url.replace("postgresql+asyncpg://", "postgresql://")


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
