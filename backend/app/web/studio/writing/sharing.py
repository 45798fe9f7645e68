"""Preview links: pages that show a draft to anyone who has the link."""

from fastapi import Request, Response

from app.core.config import get_settings
from app.db.dependencies import ReadConnection
from app.schemas.articles.preview import DEFAULT_HOURS, MAX_HOURS, PreviewLinkCreate
from app.schemas.page import PageQuery
from app.schemas.types import Id
from app.services.articles import previews, reading
from app.web.forms import FormError, SubmittedForm
from app.web.localization import gettext as _
from app.web.rendering import page
from app.web.routing import create_router, form_page, redirect
from app.web.sessions import PageUser, PageWriteSession

router = create_router()


@router.get("/studio/articles/{article_id}/links")
async def list_links(
    request: Request, reader: ReadConnection, user: PageUser, article_id: Id
) -> Response:
    """List the links of an article that have not expired."""
    links = await previews.list_preview_links(
        reader,
        article_id=article_id,
        page=PageQuery(limit=previews.MAX_PREVIEW_LINKS),
        actor=user,
    )
    article = await reading.get_article(reader, article_id=article_id, viewer=user)
    return page(
        request,
        "studio/writing/links.html",
        article=article,
        links=links,
        hours=DEFAULT_HOURS,
    )


@router.post("/studio/articles/{article_id}/links")
@form_page("/studio/articles/{article_id}/links")
async def create_link(
    request: Request, form: SubmittedForm, session: PageWriteSession, user: PageUser, article_id: Id
) -> Response:
    """Create a link, and show it once."""
    hours = form.number("expires_in_hours")
    if hours is None or not 1 <= hours <= MAX_HOURS:
        raise FormError(expires_in_hours=_("Enter 1 to 720 hours."))
    created = await previews.create_preview_link(
        session,
        article_id=article_id,
        new=PreviewLinkCreate(expires_in_hours=hours),
        actor=user,
    )
    article = await reading.get_article(session, article_id=article_id, viewer=user)
    return page(
        request,
        "studio/writing/link.html",
        article=article,
        link=created,
        url=f"{get_settings().api_url}/studio/previews/{created.token}",
    )


@router.post("/studio/articles/{article_id}/links/{link_id}/delete")
@form_page("/studio/articles/{article_id}/links")
async def delete_link(
    session: PageWriteSession, user: PageUser, article_id: Id, link_id: Id
) -> Response:
    """Revoke a link."""
    await previews.delete_preview_link(session, article_id=article_id, link_id=link_id, actor=user)
    return redirect(f"/studio/articles/{article_id}/links", flash=_("The link no longer works."))


@router.get("/studio/previews/{token}")
async def show_preview(request: Request, reader: ReadConnection, token: str) -> Response:
    """Show the article of a link, without a session."""
    article = await previews.get_preview(reader, token=token)
    headers = {"X-Robots-Tag": "noindex"}
    return page(
        request,
        "studio/writing/shared.html",
        remote_images=True,
        headers=headers,
        article=article,
    )
