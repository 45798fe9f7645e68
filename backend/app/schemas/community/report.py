"""Schemas for reports."""

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from app.core.enums import ReportState
from app.schemas.accounts.user import UserPublic
from app.schemas.page import CursorQuery
from app.schemas.types import TEXT_PATTERN, Input, Output, omitted

Reason = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=TEXT_PATTERN)]
Note = Annotated[str, StringConstraints(max_length=1000, pattern=TEXT_PATTERN)]


class ReportCreate(Input):
    """The reason of a report."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "Advertising"}]})

    reason: Reason


class ReportUpdate(Input):
    """An editor's changes of a report."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"state": "resolved"}]})

    state: ReportState = omitted()
    note: Note = omitted()
    """Visible to editors only."""


class ReportReceipt(Output):
    """A report, as its reporter sees it."""

    id: int
    article_id: int | None
    comment_id: int | None
    reason: str
    state: ReportState
    created_at: datetime


class ReportResponse(ReportReceipt):
    """A report, as editors see it."""

    note: str
    updated_at: datetime
    handled_at: datetime | None
    handled_by: int | None
    """The id of the editor who last changed it."""
    comment_content: str | None
    """The content of the reported comment, kept for 30 days after its deletion."""
    comment_author_id: int | None
    comment_deleted_at: datetime | None
    reporter: UserPublic | None
    """null if the account was deleted."""


class ReportQuery(CursorQuery):
    """Filter and page of a list of reports."""

    state: Annotated[ReportState | None, Field(description="By default all states")] = None
