"""/admin: the audit trail, jobs, mail, sessions, statistics, health and maintenance mode.

All routes are for administrators with a login session.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Query, Request, status
from fastapi import Path as PathParameter
from fastapi.responses import StreamingResponse

from app.auth.dependencies import Actor, ConfirmingUser, CurrentUser
from app.core.config import Settings, get_settings
from app.core.errors import (
    JobAlreadyRunning,
    JobNotFound,
    LimitReached,
    MailNotCancellable,
    MailNotFound,
    MailNotRetryable,
    NotAuthorized,
    SessionNotFound,
)
from app.core.job_states import JobState
from app.core.maintenance import MaintenanceState
from app.core.streams import Deadline
from app.db.dependencies import CurrentDatabase, ReadConnection, WriteSession
from app.http.routing import allowed_in_maintenance, no_store
from app.routers.media.media import CurrentStorage
from app.routers.paging import Paging
from app.routers.parameters import CursorPage, MailId, SessionId
from app.routers.responses import create_router, errors
from app.schemas.accounts.session import SessionQuery, UserSessionResponse
from app.schemas.audit import AuditEventResponse, AuditFilter, AuditQuery
from app.schemas.health import ServerHealth
from app.schemas.job import JobResponse, JobRunResponse
from app.schemas.mail import MailQuery, MailResponse
from app.schemas.maintenance import Maintenance, MaintenanceUpdate
from app.schemas.statistics import Statistics
from app.services import (
    job_runs,
    maintenance,
    operations,
    outbox,
    server_health,
    statistics,
)
from app.services.accounts import sessions

router = create_router(prefix="/admin", tag="administration", dependencies=[Depends(no_store)])

NDJSON = "application/x-ndjson"
JobName = Annotated[
    str, PathParameter(description="A job's name", max_length=50, examples=["housekeeping"])
]


async def get_job_states(request: Request) -> Mapping[str, JobState]:
    """Return the states of the jobs of this process."""
    states: Mapping[str, JobState] = request.app.state.jobs
    return states


async def get_maintenance_state(request: Request) -> MaintenanceState:
    """Return the maintenance mode as this process knows it."""
    state: MaintenanceState = request.app.state.maintenance
    return state


JobStates = Annotated[Mapping[str, JobState], Depends(get_job_states)]
CurrentMaintenance = Annotated[MaintenanceState, Depends(get_maintenance_state)]


@router.get("/audit", responses=errors(NotAuthorized))
async def list_audit_events(
    reader: ReadConnection,
    user: CurrentUser,
    query: Annotated[AuditQuery, Query()],
    paging: Paging,
) -> Sequence[AuditEventResponse]:
    """List recorded actions, newest first."""
    return paging.describe(await operations.list_events(reader, query=query, user=user))


@router.get(
    "/audit/export",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Successful Response",
            "content": {NDJSON: {"schema": {"type": "string", "format": "binary"}}},
        },
        **errors(NotAuthorized),
    },
)
async def export_audit_events(
    database: CurrentDatabase, user: CurrentUser, query: Annotated[AuditFilter, Query()]
) -> StreamingResponse:
    """Export recorded actions as NDJSON, newest first. The filters are those of the list."""
    lines = await operations.export_events(
        database, query=query, user=user, deadline=Deadline(get_settings().stream_seconds)
    )
    return StreamingResponse(
        lines,
        media_type=NDJSON,
        headers={
            "Content-Disposition": 'attachment; filename="audit.ndjson"',
            "Cache-Control": "private, no-store",
        },
    )


@router.get("/jobs", responses=errors(NotAuthorized))
async def list_jobs(
    reader: ReadConnection, user: CurrentUser, states: JobStates
) -> Sequence[JobResponse]:
    """List background jobs with their last runs, of all processes."""
    intervals = {name: state.interval for name, state in states.items()}
    return await job_runs.list_jobs(reader, intervals=intervals, user=user)


@router.get("/jobs/{name}/runs", responses=errors(NotAuthorized))
async def list_job_runs(
    reader: ReadConnection, user: CurrentUser, name: JobName, query: CursorPage, paging: Paging
) -> Sequence[JobRunResponse]:
    """List the recorded runs of a job, newest first. They are kept for a week."""
    return paging.describe(await job_runs.list_runs(reader, job=name, query=query, user=user))


@router.post(
    "/jobs/{name}/run",
    status_code=status.HTTP_202_ACCEPTED,
    responses=errors(NotAuthorized, JobNotFound, JobAlreadyRunning),
)
async def run_job(
    request: Request, database: CurrentDatabase, actor: ConfirmingUser, name: JobName
) -> JobRunResponse:
    """Run a job now, in the background. Its runs show when it has ended."""
    runs: job_runs.RequestedRuns = request.app.state.requested_runs
    work: Callable[..., Mapping[str, job_runs.Work]] = request.app.state.work_by_name
    return await runs.start(database, name=name, jobs=work(database), actor=actor)


@router.get("/mail", responses=errors(NotAuthorized))
async def list_mail(
    reader: ReadConnection,
    user: CurrentUser,
    query: Annotated[MailQuery, Query()],
    paging: Paging,
) -> Sequence[MailResponse]:
    """List mails, newest first: waiting, sent or failed. They are kept for a week."""
    return paging.describe(await operations.list_mails(reader, query=query, user=user))


@router.post(
    "/mail/{mail_id}/retry",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(NotAuthorized, MailNotFound, MailNotRetryable),
)
async def retry_mail(session: WriteSession, actor: Actor, mail_id: MailId) -> None:
    """Send a failed mail of the last day again, at once."""
    await outbox.retry(session, mail_id=mail_id, actor=actor)


@router.delete(
    "/mail/{mail_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(NotAuthorized, MailNotFound, MailNotCancellable),
)
async def cancel_mail(session: WriteSession, actor: Actor, mail_id: MailId) -> None:
    """Cancel a mail that waits for delivery. It stays in the list as failed."""
    await outbox.cancel_mail(session, mail_id=mail_id, actor=actor)


@router.get("/sessions", responses=errors(NotAuthorized))
async def list_all_sessions(
    reader: ReadConnection,
    user: CurrentUser,
    query: Annotated[SessionQuery, Query()],
    paging: Paging,
) -> Sequence[UserSessionResponse]:
    """List the active sessions of all users or of one, the last opened first."""
    return paging.describe(await sessions.list_all_sessions(reader, query=query, user=user))


@router.delete(
    "/sessions/{session_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(NotAuthorized, SessionNotFound, LimitReached),
)
@allowed_in_maintenance
async def end_any_session(session: WriteSession, actor: Actor, session_id: SessionId) -> None:
    """End a session of any user; its tokens are refused from then on."""
    await sessions.end_any_session(session, session_id=session_id, actor=actor)


@router.get("/stats", responses=errors(NotAuthorized))
async def read_statistics(reader: ReadConnection, user: CurrentUser) -> Statistics:
    """Read counts of content, sizes of tables and files, and growth."""
    return await statistics.get_statistics(reader, user=user)


@router.get("/health", responses=errors(NotAuthorized))
async def read_server_health(
    database: CurrentDatabase,
    user: CurrentUser,
    states: JobStates,
    storage: CurrentStorage,
    mode: CurrentMaintenance,
) -> ServerHealth:
    """Read the state of the server, as one of its processes sees it."""
    settings = get_settings()
    return await server_health.examine(
        database,
        settings=settings,
        jobs=states,
        maintenance=mode,
        volumes=_volumes(settings, media=storage.incoming.parent),
        user=user,
    )


def _volumes(settings: Settings, media: Path) -> Mapping[str, Path]:
    """Return the folders that grow. The disk of another host or container is not visible."""
    return {"media": media} | ({"database": settings.data_dir} if not settings.database_url else {})


@router.get("/maintenance", responses=errors(NotAuthorized))
async def read_maintenance(database: CurrentDatabase, user: CurrentUser) -> Maintenance:
    """Read whether the server is in maintenance."""
    return await maintenance.get_maintenance(database, user=user)


@router.put("/maintenance", responses=errors(NotAuthorized))
@allowed_in_maintenance
async def begin_maintenance(
    session: WriteSession, actor: Actor, new: MaintenanceUpdate
) -> Maintenance:
    """Refuse writes with this sentence, at all replicas within two seconds. Reading goes on."""
    return await maintenance.begin(session, new=new, actor=actor)


@router.delete(
    "/maintenance", status_code=status.HTTP_204_NO_CONTENT, responses=errors(NotAuthorized)
)
@allowed_in_maintenance
async def end_maintenance(session: WriteSession, actor: Actor) -> None:
    """Accept writes again, at all replicas within two seconds."""
    await maintenance.end(session, actor=actor)
