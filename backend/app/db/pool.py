"""FIFO connection pools: one for SQLAlchemy engines, one for readers.

In SQLAlchemy's asyncio pool, a new request may get a released connection before the longest-waiting
task wakes up. That task then waits at the end of the queue again, so that under load some requests
time out while others do not wait at all. asyncpg's pool behaves the same, and its release runs
reset statements on the connection.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import asyncpg
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util.concurrency import await_
from sqlalchemy.util.queue import AsyncAdaptedQueue, Empty, Full

from app.core.errors import ServiceUnavailable
from app.db.failures import log_database_error


class FifoQueue(AsyncAdaptedQueue[ConnectionPoolEntry]):
    """A queue that passes each item directly to the longest-waiting task."""

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        super().__init__(maxsize, use_lifo)
        self._items: deque[ConnectionPoolEntry] = deque()
        self._waiting: deque[asyncio.Future[ConnectionPoolEntry]] = deque()

    def empty(self) -> bool:
        return not self._items

    def full(self) -> bool:
        return 0 < self.maxsize <= len(self._items)

    def qsize(self) -> int:
        return len(self._items)

    def put_nowait(self, item: ConnectionPoolEntry) -> None:
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(item)
                return
        if self.full():
            raise Full
        self._items.append(item)

    def put(
        self, item: ConnectionPoolEntry, block: bool = True, timeout: float | None = None
    ) -> None:
        self.put_nowait(item)

    def get_nowait(self) -> ConnectionPoolEntry:
        if not self._items:
            raise Empty
        return self._items.popleft()

    def get(self, block: bool = True, timeout: float | None = None) -> ConnectionPoolEntry:
        if self._items or not block:
            return self.get_nowait()
        entry: ConnectionPoolEntry = await_(self._wait(timeout))
        return entry

    async def _wait(self, timeout: float | None) -> ConnectionPoolEntry:  # noqa: ASYNC109 - `get` has this parameter
        future: asyncio.Future[ConnectionPoolEntry] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(timeout):
                return await future
        except BaseException as error:
            future.cancel()
            if not future.cancelled():  # the item arrived at the same time
                self.put_nowait(future.result())
            if isinstance(error, TimeoutError):
                raise Empty from error
            raise


class FifoPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's asyncio pool with a FIFO queue."""

    _queue_class = FifoQueue


if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[Any]


class ConnectionPool(Protocol):
    """The pool of a reader, which acquires a connection for each statement."""

    def acquire_idle(self) -> "Connection | None":
        """Return an idle connection, or None if there is none."""

    async def acquire(self) -> "Connection":
        """Open a connection or wait for a released one. Raises ServiceUnavailable."""

    def release(self, connection: "Connection", *, is_broken: bool = False) -> None:
        """Make a connection available again; close it if it is broken."""


class ReadPool:
    """A FIFO pool of asyncpg connections, which are opened on demand.

    The most recently used idle connection is reused first, so that the others can stay unused.
    """

    def __init__(
        self, connect: "Callable[[], Awaitable[Connection]]", *, size: int, timeout: float
    ) -> None:
        """Open at most `size` connections, and wait at most `timeout` seconds for one."""
        self._connect = connect
        self._available = size
        """The number of connections that may still be opened."""
        self._timeout = timeout
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._is_closed = False

    def acquire_idle(self) -> "Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
            self._available += 1
        return None

    async def acquire(self) -> "Connection":
        if not self._available:
            connection = await self._wait()
            if connection is not None:
                return connection
        else:
            self._available -= 1
        try:
            return await self._connect()
        except BaseException:
            self._allow_opening()
            raise

    async def _wait(self) -> "Connection | None":
        """Wait for a released connection; return None if the caller may open a new one."""
        future: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(self._timeout):
                return await future
        except BaseException as error:
            future.cancel()
            if not future.cancelled():  # the connection arrived at the same time
                connection = future.result()
                self._allow_opening() if connection is None else self.release(connection)
            if isinstance(error, TimeoutError):
                log_database_error(error)
                raise ServiceUnavailable from error
            raise

    def release(self, connection: "Connection", *, is_broken: bool = False) -> None:
        if is_broken or self._is_closed or connection.is_closed():
            connection.terminate()
            self._allow_opening()
        elif not self._wake_first(connection):
            self._idle.append(connection)

    def _allow_opening(self) -> None:
        """Let the longest-waiting task, or else the next caller, open a connection."""
        if not self._wake_first(None):
            self._available += 1

    def _wake_first(self, connection: "Connection | None") -> bool:
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(connection)
                return True
        return False

    async def close(self) -> None:
        """Close idle connections now, and all others when they are released."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop().close()
