"""Database access of one process: units of work and a reader.

A unit of work writes with an ORM session and commits everything or nothing. A reader executes
single statements, each in its own transaction (app.db.reading).
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, cast

import asyncpg
from sqlalchemy import Integer, Select, bindparam, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.url import make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, IntegrityError
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
from app.db.connecting import connect
from app.db.connections import MAX_STATEMENT_SECONDS, Connections, Handlers, Listener
from app.db.failures import (
    READ_ONLY_TRANSACTION,
    hide_details,
    log_database_error,
    sqlstate,
    translate,
)
from app.db.pool import EnginePool, FifoPool, PoolState
from app.db.reading import Reader
from app.db.replicas import ReplicaReader, Replication

logger = get_logger(__name__)

LogLines = Callable[[Sequence[str]], None]
BeforeCommit = Callable[[AsyncSession], Awaitable[None]]

NO_KEY_UPDATE: dict[str, Any] = {"key_share": True}
"""Arguments for FOR NO KEY UPDATE: rows that reference the locked row can still be inserted."""

_RAW_ERRORS = (asyncpg.InternalClientError, asyncpg.InterfaceError)
"""Errors of asyncpg that SQLAlchemy does not wrap: a new connection has ended, for example."""

BEFORE_COMMIT = "before_commit"
"""Key in `session.info` of a list of functions, which are called with the session."""
COMMIT_LOG = "commit_log"
"""Key in `session.info` of the lines to log after the commit."""


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
        replication: Replication | None = None,
        connections_of_host: int = 0,
    ) -> None:
        self.reader = reader
        self.primary = primary or reader
        """Executes single statements on the primary, also those that write."""
        self.replication = replication
        """What is known of other servers; None with one server."""
        self.connections_of_host = connections_of_host
        """How many connections to the primary the processes of a host may open."""
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
        connections = Connections(settings)
        replication = connections.replication
        read_pool = connections.open_read_pool(connections.waiting(connections.connect_to_read))
        reader = Reader(read_pool, echo=settings.debug)
        if replication is not None and replication.has_replicas:
            reader = ReplicaReader(
                read_pool,
                replication,
                wait=settings.database_failover_wait,
                echo=settings.debug,
            )
        engine = _create_engine(settings, connections)

        async def dispose() -> None:
            if replication is not None:
                await replication.stop()
            await read_pool.close()
            await engine.dispose()

        def pool_states() -> Mapping[str, PoolState]:
            read = read_pool.state
            for each in replication.states() if replication else ():
                read = PoolState(*map(sum, zip(read, each, strict=True)))
            return {"write": cast("FifoPool", engine.pool).state, "read": read}

        return cls(
            sessions=async_sessionmaker(engine, expire_on_commit=False),
            reader=reader,
            connect_to_primary=engine.execution_options(isolation_level="AUTOCOMMIT").connect,
            hold_lock=connections.hold_lock,
            listen=connections.listen,
            primary=Reader(EnginePool(engine), echo=settings.debug, pool_name="write"),
            dispose=dispose,
            pool_states=pool_states,
            replication=replication,
            connections_of_host=connections.per_process * (settings.web_concurrency or 1),
        )

    @property
    def has_replicas(self) -> bool:
        """Whether replicas may serve reads."""
        return self.replication is not None and self.replication.has_replicas

    def follow_servers(self) -> None:
        """Check the primary and its replicas until `dispose`, if there are several servers.

        Without it, reads use the primary, and commits do not wait for replicas.
        """
        if self.replication is not None:
            self.replication.start()

    async def replicated(self) -> None:
        """Return when all replicas in use have what was committed before the call.

        A unit of work calls it. Call it before others hear of what the primary shows, or after a
        change on a connection of `autocommit`. It waits for DATABASE_READ_MAX_LAG at most.
        """
        if self.replication is not None:
            await self.replication.replicated()

    @asynccontextmanager
    async def unit_of_work(self, log: LogLines = log_lines) -> AsyncIterator[AsyncSession]:
        """Yield a session; commit when the block ends, roll back when it raises.

        `log` gets the lines in `session.info[COMMIT_LOG]` after the commit. The block ends when
        replicas have the commit, or what an exception tells about.
        """
        try:
            with _database_errors():
                async with self._sessions() as session:
                    session.info[COMMIT_LOG] = []
                    before_commit: list[BeforeCommit] = session.info.setdefault(BEFORE_COMMIT, [])
                    yield session
                    for prepare in before_commit:
                        await prepare(session)
                    await session.commit()
        except ServiceUnavailable:
            raise
        except Exception:
            await self.replicated()
            raise
        await self.replicated()
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


def _create_engine(settings: Settings, connections: Connections) -> AsyncEngine:
    engine = create_async_engine(
        connections.url,
        poolclass=FifoPool,
        pool_size=settings.database_pool_size,
        max_overflow=0,
        pool_timeout=settings.database_pool_timeout,
        echo=settings.debug,
        hide_parameters=True,  # a failing statement's values may be personal data
        connect_args={
            "async_creator_fn": connections.waiting(connect),
            **connections.options(max_statement_seconds=MAX_STATEMENT_SECONDS),
        },
    )
    if connections.replication is not None:
        event.listen(engine.sync_engine, "checkout", _replace_closed)
    event.listen(engine.sync_engine, "handle_error", _drop_pool)
    event.listen(engine.sync_engine, "handle_error", _hide_details)
    if settings.metrics_port:
        event.listen(engine.sync_engine, "before_cursor_execute", _note_start)
        event.listen(engine.sync_engine, "after_cursor_execute", _observe_statement)
    return engine


def _replace_closed(adapter: Any, *_: Any) -> None:
    """Replace a pooled connection that a failover has closed."""
    if adapter.driver_connection.is_closed():
        raise DisconnectionError


def _drop_pool(context: ExceptionContext) -> None:
    """Replace all older connections after a failover, and if the server does not respond.

    A demoted primary keeps connections but rejects writes. After a timeout of the driver,
    SQLAlchemy would replace one connection only.
    """
    error = context.original_exception
    if isinstance(error, TimeoutError):
        context.invalidate_pool_on_disconnect = True
    elif sqlstate(error) == READ_ONLY_TRANSACTION:
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
    except (DBAPIError, PoolTimeout, TimeoutError, *_RAW_ERRORS) as error:
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
