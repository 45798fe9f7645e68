"""The open streams and sockets of this process, and what is sent to them.

One connection to PostgreSQL listens. Each notification only says that there are new rows. Tasks
read the rows once for all subscribers, and queue messages for them. So nothing is lost while the
connection is down: afterwards, the rows are still there.

Nothing runs while no stream or socket is open.
"""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from app.auth.identity import Identity, find_valid
from app.auth.permissions import Action, may, require
from app.core import clock, metrics
from app.core.enums import LiveTopic
from app.core.errors import (
    NotAuthenticated,
    PressroomError,
    ServerStopping,
    SlowReader,
    StreamsFull,
    TokenExpired,
    TokenRevoked,
    TooManyConnections,
)
from app.core.logging import get_logger
from app.db.reading import Reader
from app.db.session import Database
from app.models.integrations.event import EVENTS_CHANNEL
from app.services.community.comments.rows import get_commented_article
from app.services.integrations.live import changes, comments, presence
from app.services.integrations.live.connections import (
    Chunk,
    Connection,
    Subscription,
)
from app.services.integrations.live.messages import Batch, Closing, Message

logger = get_logger(__name__)

SESSIONS_CHANNEL = "pressroom_sessions"
"""The channel whose payload is the id of a user whose sessions, keys or role have changed."""
POLL_SECONDS = 2.0
"""How often new rows are looked for without a notification."""
SECONDS_PER_SUBSCRIBER = 0.0005
MIN_INTERVAL, MAX_INTERVAL = 0.02, 1.0
"""The time of a batch. It grows with the subscribers, so that requests have their turn."""
SLICE = 10
"""Subscribers that get a batch at once. The slices are spread over half of its time."""
CHECK_SECONDS = 30.0
"""How often the sessions and keys of all connections are read again."""
PING_SECONDS = 10.0
"""How often the listening connection is tried."""
STUCK_SECONDS = 30.0
"""How long a client may take to receive a chunk."""
MAX_BACKOFF_SECONDS = 30.0
RETRY_MS = (1_000, 15_000)
"""The range of the time after which clients come back. It spreads their reconnects."""

Position: TypeAlias = changes.ChangesPosition | comments.CommentsPosition
Audience: TypeAlias = Callable[[Subscription], tuple[Message, ...]]


class _Source(NamedTuple):
    """Where the messages of some topics come from."""

    position: type[Any]
    find_audience: Callable[..., Any]


SOURCES = (
    _Source(changes.ChangesPosition, changes.find_audience),
    _Source(comments.CommentsPosition, comments.find_audience),
)
SOURCE_OF = {topic: source for source in SOURCES for topic in source.position.topics}


class _Feed:
    """The subscriptions of a source, and the position up to which they got everything."""

    def __init__(self, source: _Source) -> None:
        self.source = source
        self.position: Any = None
        """None while there are no subscriptions."""
        self.subscriptions: dict[Subscription, None] = {}
        self.pending: Sequence[Any] = ()
        """What was read, but not passed on yet."""
        self.batches = 0
        """How many batches were passed on. It tells whether one was in the meantime."""
        self.passes = 0
        """How many times everything new was passed on, also if there was nothing."""
        self.cursor = ""
        """The cursor after the last of these times."""
        self.lock = asyncio.Lock()


async def check_subscription(
    reader: Reader, *, viewer: Identity | None, topic: LiveTopic, article_id: int | None
) -> None:
    """Check whether `viewer` may subscribe. Raises NotAuthenticated, ArticleNotFound."""
    if topic is LiveTopic.COMMENTS and article_id is not None:
        await get_commented_article(reader, article_id=article_id, viewer=viewer)
    elif topic is not LiveTopic.CHANGES and viewer is None:
        raise NotAuthenticated


async def find_position(reader: Reader, *, topic: LiveTopic, cursor: str) -> Position | None:
    """Return the position of a cursor on the primary; None without one. Raises InvalidCursor."""
    if not cursor:
        return None
    position: Position = await SOURCE_OF[topic].position.after(reader, cursor)
    return position


