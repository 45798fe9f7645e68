"""The drain by itself: what the kernel has accepted is not lost. (tests/e2e has the processes.)"""

import asyncio
import socket
from typing import Any

from starlette.responses import PlainTextResponse
from uvicorn import Config

from app.core.protocol import DrainingServer, PressroomProtocol


async def application(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("here")(scope, receive, send)


async def test_connections_that_wait_in_the_backlog_are_answered_and_closed() -> None:
    """Nobody has accepted them when the worker is told to stop and closes its listener."""
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
        answer = await asyncio.wait_for(reader.read(), 10)  # to the end: it is closed
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer
        writer.close()
    assert listener.fileno() == -1
