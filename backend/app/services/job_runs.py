"""Runs of background jobs: recorded by every process, listed and started by administrators.

Every process repeats the same jobs, some of them every two seconds. A run that had nothing to do is
therefore recorded only once a minute for each process. Runs that did something, failures and
recoveries are always recorded.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import String, bindparam, exists, func, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.auth.identity import Identity
from app.auth.permissions import Action, require
from app.core import clock
from app.core.errors import JobAlreadyRunning, JobNotFound, PressroomError
from app.core.job_states import StepsFailed
from app.core.logging import get_logger
from app.db.reading import Reader
from app.db.selection import Selection
from app.db.session import Database, constraint_errors
from app.models.job_run import JobRun
from app.schemas.job import JobResponse, JobRunResponse
from app.schemas.page import CursorQuery
from app.services import audit
from app.services.audit import AuditAction
from app.services.pages.keyset import keyset, read_page
from app.services.pages.paging import ListPage
from app.services.purging import Batch, delete_oldest

logger = get_logger(__name__)

BACKUP = "backup"
"""The name under which the command `pressroom backup create` records its runs."""
RETENTION = timedelta(days=7)
IDLE_INTERVAL = timedelta(minutes=1)
"""How often a process records runs that have nothing to do, or that fail like the last one."""
LOST_AFTER = timedelta(hours=6)
"""After this time, a run that an administrator started counts as lost with its process."""
MAX_ERROR = 500
HOST = socket.gethostname()[:255]

Work = Callable[[], Awaitable[object]]
"""A job. What it returns is the number of rows, if it is an integer."""


class Outcome(NamedTuple):
    """The result of a run: the number of rows, and why it failed."""

    rows: int = 0
    error: str | None = None


def outcome_of(result: object) -> Outcome:
    """Return the outcome for what a job returned, or for the exception that it raised.

    Only errors of the catalogue and of steps have messages without personal data.
    """
    if isinstance(result, BaseException):
        name, is_safe = type(result).__name__, isinstance(result, (PressroomError, StepsFailed))
        return Outcome(error=(f"{name}: {result}" if is_safe else name)[:MAX_ERROR])
    return Outcome(result if isinstance(result, int) else 0)


async def record(
    database: Database, job: str, *, started_at: datetime, rows: int = 0, error: str | None = None
) -> None:
    """Record a run that ends now. `error` is None after a success. Raises ServiceUnavailable."""
    values = {
        "job": job,
        "started_at": started_at,
        "finished_at": clock.now(),
        "rows": rows,
        "error": error and error[:MAX_ERROR],
        "host": HOST,
    }
    async with database.autocommit() as connection:
        await connection.execute(insert(JobRun).values(**values))


class Recorder:
    """Records the runs of one job in this process, except for most of those without an effect."""

    def __init__(self, database: Database, job: str) -> None:
        self._database = database
        self._job = job
        self._last: tuple[datetime, str | None] | None = None
        """When the last recorded run started, and its error."""

    async def note(self, outcome: Outcome, *, started_at: datetime) -> None:
        """Record a run that ends now. Nothing is recorded while the database is not available."""
        if not outcome.rows and self._last is not None:
            recorded_at, error = self._last
            if error == outcome.error and started_at - recorded_at < IDLE_INTERVAL:
                return
        try:
            await record(self._database, self._job, started_at=started_at, **outcome._asdict())
        except PressroomError:
            return
        self._last = started_at, outcome.error


_RUN = Selection.of(JobRunResponse, JobRun)
_OF_JOB = JobRun.job == bindparam("job", type_=String)
_RUNS = keyset("job runs", _RUN, select(*_RUN.columns).where(_OF_JOB), JobRun.id)
_EACH = aliased(JobRun)
_NEWEST = select(_EACH.job, _EACH.id).order_by(_EACH.job.desc(), _EACH.id.desc()).limit(1)
_LAST = _NEWEST.cte("newest", recursive=True)
_PREVIOUS = _NEWEST.where(_EACH.job < _LAST.c.job).lateral("previous")
_NEWEST_OF_EACH = _LAST.union_all(select(_PREVIOUS).join_from(_LAST, _PREVIOUS, true()))
"""The newest run of each job: a look-up in the index for each, instead of reading all runs."""
_LATEST = select(*_RUN.columns).where(JobRun.id.in_(select(_NEWEST_OF_EACH.c.id)))
_SUCCESSES = select(
    _NEWEST_OF_EACH.c.job,
    select(func.max(_EACH.finished_at))
    .where(_EACH.job == _NEWEST_OF_EACH.c.job, _EACH.error.is_(None))
    .scalar_subquery()
    .label("finished_at"),
)


async def list_jobs(
    reader: Reader, *, intervals: Mapping[str, float], user: Identity
) -> Sequence[JobResponse]:
    """List the jobs of this server by name, and others that were recorded, such as backups.

    `intervals` are those of the jobs that the server repeats, in seconds. Raises NotAuthorized.
    """
    require(user, Action.OPERATE, owner_id=user.id)
    runs = [_RUN.read(row) for row in await reader.execute(_LATEST)]
    latest = {run.job: run for run in runs}
    successes = {row.job: row.finished_at for row in await reader.execute(_SUCCESSES)}
    return [
        JobResponse(
            name=name,
            interval_seconds=intervals.get(name),
            last_success_at=successes.get(name),
            last_run=latest.get(name),
        )
        for name in sorted({*intervals, *latest})
    ]


async def list_runs(
    reader: Reader, *, job: str, query: CursorQuery, user: Identity
) -> ListPage[JobRunResponse]:
    """List the recorded runs of a job, newest first. Raises NotAuthorized, InvalidCursor."""
    require(user, Action.OPERATE, owner_id=user.id)
    return await read_page(reader, _RUNS, query=query, parameters={"job": job}, of=job)


async def last_success(reader: Reader, *, job: str) -> datetime | None:
    """Return when a job last ended without an error, or None."""
    found: datetime | None = await reader.scalar(_SUCCESS, {"job": job})
    return found


_SUCCESS = select(func.max(JobRun.finished_at)).where(_OF_JOB, JobRun.error.is_(None))
_END_LOST = (
    update(JobRun)
    .where(JobRun.finished_at.is_(None), JobRun.started_at < bindparam("lost_before"))
    .values(finished_at=bindparam("now"), error="The process ended before the run did")
)


class RequestedRuns:
    """Runs that administrators request. They run in the background of this process."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(
        self, database: Database, *, name: str, jobs: Mapping[str, Work], actor: Identity
    ) -> JobRunResponse:
        """Start a job, and return its run, which is in progress.

        Raises NotAuthorized, JobNotFound, JobAlreadyRunning.
        """
        run = await _begin(database, name=name, jobs=jobs, actor=actor)
        task = asyncio.create_task(_run(database, run.id, jobs[name]), name=f"{name}, requested")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return run

    async def stop(self) -> None:
        """Interrupt all runs. They are recorded as failed."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run_now(
    database: Database, *, name: str, jobs: Mapping[str, Work], actor: Identity
) -> Outcome:
    """Run a job, and return its outcome at its end.

    Raises NotAuthorized, JobNotFound, JobAlreadyRunning, and what the job raises.
    """
    run = await _begin(database, name=name, jobs=jobs, actor=actor)
    return await _execute(database, run.id, jobs[name])


async def _begin(
    database: Database, *, name: str, jobs: Mapping[str, Work], actor: Identity
) -> JobRunResponse:
    require(actor, Action.OPERATE, owner_id=actor.id)
    if name not in jobs:
        raise JobNotFound(f"There is no job {name}; there are: {', '.join(jobs)}")
    now = clock.now()
    async with database.unit_of_work() as session:
        await session.execute(_END_LOST, {"lost_before": now - LOST_AFTER, "now": now})
        run = JobRun(job=name, started_at=now, host=HOST, rows=0)
        session.add(run)
        with constraint_errors({"uq_job_runs_unfinished": JobAlreadyRunning}):
            await session.flush()
        action = AuditAction.RUN_JOB
        audit.record(
            session, action, actor_id=actor.id, subject=f"{name} job", subject_id=None, count=1
        )
        return JobRunResponse.model_validate(run, from_attributes=True)


async def _run(database: Database, run_id: int, work: Work) -> None:
    try:
        await _execute(database, run_id, work)
    except Exception as error:
        is_expected = isinstance(error, (PressroomError, StepsFailed))
        logger.warning(f"a requested run failed: {error}", exc_info=None if is_expected else error)


async def _execute(database: Database, run_id: int, work: Work) -> Outcome:
    """Run a job, and record the end of the run, also if it is cancelled."""
    result: object = None
    try:
        result = await work()
    except BaseException as error:
        result = error
        raise
    finally:
        outcome = outcome_of(result)
        ended = {"finished_at": clock.now(), "rows": outcome.rows, "error": outcome.error}
        async with database.autocommit() as connection:
            await connection.execute(update(JobRun).where(JobRun.id == run_id).values(**ended))
    return outcome


async def purge(session: AsyncSession, batch: Batch) -> int:
    """Delete a batch of old runs that a later success supersedes; return how many."""
    later = aliased(JobRun)
    is_superseded = exists().where(
        later.job == JobRun.job,
        later.id > JobRun.id,
        later.finished_at.is_not(None),
        later.error.is_(None),
    )
    old = JobRun.started_at < clock.now() - RETENTION
    return await delete_oldest(session, batch, JobRun.id, old, is_superseded, order_by=JobRun.id)
