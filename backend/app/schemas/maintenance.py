"""Maintenance mode."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from app.schemas.types import Input, Line, Output

MAX_MESSAGE = 500


class MaintenanceUpdate(Input):
    """The sentence that refused writes get."""

    message: Annotated[
        str,
        Line(MAX_MESSAGE),
        Field(examples=["We move to another host until 14:00 UTC. Reading goes on."]),
    ]


class Maintenance(Output):
    """Whether the server is in maintenance."""

    active: bool
    message: str | None
    since: datetime | None
