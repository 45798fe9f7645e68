"""Comments: writing, changing and deleting them; hiding, approving and locking."""

from datetime import timedelta

from sqlalchemy import Integer, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, may, require
from app.core import clock
from app.core.community import CommentPolicy, CommentStatus
from app.core.conditional import Precondition
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
from app.core.markdown import render_comment
from app.db.session import NO_KEY_UPDATE, constraint_errors
from app.models.comment import Comment
from app.schemas.comment import CommentCreate, CommentModeration, CommentResponse, CommentUpdate
from app.services import audit, purging
from app.services.articles.reading import id_of_slug
from app.services.audit import AuditAction
from app.services.comments.reading import CommentWithProfile, get_comment, read_written
from app.services.comments.rows import ArticleTold, CommentRow, article_of

EDITABLE_FOR = timedelta(minutes=15)
KEPT_FOR = timedelta(days=30)
"""How long the text of a deleted comment is kept, for whoever handles a report."""
REFERENCES = {
    "fk_comments_article_id": ArticleNotFound,
    "fk_comments_author_id": InvalidToken,
    "fk_comments_parent_id": CommentNotFound,
    "fk_comments_root_id": CommentNotFound,
}


async def create_comment(
    session: AsyncSession, *, article_id: int, new: CommentCreate, author: Identity
) -> CommentRow:
    """Write a comment below an article, or a reply to one.

    Others see it at once, or where the article holds comments, once it is approved; not so those
    of whoever would approve them.

    Raises ArticleNotFound, CommentsClosed, CommentNotFound for what it replies to, ThreadLocked,
    ContentTooComplex.
    """
    html = render_comment(new.content)
    article = await article_of(session, article_id=article_id, viewer=author)
    if article.policy is CommentPolicy.CLOSED:
        raise CommentsClosed
    root_id = None
    if new.parent_id is not None:
        root_id = await _open_thread(session, article_id, new.parent_id, author)
    now = clock.now()
    comment = Comment(
        article_id=article_id,
        author_id=author.id,
        root_id=root_id,
        parent_id=new.parent_id,
        content=new.content,
        html=html,
        status=_status(article),
        created_at=now,
        updated_at=now,
    )
    session.add(comment)
    with constraint_errors(REFERENCES):
        await session.flush()  # the references speak, and the comment has an id
    _record(session, AuditAction.CREATE_COMMENT, comment.id, author)
    return await read_written(
        session, comment_id=comment.id, viewer=author, moderates=article.moderates
    )


async def create_comment_on(
    session: AsyncSession, *, slug: str, new: CommentCreate, author: Identity
) -> CommentWithProfile:
    """The same below the article that has this slug."""
    article_id = await id_of_slug(session, slug=slug, viewer=author)
    row = await create_comment(session, article_id=article_id, new=new, author=author)
    return CommentWithProfile(row, author.bio, author.image_url, following=False)


def _status(article: ArticleTold) -> CommentStatus:
    """What becomes of what the viewer writes there."""
    held = article.policy is CommentPolicy.HELD and not article.moderates
    return CommentStatus.PENDING if held else CommentStatus.VISIBLE


async def _open_thread(
    session: AsyncSession, article_id: int, parent_id: int, author: Identity
) -> int:
    """The id of the comment that the parent's thread begins with; nobody locks it meanwhile.

    Raises CommentNotFound where the author does not see the parent there, ThreadLocked.
    """
    parent = await get_comment(session, comment_id=parent_id, viewer=author)
    if parent.article_id != article_id or parent.removed:
        raise CommentNotFound
    beginning = select(Comment.locked_at).where(Comment.id == parent.thread_id)
    if await session.scalar(beginning.with_for_update(read=True)) is not None:
        raise ThreadLocked
    return parent.thread_id


async def update_comment(
    session: AsyncSession,
    *,
    comment_id: int,
    changes: CommentUpdate,
    actor: Identity,
    precondition: Precondition,
) -> CommentRow:
    """Change one's own comment, for 15 minutes; where comments are held, it is held again.

    Raises CommentNotFound, NotAuthorized, EditWindowOver, PreconditionFailed, ContentTooComplex.
    """
    html = render_comment(changes.content)
    comment, article = await _locked(session, comment_id, actor)
    require(actor, Action.CHANGE_COMMENT, owner_id=_author_of(comment))
    if clock.now() - comment.created_at >= EDITABLE_FOR:
        raise EditWindowOver
    await _require(session, precondition, comment, actor, article)
    if changes.content != comment.content:
        comment.content, comment.html, comment.edited_at = changes.content, html, clock.now()
        if comment.status == CommentStatus.VISIBLE:
            comment.status = _status(article)
        _record(session, AuditAction.UPDATE_COMMENT, comment_id, actor)
        await session.flush()  # the read below sees it
    return await read_written(
        session, comment_id=comment_id, viewer=actor, moderates=article.moderates
    )


