"""Create, update, delete and moderate comments."""

from datetime import timedelta
from typing import Any, cast

from sqlalchemy import BindParameter, String, Table, bindparam, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, may, require
from app.content.markdown import render_comment
from app.core import clock
from app.core.conditional import Precondition
from app.core.enums import CommentPolicy, CommentStatus
from app.core.errors import (
    ArticleNotFound,
    CommentNotFound,
    CommentsClosed,
    EditWindowOver,
    InvalidInput,
    InvalidToken,
    NotAuthorized,
    ThreadLocked,
)
from app.core.limits import LimitKind
from app.db.session import NO_KEY_UPDATE, constraint_errors
from app.db.writing import fetch_value
from app.models.community.comment import Comment
from app.schemas.community.comment import (
    CommentCreate,
    CommentModeration,
    CommentResponse,
    CommentUpdate,
    CommentWithProfile,
)
from app.services import audit, limits
from app.services.articles.rows import public_view
from app.services.audit import AuditAction
from app.services.community.comments.reading import get_comment, read_back
from app.services.community.comments.rows import CommentedArticle, get_commented_article
from app.services.purging import Batch, update_oldest

EDIT_WINDOW = timedelta(minutes=15)
DELETED_TEXT_RETENTION = timedelta(days=30)
"""How long the text of a deleted comment is kept for the handling of reports."""
REFERENCES = {
    "fk_comments_article_id": ArticleNotFound,
    "fk_comments_author_id": InvalidToken,
    "fk_comments_parent_id": CommentNotFound,
    "fk_comments_root_id": CommentNotFound,
}
_TABLE = cast("Table", Comment.__table__)
_COLUMNS = (
    "article_id", "author_id", "root_id", "parent_id", "content", "html", "status", "created_at",
    "updated_at",
)  # fmt: skip


def _parameter(name: str) -> BindParameter[Any]:
    """Return the parameter of a column. Strings have no length: a cast would truncate them."""
    type_ = _TABLE.c[name].type
    return bindparam(name, type_=String() if isinstance(type_, String) else type_)


_INSERT = (
    insert(_TABLE)
    .from_select(_COLUMNS, select(*map(_parameter, _COLUMNS)), include_defaults=False)
    .returning(_TABLE.c.id)
)


async def create_comment(
    session: AsyncSession, *, article_id: int, new: CommentCreate, author: Identity
) -> CommentResponse:
    """Create a comment on an article, or a reply to a comment.

    On articles with held comments, it is pending until a moderator approves it. Comments by
    moderators are visible at once.

    Raises ArticleNotFound, CommentsClosed, CommentNotFound for the parent, ThreadLocked,
    ContentTooComplex.
    """
    html = render_comment(new.content)
    article = await get_commented_article(session, article_id=article_id, viewer=author)
    if article.policy is CommentPolicy.CLOSED:
        raise CommentsClosed
    root_id = None
    if new.parent_id is not None:
        root_id = await _lock_open_thread(session, article_id, new.parent_id, author)
    await limits.spend(session, author, {LimitKind.COMMENTS: 1})
    now = clock.now()
    row: dict[str, Any] = {
        "article_id": article_id,
        "author_id": author.id,
        "root_id": root_id,
        "parent_id": new.parent_id,
        "content": new.content,
        "html": html,
        "status": _status(article),
        "created_at": now,
        "updated_at": now,
    }
    with constraint_errors(REFERENCES):
        comment_id: int = await fetch_value(session, _INSERT, row)
    _record(session, AuditAction.CREATE_COMMENT, comment_id, author)
    return CommentResponse(  # as a read would return it to its author
        **{name: row[name] for name in _COLUMNS if name in CommentResponse.model_fields},
        id=comment_id,
        thread_id=root_id or comment_id,
        removed=False,
        locked=False,
        edited_at=None,
        author=public_view(author),
        guest=None,
    )


async def create_comment_with_profile(
    session: AsyncSession, *, article_id: int, new: CommentCreate, author: Identity
) -> CommentWithProfile:
    """Create a comment, and return it with the profile of its author. See `create_comment`."""
    created = await create_comment(session, article_id=article_id, new=new, author=author)
    return CommentWithProfile(
        **created.model_dump(),
        author_bio=author.bio,
        author_image_url=author.image_url,
        follows_author=False,
    )


def _status(article: CommentedArticle) -> CommentStatus:
    """Return the status of a new comment by the viewer."""
    held = article.policy is CommentPolicy.HELD and not article.moderates
    return CommentStatus.PENDING if held else CommentStatus.VISIBLE


async def _lock_open_thread(
    session: AsyncSession, article_id: int, parent_id: int, author: Identity
) -> int:
    """Return the id of the parent's thread, locked against changes.

    Raises CommentNotFound if the author cannot see the parent, ThreadLocked.
    """
    parent = await get_comment(session, comment_id=parent_id, viewer=author)
    if parent.article_id != article_id or parent.removed:
        raise CommentNotFound
    root = select(Comment.locked_at).where(Comment.id == parent.thread_id)
    if await session.scalar(root.with_for_update(read=True)) is not None:
        raise ThreadLocked
    return parent.thread_id


