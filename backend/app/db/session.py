"""One process's way to the database: units of work, and a reader.

Writing is a unit of work: an ORM session that commits as a whole or not at all. Reading is single
statements, each its own transaction (app.db.reading).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import asyncpg
from pydantic_core import from_json, to_json
from sqlalchemy import Integer, Select, bindparam, event
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.url import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from app.core.config import Settings
from app.core.errors import PressroomError, ServiceUnavailable
from app.core.logging import get_logger
from app.db.failures import (
    READ_ONLY_TRANSACTION,
    hide_details,
    log_database_error,
    sqlstate,
    translated,
)
from app.db.pool import FairPool, ReadPool
from app.db.reading import Reader

logger = get_logger(__name__)

Announce = Callable[[Sequence[str]], None]

NO_KEY_UPDATE: dict[str, Any] = {"key_share": True}
"""How a row is locked to change it: rows that refer to it can still be added meanwhile."""

LONGEST_STATEMENT_SECONDS = 60
"""What a unit of work may allow one statement of its own, whatever the setting says."""
PATIENCE_SECONDS = 5
"""How much later than at its own time-out PostgreSQL may say that a statement took too long."""

ANNOUNCEMENTS = "announcements"
"""Key in `session.info` of the lines to log once the unit of work is committed."""


def announce(lines: Sequence[str]) -> None:
    """Log what a committed unit of work did."""
    for line in lines:
        logger.info(line)


class Database:
    """One process's way to PostgreSQL; `unit_of_work` writes, `reader` reads.

    Both raise ServiceUnavailable where the database cannot be reached or is overloaded, and
    InvalidInput where it refuses a value; IntegrityError is left to the service that knows why.
    """

    def __init__(
        self,
        *,
        sessions: async_sessionmaker[AsyncSession],
        reader: Reader,
        connect_to_primary: Callable[[], AbstractAsyncContextManager[AsyncConnection]],
        dispose: Callable[[], Awaitable[None]] | None = None,
        has_replica: bool = False,
    ) -> None:
        self.reader = reader
        self.has_replica = has_replica
        """Whether `reader` may not have heard yet of what `unit_of_work` has committed."""
        self._sessions = sessions
        self._connect_to_primary = connect_to_primary
        self._dispose = dispose

    @classmethod
    def from_settings(cls, settings: Settings) -> "Database":
        """Open two pools, lazily: nothing connects before the first request does."""
        if settings.database_url is None:
            raise ValueError("DATABASE_URL is not set")
        engine = _create_engine(settings.database_url, settings)
        read_url = settings.database_read_url or settings.database_url
        pool = ReadPool(
            partial(_connect_to_read, read_url, settings),
            size=settings.database_pool_size,
            timeout=settings.database_pool_timeout,
        )

        async def dispose() -> None:
            await pool.close()
            await engine.dispose()

        return cls(
            sessions=async_sessionmaker(engine, expire_on_commit=False),
            reader=Reader(pool, echo=settings.debug),
            connect_to_primary=engine.execution_options(isolation_level="AUTOCOMMIT").connect,
            dispose=dispose,
            has_replica=settings.database_read_url is not None,
        )

    @asynccontextmanager
    async def unit_of_work(self, announce: Announce = announce) -> AsyncIterator[AsyncSession]:
        """Yield a session; commit when the block ends, roll back when it raises."""
        with _database_errors():
            async with self._sessions() as session:
                session.info[ANNOUNCEMENTS] = []
                yield session
                await session.commit()
        if session.info[ANNOUNCEMENTS]:
            announce(session.info[ANNOUNCEMENTS])

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection to the primary on which each statement is its own transaction.

        For what one statement decides: a third of the round trips of a unit of work.
        """
        with _database_errors():
            async with self._connect_to_primary() as connection:
                yield connection

    async def dispose(self) -> None:
        """Close every pooled connection."""
        if self._dispose is not None:
            await self._dispose()


