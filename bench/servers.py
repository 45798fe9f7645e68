# ruff: noqa: S603 - it runs our own servers
"""The database and the servers that are measured: started, asked, and ended."""

import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

import asyncpg
import psutil
from sqlalchemy import make_url

from app.core.config import BACKEND_DIR

BENCH_DIR: Final = Path(__file__).resolve().parent
HOST: Final = "127.0.0.1"
USERS: Final = 100
ARTICLES: Final = 10_000
START_SECONDS: Final = 30
STOP_SECONDS: Final = 30
IDLE_SECONDS: Final = 60
IDLE_SAMPLE_SECONDS: Final = 0.3

# What is the same for both servers. A developer's .env must not change what is measured, so what
# matters to speed is said here even where it is the default.
SERVER_ENVIRONMENT: Final = {
    "ENVIRONMENT": "production",
    "DEBUG": "false",
    "LOG_LEVEL": "INFO",
    "ALLOWED_HOSTS": HOST,
    "CORS_ORIGINS": "https://www.example.com",
    "SECURITY_HEADERS": "true",
    "RAW_SQL_REFERENCE": "false",
    "DATABASE_POOL_SIZE": "5",
    "BCRYPT_COST": "12",
    "BCRYPT_THREADS": "2",
    "JWT_ALGORITHM": "HS256",
    "ACCESS_TOKEN_EXPIRE_MINUTES": "1440",  # the default, 15, is shorter than a long run
    "WEB_CONCURRENCY": "1",
    # Counted as by default, but never reached: a few users do all the work.
    "LIMITS": "articles=1000000000/hour,changes=1000000000/hour,text_written=1000GiB/hour,"
    "text_kept=1000GiB,drafts=1000000000,comments=1000000000/hour,reactions=1000000000/hour,"
    "new_tags=1000000000/day,imported_records=1000000000/hour,logins=1000000000/hour,"
    "registrations=1000000000/day",
}


class BenchError(Exception):
    """Why there are no figures, in a sentence."""


# --- the database


def execute(url: str, *statements: str) -> list[Any]:
    """Run statements, each on its own; return the first value of each."""

    async def run() -> list[Any]:
        connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
        try:
            return [await connection.fetchval(statement) for statement in statements]
        finally:
            await connection.close()

    return asyncio.run(run())


