"""Read comments: threads with their first replies, and the moderation queue."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    String,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, may_on_any
from app.core.enums import CommentStatus
from app.core.errors import ArticleNotFound, CommentNotFound
from app.db.reading import Reader
from app.db.selection import Selection
from app.db.writing import fetch
from app.models.accounts.user import User
from app.models.articles.article import Article
from app.models.community.comment import Comment
from app.schemas.community.comment import (
    CommentResponse,
    CommentWithProfile,
    ModerationQuery,
    ThreadQuery,
    ThreadResponse,
)
from app.schemas.page import CursorQuery
from app.services.articles.reading import get_article_id_by_slug
from app.services.community.comments.rows import (
    COMMENT,
    COMMENT_FIELDS,
    VISIBLE_TO_VIEWER,
    Reply,
    get_commented_article,
    is_visible_to_viewer,
    select_comments,
    viewer_parameters,
)
from app.services.pages.keyset import keyset, read_page
from app.services.pages.paging import ListPage
from app.services.pages.viewing import VIEWER, follows

FIRST_REPLIES = 5
"""How many replies a list includes per thread; `reply_count` has the total."""


_has_visible_reply = (
    exists().where(Reply.parent_id == Comment.id, is_visible_to_viewer(Reply)).correlate(Comment)
)
_has_visible_thread = (
    exists().where(Reply.root_id == Comment.id, is_visible_to_viewer(Reply)).correlate(Comment)
)
_SHOWN_THREAD = and_(Comment.root_id.is_(None), or_(VISIBLE_TO_VIEWER, _has_visible_thread))
"""A removed comment is shown as a placeholder while a visible comment depends on it."""
_SHOWN_REPLY = or_(VISIBLE_TO_VIEWER, _has_visible_reply)
_reply_count = (
    select(func.count())
    .where(Reply.root_id == Comment.id, is_visible_to_viewer(Reply))
    .correlate(Comment)
    .scalar_subquery()
)
_OF_ARTICLE = Comment.article_id == bindparam("article_id", type_=BigInteger)
_THREAD = Selection(
    lambda values: ThreadResponse(**values, replies=[]),
    {**COMMENT_FIELDS, "reply_count": _reply_count},
)
_threads = select_comments(_THREAD).where(_OF_ARTICLE, _SHOWN_THREAD)
_THREADS = {
    "newest": keyset("threads newest", _THREAD, _threads, Comment.id),
    "oldest": keyset("threads oldest", _THREAD, _threads, Comment.id, descending=False),
}
_roots = (
    func.unnest(bindparam("roots", type_=ARRAY(BigInteger)))
    .table_valued("id", name="roots")
    .render_derived()
)
_first_replies = (
    select_comments()
    .where(Comment.root_id == _roots.c.id, _SHOWN_REPLY)
    .order_by(Comment.id)
    .limit(FIRST_REPLIES)
    .correlate(_roots)
    .lateral()
)
_FIRST_REPLIES = (
    select(_first_replies)
    .select_from(_roots)
    .join(_first_replies, true())
    .order_by(_first_replies.c.id)
)
_REPLIES = keyset(
    "replies",
    COMMENT,
    select_comments().where(
        Comment.root_id == bindparam("root_id", type_=BigInteger), _SHOWN_REPLY
    ),
    Comment.id,
    descending=False,
)
_COMMENT = select_comments().where(Comment.id == bindparam("comment_id", type_=BigInteger))
_SHOWN_COMMENT = _COMMENT.where(or_(VISIBLE_TO_VIEWER, _has_visible_reply, _has_visible_thread))
_ARTICLE_OF_COMMENT = select(Comment.article_id).where(
    Comment.id == bindparam("comment_id", type_=BigInteger)
)


async def list_threads(
    reader: Reader, *, article_id: int, query: ThreadQuery, viewer: Identity | None
) -> ListPage[ThreadResponse]:
    """Return a page of an article's threads with their first replies. Runs three queries.

    Raises ArticleNotFound, InvalidCursor.
    """
    article = await get_commented_article(reader, article_id=article_id, viewer=viewer)
    params = viewer_parameters(viewer, moderates=article.moderates)
    page = await read_page(
        reader,
        _THREADS[query.sort],
        query=query,
        parameters={**params, "article_id": article_id},
        of=article_id,
    )
    threads = {thread.id: thread for thread in page.items}
    for row in await reader.execute(_FIRST_REPLIES, {**params, "roots": list(threads)}):
        reply = COMMENT.read(row)
        threads[reply.thread_id].replies.append(reply)
    return page


async def list_replies(
    reader: Reader, *, comment_id: int, query: CursorQuery, viewer: Identity | None
) -> ListPage[CommentResponse]:
    """Return a page of a thread's replies at any depth, oldest first.

    Raises CommentNotFound, also if the comment is itself a reply; InvalidCursor.
    """
    root, params = await _get_shown_comment(reader, comment_id, viewer)
    if root.parent_id is not None:
        raise CommentNotFound
    return await read_page(
        reader,
        _REPLIES,
        query=query,
        parameters={**params, "root_id": comment_id},
        of=comment_id,
    )


async def get_comment(
    reader: Reader | AsyncSession, *, comment_id: int, viewer: Identity | None
) -> CommentResponse:
    """Return one comment. Raises CommentNotFound if it or its article is hidden."""
    comment, _ = await _get_shown_comment(reader, comment_id, viewer)
    return comment


async def _get_shown_comment(
    reader: Reader | AsyncSession, comment_id: int, viewer: Identity | None
) -> tuple[CommentResponse, Mapping[str, Any]]:
    """Return a comment shown to `viewer`, and the parameters of VISIBLE_TO_VIEWER."""
    found = (await reader.execute(_ARTICLE_OF_COMMENT, {"comment_id": comment_id})).one_or_none()
    if found is None:
        raise CommentNotFound
    params = await _viewer_parameters_for(reader, found.article_id, viewer)
    row = (await reader.execute(_SHOWN_COMMENT, {**params, "comment_id": comment_id})).one_or_none()
    if row is None:
        raise CommentNotFound
    return COMMENT.read(row), params


async def read_back(
    session: AsyncSession, *, comment_id: int, viewer: Identity, moderates: bool
) -> CommentResponse:
    """Return the comment that was just flushed, as a read would return it."""
    parameters = {**viewer_parameters(viewer, moderates=moderates), "comment_id": comment_id}
    return COMMENT.read((await fetch(session, _COMMENT, parameters)).one())


async def _viewer_parameters_for(
    reader: Reader | AsyncSession, article_id: int, viewer: Identity | None
) -> Mapping[str, Any]:
    """Return the parameters of VISIBLE_TO_VIEWER.

    Raises CommentNotFound if the article is hidden.
    """
    try:
        article = await get_commented_article(reader, article_id=article_id, viewer=viewer)
    except ArticleNotFound:
        raise CommentNotFound from None
    return viewer_parameters(viewer, moderates=article.moderates)


_moderated = (
    select_comments()
    .join(Article, Article.id == Comment.article_id)
    .where(
        Comment.status == bindparam("status", type_=String),
        Comment.status != CommentStatus.VISIBLE.value,  # selects the partial index
        Comment.deleted_at.is_(None),
        Article.deleted_at.is_(None),
    )
)
_QUEUES = {
    moderates_all: keyset("moderation", COMMENT, statement, Comment.id, descending=False)
    for moderates_all, statement in {
        True: _moderated,
        False: _moderated.where(Article.author_id == VIEWER),
    }.items()
}
"""Keyed by whether the user moderates all articles or only their own."""


async def list_to_moderate(
    reader: Reader, *, query: ModerationQuery, user: Identity
) -> ListPage[CommentResponse]:
    """Return pending or hidden comments, oldest first: on own articles, or all for editors.

    Raises InvalidCursor.
    """
    return await read_page(
        reader,
        _QUEUES[may_on_any(user, Action.MODERATE_COMMENTS)],
        query=query,
        parameters={**viewer_parameters(user, moderates=True), "status": query.status.value},
        of=f"{query.status.value} {user.id}",
    )


MAX_LATEST = 500
"""How many comments the RealWorld API returns, which has no pagination."""
_WITH_PROFILE = Selection.of(
    CommentWithProfile,
    Comment,
    **COMMENT_FIELDS,
    author_bio=func.coalesce(User.bio, ""),
    author_image_url=User.image_url,
    follows_author=follows(User.id),
)
_LATEST = (
    select_comments(_WITH_PROFILE)
    .where(
        _OF_ARTICLE,
        VISIBLE_TO_VIEWER,
        or_(Comment.author_id.is_not(None), Comment.guest_name.is_not(None)),
    )
    .order_by(Comment.id.desc())
    .limit(MAX_LATEST)
)


async def list_latest(
    reader: Reader, *, slug: str, viewer: Identity | None
) -> Sequence[CommentWithProfile]:
    """Return an article's latest comments, at most MAX_LATEST, with their authors' profiles.

    Raises ArticleNotFound.
    """
    article_id = await get_article_id_by_slug(reader, slug=slug, viewer=viewer)
    article = await get_commented_article(reader, article_id=article_id, viewer=viewer)
    parameters = {
        **viewer_parameters(viewer, moderates=article.moderates),
        "article_id": article.id,
    }
    return [_WITH_PROFILE.read(row) for row in await reader.execute(_LATEST, parameters)]
