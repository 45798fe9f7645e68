"""What a read of comments selects, and which of them a reader sees."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    null,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.auth.identity import Identity
from app.auth.permissions import Action, may
from app.core.community import CommentPolicy, CommentStatus
from app.core.errors import ArticleNotFound
from app.db.reading import Reader
from app.models.article import Article
from app.models.comment import Comment
from app.models.follow import Block
from app.models.user import User
from app.services.articles.rows import VISIBLE, AuthorRow, Sight, sight_of
from app.services.viewing import VIEWER


class CommentRow(NamedTuple):
    """A comment as a read selects it; the fields of CommentResponse."""

    id: int
    article_id: int
    thread_id: int
    parent_id: int | None
    content: str | None
    html: str | None
    status: CommentStatus
    removed: bool
    locked: bool
    created_at: datetime
    updated_at: datetime
    edited_at: datetime | None
    author: AuthorRow | None


MODERATES = bindparam("moderates", type_=Boolean)
"""Whether the viewer moderates the comments of the article that is read."""

Reply = aliased(Comment, name="reply")


def seen(comment: type[Comment]) -> ColumnElement[bool]:
    """Whether the viewer sees a comment, and not only that there was one.

    Who moderates it has to see it, whomever they have blocked.
    """
    blocked = exists().where(Block.blocker_id == VIEWER, Block.blocked_id == comment.author_id)
    return and_(
        comment.deleted_at.is_(None),
        or_(
            MODERATES,
            and_(
                or_(
                    comment.status == CommentStatus.VISIBLE.value,
                    func.coalesce(comment.author_id == VIEWER, False),
                ),
                ~blocked,
            ),
        ),
    )


SEEN = seen(Comment)
_removed = ~SEEN


def _unless_removed(column: Any) -> ColumnElement[Any]:
    return case((SEEN, column), else_=null())


COLUMNS: Sequence[ColumnElement[Any]] = (
    Comment.id.expression,
    Comment.article_id.expression,
    func.coalesce(Comment.root_id, Comment.id).label("thread_id"),
    Comment.parent_id.expression,
    _unless_removed(Comment.content).label("content"),
    _unless_removed(Comment.html).label("html"),
    case((SEEN, Comment.status), else_=CommentStatus.VISIBLE.value).label("status"),
    _removed.label("removed"),
    Comment.locked_at.is_not(None).label("locked"),
    Comment.created_at.expression,
    Comment.updated_at.expression,
    Comment.edited_at.expression,
    *(
        _unless_removed(getattr(User, field)).label(f"author_{field}")
        for field in AuthorRow._fields
    ),
)
WIDTH = len(COLUMNS)


def selected(*more: ColumnElement[Any]) -> Select[Any]:
    """A select of COLUMNS and of `more`."""
    return (
        select(*COLUMNS, *more)
        .select_from(Comment)
        .join(User, User.id == Comment.author_id, isouter=True)
    )


def comment_row(row: Sequence[Any]) -> CommentRow:
    """A row of COLUMNS as it is read by attribute."""
    own = len(CommentRow._fields) - 1
    author = None if row[own] is None else AuthorRow._make(row[own:WIDTH])
    return CommentRow._make((*row[:own], author))


class ArticleTold(NamedTuple):
    """What comments ask of their article."""

    id: int
    author_id: int
    policy: CommentPolicy
    moderates: bool
    """Whether the viewer moderates its comments."""


_ARTICLES: Mapping[Sight, Any] = {
    sight: select(Article.id, Article.author_id, Article.comment_policy).where(
        Article.id == bindparam("article_id", type_=BigInteger), visible
    )
    for sight, visible in VISIBLE.items()
}


async def article_of(
    connection: Reader | AsyncSession, *, article_id: int, viewer: Identity | None
) -> ArticleTold:
    """The article that comments are on, as far as `viewer` sees it. Raises ArticleNotFound."""
    sight, who = sight_of(viewer)
    parameters = {**who, "article_id": article_id}
    row = (await connection.execute(_ARTICLES[sight], parameters)).one_or_none()
    if row is None:
        raise ArticleNotFound
    moderates = may(viewer, Action.MODERATE_COMMENTS, owner_id=row.author_id)
    return ArticleTold(row.id, row.author_id, CommentPolicy(row.comment_policy), moderates)


def as_viewer(viewer: Identity | None, *, moderates: bool) -> dict[str, Any]:
    """The parameters of SEEN."""
    return {"viewer_id": viewer.id if viewer else None, "moderates": moderates}
