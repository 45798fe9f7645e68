"""Connection pools that serve first who waits longest: one for writing, one for reading.

SQLAlchemy's asyncio pool lets a newcomer take the connection that was just given back before the
one who waited for it wakes up, and sends that one to the end of the line: under load some wait
until they time out while others do not wait at all. asyncpg's own pool does the same, and asks
PostgreSQL to reset each connection that is given back.
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


class FairQueue(AsyncAdaptedQueue[ConnectionPoolEntry]):
    """Hands what is put to the first who waits; so nothing lies here while anybody does."""

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

    async def _wait(self, timeout: float | None) -> ConnectionPoolEntry:  # noqa: ASYNC109 - QueueCommon's
        turn: asyncio.Future[ConnectionPoolEntry] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(timeout):
                return await turn
        except BaseException as error:
            turn.cancel()
            if not turn.cancelled():  # it was handed over at the very moment
                self.put_nowait(turn.result())
            if isinstance(error, TimeoutError):
                raise Empty from error
            raise


class FairPool(AsyncAdaptedQueuePool):
    """A pool of asyncio connections, first come, first served."""

    _queue_class = FairQueue


if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[Any]


class ConnectionPool(Protocol):
    """Where a reader takes a connection from, for one statement."""

    def take(self) -> "Connection | None":
        """A connection that is idle; None where one has to be waited for."""

    async def wait(self) -> "Connection":
        """A connection, opened or given back meanwhile. Raises ServiceUnavailable."""

    def give_back(self, connection: "Connection", *, is_broken: bool = False) -> None:
        """Let others have it; not where it is broken, or somebody may still answer on it."""


class ReadPool:
    """Connections of asyncpg's, opened when they are needed, first come, first served.

    The one that was used last is taken first, so that few are kept warm where few are needed.
    """

    def __init__(
        self, connect: "Callable[[], Awaitable[Connection]]", *, size: int, timeout: float
    ) -> None:
        """`size` connections at most; `timeout` is how many seconds one is waited for."""
        self._connect = connect
        self._free = size
        self._timeout = timeout
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._is_closed = False

    def take(self) -> "Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
            self._free += 1
        return None

    async def wait(self) -> "Connection":
        if not self._free:
            connection = await self._turn()
            if connection is not None:
                return connection
        else:
            self._free -= 1
        try:
            return await self._connect()
        except BaseException:
            self._let_open()
            raise

    async def _turn(self) -> "Connection | None":
        """A connection that was given back; None where the next may open one."""
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._timeout):
                return await turn
        except BaseException as error:
            turn.cancel()
            if not turn.cancelled():  # it was handed over at the very moment
                connection = turn.result()
                self._let_open() if connection is None else self.give_back(connection)
            if isinstance(error, TimeoutError):
                log_database_error(error)
                raise ServiceUnavailable from error
            raise

    def give_back(self, connection: "Connection", *, is_broken: bool = False) -> None:
        if is_broken or self._is_closed or connection.is_closed():
            connection.terminate()
            self._let_open()
        elif not self._hand_over(connection):
            self._idle.append(connection)

    def _let_open(self) -> None:
        """There is room for one more: whoever waits first may open it."""
        if not self._hand_over(None):
            self._free += 1

    def _hand_over(self, connection: "Connection | None") -> bool:
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(connection)
                return True
        return False

    async def close(self) -> None:
        """Close what is idle at once, and the rest when it is given back."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop().close()
