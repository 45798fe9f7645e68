"""Changes of articles, for all and for followers: the entries of the change feed."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, any_, bindparam, func, select

from app.core.enums import LiveTopic
from app.db.reading import Reader
from app.models.articles.article import Article
from app.models.community.follow import Follow
from app.schemas.articles.change import ChangeResponse
from app.services.articles import changes
from app.services.integrations.live.connections import Subscription
from app.services.integrations.live.messages import Message

TOPICS = frozenset({LiveTopic.CHANGES, LiveTopic.FEED})
PAGE = 200

_FOLLOWERS = select(
    Article.id,
    func.array(
        select(Follow.follower_id)
        .where(
            Follow.followed_id == Article.author_id,
            Follow.follower_id == any_(bindparam("users", type_=ARRAY(BigInteger))),
        )
        .correlate(Article)
        .scalar_subquery()
    ).label("followers"),
).where(Article.id == any_(bindparam("ids", type_=ARRAY(BigInteger))))


class Change(NamedTuple):
    """An entry of the change feed, and its number."""

    seq: int
    entry: ChangeResponse


class ChangesPosition:
    """A position in the change feed. `read` moves it."""

    topics = TOPICS

    def __init__(self, seq: int, generation: UUID | None) -> None:
        self._seq, self._generation = seq, generation
        self.has_more = False
        """Whether there may be more than the last page."""

    @classmethod
    async def latest(cls, reader: Reader) -> Self:
        """Return the end of the feed."""
        generation = await changes.read_generation(reader)
        return cls(await changes.read_last(reader), generation)

    @classmethod
    async def after(cls, reader: Reader, cursor: str) -> Self:
        """Return the position of a cursor. Raises InvalidCursor."""
        generation = await changes.read_generation(reader)
        return cls(changes.decode_position(cursor, generation), generation)

    @property
    def cursor(self) -> str:
        """The cursor of the position."""
        return changes.encode_position(self._seq, self._generation)

    async def read(self, reader: Reader) -> Sequence[Change]:
        """Return the next entries."""
        found = await changes.read_after(
            reader, after=self._seq, limit=PAGE, generation=self._generation
        )
        self.has_more = len(found) == PAGE
        if found:
            self._seq = found[-1][0]
        return [Change(*each) for each in found]

    def has_read(self, change: Change) -> bool:
        """Return whether this position is after an entry."""
        return change.seq <= self._seq


async def find_audience(
    reader: Reader, changes: Sequence[Change], subscriptions: Sequence[Subscription]
) -> Callable[[Subscription], tuple[Message, ...]]:
    """Return a function that returns the messages of a subscription. Runs one query at most.

    Entries of articles that no longer exist are sent to all feeds: their authors are unknown.
    """
    users = {
        each.connection.identity.id
        for each in subscriptions
        if each.topic is LiveTopic.FEED and each.connection.identity is not None
    }
    followers: dict[int, frozenset[int]] = {}
    if users:
        ids = list({change.entry.article_id for change in changes})
        rows = await reader.execute(_FOLLOWERS, {"users": list(users), "ids": ids})
        followers = {row.id: frozenset(row.followers) for row in rows}
    messages = {topic: [_message(topic, change.entry) for change in changes] for topic in TOPICS}
    everything = tuple(messages[LiveTopic.CHANGES])

    def messages_of(subscription: Subscription) -> tuple[Message, ...]:
        known: ChangesPosition | None = subscription.known
        is_new = known is None or not known.has_read(changes[0])
        if subscription.topic is LiveTopic.CHANGES and is_new:
            return everything
        identity = subscription.connection.identity
        user_id = 0 if identity is None else identity.id
        return tuple(
            message
            for change, message in zip(changes, messages[subscription.topic], strict=True)
            if (known is None or not known.has_read(change))
            and (
                subscription.topic is LiveTopic.CHANGES
                or user_id in followers.get(change.entry.article_id, {user_id})
            )
        )

    return messages_of


def _message(topic: LiveTopic, entry: ChangeResponse) -> Message:
    return Message(topic, "change", entry.cursor, entry.model_dump_json().encode())
