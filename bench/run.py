# ruff: noqa: S603, T201 - a script: it runs our own servers and talks to people
"""Measure Pressroom against a bare reference, in turn, on this machine.

    make bench                        about four minutes; writes bench/RESULTS.md
    make bench ARGS=--quick           under a minute; prints only

Both servers run in the same process model (gunicorn with backend/gunicorn.conf.py, one worker) on
the same PostgreSQL with the same rows, and must give the same answers before anything is measured.
A wrong answer, or a broken connection, fails the run. See bench/README.md.
"""

import argparse
import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import asyncpg
import psutil
from jose import jwt
from sqlalchemy import make_url

from app.core.config import BACKEND_DIR, PROJECT_DIR, get_settings
from app.db import embedded, migrate
from app.services.seed import PASSWORD
from report import (
    Conditions,
    Measurement,
    Results,
    Workload,
    describe_machine,
    describe_versions,
    render_markdown,
    render_table,
)

BENCH_DIR: Final = Path(__file__).resolve().parent
HOST: Final = "127.0.0.1"
USERS: Final = 100
ARTICLES: Final = 10_000
PAGE: Final = 20
ONE_ARTICLE_IDS: Final = 8
LOGIN_CONNECTIONS: Final = 4
LOGIN_NAME: Final = "writer1"
START_SECONDS: Final = 30
STOP_SECONDS: Final = 30
PAUSE_SECONDS: Final = 0.5

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
    "WEB_CONCURRENCY": "1",
}

HOW_TO_GET_WRK: Final = """wrk, the load generator, is not installed. It is a package of that name:
    Debian, Ubuntu   apt-get install wrk
    macOS            brew install wrk"""


class BenchError(Exception):
    """Why there are no figures, in a sentence."""


@dataclass(frozen=True)
class Options:
    """How long to measure, and where to write."""

    rounds: int
    seconds: int
    connections: int
    quick: bool
    note: str
    output: Path


