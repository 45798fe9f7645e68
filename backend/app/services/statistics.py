"""Numbers about the content and the size of the server, for administrators.

The counts read whole tables. A statement that takes longer than DATABASE_STATEMENT_TIMEOUT raises
ServiceUnavailable.
"""

from datetime import timedelta
from typing import Any

from sqlalchemy import DateTime, Select, bindparam, func, select, text
from sqlalchemy.orm import InstrumentedAttribute

from app.auth.identity import Identity
from app.auth.permissions import Action, require
from app.core import clock
from app.db.reading import Reader
from app.models.accounts.user import User
from app.models.articles.article import Article
from app.models.community.comment import Comment
from app.models.media import Media
from app.schemas.statistics import ArticleCounts, Growth, Statistics, TableSize

_NOW = bindparam("now", type_=DateTime(timezone=True))
_KEPT = Article.deleted_at.is_(None)
_CURRENT = _KEPT & Article.archived_at.is_(None)
_ARTICLES = select(
    func.count().filter(_CURRENT, Article.published_at <= _NOW).label("published"),
    func.count().filter(_CURRENT, Article.published_at > _NOW).label("scheduled"),
    func.count().filter(_CURRENT, Article.published_at.is_(None)).label("drafts"),
    func.count().filter(_KEPT, Article.archived_at.is_not(None)).label("archived"),
    func.count().filter(Article.deleted_at.is_not(None)).label("trash"),
)
_USERS = select(func.count(), func.count().filter(~User.is_active).label("disabled")).select_from(
    User
)
_COMMENTS = select(func.count()).select_from(Comment).where(Comment.deleted_at.is_(None))
_MEDIA = select(func.count(), func.coalesce(func.sum(Media.bytes), 0).label("bytes")).select_from(
    Media
)


def _growth(created_at: InstrumentedAttribute[Any]) -> Select[*tuple[Any, ...]]:
    periods = {"day": 1, "week": 7, "month": 30}
    return select(
        *(
            func.count().filter(created_at > _NOW - timedelta(days=days)).label(name)
            for name, days in periods.items()
        )
    ).where(created_at > _NOW - timedelta(days=periods["month"]))


_GROWTH = {
    "users": _growth(User.created_at),
    "articles": _growth(Article.created_at),
    "comments": _growth(Comment.created_at),
    "media": _growth(Media.created_at),
}
_TABLES = text(
    """
    SELECT relname::text AS name, pg_total_relation_size(oid) AS bytes,
      greatest(reltuples, 0)::bigint AS rows
    FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    ORDER BY bytes DESC, name
    """
)
_SIZE = text("SELECT pg_database_size(current_database())")


async def get_statistics(reader: Reader, *, user: Identity) -> Statistics:
    """Return counts, sizes and growth. Raises NotAuthorized, ServiceUnavailable."""
    require(user, Action.OPERATE, owner_id=user.id)
    now = clock.now()
    users = (await reader.execute(_USERS)).one()
    media = (await reader.execute(_MEDIA)).one()
    return Statistics(
        at=now,
        users=users[0],
        disabled_users=users.disabled,
        articles=ArticleCounts(**dict((await reader.execute(_ARTICLES, {"now": now})).one())),
        comments=await reader.scalar(_COMMENTS),
        media=media[0],
        media_bytes=int(media.bytes),
        database_bytes=await reader.scalar(_SIZE),
        growth={
            name: Growth(**dict((await reader.execute(statement, {"now": now})).one()))
            for name, statement in _GROWTH.items()
        },
        tables=[TableSize(**dict(row)) for row in await reader.execute(_TABLES)],
    )
