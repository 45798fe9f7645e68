"""Favorites: articles that readers keep."""

from typing import NamedTuple

from sqlalchemy import BigInteger, bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.core.errors import ArticleNotFound, InvalidToken
from app.core.limits import LimitKind
from app.db.reading import Reader
from app.db.session import constraint_errors
from app.models.favorite import Favorite
from app.models.user import User
from app.schemas.page import CursorQuery
from app.services import limits
from app.services.articles.reading import get_fields
from app.services.keyset import keyset, read_page
from app.services.paging import Listed
from app.services.profiles import PERSON, ProfileSummaryRow, summary

REFERENCES = {"fk_favorites_user_id": InvalidToken, "fk_favorites_article_id": ArticleNotFound}


class FavoriteRow(NamedTuple):
    """How an article stands with its readers; the fields of FavoriteResponse."""

    article_id: int
    favorited: bool
    favorites_count: int
    comments_count: int


_FIELDS = ("id", "favorited", "favorites_count", "comments_count")
_WHOSE = keyset(
    "favorites",
    select(*PERSON, Favorite.created_at.label("since"))
    .join(User, User.id == Favorite.user_id)
    .where(Favorite.article_id == bindparam("article_id", type_=BigInteger)),
    Favorite.created_at,
    Favorite.user_id,
)


async def get_favorite(
    connection: Reader | AsyncSession, *, article_id: int, viewer: Identity | None
) -> FavoriteRow:
    """How an article stands with its readers. Raises ArticleNotFound."""
    fields = await get_fields(connection, article_id=article_id, viewer=viewer, fields=_FIELDS)
    return FavoriteRow._make(fields.values())


async def favorite(session: AsyncSession, *, article_id: int, actor: Identity) -> FavoriteRow:
    """Make an article that the actor sees one of their favorites; again changes nothing.

    Raises ArticleNotFound, LimitReached.
    """
    await get_favorite(session, article_id=article_id, viewer=actor)
    await limits.spend(session, actor, {LimitKind.REACTIONS: 1})
    added = insert(Favorite).values(user_id=actor.id, article_id=article_id)
    with constraint_errors(REFERENCES):
        await session.execute(added.on_conflict_do_nothing())
    return await get_favorite(session, article_id=article_id, viewer=actor)


async def unfavorite(session: AsyncSession, *, article_id: int, actor: Identity) -> FavoriteRow:
    """Take an article from the actor's favorites, be it out of sight; again changes nothing.

    Raises ArticleNotFound where it is none of theirs, and out of sight; LimitReached.
    """
    await limits.spend(session, actor, {LimitKind.REACTIONS: 1})
    theirs = Favorite.user_id == actor.id, Favorite.article_id == article_id
    gone = await session.scalar(delete(Favorite).where(*theirs).returning(Favorite.article_id))
    try:
        return await get_favorite(session, article_id=article_id, viewer=actor)
    except ArticleNotFound:
        if gone is None:
            raise
        return FavoriteRow(article_id, favorited=False, favorites_count=0, comments_count=0)


async def list_favorites(
    connection: Reader, *, article_id: int, viewer: Identity | None, query: CursorQuery
) -> Listed[ProfileSummaryRow]:
    """Whose favorite an article is, the latest first. Raises ArticleNotFound, InvalidCursor."""
    await get_favorite(connection, article_id=article_id, viewer=viewer)
    return await read_page(
        connection,
        _WHOSE,
        query=query,
        parameters={"article_id": article_id},
        make=summary,
        of=article_id,
    )
