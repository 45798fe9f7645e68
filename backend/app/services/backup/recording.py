"""Records of runs in the database, which metrics and the administrator's API show."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime

from sqlalchemy.exc import DBAPIError

from app.core.config import Settings
from app.core.errors import PressroomError
from app.db.session import Database
from app.services import job_runs

VERIFICATION = "backup verification"
"""The name of the job of `pressroom backup verify`; that of `create` is `job_runs.BACKUP`."""


def record(
    settings: Settings, job: str, *, started_at: datetime, rows: int = 0, error: str | None = None
) -> None:
    """Record a run that ends now, if the database is available and has the table.

    A backup before an upgrade is made by the new release, in the old database.
    """

    async def write() -> None:
        async with _opened(settings) as database:
            await job_runs.record(database, job, started_at=started_at, rows=rows, error=error)

    if settings.database_url is None:  # an embedded server, which is not started for this
        return
    with suppress(PressroomError, DBAPIError):
        asyncio.run(write())


def last_success(settings: Settings, job: str) -> datetime | None:
    """Return when a run last succeeded. Raises ServiceUnavailable."""

    async def read() -> datetime | None:
        async with _opened(settings) as database:
            return await job_runs.last_success(database.reader, job=job)

    return asyncio.run(read())


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Database]:
    database = Database.from_settings(settings)
    try:
        yield database
    finally:
        await database.dispose()
