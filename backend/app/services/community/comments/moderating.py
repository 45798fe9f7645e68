"""Moderate several comments at once, and read what the moderation pages show beside comments."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, BigInteger, any_, bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, may_on_any
from app.core.conditional import Precondition
from app.core.enums import CommentStatus
from app.core.errors import CommentNotFound, NotAuthorized, PreconditionFailed
from app.db.reading import Reader
from app.db.session import NO_KEY_UPDATE
from app.models.articles.article import Article
from app.models.community.comment import Comment
from app.schemas.community.comment import CommentModeration
from app.services.community.comments.writing import delete_comment, moderate_comment


class Decision(StrEnum):
    """What a moderator does with a comment."""

    APPROVE = "approve"
    HIDE = "hide"
    DELETE = "delete"


_CHANGES = {
    Decision.APPROVE: CommentModeration(status=CommentStatus.VISIBLE),
    Decision.HIDE: CommentModeration(status=CommentStatus.HIDDEN),
}


class Moderated(NamedTuple):
    """How many comments were moderated, had changed since they were read, or were not found."""

    done: int
    changed: int
    missing: int


async def moderate_comments(
    session: AsyncSession,
    *,
    decision: Decision,
    comments: Mapping[int, Precondition],
    actor: Identity,
) -> Moderated:
    """Approve, hide or delete comments by id.

    Comments that do not match their precondition, that are gone, or that the actor may not
    moderate are counted and left as they are. Raises LimitReached.
    """
    # In the order of the ids, as the deletion of an account locks them; then the counters in the
    # order of the articles.
    lock = select(Comment.id, Comment.article_id).where(Comment.id.in_(comments))
    rows = await session.execute(lock.order_by(Comment.id).with_for_update(**NO_KEY_UPDATE))
    articles = {row.id: row.article_id for row in rows}
    done = changed = 0
    for comment_id in sorted(articles, key=lambda each: (articles[each], each)):
        try:
            await _moderate(session, decision, comment_id, comments[comment_id], actor)
        except PreconditionFailed:
            changed += 1
        except (CommentNotFound, NotAuthorized):
            continue
        else:
            done += 1
    return Moderated(done, changed, len(comments) - done - changed)


async def _moderate(
    session: AsyncSession,
    decision: Decision,
    comment_id: int,
    precondition: Precondition,
    actor: Identity,
) -> None:
    arguments: dict[str, Any] = {
        "comment_id": comment_id,
        "actor": actor,
        "precondition": precondition,
    }
    if decision is Decision.DELETE:
        await delete_comment(session, **arguments)
        await session.flush()  # in the order of the articles
    else:
        await moderate_comment(session, changes=_CHANGES[decision], **arguments)


class CommentContext(NamedTuple):
    """Where a comment is, and whether readers see it."""

    comment_id: int
    article_id: int
    article_title: str
    status: CommentStatus


_CONTEXTS = (
    select(
        Comment.id.label("comment_id"),
        Comment.article_id,
        Article.title.label("article_title"),
        Comment.status,
    )
    .join(Article, Article.id == Comment.article_id)
    .where(Comment.id == any_(bindparam("ids", type_=ARRAY(BigInteger))))
    .order_by(Comment.id)
)


async def read_contexts(
    reader: Reader, *, comment_ids: Sequence[int], user: Identity
) -> dict[int, CommentContext]:
    """Return the context of comments by id, for editors. Raises NotAuthorized."""
    if not may_on_any(user, Action.MODERATE_COMMENTS):
        raise NotAuthorized
    rows = await reader.execute(_CONTEXTS, {"ids": list(comment_ids)}) if comment_ids else []
    return {row.comment_id: CommentContext(*row) for row in rows}