async def delete_comment(
    session: AsyncSession, *, comment_id: int, actor: Identity, precondition: Precondition
) -> None:
    """Delete a comment: one's own, or as who moderates there. Its replies stay.

    Raises CommentNotFound, NotAuthorized, PreconditionFailed.
    """
    comment, article = await _locked(session, comment_id, actor)
    is_own = may(actor, Action.CHANGE_COMMENT, owner_id=_author_of(comment))
    if not (is_own or article.moderates):
        raise NotAuthorized
    await _require(session, precondition, comment, actor, article)
    comment.deleted_at = clock.now()
    _record(session, AuditAction.DELETE_COMMENT, comment_id, actor)


async def delete_comment_on(
    session: AsyncSession, *, slug: str, comment_id: int, actor: Identity
) -> None:
    """Delete a comment of the article that has this slug.

    Raises ArticleNotFound, CommentNotFound where it is another article's, NotAuthorized.
    """
    article_id = await id_of_slug(session, slug=slug, viewer=actor)
    whose = select(Comment.article_id).where(Comment.id == comment_id)
    if await session.scalar(whose) != article_id:
        raise CommentNotFound
    await delete_comment(session, comment_id=comment_id, actor=actor, precondition=Precondition())


async def moderate_comment(
    session: AsyncSession,
    *,
    comment_id: int,
    changes: CommentModeration,
    actor: Identity,
    precondition: Precondition,
) -> CommentRow:
    """Approve, hide or show a comment; lock its thread or unlock it.

    As the article's author or as an editor. Raises CommentNotFound, NotAuthorized,
    PreconditionFailed, InvalidInput for the lock of a reply.
    """
    comment, article = await _locked(session, comment_id, actor)
    require(actor, Action.MODERATE_COMMENTS, owner_id=article.author_id)
    await _require(session, precondition, comment, actor, article)
    given = changes.model_fields_set
    if "status" in given and changes.status != comment.status:
        comment.status = changes.status
        is_shown = changes.status is CommentStatus.VISIBLE
        action = AuditAction.SHOW_COMMENT if is_shown else AuditAction.HIDE_COMMENT
        _record(session, action, comment_id, actor)
    if "locked" in given and changes.locked is not (comment.locked_at is not None):
        if comment.root_id is not None:
            raise InvalidInput("A thread is locked at its first comment: see thread_id")
        comment.locked_at = clock.now() if changes.locked else None
        action = AuditAction.LOCK_COMMENT if changes.locked else AuditAction.UNLOCK_COMMENT
        _record(session, action, comment_id, actor)
    await session.flush()  # the read below sees it
    return await read_written(session, comment_id=comment_id, viewer=actor, moderates=True)


async def _locked(
    session: AsyncSession, comment_id: int, actor: Identity
) -> tuple[Comment, ArticleTold]:
    """A comment that the actor sees, locked, and its article. Raises CommentNotFound."""
    comment = await session.get(Comment, comment_id, with_for_update=NO_KEY_UPDATE)
    if comment is None or comment.deleted_at is not None:
        raise CommentNotFound
    try:
        article = await article_of(session, article_id=comment.article_id, viewer=actor)
    except ArticleNotFound:
        raise CommentNotFound from None
    is_seen = comment.status == CommentStatus.VISIBLE or comment.author_id == actor.id
    if not (is_seen or article.moderates):
        raise CommentNotFound
    return comment, article


def _author_of(comment: Comment) -> int:
    """Who wrote it; nobody's id where they have left."""
    return comment.author_id or 0


async def _require(
    session: AsyncSession,
    precondition: Precondition,
    comment: Comment,
    actor: Identity,
    article: ArticleTold,
) -> None:
    """Raise PreconditionFailed unless the comment, locked, is as the client believes."""
    if precondition.tags is not None:
        current = await read_written(
            session, comment_id=comment.id, viewer=actor, moderates=article.moderates
        )
        precondition.require(CommentResponse.model_validate(current))


_FORGOTTEN = (
    select(Comment.id)
    .where(Comment.deleted_at < bindparam("before"), Comment.content != "")
    .order_by(Comment.deleted_at)
    .limit(bindparam("limit", type_=Integer))
    .with_for_update(skip_locked=True, **NO_KEY_UPDATE)
    .cte("forgotten")
)
_FORGET = (
    update(Comment)
    .where(Comment.id == _FORGOTTEN.c.id)
    .returning(Comment.id)
    .values(content="", html="", updated_at=Comment.updated_at)
    .execution_options(synchronize_session=False)
)


async def purge(session: AsyncSession) -> int:
    """Empty a batch of texts that were deleted over 30 days ago; how many."""
    parameters = {"before": clock.now() - KEPT_FOR, "limit": purging.BATCH}
    return len((await session.execute(_FORGET, parameters)).all())


def _record(session: AsyncSession, action: AuditAction, comment_id: int, actor: Identity) -> None:
    audit.record(session, action, actor_id=actor.id, subject="comment", subject_id=comment_id)
