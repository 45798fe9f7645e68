"""A connection pool that serves first who waits longest.

SQLAlchemy's asyncio pool lets a newcomer take the connection that was just given back before the
one who waited for it wakes up, and sends that one to the end of the line: under load some wait
until they time out while others do not wait at all.
"""

import asyncio
from collections import deque

from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util.concurrency import await_
from sqlalchemy.util.queue import AsyncAdaptedQueue, Empty, Full


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
