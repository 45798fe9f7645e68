"""The WebSocket protocol of uvicorn, for sockets with short messages."""

import logging
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.server import ServerProtocol

from app.http.streaming import ABORT

LIVE_PATH = b"/live"
MAX_MESSAGE_BYTES = 16 * 1024
PING_SECONDS = 30.0
"""How often an idle client is asked whether it is there; nginx waits longer for it."""

_logger = logging.getLogger("uvicorn.websocket")
_logger.setLevel(logging.ERROR)  # uvicorn logs the query string of each handshake


class LiveProtocol(WebSocketsSansIOProtocol):
    """A WebSocket without compression, which would take 40 KB each."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = _logger
        self.conn = ServerProtocol(max_size=MAX_MESSAGE_BYTES, logger=_logger)
        self.ping_interval = self.ping_timeout = PING_SECONDS

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            self.scope["extensions"] = {**(self.scope["extensions"] or {}), ABORT: self._abort}  # type: ignore[dict-item]  # our own extension

    def _abort(self) -> None:
        self.transport.abort()
