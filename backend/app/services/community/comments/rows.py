"""Columns that reads of comments select, and the visibility of comments."""

from collections.abc import Mapping
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
from app.db.selection import Selection, fields_of
from app.db.writing import fetch
from app.models.accounts.user import User
from app.models.articles.article import Article
from app.models.community.comment import Comment
from app.models.community.follow import Block
from app.schemas.community.comment import CommentResponse
from app.services.articles.rows import AUTHOR, VISIBLE, Visibility, visibility_of
from app.services.pages.viewing import VIEWER

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


def _unless_removed(column: Any) -> ColumnElement[Any]:
    return case((VISIBLE_TO_VIEWER, column), else_=null())


COMMENT_FIELDS: Mapping[str, Any] = fields_of(
    CommentResponse,
    Comment,
    thread_id=func.coalesce(Comment.root_id, Comment.id),
    content=_unless_removed(Comment.content),
    html=_unless_removed(Comment.html),
    status=case((VISIBLE_TO_VIEWER, Comment.status), else_=CommentStatus.VISIBLE.value),
    removed=~VISIBLE_TO_VIEWER,
    locked=Comment.locked_at.is_not(None),
    author={field: _unless_removed(column) for field, column in AUTHOR.items()},
    guest={
        "name": _unless_removed(Comment.guest_name),
        "url": _unless_removed(Comment.guest_url),
    },
)
COMMENT = Selection.of(CommentResponse, Comment, **COMMENT_FIELDS)


def select_comments(selection: Selection[Any] = COMMENT) -> Select[Any]:
    """Select the columns of comments with their authors."""
    return (
        select(*selection.columns)
        .select_from(Comment)
        .join(User, User.id == Comment.author_id, isouter=True)
    )


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
    row = (await fetch(reader, _ARTICLES[visibility], parameters)).one_or_none()
    if row is None:
        raise ArticleNotFound
    moderates = may(viewer, Action.MODERATE_COMMENTS, owner_id=row.author_id)
    return CommentedArticle(row.id, row.author_id, CommentPolicy(row.comment_policy), moderates)


def viewer_parameters(viewer: Identity | None, *, moderates: bool) -> dict[str, Any]:
    """Return the parameters of VISIBLE_TO_VIEWER."""
    return {"viewer_id": viewer.id if viewer else None, "moderates": moderates}
