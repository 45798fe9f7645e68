"""FIFO connection pools: one for SQLAlchemy engines, one for readers.

In SQLAlchemy's asyncio pool, a new request may get a released connection before the longest-waiting
task wakes up. That task then waits at the end of the queue again. Under load, some requests time
out while others do not wait at all. asyncpg's pool behaves the same, and its release runs reset
statements on the connection.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, cast
from weakref import WeakSet

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.util.concurrency import await_
from sqlalchemy.util.queue import AsyncAdaptedQueue, Empty

from app.core.errors import ServiceUnavailable
from app.db.failures import DRIVER_ERRORS, log_database_error

Item = TypeVar("Item")


class NoFreeConnection(ServiceUnavailable):
    """All connections of a pool were in use for too long."""


class PoolState(NamedTuple):
    """The connections of a pool and the tasks that wait for one."""

    in_use: int
    idle: int
    waiting: int
    timeouts: int
    """Tasks that waited in vain, since the pool was created."""


class FifoQueue(Generic[Item]):
    """The waiting tasks of a pool: each item is passed directly to the one that waits longest."""

    def __init__(self, put_back: Callable[[Item], object]) -> None:
        """`put_back` gets the item of a task that was cancelled when the item arrived."""
        self._put_back = put_back
        self._waiting: deque[asyncio.Future[Item]] = deque()
        self.timeouts = 0

    @property
    def waiting(self) -> int:
        """Return the number of waiting tasks."""
        return sum(not each.done() for each in self._waiting)

    def pass_on(self, item: Item) -> bool:
        """Pass an item to the longest-waiting task. Return False if no task is waiting."""
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(item)
                return True
        return False

    async def wait(self, seconds: float | None) -> Item:
        """Wait for an item. Raises TimeoutError."""
        future: asyncio.Future[Item] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(seconds):
                return await future
        except BaseException as error:
            future.cancel()
            self.timeouts += isinstance(error, TimeoutError)
            if not future.cancelled():  # the item arrived at the same time
                self._put_back(future.result())
            raise


class EngineQueue(AsyncAdaptedQueue[ConnectionPoolEntry]):
    """The idle connections of SQLAlchemy's pool, with a FIFO queue of waiting tasks."""

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        super().__init__(maxsize, use_lifo)
        self.tasks = FifoQueue(self.put_nowait)

    def put_nowait(self, item: ConnectionPoolEntry) -> None:
        if not self.tasks.pass_on(item):
            super().put_nowait(item)

    def get(self, block: bool = True, timeout: float | None = None) -> ConnectionPoolEntry:
        if not block or not self.empty():
            return self.get_nowait()
        try:
            entry: ConnectionPoolEntry = await_(self.tasks.wait(timeout))
        except TimeoutError as error:
            raise Empty from error
        return entry


class FifoPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's asyncio pool with a FIFO queue."""

    _queue_class = EngineQueue
    _pool: EngineQueue

    def _create_connection(self) -> ConnectionPoolEntry:
        """Return an entry that is connected later. If this fails, the next task gets the entry."""
        return _ConnectionRecord(self, connect=False)

    @property
    def state(self) -> PoolState:
        """Return the state of the pool."""
        tasks = self._pool.tasks
        return PoolState(self.checkedout(), self.checkedin(), tasks.waiting, tasks.timeouts)


if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[Any]


class ConnectionPool(Protocol):
    """The pool of a reader, which acquires a connection for each statement."""

    @property
    def is_busy(self) -> bool:
        """Whether all connections are open and in use, so that `acquire` waits for one."""

    def acquire_idle(self) -> "Connection | None":
        """Return an idle connection, or None if there is none."""

    async def acquire(self, opening: Callable[[], object] | None = None) -> "Connection":
        """Open a connection or wait for a released one. Raises ServiceUnavailable.

        `opening` is called before a connection is opened, which may take long.
        """

    def release(self, connection: "Connection", *, is_broken: bool = False) -> None:
        """Make a connection available again; close it if it is broken."""


class EnginePool:
    """The pool of an engine for a reader: its statements are their own transactions."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._used: dict[Connection, PoolProxiedConnection] = {}

    @property
    def is_busy(self) -> bool:
        return False  # the engine does not tell

    def acquire_idle(self) -> "Connection | None":
        return None

    async def acquire(self, opening: Callable[[], object] | None = None) -> "Connection":
        try:
            pooled = await self._engine.raw_connection()
        except (PoolTimeout, DBAPIError, *DRIVER_ERRORS) as error:
            log_database_error(error)
            raise ServiceUnavailable from error
        connection: Connection = cast("Any", pooled.driver_connection)
        self._used[connection] = pooled
        return connection

    def release(self, connection: "Connection", *, is_broken: bool = False) -> None:
        pooled = self._used.pop(connection)
        if is_broken:
            pooled.invalidate()
        pooled.close()


class ReadPool:
    """A FIFO pool of asyncpg connections, which are opened on demand.

    The most recently used idle connection is reused first, so that the others can stay unused.
    """

    def __init__(
        self, connect: "Callable[[], Awaitable[Connection]]", *, size: int, timeout: float
    ) -> None:
        """Open at most `size` connections, and wait at most `timeout` seconds for one."""
        self._connect = connect
        self._size = size
        self._available = size
        """The number of connections that may still be opened."""
        self._timeout = timeout
        self._idle: list[Connection] = []
        self._opened: WeakSet[Connection] = WeakSet()
        self._tasks = FifoQueue(self._put_back)
        """Tasks waiting for a connection, or for None: the permission to open one."""
        self._is_closed = False

    @property
    def state(self) -> PoolState:
        """Return the state of the pool."""
        idle = len(self._idle)
        in_use = self._size - self._available - idle
        return PoolState(in_use, idle, self._tasks.waiting, self._tasks.timeouts)

    @property
    def is_busy(self) -> bool:
        return not self._idle and not self._available

    def acquire_idle(self) -> "Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
            self._available += 1
        return None

    async def acquire(self, opening: Callable[[], object] | None = None) -> "Connection":
        if not self._available:
            try:
                connection = await self._tasks.wait(self._timeout)
            except TimeoutError as error:
                log_database_error(error)
                raise NoFreeConnection from error
            if connection is not None:
                return connection
        else:
            self._available -= 1
        if opening is not None:
            opening()
        try:
            connection = await self._connect()
        except BaseException as error:
            self._allow_opening()
            if isinstance(error, DRIVER_ERRORS):  # after the handshake
                log_database_error(error)
                raise ServiceUnavailable from error
            raise
        self._opened.add(connection)
        return connection

    def drop(self) -> None:
        """Close all connections now. Statements that are in progress fail as if they were lost."""
        for connection in list(self._opened):
            connection.terminate()

    def _put_back(self, connection: "Connection | None") -> None:
        self._allow_opening() if connection is None else self.release(connection)

    def release(self, connection: "Connection", *, is_broken: bool = False) -> None:
        if is_broken or self._is_closed or connection.is_closed():
            connection.terminate()
            self._allow_opening()
        elif not self._tasks.pass_on(connection):
            self._idle.append(connection)

    def _allow_opening(self) -> None:
        """Let the longest-waiting task, or else the next caller, open a connection."""
        if not self._tasks.pass_on(None):
            self._available += 1

    async def close(self) -> None:
        """Close idle connections now, and all others when they are released."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop().close()
