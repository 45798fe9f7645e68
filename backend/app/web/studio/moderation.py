"""The moderation of comments, and of reports by readers."""

from typing import Annotated

from fastapi import Request, Response

from app.auth.identity import Identity
from app.auth.permissions import Action
from app.core.conditional import Precondition, resource_tag
from app.core.enums import CommentStatus, ReportState
from app.db.dependencies import ReadConnection
from app.schemas.community.comment import CommentResponse, ModerationQuery
from app.schemas.community.report import ReportQuery, ReportResponse, ReportUpdate
from app.services.articles import reading as articles
from app.services.community import reports
from app.services.community.comments import moderating, reading
from app.services.community.comments.moderating import Decision
from app.web.forms import Form, FormError, SubmittedForm
from app.web.localization import gettext as _
from app.web.localization import mark as N_  # noqa: N812 - the usual name of this function
from app.web.localization import ngettext
from app.web.queries import ObjectId, read_query
from app.web.rendering import page
from app.web.routing import create_router, form_page, local_path, redirect
from app.web.sessions import PageUser, PageWriteSession, page_user_with

router = create_router()

QUEUE = "/studio/moderation"
REPORTS = "/studio/moderation/reports"
PAGE_SIZE = 30
MAX_CHOSEN = 100
"""How many comments or reports one request changes."""

Editor = Annotated[Identity, page_user_with(Action.HANDLE_REPORTS)]

STATES = {
    ReportState.OPEN: N_("Open"),
    ReportState.IN_REVIEW: N_("In review"),
    ReportState.RESOLVED: N_("Resolved"),
    ReportState.DISMISSED: N_("Dismissed"),
}


@router.get(QUEUE)
async def show_queue(request: Request, reader: ReadConnection, user: PageUser) -> Response:
    """Show comments that wait for approval, or that are hidden."""
    query = read_query(request, ModerationQuery, limit=PAGE_SIZE)
    listed = await reading.list_to_moderate(reader, query=query, user=user)
    ids = {comment.article_id for comment in listed.items}
    titles = await articles.read_titles(reader, article_ids=ids, viewer=user)
    return page(
        request,
        "studio/moderation.html",
        comments=[(comment, _choice(comment)) for comment in listed.items],
        articles=titles,
        shown=query.status.value,
        is_pending=query.status is CommentStatus.PENDING,
        following=listed.next,
    )


def _choice(item: CommentResponse | ReportResponse) -> str:
    """Return the value that chooses this version of a comment or a report in forms."""
    tag = resource_tag(item).strip('"')
    return f"{item.id}:{tag}"


@router.post("/studio/moderation/comments")
@form_page(QUEUE)
async def moderate(form: SubmittedForm, session: PageWriteSession, user: PageUser) -> Response:
    """Approve, hide or delete the chosen comments."""
    try:
        decision = Decision(form.text("decision"))
    except ValueError as error:
        raise FormError(_("Choose what to do with the comments.")) from error
    comments = dict(map(_parse_choice, _chosen(form, "comments")))
    if not comments:
        raise FormError(_("Choose at least one comment."))
    done, changed, missing = await moderating.moderate_comments(
        session, decision=decision, comments=comments, actor=user
    )
    texts = [_describe(decision, done)] if done else []
    if changed:
        texts.append(
            ngettext(
                "%(num)s comment has changed in the meantime: look at it again.",
                "%(num)s comments have changed in the meantime: look at them again.",
                changed,
            )
            % {"num": changed}
        )
    if missing:
        texts.append(
            ngettext(
                "%(num)s comment no longer exists, or is not yours to moderate.",
                "%(num)s comments no longer exist, or are not yours to moderate.",
                missing,
            )
            % {"num": missing}
        )
    kind = "warning" if changed or missing else "success"
    return redirect(local_path(form.text("next"), QUEUE), flash=" ".join(texts), kind=kind)