def _create_engine(url: str, settings: Settings) -> AsyncEngine:
    engine = create_async_engine(
        url,
        poolclass=FairPool,
        pool_size=settings.database_pool_size,
        max_overflow=0,
        pool_timeout=settings.database_pool_timeout,
        echo=settings.debug,
        hide_parameters=True,  # a failing statement's values may be personal data
        connect_args={
            "async_creator_fn": connect,
            **_connect_options(settings, longest=LONGEST_STATEMENT_SECONDS),
        },
    )
    event.listen(engine.sync_engine, "handle_error", _drop_pool_after_failover)
    event.listen(engine.sync_engine, "handle_error", _hide_details)
    return engine


def _connect_options(settings: Settings, *, longest: float) -> dict[str, Any]:
    seconds = settings.database_statement_timeout
    timeout_ms = int(seconds * 1000)
    return {
        "timeout": settings.database_connect_timeout,
        # PostgreSQL ends a statement that takes too long; this is for one that says nothing at all.
        "command_timeout": max(seconds, longest) + PATIENCE_SECONDS,
        "server_settings": {
            "application_name": "pressroom",
            "statement_timeout": str(timeout_ms),
            "idle_in_transaction_session_timeout": str(timeout_ms * 2),
            "timezone": "UTC",
            "jit": "off",
        },
    }


async def _connect_to_read(url: str, settings: Settings) -> "asyncpg.Connection[Any]":
    """A connection of a reader's: JSON comes parsed from it."""
    dialect: Any = PGDialect_asyncpg
    _, address = dialect().create_connect_args(make_url(url))
    connection = await connect(**address, **_connect_options(settings, longest=0))
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=to_json, decoder=from_json, format="text"
    )
    return connection


async def connect(*args: Any, **options: Any) -> "asyncpg.Connection[Any]":
    """asyncpg.connect, with every reason not to have a connection as ServiceUnavailable.

    OSError covers refused, unreachable, unresolved and timed out; PostgreSQL itself answers where
    it starts up, has no slot left, or does not know the user or the database.
    """
    try:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(*args, **options)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        log_database_error(error)
        raise ServiceUnavailable from error
    return connection


def _drop_pool_after_failover(context: ExceptionContext) -> None:
    """A primary that became a standby keeps our connections but refuses writes: reconnect."""
    if sqlstate(context.original_exception) == READ_ONLY_TRANSACTION:
        context.is_disconnect = True


def _hide_details(context: ExceptionContext) -> None:
    cause = context.original_exception.__cause__
    if cause is not None:
        carriers = (context.original_exception, context.sqlalchemy_exception)
        hide_details(cause, *(each for each in carriers if each is not None))


@contextmanager
def _database_errors() -> Iterator[None]:
    try:
        yield
    except (DBAPIError, PoolTimeout, TimeoutError, asyncpg.InternalClientError) as error:
        known = _translate(error)
        if known is None:
            raise
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        log_database_error(cause)
        raise known from error


def _translate(error: Exception) -> PressroomError | None:
    """The catalogue error for a failure of the database, or None for a mistake of ours."""
    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return ServiceUnavailable()
    driver = error.orig and error.orig.__cause__
    return translated(driver) or translated(error.orig)


def paged(statement: Select[Any]) -> Select[Any]:
    """The statement with the parameters `skip` and `limit`, to be given when it is executed."""
    skip, limit = bindparam("skip", type_=Integer), bindparam("limit", type_=Integer)
    return statement.offset(skip).limit(limit)


@contextmanager
def constraint_errors(errors: Mapping[str, type[PressroomError]]) -> Iterator[None]:
    """Raise the error that belongs to the constraint, by name, which the block violates.

    Flush inside the block: the constraint speaks only once the statement has run.
    """
    try:
        yield
    except IntegrityError as error:
        name = getattr(getattr(error.orig, "__cause__", None), "constraint_name", None) or ""
        if name not in errors:
            raise
        raise errors[name] from error


def readable_url(url: str) -> str:
    """The URL without its password, for messages."""
    return make_url(url).render_as_string(hide_password=True)
