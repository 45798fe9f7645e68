"""Tags: rename, merge and delete them."""

from typing import Annotated
from urllib.parse import quote

from fastapi import Path, Request, Response

from app.auth.identity import Identity
from app.auth.permissions import Action
from app.core.conditional import Precondition
from app.db.dependencies import ReadConnection
from app.schemas.articles.tag import TagQuery, TagSort, TagUpdate
from app.services.articles import tags
from app.web.forms import FormError, SubmittedForm
from app.web.localization import gettext as _
from app.web.queries import read_query
from app.web.rendering import page
from app.web.routing import create_router, form_page, redirect
from app.web.sessions import PageWriteSession, page_user_with

router = create_router()

TAGS = "/studio/admin/tags"
PAGE_SIZE = 50

Editor = Annotated[Identity, page_user_with(Action.CHANGE_TAG)]
Slug = Annotated[str, Path(max_length=100)]


@router.get(TAGS)
async def list_tags(request: Request, reader: ReadConnection, user: Editor) -> Response:
    """List all tags."""
    query = read_query(request, TagQuery, limit=PAGE_SIZE + 1)
    listed = await tags.list_tags(reader, query=query, viewer=user)
    return page(
        request,
        "administration/tags.html",
        tags=listed[:PAGE_SIZE],
        query=query,
        by_count=query.sort is TagSort.COUNT,
        previous=query.skip - PAGE_SIZE if query.skip else None,
        following=query.skip + PAGE_SIZE if len(listed) > PAGE_SIZE else None,
    )


@router.get("/studio/admin/tags/{slug}")
async def show_tag(request: Request, reader: ReadConnection, user: Editor, slug: Slug) -> Response:
    """Show a tag with the forms to change it."""
    tag = await tags.get_tag(reader, slug=slug, viewer=user)
    return page(request, "administration/tag.html", tag=tag)


@router.post("/studio/admin/tags/{slug}")
async def rename(
    form: SubmittedForm,
    reader: ReadConnection,
    session: PageWriteSession,
    user: Editor,
    slug: Slug,
) -> Response:
    """Rename a tag. If another tag has the name, merge both after a confirmation."""
    new = form.read(TagUpdate)
    other = await tags.find_tag(reader, name=new.name, actor=user)
    if other is not None and other.slug != slug and not form.flag("merge"):
        text = _("The tag “%(name)s” already exists. Confirm that both are merged.")
        raise FormError(merge=text % {"name": other.name})
    changed = await tags.change_tag(
        session, slug=slug, new=new, actor=user, precondition=Precondition()
    )
    text = _("The tags were merged.") if changed.merged else _("The tag was saved.")
    return redirect(f"{TAGS}/{quote(changed.tag.slug)}", flash=text)


@router.post("/studio/admin/tags/{slug}/delete")
@form_page("/studio/admin/tags/{slug}")
async def delete(session: PageWriteSession, user: Editor, slug: Slug) -> Response:
    """Remove a tag from all articles."""
    await tags.delete_tag(session, slug=slug, actor=user, precondition=Precondition())
    return redirect(TAGS, flash=_("The tag was removed from all articles."))
