"""Running jobs beside the server: for ever, whatever fails, until it shuts down."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

from app.core.config import Environment, Settings
from app.core.errors import PressroomError
from app.core.logging import get_logger
from app.db.session import Database
from app.jobs.housekeeping import tidy_up
from app.jobs.mail import by_smtp, into_the_log
from app.jobs.media import tidy_media
from app.services.articles.rendering import render_stale
from app.services.changes import announce_due
from app.services.mail_delivery import SendMail, deliver_due
from app.services.media.storage import open_storage

logger = get_logger(__name__)

LONGEST_PAUSE = 30.0


class Job(NamedTuple):
    """Work to be done `every` so many seconds, for the first time `after` some."""

    name: str
    work: Callable[[], Awaitable[object]]
    every: float
    after: float = 0


def jobs_of(settings: Settings, database: Database) -> Sequence[Job]:
    """What this installation has to do."""
    # Not at the start, when everybody waits for the database.
    jobs = [Job("housekeeping", partial(tidy_up, database), every=60 * 60, after=60)]
    jobs.append(Job("rendering", partial(render_stale, database), every=60 * 60, after=1))
    jobs.append(Job("announcing", partial(announce_due, database), every=2))
    tidying = partial(tidy_media, database, open_storage(settings))
    jobs.append(Job("tidying media", tidying, every=60, after=60))
    send = _mail_transport(settings)
    if send is not None:
        work = partial(deliver_due, database, settings=settings, send=send)
        jobs.append(Job("mail delivery", work, every=2))
    return jobs


def _mail_transport(settings: Settings) -> SendMail | None:
    """How mail goes out; None where it does not."""
    if settings.smtp_host is not None:
        return by_smtp(settings)
    if settings.environment is Environment.DEVELOPMENT:
        return into_the_log
    if settings.environment is Environment.PRODUCTION:
        logger.warning("SMTP_HOST is not set: no mail goes out, no password can be reset")
    return None


@asynccontextmanager
async def running(jobs: Sequence[Job]) -> AsyncIterator[None]:
    """Do the jobs while the block runs."""
    tasks = [asyncio.create_task(repeat(job), name=job.name) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def repeat(job: Job, *, longest_pause: float = LONGEST_PAUSE) -> None:
    """Do the job for ever; while it fails, after pauses that grow.

    The first failure is logged, with its trace where it is a mistake of ours, and so is the end.
    """
    failures = 0
    await asyncio.sleep(job.after)
    while True:
        try:
            await job.work()
        except Exception as error:
            failures += 1
            if failures == 1:
                trace = None if isinstance(error, PressroomError) else error
                logger.warning(f"{job.name} failed: {type(error).__name__}", exc_info=trace)
            await asyncio.sleep(min(2.0 ** min(failures, 10), longest_pause))
        else:
            if failures:
                logger.info(f"{job.name} works again")
            failures = 0
            await asyncio.sleep(job.every)
