# ruff: noqa: S603 - it runs our own program
"""Import and export of articles: how fast, and with how much memory."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import islice
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlencode

import psutil

import corpus
from app.core.config import BACKEND_DIR
from app.db import migrate
from app.services.seed import PASSWORD
from servers import HOST, BenchError, Server, children, execute, scratch_database, serving

SAMPLE_SECONDS: Final = 0.2
PATIENCE_SECONDS: Final = 7200
CHUNK: Final = 1 << 20
LEAST_RATE, MOST_MIB = 2000, 150


@dataclass
class Memory:
    """The resident memory of a process, in MiB, as it was every moment."""

    samples: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Done:
    """So many articles in so many seconds."""

    name: str
    articles: int
    seconds: float
    memory: Memory

    def row(self) -> list[str]:
        """A line of the table."""
        samples = self.memory.samples or [0.0]
        rate = f"≥ {LEAST_RATE:,}/s, " if "import" in self.name else ""
        return [
            self.name,
            f"{self.articles:,}",
            f"{self.articles / self.seconds:,.0f}",
            f"{samples[len(samples) // 10]:.0f}",
            f"{max(samples):.0f}",
            f"{rate}≤ {MOST_MIB} MiB, flat",
        ]


@contextmanager
def watched(process: psutil.Process) -> Iterator[Memory]:
    """Look at a process's memory until the block ends."""
    memory, ended = Memory(), threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            try:
                memory.samples.append(process.memory_info().rss / 2**20)
            except psutil.NoSuchProcess:
                return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield memory
    finally:
        ended.set()
        watching.join()


def measure(
    server_url: str,
    server: Server,
    url: str,
    *,
    environment: Mapping[str, str],
    imported: int,
    say: Callable[[str], None],
) -> list[Done]:
    """Export all from `server`, and its database at `url`; import some into databases of their own.

    By HTTP it is the server's worker whose memory is looked at, else the program's.
    """
    done = []
    with tempfile.TemporaryDirectory() as folder:
        exported, records = Path(folder) / "all.ndjson", Path(folder) / "some.ndjson"
        done.append(_by_program("export", exported, url, environment))
        _without_authors(exported, records, imported)
        exported.unlink()
        done.append(_export_by_http(server))
        for each in done:
            say("  ".join(each.row()))
        for by_http in (False, True):
            with scratch_database(server_url) as scratch:
                migrate.upgrade(scratch)
                corpus.add_admin(scratch)
                if by_http:
                    here = {**environment, "DATABASE_URL": scratch, "DATABASE_READ_URL": scratch}
                    application = "app.main:create_app()"
                    with serving("import", application, "/health/ready", here) as fresh:
                        done.append(_import_by_http(fresh, records))
                else:
                    done.append(_by_program("import", records, scratch, environment))
                (count,) = execute(scratch, "SELECT count(*) FROM articles")
                if count != done[-1].articles:
                    raise BenchError(f"{count:,} of {done[-1].articles:,} articles were imported")
            say("  ".join(done[-1].row()))
    return done


def _by_program(verb: str, file: Path, url: str, environment: Mapping[str, str]) -> Done:
    """`pressroom import` or `export` of a file."""
    command = [sys.executable, "-m", "app.cli", verb, str(file)]
    if verb == "import":
        command += ["--author", corpus.ADMIN]
    started = time.perf_counter()
    with (
        subprocess.Popen(
            command,
            cwd=BACKEND_DIR,
            env={**os.environ, **environment, "DATABASE_URL": url},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        watched(psutil.Process(process.pid)) as memory,
    ):
        _, complaints = process.communicate(timeout=PATIENCE_SECONDS)
    seconds = time.perf_counter() - started
    if process.returncode != 0:
        raise BenchError(f"pressroom {verb} failed: {complaints.strip()[-2000:]}")
    return Done(f"`pressroom {verb}`", _lines(file), seconds, memory)


def _export_by_http(server: Server) -> Done:
    connection = HTTPConnection(HOST, server.port, timeout=PATIENCE_SECONDS)
    token = _log_in(server)
    (worker,) = children(server.pid)
    started = time.perf_counter()
    with watched(worker) as memory:
        connection.request("GET", "/articles/export", headers={"Authorization": token})
        response = connection.getresponse()
        lines = 0
        while chunk := response.read(CHUNK):
            lines += chunk.count(b"\n")
    connection.close()
    if response.status != 200:
        raise BenchError(f"the export is answered with {response.status}")
    return Done("`GET /articles/export`", lines, time.perf_counter() - started, memory)


def _import_by_http(server: Server, file: Path) -> Done:
    connection = HTTPConnection(HOST, server.port, timeout=PATIENCE_SECONDS)
    headers = {
        "Authorization": _log_in(server),
        "Content-Type": "application/x-ndjson",
        "Content-Length": str(file.stat().st_size),
    }
    (worker,) = children(server.pid)
    started = time.perf_counter()
    with watched(worker) as memory, file.open("rb") as body:
        connection.request("POST", "/articles/import", body, headers)
        response = connection.getresponse()
        answer = response.read()
    seconds = time.perf_counter() - started
    connection.close()
    if response.status != 200:
        raise BenchError(f"the import is answered with {response.status}: {answer[:500]!r}")
    report = json.loads(answer)
    if report["failed"]:
        raise BenchError(f"{report['failed']} records failed: {report['errors'][:3]}")
    return Done("`POST /articles/import`", _lines(file), seconds, memory)


def _log_in(server: Server) -> str:
    form = urlencode({"username": corpus.ADMIN, "password": PASSWORD})
    kind = "application/x-www-form-urlencoded"
    status, body = server.ask("POST", "/auth/login", form, kind)
    if status != 200:
        raise BenchError(f"the administrator's login is answered with {status}")
    return f"Bearer {json.loads(body)['access_token']}"


def _without_authors(exported: Path, records: Path, count: int) -> None:
    """The first records of an export, for a database that does not know their authors."""
    with exported.open("rb") as source, records.open("wb") as target:
        for line in islice(source, count):
            record = json.loads(line)
            record.pop("author", None)
            target.write(json.dumps(record).encode() + b"\n")


def _lines(file: Path) -> int:
    def chunks(opened: IO[bytes]) -> Iterator[bytes]:
        while chunk := opened.read(CHUNK):
            yield chunk

    with file.open("rb") as opened:
        return sum(chunk.count(b"\n") for chunk in chunks(opened))
