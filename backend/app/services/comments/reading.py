"""Reading comments: threads with the first of their replies, and what waits for a moderator."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

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
from app.core.community import CommentStatus
from app.core.errors import ArticleNotFound, CommentNotFound
from app.db.reading import Reader
from app.models.article import Article
from app.models.comment import Comment
from app.models.user import User
from app.schemas.comment import ModerationQuery, ThreadQuery
from app.schemas.page import CursorQuery
from app.services.articles.reading import id_of_slug
from app.services.articles.rows import AuthorRow
from app.services.comments.rows import (
    COLUMNS,
    SEEN,
    WIDTH,
    CommentRow,
    Reply,
    article_of,
    as_viewer,
    comment_row,
    seen,
    selected,
)
from app.services.keyset import keyset, read_page
from app.services.paging import Listed
from app.services.viewing import VIEWER, follows

FIRST_REPLIES = 5
"""How many replies a list of threads has of each; `reply_count` says how many there are."""


class ThreadRow(NamedTuple):
    """A thread as a list has it; the fields of ThreadResponse."""

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
    reply_count: int
    replies: Sequence[CommentRow]


_answered = exists().where(Reply.parent_id == Comment.id, seen(Reply)).correlate(Comment)
_in_use = exists().where(Reply.root_id == Comment.id, seen(Reply)).correlate(Comment)
_SHOWN_THREAD = and_(Comment.root_id.is_(None), or_(SEEN, _in_use))
"""What is removed is shown as such where something that is not hangs on it."""
_SHOWN_REPLY = or_(SEEN, _answered)
_reply_count = (
    select(func.count())
    .where(Reply.root_id == Comment.id, seen(Reply))
    .correlate(Comment)
    .scalar_subquery()
)
_OF_ARTICLE = Comment.article_id == bindparam("article_id", type_=BigInteger)
_threads = selected(_reply_count.label("reply_count")).where(_OF_ARTICLE, _SHOWN_THREAD)
_THREADS = {
    "newest": keyset("threads newest", _threads, Comment.id),
    "oldest": keyset("threads oldest", _threads, Comment.id, descending=False),
}
_roots = (
    func.unnest(bindparam("roots", type_=ARRAY(BigInteger)))
    .table_valued("id", name="roots")
    .render_derived()
)
_first = (
    selected()
    .where(Comment.root_id == _roots.c.id, _SHOWN_REPLY)
    .order_by(Comment.id)
    .limit(FIRST_REPLIES)
    .correlate(_roots)
    .lateral()
)
_FIRST_REPLIES = select(_first).select_from(_roots).join(_first, true()).order_by(_first.c.id)
_REPLIES = keyset(
    "replies",
    selected().where(Comment.root_id == bindparam("root_id", type_=BigInteger), _SHOWN_REPLY),
    Comment.id,
    descending=False,
)
_ONE = selected().where(Comment.id == bindparam("comment_id", type_=BigInteger))
_ONE_SEEN = _ONE.where(or_(SEEN, _answered, _in_use))
_ITS_ARTICLE = select(Comment.article_id).where(
    Comment.id == bindparam("comment_id", type_=BigInteger)
)


async def list_threads(
    connection: Reader, *, article_id: int, query: ThreadQuery, viewer: Identity | None
) -> Listed[ThreadRow]:
    """A page of an article's threads, each with its first replies: three queries.

    Raises ArticleNotFound, InvalidCursor.
    """
    article = await article_of(connection, article_id=article_id, viewer=viewer)
    who = as_viewer(viewer, moderates=article.moderates)
    page = await read_page(
        connection,
        _THREADS[query.sort],
        query=query,
        parameters={**who, "article_id": article_id},
        make=_thread,
        of=article_id,
    )
    roots = [thread.id for thread in page.items]
    replies: dict[int, list[CommentRow]] = {root: [] for root in roots}
    for row in await connection.execute(_FIRST_REPLIES, {**who, "roots": roots}):
        reply = comment_row(row)
        replies[reply.thread_id].append(reply)
    return page._replace(
        items=[thread._replace(replies=replies[thread.id]) for thread in page.items]
    )


def _thread(row: Sequence[Any]) -> ThreadRow:
    return ThreadRow(*comment_row(row), reply_count=row[WIDTH], replies=())


async def list_replies(
    connection: Reader, *, comment_id: int, query: CursorQuery, viewer: Identity | None
) -> Listed[CommentRow]:
    """A page of the replies in a thread, however deep, the oldest first.

    Raises CommentNotFound, also for what is itself a reply; InvalidCursor.
    """
    root, who = await _seen(connection, comment_id, viewer)
    if root.parent_id is not None:
        raise CommentNotFound
    return await read_page(
        connection,
        _REPLIES,
        query=query,
        parameters={**who, "root_id": comment_id},
        make=comment_row,
        of=comment_id,
    )


async def get_comment(
    connection: Reader | AsyncSession, *, comment_id: int, viewer: Identity | None
) -> CommentRow:
    """One comment. Raises CommentNotFound where it is absent, or its article is hidden."""
    comment, _ = await _seen(connection, comment_id, viewer)
    return comment


async def _seen(
    connection: Reader | AsyncSession, comment_id: int, viewer: Identity | None
) -> tuple[CommentRow, Mapping[str, Any]]:
    """A comment that is shown to `viewer`, and the parameters of SEEN there."""
    found = (await connection.execute(_ITS_ARTICLE, {"comment_id": comment_id})).one_or_none()
    if found is None:
        raise CommentNotFound
    who = await _viewing(connection, found.article_id, viewer)
    row = (await connection.execute(_ONE_SEEN, {**who, "comment_id": comment_id})).one_or_none()
    if row is None:
        raise CommentNotFound
    return comment_row(row), who


async def read_written(
    session: AsyncSession, *, comment_id: int, viewer: Identity, moderates: bool
) -> CommentRow:
    """What was just written and flushed, as a read would give it."""
    parameters = {**as_viewer(viewer, moderates=moderates), "comment_id": comment_id}
    return comment_row((await session.execute(_ONE, parameters)).one())


async def _viewing(
    connection: Reader | AsyncSession, article_id: int, viewer: Identity | None
) -> Mapping[str, Any]:
    """The parameters of SEEN. Raises CommentNotFound where the article is not seen."""
    try:
        article = await article_of(connection, article_id=article_id, viewer=viewer)
    except ArticleNotFound:
        raise CommentNotFound from None
    return as_viewer(viewer, moderates=article.moderates)


_to_moderate = (
    selected()
    .join(Article, Article.id == Comment.article_id)
    .where(
        Comment.status == bindparam("status", type_=String),
        Comment.status != CommentStatus.VISIBLE.value,  # says which index
        Comment.deleted_at.is_(None),
        Article.deleted_at.is_(None),
    )
)
_QUEUES = {
    True: keyset("moderation", _to_moderate, Comment.id, descending=False),
    False: keyset(
        "moderation", _to_moderate.where(Article.author_id == VIEWER), Comment.id, descending=False
    ),
}
"""Of everybody's articles, and of one's own."""


async def list_to_moderate(
    connection: Reader, *, query: ModerationQuery, user: Identity
) -> Listed[CommentRow]:
    """What waits for approval, or is hidden, the oldest first: on one's articles, for editors all.

    Raises InvalidCursor.
    """
    return await read_page(
        connection,
        _QUEUES[may_on_any(user, Action.MODERATE_COMMENTS)],
        query=query,
        parameters={**as_viewer(user, moderates=True), "status": query.status.value},
        make=comment_row,
        of=f"{query.status.value} {user.id}",
    )


AT_MOST = 500
"""How many comments an article shows where a client cannot turn pages."""
_ALL = (
    select(
        *COLUMNS,
        User.bio,
        User.image_url,
        follows(User.id).label("following"),
    )
    .select_from(Comment)
    .join(User, User.id == Comment.author_id)
    .where(_OF_ARTICLE, SEEN)
    .order_by(Comment.id.desc())
    .limit(AT_MOST)
)


class CommentWithProfile(NamedTuple):
    """A comment, and its author as a profile."""

    comment: CommentRow
    bio: str
    image_url: str | None
    following: bool


async def list_latest(
    connection: Reader, *, slug: str, viewer: Identity | None
) -> Sequence[CommentWithProfile]:
    """The latest comments of an article, at most AT_MOST, with their authors' profiles.

    Raises ArticleNotFound.
    """
    article_id = await id_of_slug(connection, slug=slug, viewer=viewer)
    article = await article_of(connection, article_id=article_id, viewer=viewer)
    parameters = {**as_viewer(viewer, moderates=article.moderates), "article_id": article.id}
    return [
        CommentWithProfile(comment_row(row), *row[WIDTH:])
        for row in await connection.execute(_ALL, parameters)
    ]
