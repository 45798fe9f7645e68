"""Streams that clients send: bounded in total time, however slowly they come."""

import asyncio
from collections.abc import AsyncIterator

from app.core.errors import RequestTimedOut


class Deadline:
    """The end of the time that a stream may take, by the event loop's clock."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = asyncio.get_running_loop().time() + seconds

    def check(self) -> None:
        """Raise RequestTimedOut once the time is over."""
        if asyncio.get_running_loop().time() >= self._at:
            raise self._error()

    async def limit(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same chunks. Raises RequestTimedOut once the time is over, also while it waits."""
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
            f"The transfer took longer than the {self._seconds:g} seconds that it may take"
        )
