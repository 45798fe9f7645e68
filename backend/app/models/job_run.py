"""Runs of background jobs, of all processes."""

from datetime import datetime

from sqlalchemy import BigInteger, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryKey


class JobRun(Base):
    """A run of a job. Most runs that have nothing to do are not recorded (services.job_runs)."""

    __tablename__ = "job_runs"

    id: Mapped[PrimaryKey]
    job: Mapped[str] = mapped_column(String(50))
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    """None while an administrator's run is in progress; other runs are recorded at their end."""
    rows: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    """How many rows or files it changed, or mails it sent."""
    error: Mapped[str | None] = mapped_column(String(500))
    """Why it failed; None after a success."""
    host: Mapped[str] = mapped_column(String(255))
    """The name of the host or container that ran it."""


Index("ix_job_runs_job_id", JobRun.job, JobRun.id)
Index(
    "ix_job_runs_success",
    JobRun.job,
    JobRun.finished_at,
    postgresql_where=text("error IS NULL"),
)
Index(
    "uq_job_runs_unfinished",
    JobRun.job,
    unique=True,
    postgresql_where=text("finished_at IS NULL"),
)
