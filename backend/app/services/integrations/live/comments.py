"""Comments of articles, for readers, authors and moderators: the events of comments.

Events that committed are sent at once. But cursors stay before the first event that an unfinished
transaction may still precede (`app.services.integrations.events`). So after a reconnect, events may
be sent again, but none is missing.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Self, cast
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Integer,
    String,
    any_,
    bindparam,
    func,
    select,
)

from app.auth.identity import Identity
from app.auth.permissions import Action, may
from app.core import clock
from app.core.enums import CommentStatus, EventKind, LiveTopic
from app.core.errors import InvalidCursor
from app.db.reading import Reader
from app.models.accounts.user import User
from app.models.articles.article import Article
from app.models.community.comment import Comment
from app.models.community.follow import Block
from app.models.integrations.event import HORIZON, Event
from app.schemas.community.comment import CommentResponse
from app.schemas.integrations.live import CommentEvent
from app.services.articles import changes
from app.services.articles.rows import PUBLIC
from app.services.community.comments.rows import COMMENT, viewer_parameters
from app.services.integrations.events import IS_AFTER, RETENTION
from app.services.integrations.live.connections import Subscription
from app.services.integrations.live.messages import Message
from app.services.pages.cursors import decode_cursor, encode_cursor

TOPICS = frozenset({LiveTopic.COMMENTS, LiveTopic.MODERATION})
CURSOR_KIND = "live comments"
PAGE = 200
KINDS: Mapping[str, Literal["created", "held", "deleted"]] = {
    EventKind.COMMENT_CREATED: "created",
    EventKind.COMMENT_HELD: "held",
    EventKind.COMMENT_DELETED: "deleted",
}
_IN_QUEUE = frozenset({CommentStatus.PENDING.value, CommentStatus.HIDDEN.value})
_MAX_ID = 2**63 - 1

_HORIZON = select(HORIZON)
_AFTER = (
    select(
        Event.id,
        Event.xid,
        Event.kind,
        Event.article_id,
        Event.comment_id,
        Event.user_id,
        Event.is_public,
        Event.occurred_at,
        Event.data["thread_id"].astext.label("thread_id"),
        Event.data["status"].astext.label("status"),
        Event.data["was"].astext.label("was"),
    )
    .where(
        IS_AFTER,
        Event.kind == any_(bindparam("kinds", type_=ARRAY(String))),
    )
    .order_by(Event.xid, Event.id)
    .limit(bindparam("limit", type_=Integer))
)
_blockers = (
    select(Block.blocker_id)
    .where(
        Block.blocked_id == Comment.author_id,
        Block.blocker_id == any_(bindparam("users", type_=ARRAY(BigInteger))),
    )
    .correlate(Comment)
    .scalar_subquery()
)
_CURRENT = (
    select(
        *COMMENT.columns,
        Article.author_id.label("owner_id"),
        PUBLIC.label("is_public"),
        Comment.deleted_at.is_not(None).label("is_deleted"),
        func.array(_blockers).label("blockers"),
    )
    .select_from(Comment)
    .join(User, User.id == Comment.author_id, isouter=True)
    .join(Article, Article.id == Comment.article_id)
    .where(
        Comment.id == any_(bindparam("ids", type_=ARRAY(BigInteger))),
        Article.deleted_at.is_(None),
    )
)


class Happening(NamedTuple):
    """An event of a comment, and the cursor after it."""

    event: Any
    cursor: str


class CommentsPosition:
    """A position in the events. `read` moves it."""

    topics = TOPICS

    def __init__(self, xid: int, id: int, generation: UUID | None) -> None:  # noqa: A002 - the column
        self._xid, self._id, self._generation = xid, id, generation
        self._read: set[int] = set()
        """Events after the position that were already read."""
        self._page_end: tuple[int, int] | None = None
        self.has_more = False
        """Whether there may be more than the last page."""

    @classmethod
    async def latest(cls, reader: Reader) -> Self:
        """Return the position after all events that are visible now."""
        generation = await changes.read_generation(reader)
        position = cls(await reader.scalar(_HORIZON) - 1, _MAX_ID, generation)
        await position.read(reader)
        while position.has_more:
            await position.read(reader)
        return position

    @classmethod
    async def after(cls, reader: Reader, cursor: str) -> Self:
        """Return the position of a cursor.

        Raises InvalidCursor, also if events after it may have been deleted, or if this database
        has not had its transaction yet.
        """
        generation = await changes.read_generation(reader)
        xid, id_, seconds = decode_cursor(cursor, _kind(generation))
        made = datetime.fromtimestamp(cast("int", seconds), UTC)
        if made < clock.now() - RETENTION or cast("int", xid) >= await reader.scalar(_HORIZON):
            raise InvalidCursor(
                "This cursor is too old; read the list again, and start without one"
            )
        return cls(cast("int", xid), cast("int", id_), generation)

    @property
    def cursor(self) -> str:
        """The cursor of the position."""
        values = (self._xid, self._id, int(clock.now().timestamp()))
        return encode_cursor(_kind(self._generation), values)

    async def read(self, reader: Reader) -> Sequence[Happening]:
        """Return the next events that were not read yet."""
        horizon = await reader.scalar(_HORIZON)
        xid, id_ = self._page_end or (self._xid, self._id)
        rows = await reader.execute(
            _AFTER, {"xid": xid, "id": id_, "kinds": list(KINDS), "limit": PAGE}
        )
        self.has_more = len(rows) == PAGE
        self._page_end = (rows[-1].xid, rows[-1].id) if self.has_more else None
        found = []
        for row in rows:
            is_new = row.id not in self._read
            if row.xid < horizon:
                self._xid, self._id = row.xid, row.id
                self._read.discard(row.id)
            else:
                self._read.add(row.id)
            if is_new:
                found.append(Happening(row, self.cursor))
        if not self.has_more and self._xid < horizon:
            self._xid, self._id = horizon - 1, _MAX_ID
        return found

    def has_read(self, happening: Happening) -> bool:
        """Return whether the event was read on the way to this position."""
        event = happening.event
        return (event.xid, event.id) <= (self._xid, self._id) or event.id in self._read


def _kind(generation: UUID | None) -> str:
    return f"{CURSOR_KIND} {generation}"


class _Comment(NamedTuple):
    """A comment now, and who sees it."""

    shown: CommentResponse
    owner_id: int
    is_public: bool
    is_deleted: bool
    blockers: Sequence[int]

    def is_visible_to(self, viewer: Identity | None) -> bool:
        """As `is_visible_to_viewer` of the services of comments, and for their articles."""
        if self.is_deleted or not self.article_is_visible_to(viewer):
            return False
        if self.is_moderated_by(viewer):
            return True
        author = self.shown.author
        is_own = viewer is not None and author is not None and author.id == viewer.id
        is_blocked = viewer is not None and viewer.id in self.blockers
        return (self.shown.status is CommentStatus.VISIBLE or is_own) and not is_blocked

    def article_is_visible_to(self, viewer: Identity | None) -> bool:
        """As VISIBLE of the services of articles."""
        return self.is_public or may(viewer, Action.READ_DRAFT, owner_id=self.owner_id)

    def is_moderated_by(self, viewer: Identity | None) -> bool:
        return may(viewer, Action.MODERATE_COMMENTS, owner_id=self.owner_id)


async def find_audience(
    reader: Reader, happenings: Sequence[Happening], subscriptions: Sequence[Subscription]
) -> Callable[[Subscription], tuple[Message, ...]]:
    """Return a function that returns the messages of a subscription. Runs one query."""
    users = {each.connection.identity.id for each in subscriptions if each.connection.identity}
    rows = await reader.execute(
        _CURRENT,
        {
            **viewer_parameters(None, moderates=True),
            "now": clock.now(),
            "ids": list({each.event.comment_id for each in happenings}),
            "users": list(users),
        },
    )
    comments: Mapping[int, _Comment] = {row[0]: _read(row) for row in rows}
    made: dict[tuple[int, LiveTopic, bool], Message] = {}

    def messages_of(subscription: Subscription) -> tuple[Message, ...]:
        found = []
        known: CommentsPosition | None = subscription.known
        for happening in happenings:
            event, topic = happening.event, subscription.topic
            if topic is LiveTopic.COMMENTS and event.article_id != subscription.article_id:
                continue
            comment = comments.get(event.comment_id)
            if comment is None or (known is not None and known.has_read(happening)):
                continue
            viewer = subscription.connection.identity
            if not _concerns(event, comment, viewer, topic):
                continue
            is_shown = comment.is_visible_to(viewer)
            key = (event.id, topic, is_shown)
            if key not in made:
                made[key] = _message(topic, happening, comment.shown if is_shown else None)
            found.append(made[key])
        return tuple(found)

    return messages_of


def _read(row: Any) -> _Comment:
    shown = COMMENT.read(row)
    return _Comment(shown, row.owner_id, row.is_public, row.is_deleted, row.blockers)


def _concerns(event: Any, comment: _Comment, viewer: Identity | None, topic: LiveTopic) -> bool:
    """Return whether a subscriber learns that the event happened."""
    moderates = comment.is_moderated_by(viewer)
    if topic is LiveTopic.MODERATION:
        return moderates and not _IN_QUEUE.isdisjoint({event.status, event.was})
    if not comment.article_is_visible_to(viewer):
        return False
    is_own = viewer is not None and event.user_id == viewer.id
    is_blocked = viewer is not None and viewer.id in comment.blockers
    return moderates or is_own or (event.is_public and not is_blocked)


def _message(topic: LiveTopic, happening: Happening, shown: CommentResponse | None) -> Message:
    event = happening.event
    data = CommentEvent(
        event_id=event.id,
        kind=KINDS[event.kind],
        article_id=event.article_id,
        comment_id=event.comment_id,
        thread_id=int(event.thread_id),
        occurred_at=event.occurred_at,
        comment=shown,
    )
    return Message(topic, "comment", happening.cursor, data.model_dump_json().encode())
