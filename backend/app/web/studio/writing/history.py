"""Revisions: list, comparison with the current text, and restoring."""

from fastapi import Request, Response

from app.core.conditional import Precondition, resource_tag
from app.db.dependencies import ReadConnection
from app.schemas.page import MAX_SKIP, PageQuery
from app.schemas.types import Id
from app.services.articles import reading, revisions
from app.web.forms import SubmittedForm
from app.web.localization import gettext as _
from app.web.rendering import page
from app.web.routing import create_router, form_page, redirect
from app.web.sessions import PageUser, PageWriteSession

router = create_router()

PAGE = 50


@router.get("/studio/articles/{article_id}/revisions")
async def list_revisions(
    request: Request, reader: ReadConnection, user: PageUser, article_id: Id, skip: int = 0
) -> Response:
    """List the earlier versions of an article."""
    query = PageQuery(skip=min(max(skip, 0), MAX_SKIP), limit=PAGE + 1)
    found = await revisions.list_revisions(reader, article_id=article_id, page=query, actor=user)
    article = await reading.get_article(reader, article_id=article_id, viewer=user)
    return page(
        request,
        "studio/writing/revisions.html",
        article=article,
        revisions=found[:PAGE],
        skip=query.skip,
        next_skip=query.skip + PAGE if len(found) > PAGE else None,
        previous_skip=max(query.skip - PAGE, 0) if query.skip else None,
    )


@router.get("/studio/articles/{article_id}/revisions/{revision_id}")
async def compare_revision(
    request: Request, reader: ReadConnection, user: PageUser, article_id: Id, revision_id: Id
) -> Response:
    """Show a revision beside the current text."""
    revision = await revisions.get_revision(
        reader, article_id=article_id, revision_id=revision_id, actor=user
    )
    rows, current = await revisions.compare_revision(
        reader, article_id=article_id, revision_id=revision_id, actor=user
    )
    article = await reading.get_article(reader, article_id=article_id, viewer=user)
    return page(
        request,
        "studio/writing/revision.html",
        article=article,
        revision=revision,
        current=current,
        rows=rows,
        etag=resource_tag(article),
    )


@router.post("/studio/articles/{article_id}/revisions/{revision_id}")
@form_page("/studio/articles/{article_id}/revisions/{revision_id}")
async def restore_revision(
    form: SubmittedForm, session: PageWriteSession, user: PageUser, article_id: Id, revision_id: Id
) -> Response:
    """Restore a revision. The current text becomes a revision."""
    await revisions.restore_revision(
        session,
        article_id=article_id,
        revision_id=revision_id,
        actor=user,
        precondition=Precondition.parse(form.text("etag") or None),
    )
    return redirect(
        f"/studio/articles/{article_id}/edit",
        flash=_("The earlier version is restored. The previous text is among the revisions."),
    )
