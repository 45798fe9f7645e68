# ruff: noqa: S603 - it runs the measured servers
"""The database and the measured servers."""

import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

import asyncpg
import psutil
from sqlalchemy import make_url

from app.core.config import BACKEND_DIR

BENCH_DIR: Final = Path(__file__).resolve().parent
HOST: Final = "127.0.0.1"
USERS: Final = 100
ARTICLES: Final = 10_000
QUICK_ARTICLES: Final = 2_000
"""Articles for a quick comparison of two servers. Seeding takes most of its time."""
START_SECONDS: Final = 30
STOP_SECONDS: Final = 30
IDLE_SECONDS: Final = 60
IDLE_SAMPLE_SECONDS: Final = 0.3

# The settings of all servers. A developer's .env must not affect the results. So all settings that
# affect the speed are set here, even to their default.
SERVER_ENVIRONMENT: Final = {
    "ENVIRONMENT": "production",
    "DEBUG": "false",
    "LOG_LEVEL": "INFO",
    "ALLOWED_HOSTS": f"{HOST},blog.example.com",
    "CORS_ORIGINS": "https://www.example.com",
    "SECURITY_HEADERS": "true",
    "RAW_SQL_REFERENCE": "false",
    "DATABASE_POOL_SIZE": "5",
    "BCRYPT_COST": "12",
    "BCRYPT_THREADS": "2",
    "JWT_ALGORITHM": "HS256",
    "ACCESS_TOKEN_EXPIRE_MINUTES": "1440",  # the default, 15, is shorter than a long run
    "WEB_CONCURRENCY": "1",
    # Limits are counted, but are too high to be reached by the few users.
    "LIMITS": "articles=1000000000/hour,changes=1000000000/hour,text_written=1000GiB/hour,"
    "text_kept=1000GiB,drafts=1000000000,comments=1000000000/hour,reactions=1000000000/hour,"
    "new_tags=1000000000/day,imported_records=1000000000/hour,logins=1000000000/hour,"
    "registrations=1000000000/day",
}


class BenchError(Exception):
    """The benchmark failed. The message contains the reason."""


# --- the database


def execute(url: str, *statements: str) -> list[Any]:
    """Run statements in separate transactions. Return the first value of each."""

    async def run() -> list[Any]:
        connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
        try:
            return [await connection.fetchval(statement) for statement in statements]
        finally:
            await connection.close()

    return asyncio.run(run())


