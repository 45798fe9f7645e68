"""Columns that reads of comments select, and the visibility of comments."""

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
from app.core.enums import CommentPolicy, CommentStatus
from app.core.errors import ArticleNotFound
from app.db.reading import Reader
from app.models.accounts.user import User
from app.models.articles.article import Article
from app.models.community.comment import Comment
from app.models.community.follow import Block
from app.services.articles.rows import VISIBLE, AuthorRow, Visibility, visibility_of
from app.services.pages.viewing import VIEWER


class CommentRow(NamedTuple):
    """A row of a comment: the fields of CommentResponse."""

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
"""Bound parameter: whether the viewer moderates the article's comments."""

Reply = aliased(Comment, name="reply")


def is_visible_to_viewer(comment: type[Comment]) -> ColumnElement[bool]:
    """Whether the viewer sees a comment's content.

    Moderators also see comments of users whom they have blocked.
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


VISIBLE_TO_VIEWER = is_visible_to_viewer(Comment)
_REMOVED = ~VISIBLE_TO_VIEWER


def _unless_removed(column: Any) -> ColumnElement[Any]:
    return case((VISIBLE_TO_VIEWER, column), else_=null())


COLUMNS: Sequence[ColumnElement[Any]] = (
    Comment.id.expression,
    Comment.article_id.expression,
    func.coalesce(Comment.root_id, Comment.id).label("thread_id"),
    Comment.parent_id.expression,
    _unless_removed(Comment.content).label("content"),
    _unless_removed(Comment.html).label("html"),
    case((VISIBLE_TO_VIEWER, Comment.status), else_=CommentStatus.VISIBLE.value).label("status"),
    _REMOVED.label("removed"),
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


def select_comments(*more: ColumnElement[Any]) -> Select[Any]:
    """Select COLUMNS and `more`."""
    return (
        select(*COLUMNS, *more)
        .select_from(Comment)
        .join(User, User.id == Comment.author_id, isouter=True)
    )


def comment_row(row: Sequence[Any]) -> CommentRow:
    """Convert a row of COLUMNS to a CommentRow."""
    split = len(CommentRow._fields) - 1
    author = None if row[split] is None else AuthorRow._make(row[split:WIDTH])
    return CommentRow._make((*row[:split], author))


class CommentedArticle(NamedTuple):
    """The columns of an article that its comments depend on."""

    id: int
    author_id: int
    policy: CommentPolicy
    moderates: bool
    """Whether the viewer moderates its comments."""


_ARTICLES: Mapping[Visibility, Any] = {
    visibility: select(Article.id, Article.author_id, Article.comment_policy).where(
        Article.id == bindparam("article_id", type_=BigInteger), visible
    )
    for visibility, visible in VISIBLE.items()
}


async def get_commented_article(
    reader: Reader | AsyncSession, *, article_id: int, viewer: Identity | None
) -> CommentedArticle:
    """Return the article of comments, if `viewer` may see it. Raises ArticleNotFound."""
    visibility, params = visibility_of(viewer)
    parameters = {**params, "article_id": article_id}
    row = (await reader.execute(_ARTICLES[visibility], parameters)).one_or_none()
    if row is None:
        raise ArticleNotFound
    moderates = may(viewer, Action.MODERATE_COMMENTS, owner_id=row.author_id)
    return CommentedArticle(row.id, row.author_id, CommentPolicy(row.comment_policy), moderates)


def viewer_parameters(viewer: Identity | None, *, moderates: bool) -> dict[str, Any]:
    """Return the parameters of VISIBLE_TO_VIEWER."""
    return {"viewer_id": viewer.id if viewer else None, "moderates": moderates}
