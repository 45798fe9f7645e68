"""The HTTP/1.1 protocol of uvicorn with JSON errors, and a server that drains its connections.

Middleware does not see input that httptools cannot parse: an unknown method, raw bytes in the
target, or invalid chunks. The protocol itself answers it.
"""

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import Server

from app.core.errors import InvalidRequest
from app.http.errors import error_body
from app.http.streaming import ABORT, DRAIN
from app.server.websocket import LIVE_PATH, LiveProtocol

DRAIN_SECONDS = 3.0
"""How long an idle connection stays open at shutdown.

It is longer than nginx's keepalive timeout (nginx/templates/edge.conf.template: 2 s), so that
nginx closes the connection first.
"""
POLL_SECONDS = 0.05

NOTIFY_SECONDS = 1.0

_MINIMUM_TTL = (
    (socket.IPPROTO_IP, 21),  # IP_MINTTL
    (socket.IPPROTO_IPV6, 73),  # IPV6_MINHOPCOUNT
)
"""Options of Linux that the `socket` module does not name, with their levels."""


def end_streams(state: Mapping[str, Any]) -> None:
    """End open streams and sockets. Otherwise they would stay until the server is killed."""
    if DRAIN in state:
        state[DRAIN]()


class PressroomProtocol(HttpToolsProtocol):
    """The httptools protocol; it answers malformed HTTP with a JSON 400 and closes."""

    is_draining = False

    def drain(self) -> None:
        """Send `Connection: close` with the current response and every later one."""
        self.is_draining = True
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        end_streams(self.app_state)
        super().shutdown()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: self._abort}  # type: ignore[dict-item]  # our extension

    def _abort(self) -> None:
        self.transport.abort()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.is_draining and self.cycle is not None:
            self.cycle.keep_alive = False

    def _should_upgrade_to_ws(self) -> bool:
        return self.url.partition(b"?")[0] == LIVE_PATH

    def handle_websocket_upgrade(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # type: ignore[redundant-expr]  # None at first
            self.transport.abort()  # the unfinished response would no longer wait for its client
            return
        self.ws_protocol_class = LiveProtocol
        super().handle_websocket_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """Do not log each request that asks for a WebSocket. It is answered like others."""

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
    """A uvicorn server that loses no request at shutdown.

    A client may be sending a request on a kept-alive connection. Closing the connection then loses
    it, because a proxy must not repeat a POST (RFC 9110 §9.2.2). So each connection gets one more
    response with `Connection: close`. Connections that stay idle are closed after DRAIN_SECONDS.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        end_streams(self.lifespan.state)
        await self._stop_listening(sockets or [])
        for connection in self.server_state.connections:
            if isinstance(connection, PressroomProtocol):
                connection.drain()
                with connection.transport.get_extra_info("socket").dup() as accepted:
                    _set_minimum_ttl(accepted, 0)
        notifying = asyncio.create_task(self._notify())
        try:
            await self._wait_for_connections()
            await super().shutdown()
        finally:
            notifying.cancel()

    async def _wait_for_connections(self) -> None:
        deadline = asyncio.get_running_loop().time() + DRAIN_SECONDS
        while self.server_state.connections and not self.force_exit:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(POLL_SECONDS)

    async def _notify(self) -> None:
        """Send heartbeats to gunicorn until the shutdown should have ended.

        Otherwise gunicorn would kill a worker that still answers requests.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + DRAIN_SECONDS + (self.config.timeout_graceful_shutdown or 0)
        while self.config.callback_notify is not None and loop.time() < end:
            await self.config.callback_notify()
            await asyncio.sleep(NOTIFY_SECONDS)

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Close the listening sockets, after accepting the connections in their backlog.

        If no other process listens on a socket, the kernel resets the connections in its backlog.
        gunicorn's master process calls `drop_new_connections` before, so that none is added between
        the last `accept` and `close`.
        """
        pending = [connection for listener in sockets for connection in _accept_pending(listener)]
        for server in self.servers:
            server.close()
        for listener in sockets:
            listener.close()
        self.servers = []
        loop = asyncio.get_running_loop()
        for connection in pending:
            await loop.connect_accepted_socket(self._draining_protocol, connection)

    @property
    def _draining_protocol(self) -> Callable[[], asyncio.Protocol]:
        def make() -> asyncio.Protocol:
            protocol = PressroomProtocol(
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )
            protocol.drain()
            return protocol

        return make


def drop_new_connections(listener: socket.socket) -> None:
    """Let the kernel drop packets that open a connection, for all processes of this socket.

    The client sends such a packet again after a second. If the socket is closed by then, the
    connection is refused, and a proxy can send its request elsewhere. Established connections and
    those in the backlog are not affected. Only Linux can do this.

    A connection that is just being established inherits the option. `DrainingServer` removes it.
    """
    _set_minimum_ttl(listener, 255)


def _set_minimum_ttl(connection: socket.socket, ttl: int) -> None:
    if sys.platform == "linux" and connection.family in {socket.AF_INET, socket.AF_INET6}:
        for level, option in _MINIMUM_TTL:
            with suppress(OSError):  # an IPv4 socket, or a sandbox without the option
                connection.setsockopt(level, option, ttl)


def _accept_pending(listener: socket.socket) -> list[socket.socket]:
    """Accept and return all connections in the backlog of `listener`."""
    connections = []
    listener.setblocking(False)
    try:
        while True:
            connections.append(listener.accept()[0])
    except OSError:  # BlockingIOError: the backlog is empty
        return connections
