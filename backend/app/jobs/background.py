"""Background jobs, which are repeated until the server shuts down."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

from app.core.config import Environment, Settings
from app.core.errors import PressroomError
from app.core.logging import get_logger
from app.db.session import Database
from app.jobs.housekeeping import delete_expired
from app.jobs.mail import log_transport, smtp_transport
from app.jobs.media import clean_up_media
from app.services.accounts.mail_delivery import SendMail, deliver_due
from app.services.articles.changes import announce_due
from app.services.articles.rendering import render_stale
from app.services.media.storage import open_storage

logger = get_logger(__name__)

MAX_RETRY_DELAY = 30.0


class Job(NamedTuple):
    """Work that is repeated every `interval` seconds, after `initial_delay` seconds."""

    name: str
    work: Callable[[], Awaitable[object]]
    interval: float
    initial_delay: float = 0


def create_jobs(settings: Settings, database: Database) -> Sequence[Job]:
    """Return the jobs for these settings."""
    # Housekeeping starts late: the database is busy with waiting requests at startup.
    jobs = [
        Job("housekeeping", partial(delete_expired, database), interval=60 * 60, initial_delay=60)
    ]
    jobs.append(
        Job("rendering", partial(render_stale, database), interval=60 * 60, initial_delay=1)
    )
    jobs.append(Job("announcing", partial(announce_due, database), interval=2))
    media_work = partial(clean_up_media, database, open_storage(settings))
    jobs.append(Job("media cleanup", media_work, interval=60, initial_delay=60))
    transport = _mail_transport(settings)
    if transport is not None:
        work = partial(deliver_due, database, settings=settings, send=transport)
        jobs.append(Job("mail delivery", work, interval=2))
    return jobs


def _mail_transport(settings: Settings) -> SendMail | None:
    """Return the mail transport, or None if no mail is sent."""
    if settings.smtp_host is not None:
        return smtp_transport(settings)
    if settings.environment is Environment.DEVELOPMENT:
        return log_transport
    if settings.environment is Environment.PRODUCTION:
        logger.warning("SMTP_HOST is not set: mail is not sent, and passwords cannot be reset")
    return None


@asynccontextmanager
async def run_jobs(jobs: Sequence[Job]) -> AsyncIterator[None]:
    """Run the jobs in the background of the block, and cancel them at its end."""
    tasks = [asyncio.create_task(repeat(job), name=job.name) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def repeat(job: Job, *, max_retry_delay: float = MAX_RETRY_DELAY) -> None:
    """Repeat the job forever; after failures, retry with an exponential delay.

    The first failure and the recovery are logged. Unexpected exceptions are logged with a
    traceback.
    """
    failures = 0
    await asyncio.sleep(job.initial_delay)
    while True:
        try:
            await job.work()
        except Exception as error:
            failures += 1
            if failures == 1:
                exc_info = None if isinstance(error, PressroomError) else error
                logger.warning(f"{job.name} failed: {type(error).__name__}", exc_info=exc_info)
            await asyncio.sleep(min(2.0 ** min(failures, 10), max_retry_delay))
        else:
            if failures:
                logger.info(f"{job.name} works again")
            failures = 0
            await asyncio.sleep(job.interval)
