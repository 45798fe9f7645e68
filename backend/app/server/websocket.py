"""The WebSocket protocol of uvicorn, for sockets with short messages."""

import logging
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.server import ServerProtocol

from app.http.streaming import ABORT

LIVE_PATH = b"/live"
MAX_MESSAGE_BYTES = 16 * 1024
PING_SECONDS = 30.0
"""How often an idle client is asked whether it is there; nginx waits longer for it."""
MAX_FRAMES = 200
FRAMES_SECONDS = 10.0
"""Within this time, a client may send MAX_FRAMES pings, pongs and continuations of messages.

Reading pauses while a message waits for the application, but not for these.
"""
MAX_WAITING = 1000
"""Messages that may wait for the application: reading pauses, but a part that was read has many."""

_logger = logging.getLogger("uvicorn.websocket")
_logger.setLevel(logging.ERROR)  # uvicorn logs the query string of each handshake


class LiveProtocol(WebSocketsSansIOProtocol):
    """A WebSocket without compression, which would take 40 KB each."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = _logger
        self.conn = ServerProtocol(max_size=MAX_MESSAGE_BYTES, logger=_logger)
        self.ping_interval = self.ping_timeout = PING_SECONDS
        self._frames = 0
        self._frames_since = 0.0

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            self.scope["extensions"] = {**(self.scope["extensions"] or {}), ABORT: self._abort}  # type: ignore[dict-item]  # our own extension

    def handle_cont(self, event: Frame) -> None:
        self._count_frame()
        super().handle_cont(event)

    def handle_ping(self) -> None:
        self._count_frame()
        super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        self._count_frame()
        super().handle_pong(event)

    def send_receive_event_to_app(self) -> None:
        if self.close_sent:  # the message is read, and forgotten
            self._count_frame()
        super().send_receive_event_to_app()
        if self.queue.qsize() > MAX_WAITING:
            self._abort()

    def _count_frame(self) -> None:
        now = self.loop.time()
        if now - self._frames_since > FRAMES_SECONDS:
            self._frames, self._frames_since = 0, now
        self._frames += 1
        if self._frames > MAX_FRAMES:
            self._abort()

    def _abort(self) -> None:
        self.transport.abort()
