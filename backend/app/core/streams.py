"""A time limit for uploads, imports and exports as a whole."""

import asyncio
from collections.abc import AsyncIterator

from app.core.errors import RequestTimedOut


class Deadline:
    """The moment by which a stream must end, by the clock of the event loop."""

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
            self.check()  # a chunk that is there already is returned without a pause
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
