"""Connections of a server in this process: drained without a loss, and never upgraded.

tests/e2e tests server processes.
"""

import asyncio
import socket
import sys
from functools import partial
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from uvicorn import Config

from app.server import protocol
from app.server.protocol import DrainingServer, PressroomProtocol, drop_new_connections


async def application(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("here")(scope, receive, send)


def started(answer: Any, **options: Any) -> DrainingServer:
    """Return a server without sockets."""
    config = Config(answer, http=PressroomProtocol, lifespan="off", log_config=None, **options)
    config.load()
    server = DrainingServer(config)
    server.lifespan = config.lifespan_class(config)
    server.servers = []
    return server


async def test_connections_in_the_backlog_are_answered_and_closed() -> None:
    """The worker closes its listener before it has accepted these connections."""
    server = started(application)
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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux drops new connections")
async def test_connection_that_inherits_the_minimum_ttl_is_answered() -> None:
    """It was established after the listener dropped new connections, and before it was accepted."""
    server = started(application)
    listener = socket.create_server(("127.0.0.1", 0))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    accepted, _ = listener.accept()
    drop_new_connections(accepted)
    make = partial(PressroomProtocol, server.config, server.server_state, {})
    await asyncio.get_running_loop().connect_accepted_socket(make, accepted)
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")

    await asyncio.wait_for(server.shutdown([listener]), 10)

    response = await asyncio.wait_for(reader.read(), 10)
    assert response.startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_heartbeats_are_sent_during_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them, gunicorn kills a worker after 60 seconds, also while it answers."""
    monkeypatch.setattr(protocol, "NOTIFY_SECONDS", 0.001)
    released, heartbeats = asyncio.Event(), 0

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await released.wait()
        await PlainTextResponse("here")(scope, receive, send)

    async def notify() -> None:
        nonlocal heartbeats
        heartbeats += 1
        if heartbeats == 3:
            released.set()

    server = started(slow)
    server.config.callback_notify = notify
    listener = socket.create_server(("127.0.0.1", 0))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")

    await asyncio.wait_for(server.shutdown([listener]), 10)

    assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_request_for_a_websocket_is_answered_without_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = started(application, ws="none")
    listener = socket.create_server(("127.0.0.1", 0))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n" + upgrade + b"\r\n")

    await asyncio.wait_for(server.shutdown([listener]), 10)

    response = await asyncio.wait_for(reader.read(), 10)
    assert response.startswith(b"HTTP/1.1 200 ")
    assert "upgrade" not in caplog.text.lower()
    writer.close()
