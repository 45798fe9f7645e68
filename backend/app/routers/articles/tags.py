"""Routes for tags."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query, Response, status

from app.auth.dependencies import ArticlesActor, ArticlesViewer
from app.core.errors import LimitReached, NotAuthorized, TagNotFound
from app.db.dependencies import ReadConnection, WriteSession
from app.http.headers import described
from app.routers.parameters import IfMatch, TagSlug
from app.routers.responses import create_router, errors
from app.schemas.articles.tag import TagQuery, TagResponse, TagUpdate
from app.services.articles import tags

router = create_router(prefix="/tags", tag="tags")

MERGED_INTO = "X-Merged-Into"


@router.get("")
async def list_tags(
    reader: ReadConnection, viewer: ArticlesViewer, query: Annotated[TagQuery, Query()]
) -> Sequence[TagResponse]:
    """List the tags of published articles; editors get all tags."""
    return await tags.list_tags(reader, query=query, viewer=viewer)


@router.get("/{slug}", responses=errors(TagNotFound))
async def read_tag(reader: ReadConnection, viewer: ArticlesViewer, slug: TagSlug) -> TagResponse:
    """Read a tag; a tag that only drafts have is hidden."""
    return await tags.get_tag(reader, slug=slug, viewer=viewer)


@router.put(
    "/{slug}",
    responses={
        200: {"headers": described("Content-Location", MERGED_INTO)},
        **errors(LimitReached, NotAuthorized, TagNotFound),
    },
)
async def change_tag(  # noqa: PLR0917 - FastAPI passes them by name
    session: WriteSession,
    actor: ArticlesActor,
    slug: TagSlug,
    new: TagUpdate,
    precondition: IfMatch,
    response: Response,
) -> TagResponse:
    """Rename a tag, or merge it into an existing one with that name. Requires an editor."""
    changed = await tags.change_tag(
        session, slug=slug, new=new, actor=actor, precondition=precondition
    )
    response.headers["Content-Location"] = f"/tags/{changed.tag.slug}"
    if changed.merged:
        response.headers[MERGED_INTO] = changed.tag.slug
    return changed.tag


@router.delete(
    "/{slug}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(LimitReached, NotAuthorized, TagNotFound),
)
async def delete_tag(
    session: WriteSession, actor: ArticlesActor, slug: TagSlug, precondition: IfMatch
) -> None:
    """Remove a tag from all articles. Requires an editor."""
    await tags.delete_tag(session, slug=slug, actor=actor, precondition=precondition)
