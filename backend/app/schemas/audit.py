"""The audit trail."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from app.schemas.page import CursorQuery
from app.schemas.types import Id, Input, Line, Moment, Output


class AuditEventResponse(Output):
    """A recorded action. Its actor and its subject may no longer exist."""

    id: int
    occurred_at: datetime
    action: str
    actor_id: int | None
    actor: str | None
    """The username of the actor, if the account exists."""
    subject_type: str
    subject_id: int | None
    message: str
    request_id: str | None


class AuditFilter(Input):
    """Filters of the audit trail."""

    action: Annotated[str, Line(50)] | None = None
    actor: Id | None = None
    subject: Annotated[str, Line(50)] | None = None
    subject_id: Id | None = None
    since: Annotated[Moment | None, Field(description="Recorded at this time or later")] = None
    until: Annotated[Moment | None, Field(description="Recorded before this time")] = None


class AuditQuery(AuditFilter, CursorQuery):
    """Filters and page of the audit trail."""
