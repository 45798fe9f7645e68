"""A total time limit for uploads, imports and exports."""

import asyncio
from collections.abc import AsyncIterator

from app.core.errors import RequestTimedOut


class Deadline:
    """The time at which a stream must be finished, by the clock of the event loop."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = asyncio.get_running_loop().time() + seconds

    def check(self) -> None:
        """Raise RequestTimedOut after the deadline."""
        if asyncio.get_running_loop().time() >= self._at:
            raise self._error()

    async def limit(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the chunks. Raises RequestTimedOut at the deadline, also while waiting for one."""
        while True:
            self.check()  # `timeout_at` does not interrupt chunks that arrive without waiting
            try:
                async with asyncio.timeout_at(self._at):
                    chunk = await anext(chunks, None)
            except TimeoutError:
                raise self._error() from None
            if chunk is None:
                return
            yield chunk

    def _error(self) -> RequestTimedOut:
        return RequestTimedOut(
            f"The transfer took longer than the limit of {self._seconds:g} seconds"
        )
