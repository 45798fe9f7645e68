"""Database access of one process: units of work and a reader.

A unit of work writes with an ORM session and commits everything or nothing. A reader executes
single statements, each in its own transaction (app.db.reading).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Protocol, TypeAlias, cast

import asyncpg
from pydantic_core import from_json, to_json
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

from app.core import metrics
from app.core.config import Settings
from app.core.errors import PressroomError, ServiceUnavailable
from app.core.logging import get_logger, log_events
from app.db.connecting import connect, connect_to
from app.db.failures import (
    DRIVER_ERRORS,
    READ_ONLY_TRANSACTION,
    hide_details,
    log_database_error,
    sqlstate,
    translate,
)
from app.db.pool import EnginePool, FifoPool, PoolState, ReadPool
from app.db.reading import Reader

logger = get_logger(__name__)

LogLines = Callable[[Sequence[str]], None]
BeforeCommit = Callable[[AsyncSession], Awaitable[None]]

NO_KEY_UPDATE: dict[str, Any] = {"key_share": True}
"""Arguments for FOR NO KEY UPDATE: rows that reference the locked row can still be inserted."""

Handlers: TypeAlias = Mapping[str, Callable[[str], object]]
"""Functions by channel, which get the payload of each notification."""

LISTENER = "pressroom listener"
"""The `application_name` of connections that listen."""
MAX_STATEMENT_SECONDS = 60
"""The highest `statement_timeout` that a unit of work may set for one statement."""
COMMAND_TIMEOUT_MARGIN_SECONDS = 5
"""How much longer asyncpg waits than `statement_timeout`, for the error of PostgreSQL."""

BEFORE_COMMIT = "before_commit"
"""Key in `session.info` of a list of functions, which are called with the session."""
COMMIT_LOG = "commit_log"
"""Key in `session.info` of the lines to log after the commit."""


class Listener(Protocol):
    """A connection that listens to channels of NOTIFY."""

    async def check(self, seconds: float) -> None:
        """Return after `seconds`, if the connection works. Raises ServiceUnavailable."""


def log_lines(lines: Sequence[str]) -> None:
    """Log the lines of a committed unit of work."""
    log_events(logger, lines, {})


class Database:
    """Access to PostgreSQL: `unit_of_work` and `primary` write, `reader` reads.

    All raise ServiceUnavailable if the database is unreachable or overloaded, and InvalidInput if
    it rejects a value. Services handle IntegrityError.
    """

    def __init__(
        self,
        *,
        sessions: async_sessionmaker[AsyncSession],
        reader: Reader,
        connect_to_primary: Callable[[], AbstractAsyncContextManager[AsyncConnection]],
        hold_lock: Callable[[int], AbstractAsyncContextManager[bool]],
        listen: "Callable[[Handlers], AbstractAsyncContextManager[Listener]] | None" = None,
        primary: Reader | None = None,
        dispose: Callable[[], Awaitable[None]] | None = None,
        pool_states: Callable[[], Mapping[str, PoolState]] = dict,
        has_replica: bool = False,
    ) -> None:
        self.reader = reader
        self.primary = primary or reader
        """Executes single statements on the primary, also those that write."""
        self.has_replica = has_replica
        """Whether `reader` may lag behind the commits of `unit_of_work`."""
        self._sessions = sessions
        self._connect_to_primary = connect_to_primary
        self._hold_lock = hold_lock
        self._listen = listen
        self._dispose = dispose
        self.pool_states = pool_states
        """Returns the states of the pools `write` and `read`."""

    @classmethod
    def from_settings(cls, settings: Settings) -> "Database":
        """Create both pools; they open connections on demand."""
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

        def pool_states() -> Mapping[str, PoolState]:
            return {"write": cast("FifoPool", engine.pool).state, "read": pool.state}

        return cls(
            sessions=async_sessionmaker(engine, expire_on_commit=False),
            reader=Reader(pool, echo=settings.debug),
            connect_to_primary=engine.execution_options(isolation_level="AUTOCOMMIT").connect,
            hold_lock=partial(_hold_lock, settings.database_url, settings),
            listen=partial(_listen, settings.database_url, settings),
            primary=Reader(EnginePool(engine), echo=settings.debug, pool_name="write"),
            dispose=dispose,
            pool_states=pool_states,
            has_replica=settings.database_read_url is not None,
        )

    @asynccontextmanager
    async def unit_of_work(self, log: LogLines = log_lines) -> AsyncIterator[AsyncSession]:
        """Yield a session; commit when the block ends, roll back when it raises.

        `log` gets the lines in `session.info[COMMIT_LOG]` after the commit.
        """
        with _database_errors():
            async with self._sessions() as session:
                session.info[COMMIT_LOG] = []
                before_commit: list[BeforeCommit] = session.info.setdefault(BEFORE_COMMIT, [])
                yield session
                for prepare in before_commit:
                    await prepare(session)
                await session.commit()
        if session.info[COMMIT_LOG]:
            log(session.info[COMMIT_LOG])

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection to the primary in autocommit mode.

        A single statement needs a third of the round trips of a unit of work.
        """
        with _database_errors():
            async with self._connect_to_primary() as connection:
                yield connection

    @asynccontextmanager
    async def exclusively(self, lock: int) -> AsyncIterator[bool]:
        """Hold an advisory lock of PostgreSQL while the block runs; yield False if it is not free.

        It ends with its connection. The block must tolerate another holder after such a failure.
        """
        async with self._hold_lock(lock) as is_held:
            yield is_held

    @asynccontextmanager
    async def listening(self, handlers: Handlers) -> AsyncIterator[Listener]:
        """Listen to channels of NOTIFY on a connection of its own while the block runs.

        Each handler gets the payloads of its channel. Raises ServiceUnavailable when the connection
        fails. Notifications are lost until the next one listens.
        """
        if self._listen is None:
            raise ServiceUnavailable
        async with self._listen(handlers) as listener:
            yield listener

    async def dispose(self) -> None:
        """Close every pooled connection."""
        if self._dispose is not None:
            await self._dispose()


