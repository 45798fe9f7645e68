"""What the readers of other systems' exports share: how their values become a record's."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote, unquote

from app.core.text import normalize_text, slugify, tag_key
from app.schemas.article import MAX_EXCERPT, MAX_TAGS
from app.services.bulk.ndjson import AuthorOf
from app.services.bulk.records import MAX_RECORD_BYTES, Incoming, Position, incoming

MAX_TITLE = 200
MAX_TAG = 50
MAX_BETWEEN = 8 * MAX_RECORD_BYTES
"""Bytes of a file that are read without a record coming to its end."""

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_IMAGE = re.compile(r"https?://[!#-;=?-~]+|/[!#-.0-;=?-~][!#-;=?-~]*")
_MARKUP = re.compile(r"<[^<>]*+>")

Advance = Callable[[int], None]
"""Told how far a source was read since it was told last: bytes, or files."""


class ForeignAuthor(NamedTuple):
    """An author as another system knows them; `handle` is what its posts call them."""

    handle: str
    username: str = ""
    email: str = ""
    name: str = ""


class Survey(NamedTuple):
    """What a source holds besides what it imports."""

    authors: Sequence[ForeignAuthor] = ()
    left_out: Mapping[str, int] = {}
    """What is no article, and how many of it there are."""
    found: Any = None
    """What the reader has to know of the whole before it reads the first article."""


class SourceError(Exception):
    """A source cannot be read, or not any further; the message says why."""


class Source:
    """A file that says how far it was read, and refuses to be read without end."""

    def __init__(self, path: Path, advance: Advance) -> None:
        self._file = path.open("rb")
        self._advance = advance
        self._between = 0

    def read(self, size: int = 65536) -> bytes:
        """Raises SourceError where no record has come to its end for far too long."""
        chunk = self._file.read(size)
        self._between += len(chunk)
        if self._between > MAX_BETWEEN:
            raise SourceError(f"A record is larger than {MAX_BETWEEN} bytes")
        self._advance(len(chunk))
        return chunk

    def record_ended(self) -> None:
        """What follows is another record."""
        self._between = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


class Draft:
    """A record in the making: its fields, and notes on what could not be taken over as it was."""

    def __init__(self, position: Position) -> None:
        self.position = position
        self.fields: dict[str, Any] = {}
        self.notes: list[str] = []
        self.wish = ""

    def say(self, **fields: Any) -> None:
        """Set the fields that have a value."""
        self.fields |= {name: value for name, value in fields.items() if value not in ("", None)}

    def titled(self, text: str) -> None:
        """Set the title, as one line that is not too long."""
        title = normalize_text(_printable(text))
        if len(title) > MAX_TITLE:
            self.notes.append(f"title: cut to {MAX_TITLE} characters")
            title = title[: MAX_TITLE - 1].rstrip() + "…"
        self.fields["title"] = title

    def named(self, text: str) -> None:
        """Set the slug; one that could not be ours is what another is made from."""
        slug = unquote(text)
        if _SLUG.fullmatch(slug) and len(slug) <= 100:
            self.fields["slug"] = slug
        elif slug:
            self.wish = slugify(slug)

    def summed_up(self, text: str) -> None:
        """Set the excerpt, without markup, as one line that is not too long."""
        excerpt = normalize_text(_printable(_MARKUP.sub(" ", text)))
        if len(excerpt) > MAX_EXCERPT:
            self.notes.append(f"excerpt: cut to {MAX_EXCERPT} characters")
            excerpt = excerpt[: MAX_EXCERPT - 1].rstrip() + "…"
        self.say(excerpt=excerpt)

    def covered(self, url: str) -> None:
        """Set the picture, percent-encoded where it has to be."""
        address = quote(url.strip(), safe="!#$%&'()*+,-./:;=?@[]_~")
        if _IMAGE.fullmatch(address) and len(address) <= 2000:
            self.fields["cover_image_url"] = address
        elif address:
            self.notes.append("cover_image_url: left out, it is no address of a picture")

    def tagged(self, names: Iterable[str]) -> None:
        """Set the tags: each once, no more than there may be."""
        tags: dict[str, str] = {}
        for name in names:
            tag = normalize_text(_printable(name))[:MAX_TAG].strip()
            if slugify(tag, fallback="") and (key := tag_key(tag)):
                tags.setdefault(key, tag)
        if len(tags) > MAX_TAGS:
            self.notes.append(f"tags: the first {MAX_TAGS} of {len(tags)}")
        self.fields["tags"] = list(tags.values())[:MAX_TAGS]

    def spoken(self, language: str) -> None:
        """Set the language, however it is written."""
        self.say(language=language.strip())

    def done(self, *, author: str, author_of: AuthorOf, identity: str = "") -> Incoming:
        """The record."""
        self.say(author=author_of(author))
        return incoming(
            self.position,
            self.fields,
            identity=identity,
            wish=self.wish,
            note="; ".join(self.notes),
        )


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def clean(text: str) -> str:
    """A text without the control characters that no text of ours may have."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "", text)


def moment(value: Any) -> str | None:
    """A date as exports write it, as a record's; without an offset it is UTC. None: no date."""
    if isinstance(value, bool) or value in (None, ""):
        return None
    try:
        if isinstance(value, int | float):  # Ghost wrote milliseconds once
            value = datetime.fromtimestamp(value / 1000 if value > 10**11 else value, UTC)
        elif isinstance(value, str):
            value = datetime.fromisoformat(value.strip().replace(" UTC", "Z"))
        elif not isinstance(value, datetime) and isinstance(value, date):
            value = datetime.combine(value, time())
        if not isinstance(value, datetime):
            return str(value)
        at = value if value.tzinfo else value.replace(tzinfo=UTC)
        return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return str(value)  # the record then says what a date looks like
