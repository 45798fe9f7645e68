"""Routes for favorites."""

from collections.abc import Sequence

from app.auth.dependencies import CommunityActor, CommunityViewer
from app.core.errors import ArticleNotFound, LimitReached
from app.db.dependencies import ReadConnection, WriteSession
from app.routers.paging import Paging
from app.routers.parameters import ArticleId, CursorPage
from app.routers.responses import create_router, errors
from app.schemas.community.favorite import FavoriteResponse
from app.schemas.community.profile import ProfileSummary
from app.services.community import favorites

router = create_router(prefix="/articles", tag="favorites")


@router.get(
    "/{article_id:article_id}/favorite",
    responses=errors(ArticleNotFound),
)
async def read_favorite(
    reader: ReadConnection, viewer: CommunityViewer, article_id: ArticleId
) -> FavoriteResponse:
    """Read the counts of an article, and whether it is the user's favorite."""
    return await favorites.get_favorite(reader, article_id=article_id, viewer=viewer)


@router.put(
    "/{article_id:article_id}/favorite",
    responses=errors(LimitReached, ArticleNotFound),
)
async def favorite(
    session: WriteSession, actor: CommunityActor, article_id: ArticleId
) -> FavoriteResponse:
    """Add an article to the user's favorites."""
    return await favorites.favorite(session, article_id=article_id, actor=actor)


@router.delete(
    "/{article_id:article_id}/favorite",
    responses=errors(LimitReached, ArticleNotFound),
)
async def unfavorite(
    session: WriteSession, actor: CommunityActor, article_id: ArticleId
) -> FavoriteResponse:
    """Remove an article from the user's favorites."""
    return await favorites.unfavorite(session, article_id=article_id, actor=actor)


@router.get(
    "/{article_id:article_id}/favorites",
    response_model=list[ProfileSummary],
    responses=errors(ArticleNotFound),
)
async def list_favorites(
    reader: ReadConnection,
    viewer: CommunityViewer,
    article_id: ArticleId,
    query: CursorPage,
    paging: Paging,
) -> Sequence[ProfileSummary]:
    """List the users who have an article as a favorite, newest first."""
    return paging.describe(
        await favorites.list_favorites(reader, article_id=article_id, viewer=viewer, query=query)
    )