def _create_engine(url: str, settings: Settings) -> AsyncEngine:
    engine = create_async_engine(
        url,
        poolclass=FifoPool,
        pool_size=settings.database_pool_size,
        max_overflow=0,
        pool_timeout=settings.database_pool_timeout,
        echo=settings.debug,
        hide_parameters=True,  # a failing statement's values may be personal data
        connect_args={
            "async_creator_fn": connect,
            **_connect_options(settings, max_statement_seconds=MAX_STATEMENT_SECONDS),
        },
    )
    event.listen(engine.sync_engine, "handle_error", _drop_pool_after_failover)
    event.listen(engine.sync_engine, "handle_error", _hide_details)
    if settings.metrics_port:
        event.listen(engine.sync_engine, "before_cursor_execute", _note_start)
        event.listen(engine.sync_engine, "after_cursor_execute", _observe_statement)
    return engine


def _connect_options(settings: Settings, *, max_statement_seconds: float) -> dict[str, Any]:
    seconds = settings.database_statement_timeout
    timeout_ms = int(seconds * 1000)
    return {
        "timeout": settings.database_connect_timeout,
        # PostgreSQL cancels a slow statement; this timeout is for a server that does not respond.
        "command_timeout": max(seconds, max_statement_seconds) + COMMAND_TIMEOUT_MARGIN_SECONDS,
        "server_settings": {
            "application_name": "pressroom",
            "statement_timeout": str(timeout_ms),
            "idle_in_transaction_session_timeout": str(timeout_ms * 2),
            "timezone": "UTC",
            "jit": "off",
        },
    }


async def _connect_to_read(url: str, settings: Settings) -> "asyncpg.Connection[Any]":
    """Open a connection for a reader; it returns parsed JSON."""
    connection = await _connect_to(url, settings)
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=to_json, decoder=from_json, format="text"
    )
    return connection


