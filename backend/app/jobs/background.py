"""Background jobs, which are repeated until the server shuts down."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

from app.core import clock, metrics
from app.core.config import Environment, Settings
from app.core.errors import PressroomError
from app.core.job_states import JobState, StepsFailed
from app.core.logging import get_logger
from app.db.session import Database
from app.jobs.housekeeping import delete_expired
from app.jobs.mail import log_transport, smtp_transport
from app.jobs.media import clean_up_media
from app.services import job_runs
from app.services.accounts.first_start import Announcement
from app.services.accounts.mail_delivery import SendMail
from app.services.accounts.mail_dispatch import MailDispatcher
from app.services.articles.changes import announce_due
from app.services.articles.rendering import render_stale
from app.services.articles.retagging import apply_changes
from app.services.integrations.delivering import WebhookDispatcher, open_sender
from app.services.media.storage import open_storage

logger = get_logger(__name__)

MAX_RETRY_DELAY = 30.0
REMINDER_SECONDS = 15 * 60.0
"""How often a lasting failure is logged."""


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
    # More often than necessary: the process that renders for all may end with an upgrade.
    jobs.append(
        Job("rendering", partial(render_stale, database), interval=15 * 60, initial_delay=1)
    )
    jobs.append(Job("announcing", partial(announce_due, database), interval=2))
    jobs.append(Job("changing tags", partial(apply_changes, database), interval=2))
    media_work = partial(clean_up_media, database, open_storage(settings))
    jobs.append(Job("media cleanup", media_work, interval=60, initial_delay=60))
    if settings.web_studio:
        announcement = Announcement(database, url=f"{settings.api_url}/studio/first-start")
        jobs.append(Job("first start", announcement.run, interval=60 * 60))
    webhooks = WebhookDispatcher(
        database,
        connections=settings.webhook_connections,
        open_sender=partial(open_sender, settings),
    )
    jobs.append(Job("webhooks", webhooks.deliver_due, interval=1))
    transport = _mail_transport(settings)
    if transport is not None:
        dispatcher = MailDispatcher(
            database, settings=settings, send=transport, connections=settings.mail_connections
        )
        jobs.append(Job("mail delivery", dispatcher.deliver_due, interval=2))
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
async def run_jobs(
    jobs: Sequence[Job],
    states: dict[str, JobState] | None = None,
    *,
    database: Database | None = None,
    wait: Callable[[], Awaitable[object]] | None = None,
) -> AsyncIterator[None]:
    """Run the jobs in the background of the block, and cancel them at its end.

    `states` gets the state of each job by its name. Runs are recorded in `database`. Each run
    awaits `wait` first.
    """
    kept = {} if states is None else states
    kept.update({job.name: JobState(job.interval) for job in jobs})
    tasks = [
        asyncio.create_task(
            repeat(
                job,
                state=kept[job.name],
                recorder=job_runs.Recorder(database, job.name) if database else None,
                wait=wait,
            ),
            name=job.name,
        )
        for job in jobs
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def work_by_name(jobs: Iterable[Job]) -> Mapping[str, Callable[[], Awaitable[object]]]:
    """Return the work of each job by the name of the job."""
    return {job.name: job.work for job in jobs}


async def repeat(
    job: Job,
    *,
    state: JobState | None = None,
    max_retry_delay: float | None = None,
    reminder_interval: float = REMINDER_SECONDS,
    recorder: job_runs.Recorder | None = None,
    wait: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Repeat the job forever; after failures, retry with an exponential delay.

    The delay ends at MAX_RETRY_DELAY, or at a twelfth of the job's interval if that is longer.
    """
    if max_retry_delay is None:
        max_retry_delay = max(MAX_RETRY_DELAY, job.interval / 12)
    log = _FailureLog(reminder_interval)
    state = state or JobState(job.interval)
    failures = 0
    await asyncio.sleep(job.initial_delay)
    while True:
        if wait is not None:
            await wait()
        started_at, started = clock.now(), time.monotonic()
        result: object = None
        try:
            result = await job.work()
        except StepsFailed as failed:
            failures += 1
            result = failed
            state.note_failure(failed)
            log.report({f"{job.name} ({step})": error for step, error in failed.errors.items()})
        except Exception as error:  # noqa: BLE001 - logged
            failures += 1
            result = error
            state.note_failure(error)
            log.report({job.name: error})
        else:
            failures = 0
            state.note_success()
            log.report({})
        outcome = job_runs.outcome_of(result)
        _measure(job.name, time.monotonic() - started, outcome)
        if recorder is not None:
            await recorder.note(outcome, started_at=started_at)
        delay = min(2.0 ** min(failures, 10), max_retry_delay) if failures else job.interval
        await asyncio.sleep(delay)


def _measure(name: str, seconds: float, outcome: job_runs.Outcome) -> None:
    recorder = metrics.recorder()
    if recorder is None:
        return
    now = clock.now().timestamp()
    recorder.set("pressroom_job_duration_seconds", seconds, name, at=now)
    if outcome.error is None:
        recorder.set("pressroom_job_last_success_timestamp_seconds", now, name)
    recorder.count("pressroom_job_failures_total", name, by=outcome.error is not None)
    recorder.count("pressroom_job_rows_total", name, by=outcome.rows)


class _FailureLog:
    """Logs what fails when its error changes, as a reminder while it lasts, and its recovery."""

    def __init__(self, reminder_interval: float) -> None:
        self._reminder_interval = reminder_interval
        self._reported: dict[str, tuple[str, float]] = {}
        """The last logged error of what fails, and the time of that line."""

    def report(self, errors: Mapping[str, Exception]) -> None:
        """Log the errors of a run. Unexpected exceptions are logged with a traceback."""
        now = time.monotonic()
        for name in self._reported.keys() - errors.keys():
            del self._reported[name]
            logger.info(f"{name} works again")
        for name, error in errors.items():
            kind = type(error).__name__
            previous, logged_at = self._reported.get(name, ("", now))
            if kind != previous or now - logged_at >= self._reminder_interval:
                self._reported[name] = (kind, now)
                exc_info = None if isinstance(error, PressroomError) else error
                logger.warning(f"{name} failed: {kind}", exc_info=exc_info)
