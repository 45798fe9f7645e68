"""Reports: users report articles and comments, editors handle the reports."""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import BigInteger, String, bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, may_on_any
from app.core import clock
from app.core.conditional import Precondition
from app.core.errors import (
    AlreadyReported,
    ArticleNotFound,
    CommentNotFound,
    InvalidToken,
    NotAuthorized,
    PreconditionFailed,
    ReportNotFound,
)
from app.core.limits import LimitKind
from app.db.reading import Reader
from app.db.selection import Selection
from app.db.session import NO_KEY_UPDATE, constraint_errors
from app.models.accounts.user import User
from app.models.community.comment import Comment
from app.models.community.report import Report
from app.schemas.community.report import (
    ReportCreate,
    ReportQuery,
    ReportReceipt,
    ReportResponse,
    ReportUpdate,
)
from app.services import audit, limits
from app.services.articles.reading import get_fields
from app.services.articles.rows import AUTHOR
from app.services.audit import AuditAction
from app.services.community.comments.reading import get_comment
from app.services.pages.keyset import keyset, read_page
from app.services.pages.paging import ListPage

CONSTRAINTS = {
    "uq_reports_article": AlreadyReported,
    "uq_reports_comment": AlreadyReported,
    "fk_reports_article_id": ArticleNotFound,
    "fk_reports_comment_id": CommentNotFound,
    "fk_reports_reporter_id": InvalidToken,
}


_FIELDS = Selection.of(
    ReportResponse,
    Report,
    comment_content=Comment.content,
    comment_author_id=Comment.author_id,
    comment_deleted_at=Comment.deleted_at,
    reporter=AUTHOR,
)
_REPORTS = (
    select(*_FIELDS.columns)
    .join(User, User.id == Report.reporter_id, isouter=True)
    .join(Comment, Comment.id == Report.comment_id, isouter=True)
)
_ALL_REPORTS = keyset("reports", _FIELDS, _REPORTS, Report.id)
_REPORTS_IN_STATE = keyset(
    "reports in",
    _FIELDS,
    _REPORTS.where(Report.state == bindparam("state", type_=String)),
    Report.id,
)
_REPORT = _REPORTS.where(Report.id == bindparam("report_id", type_=BigInteger))


async def report_article(
    session: AsyncSession, *, article_id: int, new: ReportCreate, reporter: Identity
) -> ReportReceipt:
    """Report a visible article. Raises ArticleNotFound, AlreadyReported."""
    await get_fields(session, article_id=article_id, viewer=reporter, fields=("id",))
    return await _report(session, Report(article_id=article_id, reason=new.reason), reporter)


async def report_comment(
    session: AsyncSession, *, comment_id: int, new: ReportCreate, reporter: Identity
) -> ReportReceipt:
    """Report a visible comment. Raises CommentNotFound, AlreadyReported."""
    comment = await get_comment(session, comment_id=comment_id, viewer=reporter)
    if comment.removed:
        raise CommentNotFound
    return await _report(session, Report(comment_id=comment_id, reason=new.reason), reporter)


async def _report(session: AsyncSession, report: Report, reporter: Identity) -> ReportReceipt:
    await limits.spend(session, reporter, {LimitKind.REPORTS: 1})
    report.reporter_id = reporter.id
    session.add(report)
    with constraint_errors(CONSTRAINTS):
        await session.flush()  # checks the constraints and assigns the id
    _record(session, AuditAction.CREATE_REPORT, report.id, reporter)
    return ReportReceipt.model_validate(report)


async def list_reports(
    reader: Reader, *, query: ReportQuery, user: Identity
) -> ListPage[ReportResponse]:
    """Return reports for editors, newest first. Raises NotAuthorized, InvalidCursor."""
    _require_editor(user)
    state = query.state.value if query.state else None
    listing = _ALL_REPORTS if state is None else _REPORTS_IN_STATE
    parameters = {"state": state}
    return await read_page(reader, listing, query=query, parameters=parameters, of=state or "")


async def get_report(reader: Reader, *, report_id: int, user: Identity) -> ReportResponse:
    """Return one report for editors. Raises NotAuthorized, ReportNotFound."""
    _require_editor(user)
    return await _read(reader, report_id)


async def _read(reader: Reader | AsyncSession, report_id: int) -> ReportResponse:
    row = (await reader.execute(_REPORT, {"report_id": report_id})).one_or_none()
    if row is None:
        raise ReportNotFound
    return _FIELDS.read(row)


async def update_report(
    session: AsyncSession,
    *,
    report_id: int,
    changes: ReportUpdate,
    actor: Identity,
    precondition: Precondition,
) -> ReportResponse:
    """Change the state or the note of a report, as an editor.

    Raises NotAuthorized, ReportNotFound, PreconditionFailed.
    """
    _require_editor(actor)
    report = await session.get(Report, report_id, with_for_update=NO_KEY_UPDATE)
    if report is None:
        raise ReportNotFound
    if precondition.tags is not None:
        precondition.require(await _read(session, report_id))
    await limits.spend(session, actor, {LimitKind.MODERATION: 1})
    for field, value in changes.model_dump(exclude_unset=True).items():
        setattr(report, field, value)
    if session.is_modified(report):
        report.handled_by, report.handled_at = actor.id, clock.now()
        _record(session, AuditAction.UPDATE_REPORT, report_id, actor)
        await session.flush()  # so that the read below includes it
    return await _read(session, report_id)


class Handled(NamedTuple):
    """How many reports were changed, had changed since they were read, or were not found."""

    done: int
    changed: int
    missing: int


async def update_reports(
    session: AsyncSession,
    *,
    reports: Mapping[int, Precondition],
    changes: ReportUpdate,
    actor: Identity,
) -> Handled:
    """Change several reports by id, as an editor.

    Reports that do not match their precondition, or that are gone, are counted and left as they
    are. Raises NotAuthorized, LimitReached.
    """
    _require_editor(actor)
    done = changed = 0
    for report_id in sorted(reports):
        try:
            await update_report(
                session,
                report_id=report_id,
                changes=changes,
                actor=actor,
                precondition=reports[report_id],
            )
        except PreconditionFailed:
            changed += 1
        except ReportNotFound:
            continue
        else:
            done += 1
    return Handled(done, changed, len(reports) - done - changed)


def _require_editor(user: Identity) -> None:
    """Raise NotAuthorized unless the user may handle reports."""
    if not may_on_any(user, Action.HANDLE_REPORTS):
        raise NotAuthorized


def _record(session: AsyncSession, action: AuditAction, report_id: int, actor: Identity) -> None:
    audit.record(session, action, actor_id=actor.id, subject="report", subject_id=report_id)
