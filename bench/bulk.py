# ruff: noqa: S603 - it runs Pressroom's own CLI
"""Measure the speed and the memory of imports and exports."""

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
from app.services.bulk.seed import PASSWORD
from servers import HOST, BenchError, Server, children, execute, scratch_database, serving

SAMPLE_SECONDS: Final = 0.2
TIMEOUT_SECONDS: Final = 7200
CHUNK: Final = 1 << 20
POLL_SECONDS: Final = 0.2
MIN_RATE, MAX_MIB = 2000, 150


@dataclass
class Memory:
    """Samples of the resident memory of a process, in MiB."""

    samples: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class BulkResult:
    """The duration and memory of an import or export."""

    name: str
    articles: int
    seconds: float
    memory: Memory

    def row(self) -> list[str]:
        """Return a row of the table."""
        samples = self.memory.samples or [0.0]
        rate = f"≥ {MIN_RATE:,}/s, " if "import" in self.name else ""
        return [
            self.name,
            f"{self.articles:,}",
            f"{self.articles / self.seconds:,.0f}",
            f"{samples[len(samples) // 10]:.0f}",
            f"{max(samples):.0f}",
            f"{rate}≤ {MAX_MIB} MiB, flat",
        ]


@contextmanager
def memory_samples(process: psutil.Process) -> Iterator[Memory]:
    """Sample the memory of a process until the block ends."""
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
    log: Callable[[str], None],
) -> list[BulkResult]:
    """Export all articles of `server` and of its database `url`; import some into new databases.

    The memory is that of the server's worker for HTTP, otherwise that of the CLI process.
    """
    results = []
    with tempfile.TemporaryDirectory() as folder:
        exported, records = Path(folder) / "all.ndjson", Path(folder) / "some.ndjson"
        results.append(_run_cli("export", exported, url, environment))
        _without_authors(exported, records, imported)
        exported.unlink()
        results.append(_export_by_http(server))
        for result in results:
            log("  ".join(result.row()))
        for by_http in (False, True):
            with scratch_database(server_url) as scratch:
                migrate.upgrade(scratch)
                corpus.add_admin(scratch)
                if by_http:
                    urls = {"DATABASE_URL": scratch, "DATABASE_READ_URL": scratch}
                    application = "app.main:create_app()"
                    with serving(
                        "import", application, "/health/ready", {**environment, **urls}
                    ) as importer:
                        results.append(_import_by_http(importer, records))
                else:
                    results.append(_run_cli("import", records, scratch, environment))
                (count,) = execute(scratch, "SELECT count(*) FROM articles")
                if count != results[-1].articles:
                    raise BenchError(
                        f"{count:,} of {results[-1].articles:,} articles were imported"
                    )
            log("  ".join(results[-1].row()))
    return results


def _run_cli(command_name: str, file: Path, url: str, environment: Mapping[str, str]) -> BulkResult:
    """Run `pressroom import` or `pressroom export` for a file."""
    command = [sys.executable, "-m", "app.cli", command_name, str(file)]
    if command_name == "import":
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
        memory_samples(psutil.Process(process.pid)) as memory,
    ):
        _, stderr = process.communicate(timeout=TIMEOUT_SECONDS)
    seconds = time.perf_counter() - started
    if process.returncode != 0:
        raise BenchError(f"pressroom {command_name} failed: {stderr.strip()[-2000:]}")
    return BulkResult(f"`pressroom {command_name}`", _lines(file), seconds, memory)


def _export_by_http(server: Server) -> BulkResult:
    connection = HTTPConnection(HOST, server.port, timeout=TIMEOUT_SECONDS)
    token = log_in(server)
    (worker,) = children(server.pid)
    started = time.perf_counter()
    with memory_samples(worker) as memory:
        connection.request("GET", "/articles/export", headers={"Authorization": token})
        response = connection.getresponse()
        lines = 0
        while chunk := response.read(CHUNK):
            lines += chunk.count(b"\n")
    connection.close()
    if response.status != 200:
        raise BenchError(f"the export returned {response.status}")
    return BulkResult("`GET /articles/export`", lines, time.perf_counter() - started, memory)


def _import_by_http(server: Server, file: Path) -> BulkResult:
    connection = HTTPConnection(HOST, server.port, timeout=TIMEOUT_SECONDS)
    headers = {
        "Authorization": log_in(server),
        "Content-Type": "application/x-ndjson",
        "Content-Length": str(file.stat().st_size),
    }
    headers_of_polls = {"Authorization": headers["Authorization"]}
    (worker,) = children(server.pid)
    started = time.perf_counter()
    with memory_samples(worker) as memory, file.open("rb") as body:
        connection.request("POST", "/articles/import", body, headers)
        response = connection.getresponse()
        status, answer = response.status, response.read()
        while status == 202 and json.loads(answer)["state"] in {"receiving", "running"}:
            time.sleep(POLL_SECONDS)
            connection.request("GET", response.headers["Location"], headers=headers_of_polls)
            answer = connection.getresponse().read()
    seconds = time.perf_counter() - started
    connection.close()
    if status not in {200, 202}:
        raise BenchError(f"the import returned {status}: {answer[:500]!r}")
    report = json.loads(answer)
    if report["failed"]:
        raise BenchError(f"{report['failed']} records failed: {report['errors'][:3]}")
    return BulkResult("`POST /articles/import`", _lines(file), seconds, memory)


def log_in(server: Server) -> str:
    """Return the Authorization header of the administrator."""
    form = urlencode({"username": corpus.ADMIN, "password": PASSWORD})
    kind = "application/x-www-form-urlencoded"
    status, body = server.request("POST", "/auth/login", form, kind)
    if status != 200:
        raise BenchError(f"the administrator's login returned {status}")
    return f"Bearer {json.loads(body)['access_token']}"


def _without_authors(exported: Path, records: Path, count: int) -> None:
    """Write the first records of an export, without authors: the new database has no users."""
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
