"""A server in this process with its own database, and clients of streams and sockets."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import httpx
from fastapi import FastAPI
from uvicorn import Config
from websockets.asyncio.client import ClientConnection, connect

from app.core.config import Settings
from app.db.session import Database
from app.main import create_app
from app.server.protocol import DrainingServer, PressroomProtocol
from app.services.integrations.live.hub import Live
from tests.declared import require_declared
from tests.processes import DEADLINE, HOST

PATH = "/changes/stream"


@dataclass
class Event:
    """An event of a stream."""

    name: str = ""
    id: str = ""
    data: Any = None
    retry: int | None = None


class Stream:
    """The events of an open stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()
        self.last_id = ""
        self.retry: int | None = None

    async def next(self) -> Event:
        """Return the next event with data."""
        async with asyncio.timeout(DEADLINE):
            event = Event()
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if not line and event.data is not None:
                    return event
                match name:
                    case "id":
                        self.last_id = event.id = value
                    case "event":
                        event.name = value
                    case "data":
                        event.data = json.loads(value)
                    case "retry":
                        self.retry = event.retry = int(value)
        raise EOFError("the stream has ended")

    async def started(self) -> None:
        """Wait until the stream has its first id: it then misses nothing."""
        async with asyncio.timeout(DEADLINE):
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if name == "retry":
                    self.retry = int(value)
                if name == "id":
                    self.last_id = value
                    return

    async def ended(self) -> bool:
        """Return whether the stream ends without a further event."""
        with suppress(EOFError):
            await self.next()
            return False
        return True


class Socket:
    """A WebSocket with messages in JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def next(self) -> Any:
        async with asyncio.timeout(DEADLINE):
            return json.loads(await self.connection.recv())

    async def until(self, kind: str) -> Any:
        """Return the next message of a type, and skip others."""
        while (message := await self.next())["type"] != kind:
            pass
        return message

    async def ask(self, **message: Any) -> Any:
        """Send a command, and return its answer."""
        await self.send(**message, id=7)
        while (answer := await self.next()).get("id") != 7:
            pass
        return answer

    async def closed(self) -> tuple[int, str]:
        """Wait until the server closes, and return the code and the reason."""
        async with asyncio.timeout(DEADLINE):
            await self.connection.wait_closed()
        frame = self.connection.protocol.close_rcvd
        return (1006, "") if frame is None else (frame.code, frame.reason)


@dataclass
class LiveServer:
    """A running server."""

    app: FastAPI
    server: DrainingServer
    listener: socket.socket
    task: "asyncio.Task[None]"
    client: httpx.AsyncClient

    @property
    def database(self) -> Database:
        database: Database = self.app.state.database
        return database

    @property
    def live(self) -> Live:
        live: Live = self.app.state.live
        return live

    async def without_connections(self) -> None:
        """Wait until the server has noticed that its clients have left."""
        async with asyncio.timeout(DEADLINE):
            while self.live.connections:
                await self.client.get("/health/live")

    @asynccontextmanager
    async def stream(
        self, headers: Mapping[str, str] | None = None, /, **query: Any
    ) -> AsyncIterator[Stream]:
        async with self.client.stream("GET", PATH, params=query, headers=headers) as response:
            yield Stream(response)

    @asynccontextmanager
    async def socket(
        self, headers: Mapping[str, str] | None = None, **options: Any
    ) -> AsyncIterator[Socket]:
        """Open a socket, and authenticate with the bearer token of `headers`."""
        port = self.listener.getsockname()[1]
        async with connect(f"ws://{HOST}:{port}/live", compression=None, **options) as connection:
            opened = Socket(connection)
            if headers is not None:
                token = headers["Authorization"].removeprefix("Bearer ")
                await opened.send(type="authenticate", token=token)
            yield opened

    @classmethod
    async def start(cls, settings: Settings, *, send_buffer: int | None = None) -> Self:
        app = create_app(settings)
        config = Config(app, http=PressroomProtocol, ws="none", log_config=None, lifespan="on")
        config.load()
        server = DrainingServer(config)
        server.lifespan = config.lifespan_class(config)
        listener = socket.create_server((HOST, 0))
        if send_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        await server.startup(sockets=[listener])
        task = asyncio.create_task(_serve(server, listener))
        port = listener.getsockname()[1]
        client = httpx.AsyncClient(
            base_url=f"http://{HOST}:{port}",
            timeout=DEADLINE,
            limits=httpx.Limits(max_connections=None),
            verify=False,  # it uses no TLS
            event_hooks={"response": [partial(require_declared, app)]},
        )
        return cls(app, server, listener, task, client)

    async def stop(self) -> None:
        await self.client.aclose()  # the server would wait for idle connections
        self.server.should_exit = True
        await self.task


async def _serve(server: DrainingServer, listener: socket.socket) -> None:
    await server.main_loop()
    await server.shutdown([listener])


async def connected_socket(
    server: LiveServer, *, receive_buffer: int | None = None
) -> socket.socket:
    """Open a connection. With a small buffer, the server soon waits for its reader."""
    client = socket.socket()
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, server.listener.getsockname())
    return client
