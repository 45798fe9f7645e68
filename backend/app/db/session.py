"""Engines, units of work and read connections.

Writing is a unit of work: an ORM session that commits as a whole or not at all. Reading is a Core
connection in autocommit, which spares the BEGIN and ROLLBACK round trips of a session.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import asyncpg
from sqlalchemy import Integer, Select, bindparam, event
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
from app.core.errors import InvalidInput, PressroomError, ServiceUnavailable
from app.core.logging import get_logger
from app.db.pool import FairPool

logger = get_logger(__name__)

Announce = Callable[[Sequence[str]], None]

NO_KEY_UPDATE: dict[str, Any] = {"key_share": True}
"""How a row is locked to change it: rows that refer to it can still be added meanwhile."""

ANNOUNCEMENTS = "announcements"
"""Key in `session.info` of the lines to log once the unit of work is committed."""

READ_ONLY_TRANSACTION = "25006"
UNAVAILABLE_STATES = ("08", "53", "57", "58", READ_ONLY_TRANSACTION, "40001", "40P01", "55P03")
"""SQLSTATE prefixes of failures that a retry may outlive: connection, resources, shutdown and
time-outs, system errors, a demoted primary, serialization, deadlock, lock not available."""
INVALID_DATA_STATES = ("22", "54")
"""SQLSTATE prefixes of values that PostgreSQL itself refuses."""


def announce(lines: Sequence[str]) -> None:
    """Log what a committed unit of work did."""
    for line in lines:
        logger.info(line)


class Database:
    """One process's way to PostgreSQL; `unit_of_work` writes, `read` reads.

    Both raise ServiceUnavailable where the database cannot be reached or is overloaded, and
    InvalidInput where it refuses a value; IntegrityError is left to the service that knows why.
    """

    def __init__(
        self,
        *,
        sessions: async_sessionmaker[AsyncSession],
        connect: Callable[[], AbstractAsyncContextManager[AsyncConnection]],
        connect_to_primary: Callable[[], AbstractAsyncContextManager[AsyncConnection]],
        engines: Sequence[AsyncEngine] = (),
        has_replica: bool = False,
    ) -> None:
        self.has_replica = has_replica
        """Whether `read` may not have heard yet of what `unit_of_work` has committed."""
        self._sessions = sessions
        self._connect = connect
        self._connect_to_primary = connect_to_primary
        self._engines = engines

    @classmethod
    def from_settings(cls, settings: Settings) -> "Database":
        """Open two pools, lazily: nothing connects before the first request does."""
        if settings.database_url is None:
            raise ValueError("DATABASE_URL is not set")
        write = _create_engine(settings.database_url, settings)
        read = _create_engine(
            settings.database_read_url or settings.database_url,
            settings,
            isolation_level="AUTOCOMMIT",
        )
        sessions = async_sessionmaker(write, expire_on_commit=False)
        return cls(
            sessions=sessions,
            connect=read.connect,
            connect_to_primary=write.execution_options(isolation_level="AUTOCOMMIT").connect,
            engines=[write, read],
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
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection on which each statement is its own transaction."""
        with _database_errors():
            async with self._connect() as connection:
                yield connection

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
        for engine in self._engines:
            await engine.dispose()


def _create_engine(url: str, settings: Settings, **options: Any) -> AsyncEngine:
    timeout_ms = int(settings.database_statement_timeout * 1000)
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
            "timeout": settings.database_connect_timeout,
            "server_settings": {
                "application_name": "pressroom",
                "statement_timeout": str(timeout_ms),
                "idle_in_transaction_session_timeout": str(timeout_ms * 2),
                "timezone": "UTC",
                "jit": "off",
            },
        },
        **options,
    )
    event.listen(engine.sync_engine, "handle_error", _drop_pool_after_failover)
    event.listen(engine.sync_engine, "handle_error", _hide_details)
    return engine


async def connect(*args: Any, **options: Any) -> "asyncpg.Connection[Any]":
    """asyncpg.connect, with every reason not to have a connection as ServiceUnavailable.

    OSError covers refused, unreachable, unresolved and timed out; PostgreSQL itself answers where
    it starts up, has no slot left, or does not know the user or the database.
    """
    try:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(*args, **options)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        _log_database_error(error)
        raise ServiceUnavailable from error
    return connection


def _drop_pool_after_failover(context: ExceptionContext) -> None:
    """A primary that became a standby keeps our connections but refuses writes: reconnect."""
    if _sqlstate(context.original_exception) == READ_ONLY_TRANSACTION:
        context.is_disconnect = True


def _hide_details(context: ExceptionContext) -> None:
    """Take PostgreSQL's DETAIL out of an error: it quotes the row, and traces end up in logs."""
    cause = context.original_exception.__cause__
    if not isinstance(cause, asyncpg.PostgresError) or not cause.detail:
        return
    for error in (context.original_exception, context.sqlalchemy_exception):
        if error is not None:
            error.args = tuple(str(part).replace(cause.detail, "hidden") for part in error.args)
    cause.detail = "hidden"


@contextmanager
def _database_errors() -> Iterator[None]:
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        translated = _translate(error)
        if translated is None:
            raise
        _log_database_error(error)
        raise translated from error


def _translate(error: DBAPIError | PoolTimeout) -> PressroomError | None:
    """The catalogue error for a failure of the database, or None for a mistake of ours."""
    if isinstance(error, PoolTimeout) or error.connection_invalidated:
        return ServiceUnavailable()
    # A migration has changed the table; the next try plans the statement anew.
    if isinstance(error.orig and error.orig.__cause__, asyncpg.InvalidCachedStatementError):
        return ServiceUnavailable()
    state = _sqlstate(error.orig) or ""
    if state.startswith(UNAVAILABLE_STATES):
        return ServiceUnavailable()
    if state.startswith(INVALID_DATA_STATES):
        return InvalidInput()
    return None


def _sqlstate(error: BaseException | None) -> str | None:
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def _log_database_error(error: Exception) -> None:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    logger.warning("database error", error=type(cause).__name__, sqlstate=_sqlstate(cause))


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
