"""Responses of the health probes."""

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