@contextmanager
def scratch_database(server: str) -> Iterator[str]:
    """Create a database, yield its SQLAlchemy URL, and drop it."""
    name = f"pressroom_bench_{os.getpid()}_{secrets.token_hex(4)}"
    execute(server, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        execute(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


SEED_SECONDS = 600
"""The time limit of `seed`: 10,000 articles take 20 s, and minutes on a busy machine."""


def seed(url: str, articles: int = ARTICLES) -> float:
    """Run `pressroom seed`, and return its duration in seconds."""
    command = [sys.executable, "-m", "app.cli", "seed"]
    command += ["--users", str(USERS), "--articles", str(articles)]
    started = time.perf_counter()
    seeding = subprocess.run(
        command,
        cwd=BACKEND_DIR,
        env={**os.environ, **SERVER_ENVIRONMENT, "ENVIRONMENT": "development", "DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=SEED_SECONDS,
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
    """A running server, with the tokens of its sessions."""

    name: str
    port: int
    pid: int
    access_tokens: list[str] = field(default_factory=list)
    refresh_tokens: list[str] = field(default_factory=list)
    """The current refresh tokens of the sessions."""

    def cpu_seconds(self) -> float:
        """Return the CPU time of the workers in seconds."""
        times = [worker.cpu_times() for worker in children(self.pid)]
        return float(sum(time.user + time.system for time in times))

    def authorization(self) -> str:
        """Return the Authorization header of an authenticated request."""
        return f"Bearer {self.access_tokens[0]}"

    def request(
        self,
        method: str,
        path: str,
        body: str | None = None,
        content_type: str = "",
        authorization: str = "",
        *,
        timeout: float = 60,
    ) -> tuple[int, bytes]:
        """Send a request and return the status and the body. Not for measurements."""
        values = {"Content-Type": content_type, "Authorization": authorization}
        headers = {name: value for name, value in values.items() if value}
        connection = HTTPConnection(HOST, self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def get_json(self, path: str) -> Any:
        """Return the JSON response of a path. Raises BenchError for an error response."""
        status, body = self.request("GET", path)
        if status != 200:
            raise BenchError(f"{self.name}: {path} returned {status}")
        return json.loads(body)

    def wait_until_ready(self, probe: str) -> None:
        """Wait for a 200. Raises BenchError after START_SECONDS."""
        if not _is_ready(self, probe, lambda: True):
            raise BenchError(f"{self.name} does not respond")

    def wait_until_idle(self) -> None:
        """Wait until the workers are idle. Closed connections may leave work behind."""
        deadline = time.monotonic() + IDLE_SECONDS
        while time.monotonic() < deadline:
            before = self.cpu_seconds()
            time.sleep(IDLE_SAMPLE_SECONDS)
            if self.cpu_seconds() - before < IDLE_SAMPLE_SECONDS / 10:
                return
        raise BenchError(f"{self.name} does not become idle")


@contextmanager
def serving(
    name: str,
    application: str,
    probe: str,
    environment: Mapping[str, str],
    *,
    code: Path = BACKEND_DIR,
) -> Iterator[Server]:
    """Run `application` under gunicorn with the production configuration.

    `code` is the folder of the backend, such as that of a former revision.
    """
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py"]
    # The production configuration restarts a worker after 100,000 requests, which would break
    # connections during a measurement.
    command += ["--max-requests", "0", "--max-requests-jitter", "0"]
    command += ["--pythonpath", str(BENCH_DIR), application]
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command,
            cwd=code,
            env={**os.environ, **environment, "BIND": f"{HOST}:{port}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # log lines are written and discarded
            stderr=stderr,
            start_new_session=True,  # Ctrl-C must not reach the server
        )
        server = Server(name, port, process.pid)
        try:
            if not _is_ready(server, probe, lambda: process.poll() is None):
                stderr.seek(0)
                output = stderr.read().decode(errors="replace").strip()[-2000:]
                raise BenchError(f"{name} did not start: {output or 'it does not respond'}")
            yield server
        finally:
            _stop(process)


def free_port() -> int:
    """Return a free port below the ephemeral ones, which clients may take meanwhile."""
    for port in SystemRandom().sample(range(20_000, 32_768), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise BenchError("100 ports are in use")


def _is_ready(server: Server, probe: str, is_running: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and is_running():
        try:
            if server.request("GET", probe)[0] == 200:
                return True
        except (OSError, HTTPException):
            pass
        time.sleep(0.02)
    return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Stop gunicorn and its workers by process id: terminate, then kill."""
    workers = children(process.pid)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for worker in workers:
        if worker.is_running():  # also compares the start time, in case the pid was reused
            worker.kill()


def children(pid: int) -> list[psutil.Process]:
    """Return all descendants of a process."""
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


# --- CPU affinity


@contextmanager
def pinned_worker(server: Server, *, database_url: str | None) -> Iterator[str]:
    """Pin the worker to one CPU and other processes to the others; yield a description.

    `database_url` is that of a PostgreSQL on this machine, which is pinned as well. Without Linux
    or with a single CPU, nothing is pinned.
    """
    cpus = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    if len(cpus) < 2:
        yield "the worker shares all CPUs with wrk and PostgreSQL"
        return
    own_cpu, others = {cpus[0]}, set(cpus[1:])
    backends = "SELECT array_agg(pid) FROM pg_stat_activity WHERE datname = current_database()"
    affinities: dict[int, set[int]] = {os.getpid(): others}  # inherited by child processes
    if database_url is not None:
        running = execute(database_url, backends)[0]
        affinities |= dict.fromkeys(running, others)
        # Later backends inherit the affinity of the server.
        affinities |= {psutil.Process(number).ppid(): others for number in running[:1]}
    for worker in children(server.pid):
        affinities |= {thread.id: own_cpu for thread in worker.threads()}
    before = {}
    try:
        for number, affinity in affinities.items():
            with suppress(ProcessLookupError):  # for example the connection of the query above
                before[number] = os.sched_getaffinity(number)
                os.sched_setaffinity(number, affinity)
        rest = "wrk and PostgreSQL" if database_url is not None else "wrk"
        yield f"the worker and its hashing threads have one CPU, {rest} the other CPUs"
    finally:
        for number, affinity in before.items():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(number, affinity)
