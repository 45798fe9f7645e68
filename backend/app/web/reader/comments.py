"""Forms of readers: comments, replies and reports. They are personal, and never cached."""

from typing import Any

from fastapi import Request, Response

from app.auth.identity import Identity
from app.core.conditional import Precondition
from app.core.config import get_settings
from app.core.enums import CommentStatus
from app.core.errors import CommentNotFound
from app.db.dependencies import ReadConnection
from app.db.reading import Reader
from app.schemas.community.comment import CommentCreate, CommentResponse, CommentUpdate
from app.schemas.community.report import ReportCreate
from app.schemas.types import Id
from app.services.articles.reading import get_fields
from app.services.community import reports
from app.services.community.comments import reading, writing
from app.web.forms import SubmittedForm
from app.web.localization import gettext as _
from app.web.reader.articles import SUMMARY_FIELDS, article_path
from app.web.reader.parameters import CommentId, Name
from app.web.rendering import page
from app.web.routing import create_router, form_page, redirect
from app.web.sessions import OptionalPageUser, PageUser, PageWriteSession

router = create_router()


def comment_path(comment_id: int) -> str:
    """Return the path of a comment's page."""
    return f"{get_settings().web_prefix}/comments/{comment_id}"


async def _article_by_slug(reader: Reader, slug: str, user: Identity) -> dict[str, Any]:
    return await get_fields(reader, slug=slug, viewer=user, fields=SUMMARY_FIELDS)


async def _article_of(
    reader: Reader, comment: CommentResponse, viewer: Identity | None
) -> dict[str, Any]:
    return await get_fields(
        reader, article_id=comment.article_id, viewer=viewer, fields=SUMMARY_FIELDS
    )


async def _own_comment(reader: Reader, comment_id: int, user: Identity) -> CommentResponse:
    """Return a comment that the user wrote. Raises CommentNotFound."""
    comment = await reading.get_comment(reader, comment_id=comment_id, viewer=user)
    if comment.author is None or comment.author.id != user.id:
        raise CommentNotFound
    return comment


@router.get("/articles/{slug}/comments/new")
async def show_new_comment(
    request: Request, reader: ReadConnection, user: PageUser, slug: Name, reply: Id | None = None
) -> Response:
    """Show the form of a new comment, or of a reply to the comment `reply`."""
    article = await _article_by_slug(reader, slug, user)
    parent = None
    if reply is not None:
        parent = await reading.get_comment(reader, comment_id=reply, viewer=user)
        if parent.article_id != article["id"] or parent.removed:
            raise CommentNotFound
    return page(request, "reader/new_comment.html", article=article, parent=parent)


@router.post("/articles/{slug}/comments/new")
async def create_comment(
    form: SubmittedForm,
    session: PageWriteSession,
    user: PageUser,
    slug: Name,
    reply: Id | None = None,
) -> Response:
    """Create a comment, or a reply to the comment `reply`."""
    article = await get_fields(session, slug=slug, viewer=user, fields=("id",))
    new = form.read(CommentCreate, fields=("content",), parent_id=reply)
    comment = await writing.create_comment(session, article_id=article["id"], new=new, author=user)
    if comment.status is CommentStatus.PENDING:
        text = _("Thank you. Your comment appears once a moderator has approved it.")
    else:
        text = _("Thank you. Your comment is published.")
    return redirect(comment_path(comment.id), flash=text)


@router.get("/comments/{comment_id}")
async def show_comment(
    request: Request, reader: ReadConnection, user: OptionalPageUser, comment_id: CommentId
) -> Response:
    """Show one comment as the visitor sees it. Its author can change it here."""
    comment = await reading.get_comment(reader, comment_id=comment_id, viewer=user)
    return page(
        request,
        "reader/comment.html",
        article=await _article_of(reader, comment, user),
        comment=comment,
        is_own=user is not None and comment.author is not None and comment.author.id == user.id,
    )


@router.get("/comments/{comment_id}/edit")
async def show_edit_comment(
    request: Request, reader: ReadConnection, user: PageUser, comment_id: CommentId
) -> Response:
    """Show the form that changes an own comment."""
    comment = await _own_comment(reader, comment_id, user)
    article = await _article_of(reader, comment, user)
    return page(request, "reader/edit_comment.html", article=article, comment=comment)


@router.post("/comments/{comment_id}/edit")
async def update_comment(
    form: SubmittedForm, session: PageWriteSession, user: PageUser, comment_id: CommentId
) -> Response:
    """Change an own comment."""
    changes = form.read(CommentUpdate)
    await writing.update_comment(
        session, comment_id=comment_id, changes=changes, actor=user, precondition=Precondition()
    )
    return redirect(comment_path(comment_id), flash=_("Your comment was changed."))


@router.post("/comments/{comment_id}/delete")
@form_page("/comments/{comment_id}")
async def delete_comment(
    session: PageWriteSession, user: PageUser, comment_id: CommentId
) -> Response:
    """Delete a comment, and show the article."""
    comment = await reading.get_comment(session, comment_id=comment_id, viewer=user)
    article = await get_fields(
        session, article_id=comment.article_id, viewer=user, fields=("slug",)
    )
    await writing.delete_comment(
        session, comment_id=comment_id, actor=user, precondition=Precondition()
    )
    return redirect(f"{article_path(article['slug'])}#comments")


@router.get("/comments/{comment_id}/report")
async def show_comment_report(
    request: Request, reader: ReadConnection, user: PageUser, comment_id: CommentId, sent: str = ""
) -> Response:
    """Show the form that reports a comment to the editors; with `sent`, thanks for it."""
    comment = await reading.get_comment(reader, comment_id=comment_id, viewer=user)
    article = await _article_of(reader, comment, user)
    return page(request, "reader/report.html", article=article, comment=comment, is_sent=bool(sent))


@router.post("/comments/{comment_id}/report")
async def report_comment(
    request: Request,
    form: SubmittedForm,
    session: PageWriteSession,
    user: PageUser,
    comment_id: CommentId,
) -> Response:
    """Report a comment to the editors."""
    new = form.read(ReportCreate)
    await reports.report_comment(session, comment_id=comment_id, new=new, reporter=user)
    return redirect(f"{request.url.path}?sent=1")


@router.get("/articles/{slug}/report")
async def show_article_report(
    request: Request, reader: ReadConnection, user: PageUser, slug: Name, sent: str = ""
) -> Response:
    """Show the form that reports an article to the editors; with `sent`, thanks for it."""
    article = await _article_by_slug(reader, slug, user)
    return page(request, "reader/report.html", article=article, comment=None, is_sent=bool(sent))


@router.post("/articles/{slug}/report")
async def report_article(
    form: SubmittedForm, session: PageWriteSession, user: PageUser, slug: Name
) -> Response:
    """Report an article to the editors."""
    article = await get_fields(session, slug=slug, viewer=user, fields=("id", "slug"))
    new = form.read(ReportCreate)
    await reports.report_article(session, article_id=article["id"], new=new, reporter=user)
    return redirect(f"{article_path(article['slug'])}/report?sent=1")
