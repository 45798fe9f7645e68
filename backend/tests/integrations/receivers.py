"""Receivers of webhooks on 127.0.0.1, which answer as a test wants."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any, NamedTuple

import standardwebhooks

from app.services.integrations.sending import Sender
from tests.bulk.sites import Names

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BROKEN = b"HTTP/1.1 500 Broken\r\nContent-Length: 4\r\n\r\noops"
LOCAL = {ip_address("127.0.0.1")}

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


class Message(NamedTuple):
    """A received request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    @property
    def type(self) -> str:
        kind: str = self.json["type"]
        return kind

    def verify(self, secret: str) -> None:
        """Check the signature. Raises WebhookVerificationError."""
        standardwebhooks.Webhook(secret).verify(self.body, self.headers)


class Receiver:
    """A server that stores the requests it gets, and answers each with `answer`."""

    def __init__(self) -> None:
        self.answer: Answer = OK
        self.messages: list[Message] = []
        self.arrived = asyncio.Event()
        self.connections = 0
        self.url = ""
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def types(self) -> list[str]:
        return [message.type for message in self.messages]

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.create_task(self._handle(reader, writer)))

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().split("\r\n")
                pairs = (line.split(": ", 1) for line in lines if line)
                headers = {name.lower(): value for name, value in pairs}
                body = await reader.readexactly(int(headers["content-length"]))
                self.messages.append(Message(first.split(" ")[1], headers, body))
                self.arrived.set()
                answer = self.answer
                if isinstance(answer, bytes):
                    writer.write(answer)
                else:
                    await answer(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, UnicodeError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving(
    *, host: str = "127.0.0.1", context: ssl.SSLContext | None = None, name: str | None = None
) -> AsyncIterator[Receiver]:
    """Run a receiver while the block runs."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.accept, host, 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    scheme = "https" if context else "http"
    receiver.url = f"{scheme}://{name or host}:{port}/hook"
    try:
        yield receiver
    finally:
        server.close()
        for task in receiver.tasks:
            task.cancel()
        await asyncio.gather(*receiver.tasks, return_exceptions=True)
        await server.wait_closed()


def local_sender(names: Names | None = None, **options: Any) -> Sender:
    """Return a sender that may contact 127.0.0.1 only. Hosts without a name are addresses."""
    values: dict[str, Any] = {
        "connections": 8,
        "allows": LOCAL.__contains__,
        "resolve": (names or Names()).resolve,
        "seconds": 60.0,
    }
    return Sender(**values | options)