async def _connect_to(
    url: str, settings: Settings, **server_settings: str
) -> "asyncpg.Connection[Any]":
    options = _connect_options(settings, max_statement_seconds=0)
    options["server_settings"] |= server_settings
    return await connect_to(url, **options)


@asynccontextmanager
async def _own_connection(
    url: str, settings: Settings, **server_settings: str
) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """Open a connection outside of the pools, and close it after the block."""
    connection = await _connect_to(url, settings, **server_settings)
    try:
        yield connection
    finally:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=settings.database_connect_timeout)


@asynccontextmanager
async def _hold_lock(url: str, settings: Settings, lock: int) -> AsyncIterator[bool]:
    """Hold the lock on a connection of its own: the pools may have only one connection each.

    The lock belongs to a transaction, because poolers may share connections between transactions.
    It has no snapshot while it is idle, so that VACUUM can remove rows.
    """
    async with _own_connection(url, settings) as connection:
        try:
            await connection.execute("BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0")
            is_held: bool = await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", lock)
        except DRIVER_ERRORS as error:
            log_database_error(error)
            raise ServiceUnavailable from error
        yield is_held


class _Listener:
    def __init__(self, connection: "asyncpg.Connection[Any]", timeout_seconds: float) -> None:
        self._connection = connection
        self._timeout_seconds = timeout_seconds
        self._ended = asyncio.Event()
        connection.add_termination_listener(lambda _: self._ended.set())

    async def check(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        try:
            await self._connection.execute("SELECT 1", timeout=self._timeout_seconds)
        except (*DRIVER_ERRORS, TimeoutError) as error:
            raise ServiceUnavailable from error


@asynccontextmanager
async def _listen(url: str, settings: Settings, handlers: Handlers) -> AsyncIterator[Listener]:
    async with _own_connection(url, settings, application_name=LISTENER) as connection:
        listener = _Listener(connection, settings.database_connect_timeout)
        try:
            for channel, handle in handlers.items():
                await connection.add_listener(
                    channel, lambda *received, handle=handle: handle(received[3])
                )
        except DRIVER_ERRORS as error:
            log_database_error(error)
            raise ServiceUnavailable from error
        yield listener


def _drop_pool_after_failover(context: ExceptionContext) -> None:
    """Reconnect after a failover: a demoted primary keeps connections but rejects writes."""
    if sqlstate(context.original_exception) == READ_ONLY_TRANSACTION:
        context.is_disconnect = True


def _note_start(*arguments: Any) -> None:
    context = arguments[4]
    if context is not None:  # app.db.writing measures its statements itself
        context.started = time.perf_counter()


def _observe_statement(*arguments: Any) -> None:
    context = arguments[4]
    if (recorder := metrics.recorder()) is not None:
        recorder.statements["write"].add(time.perf_counter() - context.started)


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
        translated = _translate(error)
        if translated is None:
            raise
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        log_database_error(cause)
        raise translated from error


def _translate(error: Exception) -> PressroomError | None:
    """Return the catalogue's error for a SQLAlchemy error, or None for a programming error."""
    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return ServiceUnavailable()
    driver_error = error.orig and error.orig.__cause__
    return translate(driver_error) or translate(error.orig)


def paged(statement: Select[Any]) -> Select[Any]:
    """Add OFFSET and LIMIT with the parameters `skip` and `limit`."""
    skip, limit = bindparam("skip", type_=Integer), bindparam("limit", type_=Integer)
    return statement.offset(skip).limit(limit)


@contextmanager
def constraint_errors(errors: Mapping[str, type[PressroomError]]) -> Iterator[None]:
    """Translate IntegrityError by constraint name: `{"uq_users_email": EmailTaken}`.

    Flush inside the block, so that the statement runs there. Other constraints raise as before.
    """
    try:
        yield
    except IntegrityError as error:
        name = getattr(getattr(error.orig, "__cause__", None), "constraint_name", None) or ""
        if name not in errors:
            raise
        raise errors[name] from error


def readable_url(url: str) -> str:
    """Return the URL with a masked password, for messages."""
    return make_url(url).render_as_string(hide_password=True)