@contextmanager
def scratch_database(server: str) -> Iterator[str]:
    """A new database on the server, as a SQLAlchemy URL; dropped afterwards."""
    name = f"pressroom_bench_{os.getpid()}_{secrets.token_hex(4)}"
    execute(server, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        execute(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def seed(url: str) -> float:
    """Fill the database as a user would, by `pressroom seed`; return the seconds it took."""
    command = [sys.executable, "-m", "app.cli", "seed"]
    command += ["--users", str(USERS), "--articles", str(ARTICLES)]
    started = time.perf_counter()
    seeding = subprocess.run(
        command,
        cwd=BACKEND_DIR,
        env={**os.environ, **SERVER_ENVIRONMENT, "ENVIRONMENT": "development", "DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    seconds = time.perf_counter() - started
    if seeding.returncode != 0:
        raise BenchError(f"pressroom seed failed: {seeding.stderr.strip()[-2000:]}")
    # Now rather than by autovacuum in the middle of a measurement.
    execute(url, "VACUUM (FREEZE, ANALYZE)")
    return seconds


# --- the servers


@dataclass(frozen=True)
class Server:
    """A running server under test, and what it has given us to be known by."""

    name: str
    port: int
    pid: int
    access_tokens: list[str] = field(default_factory=list)
    refresh_tokens: list[str] = field(default_factory=list)
    """The current ones of the sessions that are refreshed."""

    def cpu_seconds(self) -> float:
        """The processor time that the workers have used so far."""
        times = [worker.cpu_times() for worker in children(self.pid)]
        return float(sum(time.user + time.system for time in times))

    def authorization(self) -> str:
        """The header of a request by a user who is logged in."""
        return f"Bearer {self.access_tokens[0]}"

    def ask(
        self,
        method: str,
        path: str,
        body: str | None = None,
        content_type: str = "",
        authorization: str = "",
    ) -> tuple[int, bytes]:
        """One request, for a check and not for a measurement: status and body."""
        given = {"Content-Type": content_type, "Authorization": authorization}
        headers = {name: value for name, value in given.items() if value}
        connection = HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        """What a path answers. Raises BenchError where that is an error."""
        status, body = self.ask("GET", path)
        if status != 200:
            raise BenchError(f"{self.name} answers {path} with {status}")
        return json.loads(body)

    def wait_until_it_answers(self, probe: str) -> None:
        """Return when it says 200. Raises BenchError where it does not in time."""
        if not _answers(self, probe, lambda: True):
            raise BenchError(f"{self.name} does not answer")

    def wait_until_idle(self) -> None:
        """Return when the workers have nothing left to do: whoever hung up left work behind."""
        deadline = time.monotonic() + IDLE_SECONDS
        while time.monotonic() < deadline:
            before = self.cpu_seconds()
            time.sleep(IDLE_SAMPLE_SECONDS)
            if self.cpu_seconds() - before < IDLE_SAMPLE_SECONDS / 10:
                return
        raise BenchError(f"{self.name} does not come to rest")


@contextmanager
def serving(
    name: str, application: str, probe: str, environment: dict[str, str]
) -> Iterator[Server]:
    """`application` under gunicorn with the production configuration, until the block ends."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py"]
    # The production configuration renews a worker every 100,000 requests: here it would come in
    # the middle of a measurement, and break its connections.
    command += ["--max-requests", "0", "--max-requests-jitter", "0"]
    command += ["--pythonpath", str(BENCH_DIR), application]
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            command,
            cwd=BACKEND_DIR,
            env={**os.environ, **environment, "BIND": f"{HOST}:{port}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # production's log lines are made, and go nowhere
            stderr=complaints,
            start_new_session=True,  # Ctrl-C reaches us alone, and we end it in order
        )
        server = Server(name, port, process.pid)
        try:
            if not _answers(server, probe, lambda: process.poll() is None):
                complaints.seek(0)
                said = complaints.read().decode(errors="replace").strip()[-2000:]
                raise BenchError(f"{name} did not start: {said or 'it does not answer'}")
            yield server
        finally:
            _stop(process)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(server: Server, probe: str, is_running: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and is_running():
        try:
            if server.ask("GET", probe)[0] == 200:
                return True
        except (OSError, HTTPException):
            pass
        time.sleep(0.02)
    return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End gunicorn and its workers, by process id: politely, then not."""
    workers = children(process.pid)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for worker in workers:
        if worker.is_running():  # compares the start time as well: never another's process
            worker.kill()


def children(pid: int) -> list[psutil.Process]:
    """The processes that a process has started, and theirs."""
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


# --- which processors


@contextmanager
def worker_on_its_own(server: Server, *, database_url: str | None) -> Iterator[str]:
    """Keep the worker on one processor and all others off it; yield who shares what, in words.

    `database_url`: of the PostgreSQL to keep off it too, None where it is not of this machine. What
    does not work here, for want of processors or of Linux, is left out.
    """
    cpus = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    if len(cpus) < 2:
        yield "the worker shares all processors with wrk and PostgreSQL"
        return
    own, others = {cpus[0]}, set(cpus[1:])
    backends = "SELECT array_agg(pid) FROM pg_stat_activity WHERE datname = current_database()"
    places: dict[int, set[int]] = {os.getpid(): others}  # what we start inherits ours
    if database_url is not None:
        places |= dict.fromkeys(execute(database_url, backends)[0], others)
    for worker in children(server.pid):
        places |= {thread.id: own for thread in worker.threads()}
    before = {}
    try:
        for number, place in places.items():
            with suppress(ProcessLookupError):  # such as the connection that has just asked
                before[number] = os.sched_getaffinity(number)
                os.sched_setaffinity(number, place)
        rest = "wrk and PostgreSQL" if database_url is not None else "wrk"
        yield f"the worker, with its hashing threads, has one processor; {rest} the other ones"
    finally:
        for number, place in before.items():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(number, place)
