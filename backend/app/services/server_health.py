"""The state of the server, for administrators: what readiness knows, and what an operator asks.

A part that cannot be read is None. The answer therefore also comes while the database is down, if
the caller can be authenticated.
"""

import asyncio
import platform
import shutil
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import TypeVar

from app import __version__
from app.auth.identity import Identity
from app.auth.permissions import Action, require
from app.core import clock
from app.core.config import Settings
from app.core.errors import PressroomError
from app.core.job_states import JobState
from app.core.maintenance import MaintenanceState
from app.db.session import Database
from app.schemas.health import (
    BackupHealth,
    DatabaseHealth,
    MailHealth,
    PoolHealth,
    ServerHealth,
    Versions,
    VolumeHealth,
)
from app.services import health, job_runs, outbox
from app.services.space import min_free_bytes

Result = TypeVar("Result")


async def examine(
    database: Database,
    *,
    settings: Settings,
    jobs: Mapping[str, JobState],
    maintenance: MaintenanceState,
    volumes: Mapping[str, Path],
    user: Identity,
) -> ServerHealth:
    """Return the state of the server, as this process sees it. Raises NotAuthorized.

    `volumes` are the folders whose disks are shown, by name.
    """
    require(user, Action.OPERATE, owner_id=user.id)
    problem = None
    readiness = None
    try:
        readiness = await health.check_readiness(database)
    except PressroomError as error:
        problem = str(error)
    state = await _or_none(_examine_database(database))
    disks = await asyncio.to_thread(_read_volumes, volumes)
    warnings = list(readiness.warnings) if readiness else []
    warnings += [
        f"The disk of {disk.name} is almost full"
        for disk in disks
        if disk.free_bytes < min_free_bytes(disk.total_bytes)
    ]
    return ServerHealth(
        status="ready" if readiness else "not_ready",
        problem=problem,
        warnings=warnings,
        host=job_runs.HOST,
        versions=Versions(
            pressroom=__version__,
            python=platform.python_version(),
            postgresql=state and state[0],
        ),
        revision=readiness.revision if readiness else None,
        ahead=readiness.ahead if readiness else None,
        database=state and state[1],
        pools=[
            PoolHealth(name=name, size=settings.database_pool_size, **pool._asdict())
            for name, pool in database.pool_states().items()
        ],
        volumes=disks,
        mail=await _or_none(_examine_mail(database, settings)),
        backup=await _or_none(_examine_backup(database)),
        failing_jobs={name: job.error for name, job in jobs.items() if job.error is not None},
        maintenance=maintenance.message,
    )


async def _or_none(examination: Awaitable[Result]) -> Result | None:
    try:
        return await examination
    except PressroomError:
        return None


async def _examine_database(database: Database) -> tuple[str, DatabaseHealth]:
    """Return the version of PostgreSQL, and its state."""
    before = clock.now()
    state = await health.read_state(database)
    after = clock.now()
    skew = state.now - (before + (after - before) / 2)
    lags = database.replication.lags() if database.replication else {}
    return state.version, DatabaseHealth(
        size_bytes=state.size,
        connections=state.connections,
        max_connections=state.max_connections,
        clock_skew_seconds=round(skew.total_seconds(), 3),
        replication_lag_seconds=max(lags.values(), default=None),
    )


async def _examine_mail(database: Database, settings: Settings) -> MailHealth:
    counts = await outbox.count_mails(database.reader)
    age = None if counts.oldest is None else (clock.now() - counts.oldest).total_seconds()
    return MailHealth(
        is_sent=settings.smtp_host is not None,
        queued=counts.queued,
        failed=counts.failed,
        oldest_age_seconds=age,
    )


async def _examine_backup(database: Database) -> BackupHealth:
    at = await job_runs.last_success(database.reader, job=job_runs.BACKUP)
    age = None if at is None else (clock.now() - at).total_seconds()
    return BackupHealth(last_success_at=at, age_seconds=age)


def _read_volumes(volumes: Mapping[str, Path]) -> list[VolumeHealth]:
    found: list[VolumeHealth] = []
    for name, folder in volumes.items():
        if folder.exists():
            usage = shutil.disk_usage(folder)
            found.append(VolumeHealth(name=name, total_bytes=usage.total, free_bytes=usage.free))
    return found
