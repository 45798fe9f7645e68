"""Real processes for tests: started on free ports, logged to a file, ended whatever happens."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from uuid import uuid4

import httpx

from app.core.limits import DEFAULTS, LimitKind

DEADLINE = 120.0
"""Seconds a test waits for a condition. Generous: only a failure takes that long."""

HOST = "127.0.0.1"
PASSWORD = "correct horse battery"
SECRET_KEY = "0123456789abcdef" * 4

UVICORN = ("-m", "uvicorn", "app.main:create_app", "--factory", "--no-access-log")
GUNICORN = ("-m", "gunicorn", "-c", "gunicorn.conf.py")

GENEROUS = ",".join(
    f"{kind}=1000000000{'/minute' if limit.per else ''}"
    for kind, limit in DEFAULTS.items()
    if kind is not LimitKind.MEDIA_BYTES
)
"""LIMITS for tests that create far more than people do; everything is counted all the same."""

INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "TZ", "XDG_RUNTIME_DIR")

Value = TypeVar("Value")


def wait_until(
    condition: Callable[[], Value | None], what: str, *, seconds: float = DEADLINE, log: str = ""
) -> Value:
    """The first true value of `condition`; fails with `what` where there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{log}"
        time.sleep(0.02)  # the poll of a condition, not a guess at how long something takes
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Checkout:
    """A copy of the backend without a `.env`, so that no developer's settings reach a test."""

    directory: Path
    logs: Path

    def environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        python = {"PYTHONPATH": str(self.directory), "PYTHONUNBUFFERED": "1"}
        return inherited | python | dict(settings)


class Process:
    """A running process and all that it prints; ended with its children when the block ends."""

    def __init__(
        self, arguments: Sequence[str], *, checkout: Checkout, settings: Mapping[str, str]
    ) -> None:
        self._log = checkout.logs / f"{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=checkout.directory,
                env=checkout.environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """Standard output and standard error so far."""
        return self._log.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def wait(self) -> int:
        """The exit status, once the process has ended by itself."""
        wait_until(lambda: not self.running, "the process ends", log=self.log)
        return self.popen.returncode

    def kill(self) -> None:
        """End the process and its children at once, as the kernel's out-of-memory killer does."""
        if self.running:
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(DEADLINE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()


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
        # From an address of its own: one may not register as many users as the tests do.
        elsewhere = {"X-Forwarded-For": str(IPv6Address(uuid4().int))}
        return self.client.post("/users", json=account, headers=elsewhere)

    def log_in(self, username: str, *, password: str = PASSWORD) -> httpx.Response:
        form = {"username": username, "password": password}
        return self.client.post("/auth/login", data=form)

    def bearer(self, username: str) -> dict[str, str]:
        """The headers with which `username`, registered where that is needed, asks."""
        registered = self.register(username)
        assert registered.status_code in {201, 409}, f"{registered.text}\n{self.process.log}"
        return {"Authorization": f"Bearer {self.log_in(username).json()['access_token']}"}


def started(process: Process, url: str) -> None:
    """Wait until the API at `url` answers; fail with its log where it ends instead."""

    def answers() -> bool:
        assert process.running, f"the server ended before it answered:\n{process.log}"
        try:
            return httpx.get(f"{url}/health/live", timeout=DEADLINE).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(answers, f"{url} answers", log=process.log)


@contextmanager
def connected(process: Process, port: int) -> Iterator[Api]:
    """The API of `process` on `port`, once it answers."""
    url = f"http://{HOST}:{port}"
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(base_url=url, timeout=DEADLINE, limits=limits) as client:
        started(process, url)
        yield Api(process=process, client=client, url=url)


@contextmanager
def serving(checkout: Checkout, server: Sequence[str] = UVICORN, **settings: str) -> Iterator[Api]:
    """The API in a process of its own, with `settings` as its environment."""
    port = free_port()
    address = ("--bind", f"{HOST}:{port}") if server is GUNICORN else ("--port", str(port))
    defaults = {"BCRYPT_COST": "4", "WEB_CONCURRENCY": "1", "LIMITS": GENEROUS}
    with (
        Process((*server, *address), checkout=checkout, settings=defaults | settings) as process,
        connected(process, port) as api,
    ):
        yield api


def pressroom(checkout: Checkout, *arguments: str, **settings: str) -> Process:
    """The `pressroom` command, running."""
    command = str(Path(sys.executable).with_name("pressroom"))
    return Process((command, *arguments), checkout=checkout, settings=settings)


def said(process: Process) -> str:
    """What a command printed, in one line: it may wrap its sentences to a terminal's width."""
    return " ".join(process.log.split())


PRODUCTION = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": SECRET_KEY,
    "ALLOWED_HOSTS": HOST,
    "CORS_ORIGINS": "https://www.example.com",
}
