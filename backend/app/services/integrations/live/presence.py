"""Presence: who has an article or its draft open for editing, in all processes.

Each process tells the others with NOTIFY who edits through its sockets, and repeats it. What a
process said is forgotten when it is silent for EXPIRY_SECONDS (decision 0066).
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import bindparam, func, select

from app.auth.identity import Identity
from app.core import clock
from app.db.reading import Reader
from app.services.integrations.live.connections import Connection

CHANNEL = "pressroom_presence"
REPEAT_SECONDS = 10.0
EXPIRY_SECONDS = 30.0
MAX_EDITORS = 40
"""How many editors of an article one process names. A payload has less than 8,000 bytes."""
MAX_PAYLOAD_BYTES = 7000

_NOTIFY = select(func.pg_notify(CHANNEL, bindparam("payload")))


class Editor(NamedTuple):
    """A user who edits an article."""

    user_id: int
    username: str
    since: str
    """The time in ISO 8601."""


def message(article_id: int, editors: Sequence[Mapping[str, Any]]) -> str:
    """Return the message of a socket about the editors of an article."""
    return json.dumps({"type": "presence", "article_id": article_id, "editors": editors})


class _Editing(NamedTuple):
    """An editor in a socket of this process, and the author of the article."""

    editor: Editor
    author_id: int


class _Process(NamedTuple):
    """What another process said, and when it is forgotten."""

    until: float
    articles: dict[int, list[Editor]]


class Presence:
    """The editors of articles, as this process knows them."""

    def __init__(self) -> None:
        self._process = uuid4().hex
        self._local: dict[int, dict[Connection, _Editing]] = {}
        self._others: dict[str, _Process] = {}
        self._unsaid: set[int] = set()
        self._asks = True
        self._answers = False
        self.changed: set[int] = set()
        """Articles whose editors have changed since the hub looked."""

    def set_editing(
        self, connection: Connection, identity: Identity, article_id: int, *, author_id: int
    ) -> None:
        """Note that a user has an article of `author_id` open."""
        editor = Editor(identity.id, identity.username, clock.now().isoformat())
        editors = self._local.setdefault(article_id, {})
        editors.setdefault(connection, _Editing(editor, author_id))
        self._note(article_id)

    def unset_editing(self, connection: Connection, article_id: int) -> None:
        """Note that the user no longer has the article open in this socket."""
        editors = self._local.get(article_id, {})
        if editors.pop(connection, None) is not None:
            self._note(article_id)
            if not editors:
                del self._local[article_id]

    def leave(self, connection: Connection) -> None:
        """Note that a socket has ended."""
        for article_id in [each for each, found in self._local.items() if connection in found]:
            self.unset_editing(connection, article_id)

    def check(self, connection: Connection, may_edit: Callable[[int], bool]) -> None:
        """Forget the articles in a socket that its user may no longer edit.

        `may_edit` gets the id of an author.
        """
        for article_id, found in list(self._local.items()):
            if connection in found and not may_edit(found[connection].author_id):
                self.unset_editing(connection, article_id)

    def edited_by(self, connection: Connection) -> int:
        """Return how many articles are open in a socket."""
        return sum(connection in found for found in self._local.values())

    def editors(self, article_id: int) -> list[Mapping[str, Any]]:
        """Return the editors of an article: each user once, the earliest first."""
        found = self._here(article_id)
        for process in self._others.values():
            found += process.articles.get(article_id, ())
        unique: dict[int, Editor] = {}
        for editor in sorted(found, key=lambda each: each.since):
            unique.setdefault(editor.user_id, editor)
        return [editor._asdict() for editor in unique.values()]

    def receive(self, payload: str, now: float) -> None:
        """Take over what a process said at `now`, by the clock of the event loop."""
        said = json.loads(payload)
        name = said["process"]
        if name == self._process:
            return
        self._answers = self._answers or said["asks"]
        articles = {} if name not in self._others else self._others[name].articles
        for key, editors in said["articles"].items():
            self._set(articles, int(key), [Editor(*each) for each in editors])
        self._others[name] = _Process(now + EXPIRY_SECONDS, articles)

    def _set(self, articles: dict[int, list[Editor]], article_id: int, new: list[Editor]) -> None:
        if articles.get(article_id, []) != new:
            self.changed.add(article_id)
        if new:
            articles[article_id] = new
        else:
            articles.pop(article_id, None)

    def forget_silent(self, now: float) -> None:
        """Forget processes that have ended without a word."""
        for name in [each for each, process in self._others.items() if process.until < now]:
            self.changed.update(self._others.pop(name).articles)

    def repeat(self, *, asks: bool = False) -> None:
        """Say everything again, and ask the others to do so."""
        self._unsaid.update(self._local)
        self._asks = self._asks or asks

    async def say(self, reader: Reader) -> None:
        """Tell the other processes what is new."""
        if self._answers:
            self._answers = False
            self.repeat()
        if not self._unsaid and not self._asks:
            return
        said, self._unsaid = self._unsaid, set()
        asks, self._asks = self._asks, False
        try:
            for payload in self._payloads(said, asks=asks):
                await reader.execute(_NOTIFY, {"payload": payload})
        except BaseException:
            self._unsaid |= said
            self._asks = self._asks or asks
            raise

    def _payloads(self, article_ids: Iterable[int], *, asks: bool) -> Iterable[str]:
        articles: dict[int, list[Editor]] = {}
        size = 0
        for article_id in article_ids:
            editors = self._here(article_id)[:MAX_EDITORS]
            size += len(json.dumps(editors)) + 30
            if articles and size > MAX_PAYLOAD_BYTES:
                yield self._payload(articles, asks=asks)
                articles, size = {}, len(json.dumps(editors)) + 30
            articles[article_id] = editors
        if articles or asks:
            yield self._payload(articles, asks=asks)

    def _payload(self, articles: Mapping[int, list[Editor]], *, asks: bool) -> str:
        return json.dumps({"process": self._process, "asks": asks, "articles": articles})

    def _here(self, article_id: int) -> list[Editor]:
        return [each.editor for each in self._local.get(article_id, {}).values()]

    def _note(self, article_id: int) -> None:
        self._unsaid.add(article_id)
        self.changed.add(article_id)