def _chosen(form: Form, name: str) -> list[str]:
    """Return the chosen values that begin with an id."""
    numbers = (value.partition(":")[0] for value in form.list(name))
    are_ids = [number.isascii() and number.isdigit() and len(number) < 19 for number in numbers]
    values = [value for value, is_id in zip(form.list(name), are_ids, strict=True) if is_id]
    return values[:MAX_CHOSEN]


def _parse_choice(value: str) -> tuple[int, Precondition]:
    """Return the id of a choice, and the precondition on its version if there is one."""
    number, _colon, tag = value.partition(":")
    return int(number), Precondition(frozenset({f'"{tag}"'}) if tag else None)


def _describe(decision: Decision, number: int) -> str:
    match decision:
        case Decision.APPROVE:
            text = ngettext("%(num)s comment approved.", "%(num)s comments approved.", number)
        case Decision.HIDE:
            text = ngettext("%(num)s comment hidden.", "%(num)s comments hidden.", number)
        case Decision.DELETE:
            text = ngettext("%(num)s comment deleted.", "%(num)s comments deleted.", number)
    return text % {"num": number}


@router.get(REPORTS)
async def show_reports(request: Request, reader: ReadConnection, user: Editor) -> Response:
    """Show reports of articles and comments; by default the open ones."""
    chosen = request.query_params.get("state", ReportState.OPEN.value)
    query = read_query(request, ReportQuery, limit=PAGE_SIZE, state=chosen or None)
    listed = await reports.list_reports(reader, query=query, user=user)
    comment_ids = [each.comment_id for each in listed.items if each.comment_id is not None]
    contexts = await moderating.read_contexts(reader, comment_ids=comment_ids, user=user)
    article_ids = {each.article_id for each in listed.items if each.article_id is not None}
    article_ids |= {each.article_id for each in contexts.values()}
    titles = await articles.read_titles(reader, article_ids=article_ids, viewer=user)
    return page(
        request,
        "studio/moderation_reports.html",
        reports=[(report, _choice(report)) for report in listed.items],
        contexts=contexts,
        articles=titles,
        states=[(state.value, _(label)) for state, label in STATES.items()],
        state=chosen,
        following=listed.next,
    )


@router.post("/studio/moderation/reports")
@form_page(REPORTS)
async def handle_reports(form: SubmittedForm, session: PageWriteSession, user: Editor) -> Response:
    """Set the state of the chosen reports."""
    chosen = dict(map(_parse_choice, _chosen(form, "reports")))
    if not chosen:
        raise FormError(_("Choose at least one report."))
    changes = form.read(ReportUpdate, ("state",))
    done, changed, missing = await reports.update_reports(
        session, reports=chosen, changes=changes, actor=user
    )
    texts = []
    if done:
        texts.append(
            ngettext("%(num)s report changed.", "%(num)s reports changed.", done) % {"num": done}
        )
    if changed:
        texts.append(
            ngettext(
                "%(num)s report has changed in the meantime: look at it again.",
                "%(num)s reports have changed in the meantime: look at them again.",
                changed,
            )
            % {"num": changed}
        )
    if missing:
        texts.append(
            ngettext(
                "%(num)s report no longer exists.", "%(num)s reports no longer exist.", missing
            )
            % {"num": missing}
        )
    kind = "warning" if changed or missing else "success"
    path = local_path(form.text("next"), REPORTS)
    return redirect(path, flash=" ".join(texts), kind=kind)


@router.post("/studio/moderation/reports/{report_id}")
@form_page(REPORTS)
async def change_report(
    form: SubmittedForm, session: PageWriteSession, user: Editor, report_id: ObjectId
) -> Response:
    """Change the state and the note of a report."""
    await reports.update_report(
        session,
        report_id=report_id,
        changes=form.read(ReportUpdate),
        actor=user,
        precondition=Precondition(),
    )
    path = local_path(form.text("next"), REPORTS)
    return redirect(path, flash=_("The report was saved."))
