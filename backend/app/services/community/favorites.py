"""Favorites: articles that users have saved."""

from typing import NamedTuple

from sqlalchemy import BigInteger, bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.core.errors import ArticleNotFound, InvalidToken
from app.core.limits import LimitKind
from app.db.reading import Reader
from app.db.session import constraint_errors
from app.models.accounts.user import User
from app.models.community.favorite import Favorite
from app.schemas.page import CursorQuery
from app.services import limits
from app.services.articles.reading import get_fields
from app.services.community.profiles import PROFILE_COLUMNS, ProfileSummaryRow, profile_summary
from app.services.pages.keyset import keyset, read_page
from app.services.pages.paging import ListPage

REFERENCES = {"fk_favorites_user_id": InvalidToken, "fk_favorites_article_id": ArticleNotFound}


class FavoriteRow(NamedTuple):
    """An article's counts and the viewer's favorite: the fields of FavoriteResponse."""

    article_id: int
    favorited: bool
    favorites_count: int
    comments_count: int


_FIELDS = ("id", "favorited", "favorites_count", "comments_count")
_USERS = keyset(
    "favorites",
    select(*PROFILE_COLUMNS, Favorite.created_at.label("since"))
    .join(User, User.id == Favorite.user_id)
    .where(Favorite.article_id == bindparam("article_id", type_=BigInteger)),
    Favorite.created_at,
    Favorite.user_id,
)


async def get_favorite(
    reader: Reader | AsyncSession, *, article_id: int, viewer: Identity | None
) -> FavoriteRow:
    """Return an article's counts, and whether the viewer has it. Raises ArticleNotFound."""
    fields = await get_fields(reader, article_id=article_id, viewer=viewer, fields=_FIELDS)
    return FavoriteRow._make(fields.values())


async def favorite(session: AsyncSession, *, article_id: int, actor: Identity) -> FavoriteRow:
    """Add a visible article to the actor's favorites. Idempotent.

    Raises ArticleNotFound, LimitReached.
    """
    await get_favorite(session, article_id=article_id, viewer=actor)
    await limits.spend(session, actor, {LimitKind.REACTIONS: 1})
    added = insert(Favorite).values(user_id=actor.id, article_id=article_id)
    with constraint_errors(REFERENCES):
        await session.execute(added.on_conflict_do_nothing())
    return await get_favorite(session, article_id=article_id, viewer=actor)


async def unfavorite(session: AsyncSession, *, article_id: int, actor: Identity) -> FavoriteRow:
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
        return FavoriteRow(article_id, favorited=False, favorites_count=0, comments_count=0)


async def list_favorites(
    reader: Reader, *, article_id: int, viewer: Identity | None, query: CursorQuery
) -> ListPage[ProfileSummaryRow]:
    """Return users with this favorite, newest first. Raises ArticleNotFound, InvalidCursor."""
    await get_favorite(reader, article_id=article_id, viewer=viewer)
    return await read_page(
        reader,
        _USERS,
        query=query,
        parameters={"article_id": article_id},
        make_item=profile_summary,
        of=article_id,
    )
