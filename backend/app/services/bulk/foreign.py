"""Shared parts of the parsers for other systems' exports: mapping of values to record fields."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote, unquote

from app.content.slugs import normalize_text, slugify, tag_key
from app.schemas.articles.article import MAX_EXCERPT, MAX_TAGS
from app.services.bulk.ndjson import ResolveAuthor
from app.services.bulk.records import MAX_RECORD_BYTES, ParsedRecord, Position, parse_fields

MAX_TITLE = 200
MAX_TAG = 50
MAX_PENDING_BYTES = 8 * MAX_RECORD_BYTES
"""Bytes that are read from a file without completing a record."""

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_IMAGE_URL = re.compile(r"https?://[!#-;=?-~]+|/[!#-.0-;=?-~][!#-;=?-~]*")
_MARKUP = re.compile(r"<[^<>]*+>")

Progress = Callable[[int], None]
"""Called with the number of bytes or files read since the last call."""


class SourceAuthor(NamedTuple):
    """An author in another system. Posts refer to the author by `handle`."""

    handle: str
    username: str = ""
    email: str = ""
    name: str = ""


class Survey(NamedTuple):
    """The content of a source besides its articles."""

    authors: Sequence[SourceAuthor] = ()
    skipped: Mapping[str, int] = {}
    """The number of skipped items by kind, such as pages."""
    index: Any = None
    """What the parser needs to know before it reads the first article."""


class SourceError(Exception):
    """A source cannot be read, or cannot be read further. The message contains the reason."""


class SourceFile:
    """A file that reports progress and limits the size of a record."""

    def __init__(self, path: Path, advance: Progress) -> None:
        self._file = path.open("rb")
        self._advance = advance
        self._pending = 0

    def read(self, size: int = 65536) -> bytes:
        """Read up to `size` bytes. Raises SourceError if a record exceeds MAX_PENDING_BYTES."""
        chunk = self._file.read(size)
        self._pending += len(chunk)
        if self._pending > MAX_PENDING_BYTES:
            raise SourceError(f"A record is larger than {MAX_PENDING_BYTES} bytes")
        self._advance(len(chunk))
        return chunk

    def record_ended(self) -> None:
        """Mark the end of a record."""
        self._pending = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


class RecordBuilder:
    """Collects the fields of a record, and notes about values that had to be changed."""

    def __init__(self, position: Position) -> None:
        self.position = position
        self.fields: dict[str, Any] = {}
        self.notes: list[str] = []
        self.slug_source = ""

    def set(self, **fields: Any) -> None:
        """Set the fields that are not empty."""
        self.fields |= {name: value for name, value in fields.items() if value not in ("", None)}

    def set_title(self, text: str) -> None:
        """Set the title, as a single line, truncated to MAX_TITLE characters."""
        title = normalize_text(_printable(text))
        if len(title) > MAX_TITLE:
            self.notes.append(f"title: cut to {MAX_TITLE} characters")
            title = title[: MAX_TITLE - 1].rstrip() + "…"
        self.fields["title"] = title

    def set_slug(self, text: str) -> None:
        """Set the slug. An invalid slug becomes the source of a generated slug."""
        slug = unquote(text)
        if _SLUG.fullmatch(slug) and len(slug) <= 100:
            self.fields["slug"] = slug
        elif slug:
            self.slug_source = slugify(slug)

    def set_excerpt(self, text: str) -> None:
        """Set the excerpt without markup, as a single line, truncated to MAX_EXCERPT characters."""
        excerpt = normalize_text(_printable(_MARKUP.sub(" ", text)))
        if len(excerpt) > MAX_EXCERPT:
            self.notes.append(f"excerpt: cut to {MAX_EXCERPT} characters")
            excerpt = excerpt[: MAX_EXCERPT - 1].rstrip() + "…"
        self.set(excerpt=excerpt)

    def set_cover(self, url: str) -> None:
        """Set the cover image, percent-encoded where necessary."""
        encoded = quote(url.strip(), safe="!#$%&'()*+,-./:;=?@[]_~")
        if _IMAGE_URL.fullmatch(encoded) and len(encoded) <= 2000:
            self.fields["cover_image_url"] = encoded
        elif encoded:
            self.notes.append("cover_image_url: not a valid image URL, left out")

    def set_tags(self, names: Iterable[str]) -> None:
        """Set the tags without duplicates, at most MAX_TAGS."""
        tags: dict[str, str] = {}
        for name in names:
            tag = normalize_text(_printable(name))[:MAX_TAG].strip()
            if slugify(tag, fallback="") and (key := tag_key(tag)):
                tags.setdefault(key, tag)
        if len(tags) > MAX_TAGS:
            self.notes.append(f"tags: only the first {MAX_TAGS} of {len(tags)} were imported")
        self.fields["tags"] = list(tags.values())[:MAX_TAGS]

    def set_language(self, language: str) -> None:
        """Set the language tag. `parse_fields` validates it."""
        self.set(language=language.strip())

    def build(
        self, *, author: str, resolve_author: ResolveAuthor, identity: str = ""
    ) -> ParsedRecord:
        """Return the validated record."""
        self.set(author=resolve_author(author))
        return parse_fields(
            self.position,
            self.fields,
            identity=identity,
            slug_source=self.slug_source,
            note="; ".join(self.notes),
        )


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def strip_control_characters(text: str) -> str:
    """Remove control characters, which texts of articles must not contain."""
    return re.sub(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "", text)


def parse_datetime(value: Any) -> str | None:
    """Convert an exported date to a record's date, or return None if there is none.

    Dates without an offset are UTC. Invalid dates are returned as text, so that validation
    reports them.
    """
    if isinstance(value, bool) or value in (None, ""):
        return None
    try:
        if isinstance(value, int | float):  # older versions of Ghost write milliseconds
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
        return str(value)