class Live:
    """The streams and sockets of one process."""

    def __init__(self, *, max_connections: int, max_per_user: int) -> None:
        self._max_connections, self._max_per_user = max_connections, max_per_user
        self._database: Database | None = None
        self._connections: dict[Connection, None] = {}
        self._by_user: dict[int, dict[Connection, None]] = defaultdict(dict)
        self._kinds = Counter[str]()
        self._arriving = 0
        self._feeds = {source: _Feed(source) for source in SOURCES}
        self._watching: dict[int, dict[Connection, int]] = defaultdict(dict)
        """Who sees the editors of an article; the value is the id of its author."""
        self.presence = presence.Presence()
        self._tasks: list[asyncio.Task[None]] = []
        self._delivery: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._unchecked: set[int] = set()
        self._checks_all = False
        self._checking = asyncio.Lock()
        self._lost_at: float | None = None
        self.is_draining = False

    # --- the life of the process

    @asynccontextmanager
    async def serving(self, database: Database) -> AsyncIterator[None]:
        """Accept connections while the block runs."""
        self._database, self.is_draining = database, False
        try:
            yield
        finally:
            self.drain()
            await self._stop()
            self._database = None

    def drain(self) -> None:
        """End all connections, because the server stops. New ones end at once."""
        self.is_draining = True
        for connection in list(self._connections):
            connection.close(closing_for(ServerStopping(), "shutdown"))

    @property
    def is_open(self) -> bool:
        """Whether connections stay open."""
        return self._database is not None and not self.is_draining

    @property
    def connections(self) -> int:
        """The number of open connections, also of sockets that have not authenticated yet."""
        return len(self._connections) + self._arriving

    @property
    def database(self) -> Database:
        """The database. Raises ServerStopping while the process does not serve."""
        if self._database is None:
            raise ServerStopping
        return self._database

    # --- connections

    @contextmanager
    def connected(self, connection: Connection, *, expires: float | None) -> Iterator[None]:
        """Keep a connection while the block runs. `expires` is the Unix time of its token's end.

        Raises StreamsFull, TooManyConnections.
        """
        identity = connection.identity
        if len(self._connections) >= self._max_connections:
            _count_closed("full")
            raise StreamsFull
        if identity is not None and len(self._by_user.get(identity.id, ())) >= self._max_per_user:
            _count_closed("too_many")
            raise TooManyConnections
        self._connections[connection] = None
        if identity is not None:
            self._by_user[identity.id][connection] = None
        self.renew(connection, expires)
        self._start()
        self._kinds[connection.kind] += 1
        self._measure()
        try:
            yield
        finally:
            self._forget(connection)

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Count a socket that has not authenticated yet. Raises StreamsFull."""
        if self.connections >= self._max_connections:
            _count_closed("full")
            raise StreamsFull
        self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1

    def renew(self, connection: Connection, expires: float | None) -> None:
        """Let a connection stay open until the Unix time `expires`."""
        if expires is not None:
            seconds = expires - clock.now().timestamp()
            connection.expire_in(seconds, lambda: closing_for(TokenExpired(), "expired"))

    def _forget(self, connection: Connection) -> None:
        del self._connections[connection]
        self._kinds[connection.kind] -= 1
        if connection.identity is not None:
            user_id = connection.identity.id
            self._by_user[user_id].pop(connection, None)
            if not self._by_user[user_id]:
                del self._by_user[user_id]
        for subscription in list(connection.subscriptions):
            self.unsubscribe(subscription)
        for article_id in [each for each, found in self._watching.items() if connection in found]:
            self.unwatch(connection, article_id)
        self.presence.leave(connection)
        self._wake.set()
        connection.discard()
        if connection.closing is not None:
            _count_closed(connection.closing.name)
        self._measure()
        if not self._connections:
            for task in self._tasks:
                task.cancel()

    # --- subscriptions

    async def catch_up(
        self, subscription: Subscription, position: Position | None
    ) -> AsyncIterator[Sequence[Message]]:
        """Yield what happened after a position. Afterwards, the subscription gets what is new.

        A page may have nothing for the subscriber.
        Without a position, it gets what happens from now on; the cursor of the subscription is
        yielded as a message without data.
        """
        feed = self._feeds[SOURCE_OF[subscription.topic]]
        reader = self.database.primary
        feed.subscriptions[subscription] = None
        async with feed.lock:
            if feed.position is None:
                feed.position = await feed.source.position.latest(reader)
        if position is None:
            subscription.is_live, subscription.since = True, feed.passes
            yield [Message(subscription.topic, "", feed.position.cursor, b"")]
        while position is not None and not subscription.is_live:
            batches = feed.batches
            found = await position.read(reader)
            if found:
                await self.database.replicated()
                await self._check_identities(reader)
                audience = await feed.source.find_audience(reader, found, [subscription])
                yield audience(subscription)
            # No batch was passed on meanwhile: the next ones have everything after this position.
            if not position.has_more and feed.batches == batches:
                subscription.known, subscription.is_live = position, True
                subscription.since = feed.passes
        self._wake.set()

    def cursor_of(self, subscription: Subscription) -> str | None:
        """Return a cursor up to which the subscriber has everything; None if none is known.

        The second pass after the start began later, so it is not behind what was caught up.
        """
        feed = self._feeds[SOURCE_OF[subscription.topic]]
        return feed.cursor if feed.passes >= subscription.since + 2 else None

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription."""
        subscription.connection.subscriptions.remove(subscription)
        feed = self._feeds[SOURCE_OF[subscription.topic]]
        feed.subscriptions.pop(subscription, None)
        if not feed.subscriptions:
            feed.position, feed.pending = None, ()

    # --- presence

    async def find_owner(self, viewer: Identity, article_id: int) -> int:
        """Return the author of an article that `viewer` may change.

        Raises ArticleNotFound, NotAuthorized.
        """
        reader = self.database.reader
        article = await get_commented_article(reader, article_id=article_id, viewer=viewer)
        require(viewer, Action.CHANGE_ARTICLE, owner_id=article.author_id)
        return article.author_id

    def watch(self, connection: Connection, article_id: int, owner_id: int) -> None:
        """Send the editors of an article now, and when they change."""
        self._watching[article_id][connection] = owner_id
        self.presence.changed.add(article_id)
        self._wake.set()

    def unwatch(self, connection: Connection, article_id: int) -> None:
        """Send the editors of an article no longer."""
        self._watching[article_id].pop(connection, None)
        if not self._watching[article_id]:
            del self._watching[article_id]

    def watched_by(self, connection: Connection) -> int:
        """Return of how many articles a socket sees the editors."""
        return sum(connection in found for found in self._watching.values())

    def set_editing(self, connection: Connection, article_id: int, *, owner_id: int | None) -> None:
        """Note that a user has an article of `owner_id` open in a socket; None: no longer."""
        if connection.identity is not None and owner_id is not None:
            self.presence.set_editing(
                connection, connection.identity, article_id, author_id=owner_id
            )
        else:
            self.presence.unset_editing(connection, article_id)
        self._wake.set()

    # --- tasks, while there are connections

    def _start(self) -> None:
        database = self.database
        if not self._tasks or self._tasks[0].cancelling() or self._tasks[0].done():
            self._tasks = [
                asyncio.create_task(self._listen(database), name="live listener"),
                asyncio.create_task(self._watch_clients(), name="live clients"),
            ]
        if self._delivery is None or self._delivery.done():
            self._delivery = asyncio.create_task(self._deliver(database), name="live delivery")

    async def _stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if self._delivery is not None:
            self._delivery.cancel()
            tasks.append(self._delivery)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, database: Database) -> None:
        loop = asyncio.get_running_loop()
        handlers = {
            EVENTS_CHANNEL: self._note_events,
            SESSIONS_CHANNEL: self._note_user,
            presence.CHANNEL: self._note_presence,
        }
        failures = 0
        while True:
            with suppress(PressroomError):
                async with database.listening(handlers) as listener:
                    self._lost_at, failures = None, 0
                    self._checks_all = True
                    self.presence.repeat(asks=True)
                    self._wake.set()
                    while True:
                        await listener.check(PING_SECONDS)
            if self._lost_at is None:
                self._lost_at = loop.time()
                logger.warning("the connection that listens for events is lost")
            failures += 1
            longest = min(2.0 ** min(failures, 6) / 4, MAX_BACKOFF_SECONDS)
            await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - not a secret

    def _note_events(self, payload: str) -> None:
        self._wake.set()

    def _note_user(self, payload: str) -> None:
        if payload.isdigit() and int(payload) in self._by_user:
            self._unchecked.add(int(payload))
            self._wake.set()

    def _note_presence(self, payload: str) -> None:
        with suppress(ValueError, LookupError, TypeError):  # of another release
            self.presence.receive(payload, asyncio.get_running_loop().time())
        self._wake.set()

    async def _deliver(self, database: Database) -> None:
        loop = asyncio.get_running_loop()
        checked_at = repeated_at = loop.time()
        has_failed = False
        while self._connections:  # not cancelled, so that no query is interrupted
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            now = loop.time()
            if now - checked_at > CHECK_SECONDS:
                checked_at, self._checks_all = now, True
            if now - repeated_at > presence.REPEAT_SECONDS:
                repeated_at = now
                self.presence.repeat()
            self.presence.forget_silent(now)
            try:
                await self._check_identities(database.primary)
                await self._pass_on(database.primary)
                self._send_presence()
                await self.presence.say(database.primary)
            except PressroomError:
                await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311 - not a secret
                self._wake.set()
            except Exception:
                if not has_failed:
                    logger.exception("delivery to streams failed")
                has_failed = True
                await asyncio.sleep(POLL_SECONDS)
            self._measure()
            next_at = now + max(self._interval(), MIN_INTERVAL)
            await asyncio.sleep(max(next_at - loop.time(), 0))

    async def _pass_on(self, reader: Reader) -> None:
        for feed in self._feeds.values():
            position = feed.position
            if position is None:
                continue
            found = feed.pending = feed.pending or await position.read(reader)
            if position.has_more:
                self._wake.set()
            if not found:
                feed.passes, feed.cursor = feed.passes + 1, position.cursor
                continue
            await self.database.replicated()  # who hears of a change can read it
            await self._check_identities(reader)  # roles may have changed before these events
            subscriptions = [each for each in feed.subscriptions if each.is_live]
            feed.batches += 1
            audience = await feed.source.find_audience(reader, found, subscriptions)
            feed.pending, cursor = (), position.cursor
            await self._send(subscriptions, audience)
            feed.passes, feed.cursor = feed.passes + 1, cursor
            _observe(found)

    def _interval(self) -> float:
        return min(SECONDS_PER_SUBSCRIBER * len(self._connections), MAX_INTERVAL)

    async def _send(self, subscriptions: Sequence[Subscription], audience: Audience) -> None:
        batches: dict[tuple[Message, ...], Batch] = {}
        pause = self._interval() / 2 * SLICE / max(len(subscriptions), 1)
        for number, subscription in enumerate(subscriptions, 1):
            if messages := audience(subscription):
                batch = batches.get(messages)
                if batch is None:
                    batch = batches[messages] = Batch(messages)
                if not subscription.connection.push(batch):
                    self._drop(subscription.connection)
            if number % SLICE == 0:
                await asyncio.sleep(pause)

    def _drop(self, connection: Connection) -> None:
        connection.close(closing_for(SlowReader(), "slow"))
        connection.abort()

    async def _check_identities(self, reader: Reader) -> None:
        """Read changed users again. Returns after a check that is in progress, too."""
        async with self._checking:
            await self._read_identities(reader)

    async def _read_identities(self, reader: Reader) -> None:
        unchecked, self._unchecked = self._unchecked, set()
        checks_all, self._checks_all = self._checks_all, False
        users = list(self._by_user) if checks_all else [u for u in unchecked if u in self._by_user]
        connections = [each for user_id in users for each in self._by_user[user_id]]
        if not connections:
            return
        identities = [each.identity for each in connections if each.identity is not None]
        try:
            valid = await find_valid(reader, identities)
        except BaseException:
            self._unchecked |= unchecked
            self._checks_all = self._checks_all or checks_all
            raise
        for connection, identity in zip(connections, identities, strict=True):
            found = valid.get((identity.session_id, identity.api_key_id))
            if found is None:
                connection.close(closing_for(TokenRevoked(), "session_ended"))
            elif found != connection.identity:
                connection.identity = found
                self.presence.check(connection, partial(_may_edit, found))

    def _send_presence(self) -> None:
        changed, self.presence.changed = self.presence.changed, set()
        for article_id in changed:
            for connection, owner_id in list(self._watching.get(article_id, {}).items()):
                if not may(connection.identity, Action.CHANGE_ARTICLE, owner_id=owner_id):
                    self.unwatch(connection, article_id)
                elif not connection.push_chunks(self._presence_chunks(article_id)):
                    self._drop(connection)

    def _presence_chunks(self, article_id: int) -> list[Chunk]:
        return [presence.message(article_id, self.presence.editors(article_id))]

    async def _watch_clients(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(STUCK_SECONDS / 6)
            earliest = loop.time() - STUCK_SECONDS
            for connection in list(self._connections):
                if 0 < connection.sending_since < earliest:
                    self._drop(connection)

    def _measure(self) -> None:
        if (recorder := metrics.recorder()) is None:
            return
        for kind, number in self._kinds.items():
            recorder.set("pressroom_live_connections", number, kind)
        lost = self._lost_at if self._connections else None
        gap = 0.0 if lost is None else asyncio.get_running_loop().time() - lost
        recorder.set("pressroom_live_listen_gap_seconds", gap)


def _may_edit(viewer: Identity, author_id: int) -> bool:
    return may(viewer, Action.CHANGE_ARTICLE, owner_id=author_id)


def closing_for(error: PressroomError, name: str = "error") -> Closing:
    """Return the end of a connection; `name` is the label of the metrics."""
    return Closing(error, name=name, retry_ms=retry_ms())


def retry_ms() -> int:
    """Return after how many milliseconds a client comes back; different for each."""
    return random.randint(*RETRY_MS)  # noqa: S311 - not a secret


def _count_closed(reason: str) -> None:
    metrics.count("pressroom_live_closed_total", reason)


def _observe(found: Sequence[Any]) -> None:
    if (recorder := metrics.recorder()) is None:
        return
    now = clock.now()
    for each in found:
        happened = each.entry if isinstance(each, changes.Change) else each.event
        seconds = max((now - happened.occurred_at).total_seconds(), 0.0)
        recorder.observe("pressroom_live_delay_seconds", seconds)
