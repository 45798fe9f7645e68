"""Responses of the health probes."""

from datetime import datetime
from typing import Literal

from app.schemas.types import Output


class Liveness(Output):
    """The process responds."""

    status: Literal["alive"] = "alive"


class Readiness(Output):
    """The process can serve requests: its database is available and migrated."""

    status: Literal["ready"] = "ready"
    revision: str
    ahead: bool
    """Whether a newer release has migrated the database, as during an upgrade."""
    warnings: list[str]
    """What needs an operator, although requests are served: a full disk of the database."""


class Versions(Output):
    """What runs."""

    pressroom: str
    python: str
    postgresql: str | None


class DatabaseHealth(Output):
    """The database, as the primary reports it."""

    size_bytes: int
    connections: int
    max_connections: int
    clock_skew_seconds: float
    """By how much its clock is ahead of the clock of this process."""
    replication_lag_seconds: float | None
    """How far DATABASE_READ_URL is behind; None without a replica."""


class PoolHealth(Output):
    """A pool of database connections of the process that answers."""

    name: str
    size: int
    in_use: int
    idle: int
    waiting: int
    timeouts: int
    """Requests that waited in vain, since the process started."""


class VolumeHealth(Output):
    """A disk of the host that answers."""

    name: str
    total_bytes: int
    free_bytes: int


class MailHealth(Output):
    """The mail queue."""

    is_sent: bool
    """Whether a mail server is configured."""
    queued: int
    failed: int
    oldest_age_seconds: float | None
    """The age of the oldest queued mail."""


class BackupHealth(Output):
    """The last successful backup that a command recorded in this database."""

    last_success_at: datetime | None
    age_seconds: float | None


class ServerHealth(Output):
    """The state of the server. Pools, volumes and failing jobs are those of one process."""

    status: Literal["ready", "not_ready"]
    problem: str | None
    """Why the process is not ready."""
    warnings: list[str]
    host: str
    versions: Versions
    revision: str | None
    """The revision of the tables."""
    ahead: bool | None
    database: DatabaseHealth | None
    pools: list[PoolHealth]
    volumes: list[VolumeHealth]
    mail: MailHealth | None
    backup: BackupHealth | None
    failing_jobs: dict[str, str]
    """The errors of jobs whose last run in this process failed, by name."""
    maintenance: str | None
    """The sentence of the maintenance mode."""
