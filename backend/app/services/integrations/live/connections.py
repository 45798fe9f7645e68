"""Open streams and sockets, with what they subscribe to and what waits to be sent."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from app.auth.identity import Identity
from app.core.enums import LiveTopic
from app.services.integrations.live.messages import Batch, Closing

MAX_QUEUED_BYTES = 256 * 1024
"""What may wait for a reader. Messages are shared, so that it is not memory of each reader."""
MAX_SUBSCRIPTIONS = 50
"""What one socket may subscribe to."""
CLOSE_SECONDS = 2.0
"""How long a closed connection may take to send its last message."""

Chunk: TypeAlias = bytes | str


class Subscription:
    """A topic of a connection."""

    __slots__ = ("article_id", "connection", "is_live", "known", "since", "topic")

    def __init__(self, connection: "Connection", topic: LiveTopic, article_id: int | None) -> None:
        self.connection, self.topic, self.article_id = connection, topic, article_id
        self.known: Any = None
        """The position of what the subscriber read before; None for a new subscriber."""
        self.is_live = False
        """Whether the subscriber gets what is new."""
        self.since = 0
        """How many times everything new had been passed on before."""


class Connection:
    """A stream or a socket. Its task sends what `next_chunk` returns."""

    __slots__ = (
        "_chunks",
        "_close_timer",
        "_expiry",
        "_queued",
        "_waiting",
        "abort",
        "closing",
        "format",
        "identity",
        "is_open",
        "kind",
        "sending_since",
        "subscriptions",
    )

    def __init__(
        self,
        kind: str,
        identity: Identity | None,
        *,
        encode: Callable[[Batch], list[Chunk]],
        abort: Callable[[], None],
    ) -> None:
        """`encode` returns what is sent; `abort` closes a connection whose client does not read."""
        self.kind = kind
        self.identity = identity
        self.format = encode
        self.abort = abort
        self.subscriptions: list[Subscription] = []
        self.is_open = True
        """Whether the task goes on."""
        self.closing: Closing | None = None
        """Why the server closes the connection; None while it does not."""
        self.sending_since = 0.0
        """When the current chunk was passed to the server, by the event loop; 0 while none is."""
        self._chunks: deque[Chunk] = deque()
        self._queued = 0
        self._waiting: asyncio.Future[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None

    def push(self, batch: Batch) -> bool:
        """Queue a batch. Return False if too much waits already."""
        return self.push_chunks(self.format(batch))

    def push_chunks(self, chunks: list[Chunk]) -> bool:
        """Queue what is sent as it is. Return False if too much waits already."""
        if self._queued > MAX_QUEUED_BYTES:
            return False
        self._chunks.extend(chunks)
        self._queued += sum(map(len, chunks))
        self._wake()
        return True

    async def next_chunk(self, seconds: float) -> Chunk | None:
        """Wait for something to send. Return None after `seconds`, or if the connection ends.

        What still waits then is not sent. The client reads it when it comes back.
        """
        if not self._chunks and self.is_open:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            timer = loop.call_later(seconds, self._wake)
            try:
                await self._waiting
            finally:
                timer.cancel()
                self._waiting = None
        if not self._chunks or not self.is_open:
            return None
        chunk = self._chunks.popleft()
        self._queued -= len(chunk)
        return chunk

    def close(self, closing: Closing) -> None:
        """Let the task send a last message and end. The first reason counts."""
        if self.is_open:
            self.closing = closing
            loop = asyncio.get_running_loop()
            self._close_timer = loop.call_later(CLOSE_SECONDS, self.abort)
            self.end()

    def end(self) -> None:
        """Let the task end after its current query."""
        self.is_open = False
        self._wake()

    def expire_in(self, seconds: float, closing: Callable[[], Closing]) -> None:
        """Close the connection after `seconds`, instead of at an earlier deadline."""
        if self._expiry is not None:
            self._expiry.cancel()
        loop = asyncio.get_running_loop()
        self._expiry = loop.call_later(max(seconds, 0), lambda: self.close(closing()))

    def discard(self) -> None:
        """Forget what waits, because the connection has ended."""
        self._chunks.clear()
        for timer in (self._expiry, self._close_timer):
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
