"""Articles: listing, reading, writing and publishing."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum, auto
from typing import Any, NamedTuple

from sqlalchemy import ColumnExpressionArgument, Row, bindparam, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, may, may_to_any, require
from app.core.config import get_settings
from app.core.errors import ArticleNotFound, EmailNotVerified, InvalidToken
from app.db.session import NO_KEY_UPDATE, constraint_errors, paged
from app.models.article import Article
from app.models.user import User
from app.schemas.article import ArticleCreate, ArticleUpdate
from app.schemas.page import PageQuery
from app.services import audit
from app.services.audit import AuditAction

AUTHOR_REFERENCE = {"fk_articles_author_id": InvalidToken}


class AuthorRow(NamedTuple):
    """An article's author, as anybody sees them."""

    id: int
    username: str
    name: str
    created_at: datetime


class ArticleRow(NamedTuple):
    """An article as a read selects it, its author beside it."""

    id: int
    title: str
    content: str
    published: bool
    author_id: int
    created_at: datetime
    updated_at: datetime
    author: AuthorRow


_ARTICLE_FIELDS = ArticleRow._fields[:-1]
_WITH_AUTHOR = select(
    *(getattr(Article, field) for field in _ARTICLE_FIELDS),
    *(getattr(User, field) for field in AuthorRow._fields),
).join(User, Article.author_id == User.id)


def _article_row(row: Row[Any]) -> ArticleRow:
    split = len(_ARTICLE_FIELDS)
    return ArticleRow._make((*row[:split], AuthorRow._make(row[split:])))


class Sight(Enum):
    """Which articles a reader may see."""

    PUBLISHED = auto()
    PUBLISHED_AND_OWN = auto()
    ALL = auto()


_VISIBLE: Mapping[Sight, ColumnExpressionArgument[bool]] = {
    Sight.PUBLISHED: Article.published,
    Sight.PUBLISHED_AND_OWN: or_(Article.published, Article.author_id == bindparam("viewer_id")),
    Sight.ALL: true(),
}
# Built once: to build a statement, and to find out that it is the one compiled before, takes longer
# than PostgreSQL takes to answer it.
_BY_ID = _WITH_AUTHOR.where(Article.id == bindparam("article_id"))
_ONE = {sight: _BY_ID.where(visible) for sight, visible in _VISIBLE.items()}
_LIST = {
    sight: paged(_WITH_AUTHOR.where(visible).order_by(Article.created_at.desc(), Article.id.desc()))
    for sight, visible in _VISIBLE.items()
}


def _sight(viewer: Identity | None) -> tuple[Sight, dict[str, int]]:
    """What `viewer` may see, and the parameter that its statements need."""
    if viewer is None:
        return Sight.PUBLISHED, {}
    if may_to_any(viewer, Action.READ_DRAFT):
        return Sight.ALL, {}
    return Sight.PUBLISHED_AND_OWN, {"viewer_id": viewer.id}


async def list_articles(
    connection: AsyncConnection, *, page: PageQuery, viewer: Identity | None
) -> Sequence[ArticleRow]:
    """The articles that `viewer` may read, newest first, in one query."""
    sight, who = _sight(viewer)
    rows = await connection.execute(_LIST[sight], {**who, **page.model_dump()})
    return [_article_row(row) for row in rows]


async def get_article(
    connection: AsyncConnection, *, article_id: int, viewer: Identity | None
) -> ArticleRow:
    """One article. Raises ArticleNotFound where it is absent or another's draft."""
    sight, who = _sight(viewer)
    row = (await connection.execute(_ONE[sight], {**who, "article_id": article_id})).one_or_none()
    if row is None:
        raise ArticleNotFound
    return _article_row(row)


async def create_article(
    session: AsyncSession, *, new: ArticleCreate, author: Identity
) -> ArticleRow:
    """Write an article, as a draft or published at once.

    Raises EmailNotVerified where publishing takes a verified email, InvalidToken where the author's
    account was deleted a moment ago.
    """
    if new.published:
        _require_verified_email(author)
    article = Article(**new.model_dump(), author_id=author.id)
    session.add(article)
    with constraint_errors(AUTHOR_REFERENCE):
        await session.flush()  # the reference speaks, and the article has an id
    _record(session, AuditAction.CREATE_ARTICLE, article, author)
    if article.published:
        _record(session, AuditAction.PUBLISH_ARTICLE, article, author)
    return await _written(session, article)


async def update_article(
    session: AsyncSession, *, article_id: int, changes: ArticleUpdate, actor: Identity
) -> ArticleRow:
    """Change what `changes` sets. Raises ArticleNotFound, NotAuthorized, EmailNotVerified."""
    article = await _changeable(session, article_id, actor=actor, action=Action.CHANGE_ARTICLE)
    was_published = article.published
    for field, value in changes.model_dump(exclude_unset=True).items():
        setattr(article, field, value)
    if session.is_modified(article):
        _record(session, AuditAction.UPDATE_ARTICLE, article, actor)
    if article.published and not was_published:
        _require_verified_email(actor)
        _record(session, AuditAction.PUBLISH_ARTICLE, article, actor)
    if was_published and not article.published:
        _record(session, AuditAction.UNPUBLISH_ARTICLE, article, actor)
    return await _written(session, article)


async def delete_article(session: AsyncSession, *, article_id: int, actor: Identity) -> None:
    """Delete an article. Raises ArticleNotFound, NotAuthorized."""
    article = await _changeable(session, article_id, actor=actor, action=Action.DELETE_ARTICLE)
    await session.delete(article)
    _record(session, AuditAction.DELETE_ARTICLE, article, actor)


async def _changeable(
    session: AsyncSession, article_id: int, *, actor: Identity, action: Action
) -> Article:
    """The article, locked. Another's draft is absent to a stranger, another's article forbidden."""
    article = await session.get(Article, article_id, with_for_update=NO_KEY_UPDATE)
    if article is None or not (
        article.published or may(actor, Action.READ_DRAFT, owner_id=article.author_id)
    ):
        raise ArticleNotFound
    require(actor, action, owner_id=article.author_id)
    return article


def _require_verified_email(actor: Identity) -> None:
    """Raise EmailNotVerified where publishing takes a verified email, and the actor's is not."""
    if get_settings().require_verified_email and actor.email_verified_at is None:
        raise EmailNotVerified


async def _written(session: AsyncSession, article: Article) -> ArticleRow:
    """What was just written, as a read would give it."""
    await session.flush()  # the read below sees it
    return _article_row((await session.execute(_BY_ID, {"article_id": article.id})).one())


def _record(session: AsyncSession, action: AuditAction, article: Article, actor: Identity) -> None:
    audit.record(session, action, actor_id=actor.id, subject="article", subject_id=article.id)