async def update_comment(
    session: AsyncSession,
    *,
    comment_id: int,
    changes: CommentUpdate,
    actor: Identity,
    precondition: Precondition,
) -> CommentResponse:
    """Change the actor's own comment within 15 minutes; a held comment is held again.

    Raises CommentNotFound, NotAuthorized, EditWindowOver, PreconditionFailed, ContentTooComplex.
    """
    html = render_comment(changes.content)
    comment, article = await _lock_comment(session, comment_id, actor)
    require(actor, Action.CHANGE_COMMENT, owner_id=_author_of(comment))
    if clock.now() - comment.created_at >= EDIT_WINDOW:
        raise EditWindowOver
    await _check_precondition(session, precondition, comment, actor, article)
    await limits.spend(session, actor, {LimitKind.COMMENTS: 1})
    if changes.content != comment.content:
        comment.content, comment.html, comment.edited_at = changes.content, html, clock.now()
        if comment.status == CommentStatus.VISIBLE:
            comment.status = _status(article)
        _record(session, AuditAction.UPDATE_COMMENT, comment_id, actor)
        await session.flush()  # so that the read below includes it
    return await read_back(
        session, comment_id=comment_id, viewer=actor, moderates=article.moderates
    )


async def delete_comment(
    session: AsyncSession, *, comment_id: int, actor: Identity, precondition: Precondition
) -> None:
    """Delete a comment, as its author or a moderator. Replies stay.

    Raises CommentNotFound, NotAuthorized, PreconditionFailed.
    """
    comment, article = await _lock_comment(session, comment_id, actor)
    is_own = may(actor, Action.CHANGE_COMMENT, owner_id=_author_of(comment))
    if not (is_own or article.moderates):
        raise NotAuthorized
    await _check_precondition(session, precondition, comment, actor, article)
    kind = LimitKind.COMMENTS if is_own else LimitKind.MODERATION
    await limits.spend(session, actor, {kind: 1})
    comment.deleted_at = clock.now()
    _record(session, AuditAction.DELETE_COMMENT, comment_id, actor)


async def delete_comment_of_article(
    session: AsyncSession, *, article_id: int, comment_id: int, actor: Identity
) -> None:
    """Delete a comment on this article.

    Raises CommentNotFound if it belongs to another article, NotAuthorized.
    """
    article_of_comment = select(Comment.article_id).where(Comment.id == comment_id)
    if await session.scalar(article_of_comment) != article_id:
        raise CommentNotFound
    await delete_comment(session, comment_id=comment_id, actor=actor, precondition=Precondition())


async def moderate_comment(
    session: AsyncSession,
    *,
    comment_id: int,
    changes: CommentModeration,
    actor: Identity,
    precondition: Precondition,
) -> CommentResponse:
    """Approve, hide or show a comment; lock or unlock its thread.

    Requires the article's author or an editor. Raises CommentNotFound, NotAuthorized,
    PreconditionFailed, and InvalidInput to lock a reply.
    """
    comment, article = await _lock_comment(session, comment_id, actor)
    require(actor, Action.MODERATE_COMMENTS, owner_id=article.author_id)
    await _check_precondition(session, precondition, comment, actor, article)
    await limits.spend(session, actor, {LimitKind.MODERATION: 1})
    updates = changes.model_fields_set
    if "status" in updates and changes.status != comment.status:
        comment.status = changes.status
        is_shown = changes.status is CommentStatus.VISIBLE
        action = AuditAction.SHOW_COMMENT if is_shown else AuditAction.HIDE_COMMENT
        _record(session, action, comment_id, actor)
    if "locked" in updates and changes.locked is not (comment.locked_at is not None):
        if comment.root_id is not None:
            raise InvalidInput(
                "Only the first comment of a thread can be locked: use its thread_id"
            )
        comment.locked_at = clock.now() if changes.locked else None
        action = AuditAction.LOCK_COMMENT if changes.locked else AuditAction.UNLOCK_COMMENT
        _record(session, action, comment_id, actor)
    await session.flush()  # so that the read below includes it
    return await read_back(session, comment_id=comment_id, viewer=actor, moderates=True)


async def _lock_comment(
    session: AsyncSession, comment_id: int, actor: Identity
) -> tuple[Comment, CommentedArticle]:
    """Return a visible comment, locked, with its article. Raises CommentNotFound."""
    comment = await session.get(Comment, comment_id, with_for_update=NO_KEY_UPDATE)
    if comment is None or comment.deleted_at is not None:
        raise CommentNotFound
    try:
        article = await get_commented_article(session, article_id=comment.article_id, viewer=actor)
    except ArticleNotFound:
        raise CommentNotFound from None
    is_seen = comment.status == CommentStatus.VISIBLE or comment.author_id == actor.id
    if not (is_seen or article.moderates):
        raise CommentNotFound
    return comment, article


def _author_of(comment: Comment) -> int:
    """Return the author's id, or 0 if their account was deleted."""
    return comment.author_id or 0


async def _check_precondition(
    session: AsyncSession,
    precondition: Precondition,
    comment: Comment,
    actor: Identity,
    article: CommentedArticle,
) -> None:
    """Raise PreconditionFailed unless the locked comment matches the client's ETag."""
    if precondition.tags is not None:
        current = await read_back(
            session, comment_id=comment.id, viewer=actor, moderates=article.moderates
        )
        precondition.require(current)


async def purge(session: AsyncSession, batch: Batch) -> int:
    """Clear the text of a batch of comments deleted over 30 days ago; return how many."""
    column = Comment.deleted_at
    expired = column < clock.now() - DELETED_TEXT_RETENTION, Comment.content != ""
    values = {"content": "", "html": "", "updated_at": Comment.updated_at}
    return await update_oldest(session, batch, Comment.id, *expired, order_by=column, values=values)


def _record(session: AsyncSession, action: AuditAction, comment_id: int, actor: Identity) -> None:
    audit.record(session, action, actor_id=actor.id, subject="comment", subject_id=comment_id)
