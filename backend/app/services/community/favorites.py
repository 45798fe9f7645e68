"""Favorites: articles that users have saved."""

from typing import cast

from sqlalchemy import BigInteger, DateTime, Table, bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.core import clock
from app.core.errors import ArticleNotFound, InvalidToken
from app.core.limits import LimitKind
from app.db.reading import Reader
from app.db.session import constraint_errors
from app.db.writing import fetch
from app.models.community.favorite import Favorite
from app.schemas.community.favorite import FavoriteResponse
from app.schemas.community.profile import ProfileSummary
from app.schemas.page import CursorQuery
from app.services import limits
from app.services.articles.reading import get_fields
from app.services.community.profiles import user_list
from app.services.pages.keyset import read_page
from app.services.pages.paging import ListPage

REFERENCES = {"fk_favorites_user_id": InvalidToken, "fk_favorites_article_id": ArticleNotFound}

_INSERT = (
    insert(cast("Table", Favorite.__table__))
    .from_select(
        ["user_id", "article_id", "created_at"],
        select(
            bindparam("user_id", type_=BigInteger),
            bindparam("article_id", type_=BigInteger),
            bindparam("now", type_=DateTime(timezone=True)),
        ),
        include_defaults=False,
    )
    .on_conflict_do_nothing()
)
_FIELDS = tuple(field for field in FavoriteResponse.model_fields if field != "article_id")
_USERS = user_list("favorites", Favorite.user_id, Favorite.article_id, Favorite.created_at)


async def get_favorite(
    reader: Reader | AsyncSession, *, article_id: int, viewer: Identity | None
) -> FavoriteResponse:
    """Return an article's counts, and whether the viewer has it. Raises ArticleNotFound."""
    fields = await get_fields(reader, article_id=article_id, viewer=viewer, fields=_FIELDS)
    return FavoriteResponse(article_id=article_id, **fields)


async def favorite(session: AsyncSession, *, article_id: int, actor: Identity) -> FavoriteResponse:
    """Add a visible article to the actor's favorites. Idempotent.

    Raises ArticleNotFound, LimitReached.
    """
    await get_favorite(session, article_id=article_id, viewer=actor)
    await limits.spend(session, actor, {LimitKind.REACTIONS: 1})
    added = {"user_id": actor.id, "article_id": article_id, "now": clock.now()}
    with constraint_errors(REFERENCES):
        await fetch(session, _INSERT, added)
    return await get_favorite(session, article_id=article_id, viewer=actor)


async def unfavorite(
    session: AsyncSession, *, article_id: int, actor: Identity
) -> FavoriteResponse:
    """Remove an article from the actor's favorites, even if it is hidden now. Idempotent.

    Raises ArticleNotFound if it is hidden and no favorite; LimitReached.
    """
    await limits.spend(session, actor, {LimitKind.REACTIONS: 1})
    favorite_row = Favorite.user_id == actor.id, Favorite.article_id == article_id
    deleted = await session.scalar(
        delete(Favorite).where(*favorite_row).returning(Favorite.article_id)
    )
    try:
        return await get_favorite(session, article_id=article_id, viewer=actor)
    except ArticleNotFound:
        if deleted is None:
            raise
        return FavoriteResponse(
            article_id=article_id, favorited=False, favorites_count=0, comments_count=0
        )


async def list_favorites(
    reader: Reader, *, article_id: int, viewer: Identity | None, query: CursorQuery
) -> ListPage[ProfileSummary]:
    """Return users with this favorite, newest first. Raises ArticleNotFound, InvalidCursor."""
    await get_favorite(reader, article_id=article_id, viewer=viewer)
    return await read_page(
        reader,
        _USERS,
        query=query,
        parameters={"of_id": article_id},
        of=article_id,
    )
