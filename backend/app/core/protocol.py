"""HTTP/1.1 as uvicorn speaks it, with its own refusals in our error shape, and a drain at the end.

What httptools cannot parse (an unknown method, raw bytes in the target, bad chunks) never becomes a
request, so that no middleware sees it.
"""

import asyncio
import json
import socket
from collections.abc import Callable
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import Server

from app.core.errors import InvalidRequest, error_body

DRAIN_SECONDS = 3.0
"""How long an idle connection stays open at shutdown: longer than the edge keeps one without a
request (nginx/templates/edge.conf.template: 2 s), so that it is the edge that closes it."""
POLL_SECONDS = 0.05


class PressroomProtocol(HttpToolsProtocol):
    """httptools' protocol; answers what is not HTTP with 400 as JSON, and closes."""

    is_draining = False

    def drain(self) -> None:
        """Answer what is being asked, and what may be asked yet, with `Connection: close`."""
        self.is_draining = True
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.is_draining and self.cycle is not None:
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        identifier = uuid4().hex
        body = error_body(
            message=InvalidRequest.message,
            code=InvalidRequest.code,
            detail=msg,
            identifier=identifier,
        )
        content = json.dumps(body, separators=(",", ":")).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(content)}\r\n"
            f"x-request-id: {identifier}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()


class DrainingServer(Server):
    """uvicorn's server, that loses no request when it is told to stop.

    Whoever keeps connections open may be sending a request on one right now, and a proxy must not
    send a POST twice (RFC 9110 §9.2.2): a connection that is closed at that moment loses it. So
    each is first answered once more, with `Connection: close`; what stays idle is closed later.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._stop_listening(sockets or [])
        for connection in self.server_state.connections:
            if isinstance(connection, PressroomProtocol):
                connection.drain()
        deadline = asyncio.get_running_loop().time() + DRAIN_SECONDS
        while self.server_state.connections and not self.force_exit:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(POLL_SECONDS)
        await super().shutdown()

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Take no new connections but those that the kernel has taken for us already.

        Where this is the last process that listens, it would reset them.
        """
        waiting = [connection for listener in sockets for connection in _backlog(listener)]
        for server in self.servers:
            server.close()
        for listener in sockets:
            listener.close()
        self.servers = []
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)

    @property
    def _protocol(self) -> Callable[[], asyncio.Protocol]:
        def make() -> asyncio.Protocol:
            protocol = PressroomProtocol(
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )
            protocol.drain()
            return protocol

        return make


def _backlog(listener: socket.socket) -> list[socket.socket]:
    """The connections that nobody has accepted yet."""
    found = []
    listener.setblocking(False)
    try:
        while True:
            found.append(listener.accept()[0])
    except OSError:  # BlockingIOError: there are no more
        return found
