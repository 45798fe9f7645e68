"""Old sites on 127.0.0.1, which answer as a test wants, and fetchers that may contact them."""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

from app.services.bulk.fetching import Fetcher, FetchLimits
from app.services.outgoing import is_public

LOCAL = ip_address("127.0.0.1")
FAST = FetchLimits(attempts=1, pause_seconds=0, file_seconds=20, silence_seconds=20)

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]
"""A complete response, or a function that writes one."""


def response(
    body: bytes = b"", *, status: str = "200 OK", kind: str = "image/png", **headers: str
) -> bytes:
    """Return a response. Names of headers have `_` instead of `-`."""
    values = {"Content-Type": kind, "Content-Length": str(len(body))}
    values |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in values.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def moved(location: str) -> bytes:
    return response(status="302 Found", Location=location)


class Site:
    """A site with answers by path, or with lists of answers for one request after the other."""

    def __init__(self, answers: Mapping[str, Answer | Sequence[Answer]]) -> None:
        self.answers = dict(answers)
        self.port = 0
        self.connections = 0
        self.requests: Counter[str] = Counter()
        self.headers: dict[str, str] = {}
        """Of the last request."""
        self.tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.create_task(self.handle(reader, writer)))

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().split("\r\n")
                self.headers = dict(line.split(": ", 1) for line in lines if line)
                path = first.split(" ")[1]
                self.requests[path] += 1
                answer = self.answers.get(path, response(status="404 Not Found"))
                if isinstance(answer, Sequence) and not isinstance(answer, bytes):
                    answer = answer[min(self.requests[path], len(answer)) - 1]
                if isinstance(answer, bytes):
                    writer.write(answer)
                else:
                    await answer(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serve(
    answers: Mapping[str, Answer | Sequence[Answer]],
    *,
    host: str = "127.0.0.1",
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[Site]:
    """Serve a site while the block runs."""
    site = Site(answers)
    server = await asyncio.start_server(site.accept, host, 0, ssl=context)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()
        for task in site.tasks:
            task.cancel()
        await asyncio.gather(*site.tasks, return_exceptions=True)
        await server.wait_closed()


class Names:
    """A name server: each name has lists of addresses, for one question after the other."""

    def __init__(self, **names: list[list[str]]) -> None:
        self.names = {name.replace("_", "."): answers for name, answers in names.items()}
        self.questions: list[str] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        self.questions.append(host)
        answers = self.names.get(host, [[host]])
        return answers.pop(0) if len(answers) > 1 else answers[0]


def local_fetcher(
    names: Names | None = None, *, limits: FetchLimits = FAST, **options: Any
) -> Fetcher:
    """Return a fetcher that may also contact 127.0.0.1. Hosts without a name are addresses."""
    resolve = (names or Names()).resolve
    return Fetcher(
        limits,
        resolve=resolve,
        allows=lambda address: address == LOCAL or is_public(address),
        **options,
    )


class Flood:
    """Sends interim responses of a status without end. `sent` counts them."""

    def __init__(self, status: str) -> None:
        self._status = status
        self.sent = 0

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(f"HTTP/1.1 {self._status}\r\n\r\n".encode() * 100)
            self.sent += 100
            await writer.drain()
