"""Background jobs and their runs."""

from datetime import datetime

from app.schemas.types import Output


class JobRunResponse(Output):
    """A run of a job, in any process."""

    id: int
    job: str
    started_at: datetime
    finished_at: datetime | None
    """None while a run that was requested is in progress."""
    rows: int
    """How many rows or files it changed, or mails it sent."""
    error: str | None
    """Why it failed; None after a success."""
    host: str


class JobResponse(Output):
    """A background job."""

    name: str
    interval_seconds: float | None
    """Seconds between two runs; None for a job that the server does not repeat."""
    last_success_at: datetime | None
    last_run: JobRunResponse | None
