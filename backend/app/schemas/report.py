"""Reports: what a reader says of an article or a comment, and what editors make of it."""

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from app.core.community import ReportState
from app.schemas.page import CursorQuery
from app.schemas.types import TEXT_PATTERN, Input, Output, omitted
from app.schemas.user import UserPublic

Reason = Annotated[
    str, StringConstraints(min_length=1, max_length=1000, pattern=rf"(?s){TEXT_PATTERN}")
]
Note = Annotated[str, StringConstraints(max_length=1000, pattern=TEXT_PATTERN)]


class ReportCreate(Input):
    """Why editors should look at something."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "Advertising"}]})

    reason: Reason


class ReportUpdate(Input):
    """How far an editor has come with a report."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"state": "resolved"}]})

    state: ReportState = omitted()
    note: Note = omitted()
    """For other editors."""


class ReportReceipt(Output):
    """A report as its reporter sees it."""

    id: int
    article_id: int | None
    comment_id: int | None
    reason: str
    state: ReportState
    created_at: datetime


class ReportResponse(ReportReceipt):
    """A report as editors see it."""

    note: str
    updated_at: datetime
    handled_at: datetime | None
    handled_by: int | None
    """The id of the editor who changed it last."""
    comment_content: str | None
    """What the reported comment says, also where it was deleted less than 30 days ago."""
    comment_author_id: int | None
    comment_deleted_at: datetime | None
    reporter: UserPublic | None
    """Who reported; null when they have left."""


class ReportQuery(CursorQuery):
    """Which reports."""

    state: Annotated[ReportState | None, Field(description="All where it is not given")] = None
