"""What the health probes answer."""

from typing import Literal

from app.schemas.types import Output


class Liveness(Output):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(Output):
    """The process can serve: its database is there, and migrated."""

    status: Literal["ready"] = "ready"
    revision: str
    ahead: bool
    """Whether the database was migrated by a newer release, as in the middle of an upgrade."""
