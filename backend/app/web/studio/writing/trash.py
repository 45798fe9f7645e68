"""The trash: restore deleted articles, or delete them for good."""

from fastapi import Request, Response

from app.db.dependencies import ReadConnection
from app.schemas.page import MAX_SKIP, PageQuery
from app.schemas.types import Id
from app.services.articles import trash, writing
from app.web.localization import gettext as _
from app.web.rendering import page
from app.web.routing import create_router, form_page, redirect
from app.web.sessions import PageUser, PageWriteSession

router = create_router()

PAGE = 50


@router.get("/studio/trash")
async def list_trash(
    request: Request, reader: ReadConnection, user: PageUser, skip: int = 0
) -> Response:
    """List deleted articles: the user's own, or all for editors."""
    query = PageQuery(skip=min(max(skip, 0), MAX_SKIP), limit=PAGE + 1)
    found = await trash.list_trash(reader, page=query, actor=user)
    return page(
        request,
        "studio/writing/trash.html",
        articles=found[:PAGE],
        next_skip=query.skip + PAGE if len(found) > PAGE else None,
        previous_skip=max(query.skip - PAGE, 0) if query.skip else None,
    )


@router.post("/studio/trash/{article_id}/restore")
@form_page("/studio/trash")
async def restore_article(session: PageWriteSession, user: PageUser, article_id: Id) -> Response:
    """Restore an article with the status that it had."""
    await writing.restore_article(session, article_id=article_id, actor=user)
    return redirect(f"/studio/articles/{article_id}/edit", flash=_("The article is restored."))


@router.post("/studio/trash/{article_id}/delete")
@form_page("/studio/trash")
async def delete_for_good(session: PageWriteSession, user: PageUser, article_id: Id) -> Response:
    """Delete an article for good."""
    await trash.delete_for_good(session, article_id=article_id, actor=user)
    return redirect("/studio/trash", flash=_("The article is deleted for good."))
