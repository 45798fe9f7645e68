"""Servers and commands in separate processes. They log to a file, and are killed after the test.

Importing the application takes seconds. `serving` and `pressroom` therefore fork a process that has
imported it. `Command` starts a new interpreter, for tests of the entry points.
"""

import atexit
import io
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv6Address
from multiprocessing.connection import Connection
from pathlib import Path
from random import SystemRandom
from types import TracebackType
from typing import Self, TypeVar
from uuid import uuid4

import httpx

from app.core.limits import DEFAULTS, LimitKind
from app.db import embedded

DEADLINE = 120.0
"""Seconds that a test waits for a condition. It is long, because only failures take so long."""

HOST = "127.0.0.1"
PASSWORD = "correct horse battery"
SECRET_KEY = "0123456789abcdef" * 4

# Idle connections stay open for longer than the 5 s of uvicorn and of httpx. Otherwise a client
# could send a request on a connection that is being closed.
KEEP_ALIVE = ("--timeout-keep-alive", "75")
UVICORN = ("uvicorn", "app.main:create_app", "--factory", "--no-access-log", *KEEP_ALIVE)
GUNICORN = ("gunicorn", "-c", "gunicorn.conf.py")

HIGH_LIMITS = ",".join(
    f"{kind}=1000000000{'/minute' if limit.per else ''}"
    for kind, limit in DEFAULTS.items()
    if kind is not LimitKind.MEDIA_BYTES
)
"""LIMITS for tests that create many rows. Everything is still counted."""

SERVER_PORTS = range(20_000, 32_768)
"""Linux gives clients ports from 32,768 on, macOS from 49,152 on."""

INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "TZ", "XDG_RUNTIME_DIR")

Value = TypeVar("Value")


def wait_until(
    condition: Callable[[], Value | None], what: str, *, seconds: float = DEADLINE, log: str = ""
) -> Value:
    """Return the first true value of `condition`. Fails with `what` at the deadline."""
    start = asked = time.monotonic()
    while not (value := condition()):
        now = time.monotonic()
        assert now - start < seconds, f"not within {seconds} s: {what}\n{log}"
        # Checking takes CPU time, too: waiting takes at least as long.
        time.sleep(min(max((now - start) / 20, now - asked, 0.01), 0.2))
        asked = time.monotonic()
    return value


def get(url: str, *, timeout: float = DEADLINE) -> httpx.Response:
    """Send a GET request on a new connection."""
    # It uses no TLS. Loading the certificates would take most of the time.
    return httpx.get(url, timeout=timeout, verify=False)