def parse_options(arguments: Sequence[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="bench/run.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, help="rounds (default 5; 2 with --quick)")
    parser.add_argument(
        "--seconds", type=int, help="seconds for each measurement (default 5; 2 with --quick)"
    )
    parser.add_argument("--connections", type=int, default=32, help="for the reads (default 32)")
    parser.add_argument("--quick", action="store_true", help="under a minute; writes no file")
    parser.add_argument("--note", default="", help="a sentence for the results: what else ran")
    parser.add_argument(
        "--output", type=Path, default=BENCH_DIR / "RESULTS.md", help="default bench/RESULTS.md"
    )
    given = parser.parse_args(arguments)
    rounds = given.rounds or (2 if given.quick else 5)
    seconds = given.seconds or (2 if given.quick else 5)
    if min(rounds, seconds, given.connections) < 1:
        parser.error("rounds, seconds and connections must be positive")
    return Options(rounds, seconds, given.connections, given.quick, given.note, given.output)


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
    """A running server under test."""

    name: str
    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """The processor time that the workers have used so far."""
        times = [worker.cpu_times() for worker in _children(self.pid)]
        return float(sum(time.user + time.system for time in times))

    def ask(self, method: str, path: str, form: str | None = None) -> tuple[int, bytes]:
        """One request, for a check and not for a measurement: status and body."""
        headers = {} if form is None else {"Content-Type": "application/x-www-form-urlencoded"}
        connection = HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request(method, path, form, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@contextmanager
def serving(
    name: str, application: str, probe: str, environment: dict[str, str]
) -> Iterator[Server]:
    """`application` under gunicorn with the production configuration, until the block ends."""
    port = _free_port()
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
            if not _answers(server, probe, process):
                complaints.seek(0)
                said = complaints.read().decode(errors="replace").strip()[-2000:]
                raise BenchError(f"{name} did not start: {said or 'it does not answer'}")
            yield server
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(server: Server, probe: str, process: "subprocess.Popen[bytes]") -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if server.ask("GET", probe)[0] == 200:
                return True
        except (OSError, HTTPException):
            pass
        time.sleep(0.1)
    return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End gunicorn and its workers, by process id: politely, then not."""
    workers = _children(process.pid)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for worker in workers:
        if worker.is_running():  # compares the start time as well: never another's process
            worker.kill()


def _children(pid: int) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


# --- what is measured


def choose_workloads(pressroom: Server, reference: Server, connections: int) -> list[Workload]:
    """The workloads, after a check that both servers answer each of their requests alike."""
    pages = [f"/articles?skip={skip}&limit={PAGE}" for skip in range(0, 8000, 1000)]
    listed = [same_json(pressroom, reference, path) for path in ["/articles", *pages]]
    ids = [page[0]["id"] for page in listed[1 : ONE_ARTICLE_IDS + 1]]
    articles = [f"/articles/{number}" for number in ids]
    single = [same_json(pressroom, reference, path) for path in articles]
    if any(len(page) != PAGE or "username" not in page[0]["author"] for page in listed):
        raise BenchError(f"a list is not of {PAGE} articles with their authors")
    form = urlencode({"username": LOGIN_NAME, "password": PASSWORD})
    token_size = same_login(pressroom, reference, form)
    return [
        Workload(f"list of {PAGE} with authors", ["/articles"], _size(listed[:1]), connections),
        Workload("one article", articles, _size(single), connections),
        Workload("login", ["/auth/login"], token_size, LOGIN_CONNECTIONS, "POST", form),
    ]


def _size(answers: Sequence[Any]) -> int:
    """The least bytes that any of the answers can have, however its JSON is spaced."""
    return min(
        len(json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode())
        for answer in answers
    )


def same_json(pressroom: Server, reference: Server, path: str) -> Any:
    """What both servers answer to a GET. Raises BenchError where the answers differ in meaning."""
    answers: list[Any] = []
    for server in (pressroom, reference):
        status, body = server.ask("GET", path)
        if status != 200:
            raise BenchError(f"{server.name} answers {path} with {status}")
        answers.append(json.loads(body))
    ours, theirs = answers
    if ours != theirs:
        raise BenchError(f"the servers differ in their answer to {path}: this would not be fair")
    return ours


def same_login(pressroom: Server, reference: Server, form: str) -> int:
    """The bytes of a login's answer. Raises BenchError unless both give the same sort of token."""
    sorts, sizes = [], []
    for server in (pressroom, reference):
        status, body = server.ask("POST", "/auth/login", form)
        if status != 200:
            raise BenchError(f"{server.name} refuses the login with {status}")
        answer = json.loads(body)
        token = answer.pop("access_token")
        claims = jwt.get_unverified_claims(token)
        sorts.append((answer, claims["sub"], set(claims), set(jwt.get_unverified_header(token))))
        sizes.append(len(body))
        wrong_form = form.replace("password=", "password=not-")
        if (status := server.ask("POST", "/auth/login", wrong_form)[0]) != 401:
            raise BenchError(f"{server.name} answers a wrong password with {status}")
    if sorts[0] != sorts[1]:
        raise BenchError("the servers give different tokens: this would not be fair")
    return min(sizes)


@dataclass(frozen=True)
class Generator:
    """wrk, which makes the load."""

    program: str
    measurements: list[Measurement] = field(default_factory=list)

    def drive(self, server: Server, workload: Workload, seconds: int) -> dict[str, Any]:
        """Ask as often as the server answers; raise BenchError for any answer that is wrong."""
        command = [self.program, "--threads", "1", "--connections", str(workload.connections)]
        command += ["--duration", f"{seconds}s", "--timeout", "10s"]
        command += ["--script", str(BENCH_DIR / "load.lua"), f"http://{HOST}:{server.port}", "--"]
        command += [workload.method, workload.form, *workload.paths]
        output = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + 30, check=False
        )
        if output.returncode != 0:
            raise BenchError(f"wrk failed: {output.stderr.strip()[-500:]}")
        counts: dict[str, Any] = json.loads(output.stdout.splitlines()[-1])
        where = f"{server.name}, {workload.name}"
        if wrong := {kind: count for kind, count in counts["errors"].items() if count}:
            raise BenchError(f"{where}: not every answer was right: {wrong}")
        if not counts["requests"]:
            raise BenchError(f"{where}: no answer in {seconds} s")
        # Catches answers below 400 that are not 200: a redirect and a 204 have no such body.
        if counts["bytes"] / counts["requests"] < workload.least_bytes:
            raise BenchError(f"{where}: answers are too short to be right")
        return counts

    def measure(self, server: Server, workload: Workload, seconds: int, number: int) -> Measurement:
        """One measurement, after a pause in which only what is not ours can be busy."""
        busy = psutil.cpu_percent(interval=PAUSE_SECONDS)
        cpu_before = server.cpu_seconds()
        counts = self.drive(server, workload, seconds)
        cpu_seconds = server.cpu_seconds() - cpu_before
        measurement = Measurement(
            server=server.name,
            workload=workload.name,
            round=number,
            requests=counts["requests"],
            rate=counts["requests"] / counts["duration"] * 1e6,
            p50_ms=counts["p50"] / 1000,
            p99_ms=counts["p99"] / 1000,
            cpu_ms=cpu_seconds * 1000 / counts["requests"],
            busy_before=busy,
        )
        self.measurements.append(measurement)
        return measurement


def run_rounds(
    generator: Generator,
    servers: Sequence[Server],
    workloads: Sequence[Workload],
    options: Options,
    say: Callable[[str], None],
) -> list[Measurement]:
    """Measure everything in every round; who goes first changes from round to round."""
    for workload in workloads:
        for server in servers:
            generator.drive(server, workload, 1 if options.quick else 3)  # warms up
    for number in range(1, options.rounds + 1):
        order = servers if number % 2 else servers[::-1]
        for workload in workloads:
            for server in order:
                done = generator.measure(server, workload, options.seconds, number)
                say(
                    f"round {number}/{options.rounds}  {workload.name:<24} {server.name:<10}"
                    f"{done.rate:>9.1f}/s  p50 {done.p50_ms:.1f} ms  p99 {done.p99_ms:.1f} ms"
                )
    return generator.measurements


def measure_all(options: Options, wrk: str, say: Callable[[str], None]) -> Results:
    """Start everything, measure, and end everything."""
    busy_at_start = psutil.cpu_percent(interval=2)
    settings = get_settings()
    external = settings.database_url
    with ExitStack() as running:
        say("PostgreSQL: " + ("DATABASE_URL" if external else "embedded"))
        server_url = external or embedded.start(settings.data_dir / "bench" / "postgres")
        url = running.enter_context(scratch_database(server_url))
        migrate.upgrade(url)
        seed_seconds = seed(url)
        say(f"seeded {USERS} users and {ARTICLES:,} articles in {seed_seconds:.1f} s")
        environment = {
            **SERVER_ENVIRONMENT,
            "SECRET_KEY": secrets.token_hex(32),
            "DATABASE_URL": url,
            "DATABASE_READ_URL": url,
        }
        pressroom, reference = (
            running.enter_context(serving(name, application, probe, environment))
            for name, application, probe in (
                ("Pressroom", "app.main:create_app()", "/health/ready"),
                ("reference", "reference:app", "/articles?limit=1"),
            )
        )
        workloads = choose_workloads(pressroom, reference, options.connections)
        say("both answer alike; warming up")
        measurements = run_rounds(Generator(wrk), (pressroom, reference), workloads, options, say)
        postgres, size = execute(
            url, "SHOW server_version", "SELECT avg(length(content)) FROM articles"
        )
        return Results(
            workloads=workloads,
            measurements=measurements,
            conditions=Conditions(
                rounds=options.rounds,
                seconds=options.seconds,
                seed_seconds=seed_seconds,
                articles=ARTICLES,
                article_bytes=round(size),
                busy_at_start=busy_at_start,
                durable="as DATABASE_URL's server is set" if external else "embedded, durable",
                note=options.note,
                machine=describe_machine(),
                versions=describe_versions(wrk, str(postgres)),
                revision=_revision(),
            ),
        )


def _revision() -> str:
    """The commit that was measured, and whether the files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PROJECT_DIR), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "backend/app", "backend/gunicorn.conf.py")
        return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _end(signum: int, frame: object) -> None:
    """SIGTERM unwinds like Ctrl-C, so that nothing is left running."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Return the exit status."""
    options = parse_options(arguments)
    wrk = shutil.which("wrk")
    if wrk is None:
        print(HOW_TO_GET_WRK, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    started = time.monotonic()
    try:
        results = measure_all(options, wrk, lambda line: print(line, flush=True))
    except (BenchError, RuntimeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; everything that it started is ended", file=sys.stderr)
        return 130
    print(f"\n{render_table(results)}\n\n{time.monotonic() - started:.0f} s in all")
    if not options.quick:
        options.output.write_text(render_markdown(results))
        print(f"written: {options.output.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
