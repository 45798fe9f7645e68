"""Connections of a server in this process: drained without a loss, and never upgraded.

tests/e2e tests server processes.
"""

import asyncio
import socket
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from uvicorn import Config

from app.server.protocol import DrainingServer, PressroomProtocol


async def application(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("here")(scope, receive, send)


async def test_connections_in_the_backlog_are_answered_and_closed() -> None:
    """The worker closes its listener before it has accepted these connections."""
    config = Config(application, http=PressroomProtocol, lifespan="off", log_config=None)
    config.load()
    server = DrainingServer(config)
    server.lifespan = config.lifespan_class(config)
    server.servers = []
    listener = socket.create_server(("127.0.0.1", 0))
    clients = [await asyncio.open_connection(*listener.getsockname()) for _ in range(3)]
    for _, writer in clients:
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")

    await asyncio.wait_for(server.shutdown([listener]), 10)

    for reader, writer in clients:
        response = await asyncio.wait_for(reader.read(), 10)  # until the server closes it
        assert response.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in response
        writer.close()
    assert listener.fileno() == -1


async def test_request_for_a_websocket_is_answered_without_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = Config(application, http=PressroomProtocol, ws="none", lifespan="off", log_config=None)
    config.load()
    server = DrainingServer(config)
    server.lifespan = config.lifespan_class(config)
    server.servers = []
    listener = socket.create_server(("127.0.0.1", 0))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n" + upgrade + b"\r\n")

    await asyncio.wait_for(server.shutdown([listener]), 10)

    response = await asyncio.wait_for(reader.read(), 10)
    assert response.startswith(b"HTTP/1.1 200 ")
    assert "upgrade" not in caplog.text.lower()
    writer.close()