def free_port() -> int:
    """Return a free port below the ephemeral ones, which clients may take meanwhile."""
    for port in SystemRandom().sample(SERVER_PORTS, 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise OSError("100 ports are in use")


@dataclass(frozen=True)
class Checkout:
    """A copy of the backend without a `.env`, so that it has only the settings of the test."""

    directory: Path
    logs: Path

    def environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        python = {"PYTHONPATH": str(self.directory), "PYTHONUNBUFFERED": "1"}
        return inherited | python | dict(settings)


class Process(ABC):
    """A running process and its output. It is killed with its children at the end of the block."""

    pid: int

    def __init__(self, checkout: Checkout) -> None:
        self._log = checkout.logs / f"{time.monotonic_ns()}.log"
        self._log.touch()

    @property
    def log(self) -> str:
        """Return standard output and standard error so far."""
        return self._log.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self._status() is None

    @abstractmethod
    def _status(self) -> int | None:
        """Return the exit status, or None while the process runs."""

    def send(self, number: signal.Signals) -> None:
        if self.running:
            os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for the end of the process, and return its exit status."""
        wait_until(lambda: not self.running, "the process ends", log=self.log)
        status = self._status()
        assert status is not None
        return status

    def kill(self) -> None:
        """Send SIGKILL to the process and its children."""
        if self.running:
            with suppress(ProcessLookupError):  # it has just ended, and its status follows
                os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()


class Command(Process):
    """A command in a new process."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        checkout: Checkout,
        settings: Mapping[str, str],
        pass_fds: Sequence[int] = (),
    ) -> None:
        super().__init__(checkout)
        with self._log.open("wb") as log:
            self._popen = subprocess.Popen(
                arguments,
                cwd=checkout.directory,
                env=checkout.environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        self.pid = self._popen.pid

    def _status(self) -> int | None:
        return self._popen.poll()


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.preloaded"])


class Fork(Process):
    """A Python module that runs like `python -m`, in a fork of a process that imported app.main."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        checkout: Checkout,
        settings: Mapping[str, str],
        first: str = "",
    ) -> None:
        """`first`: statements that run before the module, for example to change a constant."""
        super().__init__(checkout)
        environment = checkout.environment(settings)
        self._process = FORKS.Process(
            target=_run_module,
            args=(module, arguments, checkout.directory, environment, self._log, first),
            daemon=True,
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def _status(self) -> int | None:
        return self._process.exitcode


def _run_module(
    module: str,
    arguments: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    log: Path,
    first: str,
) -> None:
    """Run a module as `__main__`, with this environment and output."""
    os.setsid()
    _redirect_output(log)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.argv = [module, *arguments]
    exec(first, {})
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # processes of multiprocessing end without them


def _redirect_output(log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def use_server_until_eof(directory: Path, output: Path, closed: Connection) -> None:
    """Use the embedded server of `directory` until the other end of `closed` is closed."""
    _redirect_output(output)
    print(embedded.start(directory))
    with suppress(EOFError):
        closed.recv()
    atexit._run_exitfuncs()  # processes of multiprocessing end without them


@dataclass(frozen=True)
class Api:
    """A running API: its process and a client of it."""

    process: Process
    client: httpx.Client
    url: str

    def register(self, username: str, *, password: str = PASSWORD) -> httpx.Response:
        account = {
            "email": f"{username}@example.com",
            "username": username,
            "name": "Ada Lovelace",
            "password": password,
        }
        # Registrations are limited per address.
        elsewhere = {"X-Forwarded-For": str(IPv6Address(uuid4().int))}
        return self.client.post("/users", json=account, headers=elsewhere)

    def log_in(self, username: str, *, password: str = PASSWORD) -> httpx.Response:
        form = {"username": username, "password": password}
        return self.client.post("/auth/login", data=form)

    def bearer(self, username: str) -> dict[str, str]:
        """Return the Authorization header of `username`, who is registered if necessary."""
        registered = self.register(username)
        assert registered.status_code in {201, 409}, f"{registered.text}\n{self.process.log}"
        return {"Authorization": f"Bearer {self.log_in(username).json()['access_token']}"}


def wait_until_started(process: Process, client: httpx.Client) -> None:
    """Wait until the API answers. Fails with its log if the process ends."""

    def answers() -> bool:
        assert process.running, f"the server ended before it answered:\n{process.log}"
        try:
            headers = {"Connection": "close"}  # tests count the connections
            return client.get("/health/live", headers=headers).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(answers, f"{client.base_url} answers", log=process.log)


@contextmanager
def connected(process: Process, port: int) -> Iterator[Api]:
    """Yield a client for the API of `process` on `port`, as soon as it answers."""
    url = f"http://{HOST}:{port}"
    limits = httpx.Limits(max_connections=None)
    # It uses no TLS. Loading the certificates would take most of the time.
    with httpx.Client(base_url=url, timeout=DEADLINE, limits=limits, verify=False) as client:
        wait_until_started(process, client)
        yield Api(process=process, client=client, url=url)


@contextmanager
def serving(
    checkout: Checkout, server: Sequence[str] = UVICORN, *, first: str = "", **settings: str
) -> Iterator[Api]:
    """Run the API in a separate process, with `settings` as its environment.

    `PORT` is its port, by default a free one. `first`: statements that run before the server, for
    example to change a constant.
    """
    port = int(settings.get("PORT") or free_port())
    address = ("--bind", f"{HOST}:{port}") if server is GUNICORN else ("--port", str(port))
    defaults = {
        "BCRYPT_COST": "4",
        "WEB_CONCURRENCY": "1",
        "LIMITS": HIGH_LIMITS,
        "MEDIA_DIR": str(checkout.logs / "media"),  # the project's folder may be read-only
        # As in production: in development, tests of these limits would take long.
        "ATTEMPTS_PER_NAME": "10",
        "ATTEMPTS_PER_ADDRESS": "30",
    }
    with (
        Fork(
            *server, *address, checkout=checkout, settings=defaults | settings, first=first
        ) as process,
        connected(process, port) as api,
    ):
        yield api


def pressroom(checkout: Checkout, *arguments: str, **settings: str) -> Process:
    """Run the `pressroom` command in a fork."""
    return Fork("app.cli", *arguments, checkout=checkout, settings=settings)


def installed_pressroom(checkout: Checkout, *arguments: str, **settings: str) -> Process:
    """Run the `pressroom` command as it is installed."""
    program = str(Path(sys.executable).with_name("pressroom"))
    return Command((program, *arguments), checkout=checkout, settings=settings)


def python(checkout: Checkout, *arguments: str, **settings: str) -> Process:
    """Run a new Python interpreter."""
    return Command((sys.executable, *arguments), checkout=checkout, settings=settings)


def output_of(process: Process) -> str:
    """Return the output as one line, because commands wrap it to the width of the terminal."""
    return " ".join(process.log.split())


PRODUCTION = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": SECRET_KEY,
    "ALLOWED_HOSTS": f"{HOST},blog.example.com",
    "CORS_ORIGINS": "https://www.example.com",
}
