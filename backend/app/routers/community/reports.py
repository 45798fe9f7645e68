"""Routes for reports."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query, status

from app.auth.dependencies import CommunityActor, RequiredCommunityViewer
from app.core.errors import (
    AlreadyReported,
    ArticleNotFound,
    CommentNotFound,
    LimitReached,
    NotAuthorized,
    ReportNotFound,
)
from app.db.dependencies import ReadConnection, WriteSession
from app.routers.idempotency import idempotent
from app.routers.paging import Paging
from app.routers.parameters import ArticleId, CommentId, IfMatch, ReportId
from app.routers.responses import create_router, errors
from app.schemas.community.report import (
    ReportCreate,
    ReportQuery,
    ReportReceipt,
    ReportResponse,
    ReportUpdate,
)
from app.services.community import reports

router = create_router(prefix="", tag="reports")


@router.post(
    "/articles/{article_id:article_id}/reports",
    status_code=status.HTTP_201_CREATED,
    responses=errors(LimitReached, ArticleNotFound, AlreadyReported),
    dependencies=[idempotent(CommunityActor)],
)
async def report_article(
    session: WriteSession, actor: CommunityActor, article_id: ArticleId, new: ReportCreate
) -> ReportReceipt:
    """Report an article to the editors; once per user."""
    return await reports.report_article(session, article_id=article_id, new=new, reporter=actor)


@router.post(
    "/comments/{comment_id}/reports",
    status_code=status.HTTP_201_CREATED,
    responses=errors(LimitReached, CommentNotFound, AlreadyReported),
    dependencies=[idempotent(CommunityActor)],
)
async def report_comment(
    session: WriteSession, actor: CommunityActor, comment_id: CommentId, new: ReportCreate
) -> ReportReceipt:
    """Report a comment to the editors; once per user."""
    return await reports.report_comment(session, comment_id=comment_id, new=new, reporter=actor)


@router.get("/reports", response_model=list[ReportResponse], responses=errors(NotAuthorized))
async def list_reports(
    reader: ReadConnection,
    user: RequiredCommunityViewer,
    query: Annotated[ReportQuery, Query()],
    paging: Paging,
) -> Sequence[ReportResponse]:
    """List reports, newest first. Requires an editor."""
    return paging.describe(await reports.list_reports(reader, query=query, user=user))


@router.get(
    "/reports/{report_id}",
    responses=errors(NotAuthorized, ReportNotFound),
)
async def read_report(
    reader: ReadConnection, user: RequiredCommunityViewer, report_id: ReportId
) -> ReportResponse:
    """Read a report. Requires an editor."""
    return await reports.get_report(reader, report_id=report_id, user=user)


@router.patch(
    "/reports/{report_id}",
    responses=errors(LimitReached, NotAuthorized, ReportNotFound),
)
async def update_report(
    session: WriteSession,
    actor: CommunityActor,
    report_id: ReportId,
    changes: ReportUpdate,
    precondition: IfMatch,
) -> ReportResponse:
    """Change the state or the note of a report. Requires an editor."""
    return await reports.update_report(
        session, report_id=report_id, changes=changes, actor=actor, precondition=precondition
    )
