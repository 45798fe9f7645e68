"""Shared parts of the parsers for other systems' exports: mapping of values to record fields."""

import html
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, tzinfo
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote, unquote

from app.content.slugs import normalize_text, slugify, tag_key
from app.core.enums import CommentPolicy
from app.schemas.articles.article import MAX_EXCERPT, MAX_TAGS
from app.schemas.bulk import MAX_IMPORTED_BYTES, MAX_OLD_PATHS
from app.schemas.bulk_comment import MAX_GUEST_NAME, MAX_GUEST_URL, MAX_IMPORTED_COMMENT
from app.schemas.types import EARLIEST
from app.services.bulk.converting.results import Converted
from app.services.bulk.dates import DateError, FoundDate, read_date
from app.services.bulk.ndjson import ResolveAuthor
from app.services.bulk.paths import old_path
from app.services.bulk.records import MAX_RECORD_BYTES, ParsedRecord, Position, parse_fields
from app.services.bulk.visibility import Reason, Restriction

MAX_TITLE = 200
MAX_TITLE_FROM_TEXT = 80
MAX_TAG = 50
EMPTY_PAGES = "pages without text"
"""Pages that only have a template, such as the list of posts."""
MAX_PENDING_BYTES = 2 * MAX_RECORD_BYTES
"""Bytes that are read from a file without completing a record."""

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_IMAGE_URL = re.compile(r"https?://[!#-;=?-~]+|/[!#-.0-;=?-~][!#-;=?-~]*")
_GUEST_URL = re.compile(r"https?://[!#-;=?-~]+")
_MARKUP = re.compile(r"<[^<>]*+>")
_WORD_MARKUP = re.compile(
    r"</?(?:em|i|b|strong|span|br|sup|sub|code|small|del|ins|mark|u|a|abbr|cite|q)\b[^<>]*+>",
    re.IGNORECASE,
)
_MARKDOWN_SYNTAX = re.compile(
    r"^\s*+(?:[#>*+-]++\s++|\d++[.)]\s++|```.*|~~~.*)|!\[([^\[\]]*+)\]\([^()]*+\)"
    r"|(?<=\])\([^()]*+\)|[*_`\[\]\\]"
)
_SENTENCE = re.compile(r"(.{10,}?[.!?…\u3002\uff01\uff1f])(?:\s|$)")

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
    site: str = ""
    """The address of the site or another name of it, if the source contains one."""
    zone: tzinfo | None = None
    """The time zone of the site."""
    left_out: Mapping[str, int] = {}
    """The number of things that are neither records nor imported, by kind in the plural."""
    problems: Sequence[str] = ()
    """What is wrong with the source as a whole."""
    hosts: AbstractSet[str] = frozenset()
    """The hosts of the media files."""
    index: Any = None
    """What the parser needs to know before it reads the first article."""


class ReadOptions(NamedTuple):
    """How a source is read."""

    now: datetime
    zone: tzinfo = UTC
    """The zone of dates without one."""
    publish_restricted: bool = False
    """Whether to publish what only some readers could read."""
    site: str = ""
    """The address of the site, for sources that do not contain it."""


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

    def __init__(self, position: Position, options: ReadOptions) -> None:
        self.position = position
        self.options = options
        self.fields: dict[str, Any] = {}
        self._notes: dict[str, None] = {}
        self.source_id = ""
        self.is_own = False
        self.former_name = ""
        self.is_former_name_unique = False
        self.slug_source = ""
        self._source_slug = ""
        self._imported: dict[str, Any] = {}
        self._old_paths: dict[str, None] = {}
        self._parts: Counter[str] = Counter()
        self._comments: list[dict[str, Any]] = []
        self._restrictions: dict[str, Reason] = {}
        self._published_at: datetime | None = None
        self.created_at: datetime | None = None

    def set(self, **fields: Any) -> None:
        """Set the fields that are not empty."""
        self.fields |= {name: value for name, value in fields.items() if value not in ("", None)}

    def note(self, note: str) -> None:
        """Add a note for the author, once."""
        if note:
            self._notes[note] = None

    def set_title(self, text: str) -> None:
        """Set the title, as a single line, truncated to MAX_TITLE characters."""
        title = normalize_text(_printable(text))
        if len(title) > MAX_TITLE:
            self.note(f"title: cut to {MAX_TITLE} characters")
            title = title[: MAX_TITLE - 1].rstrip() + "…"
        self.set(title=title)

    def set_content(self, converted: Converted) -> None:
        """Set the content, with the notes of its conversion."""
        self.fields["content"] = strip_control_characters(converted.markdown)
        for note in converted.notes:
            self.note(note)
        if converted.has_restricted_parts:
            gate = f" ({converted.gate})" if converted.gate else ""
            self.restrict(Reason.RESTRICTED, f"parts of the text were for members only{gate}")

    def set_slug(self, text: str) -> None:
        """Set the slug. An invalid slug becomes the source of a generated slug."""
        slug = unquote(text)
        if _SLUG.fullmatch(slug) and len(slug) <= 100 and not slug.isdigit():
            self.fields["slug"] = slug
        elif slug:
            self._source_slug = slug
            self.slug_source = slugify(slug)

    def add_old_address(self, *addresses: str) -> None:
        """Add addresses of the article in the old system."""
        for address in addresses:
            if path := old_path(address):
                self._old_paths[path] = None

    @property
    def old_paths(self) -> list[str]:
        """The old addresses so far, as paths."""
        return list(self._old_paths)

    def set_excerpt(self, text: str) -> None:
        """Set the excerpt without markup, as a single line, truncated to MAX_EXCERPT characters."""
        excerpt = normalize_text(_printable(html.unescape(_MARKUP.sub(" ", text))))
        if len(excerpt) > MAX_EXCERPT:
            self.note(f"excerpt: cut to {MAX_EXCERPT} characters")
            excerpt = excerpt[: MAX_EXCERPT - 1].rstrip() + "…"
        self.set(excerpt=excerpt)

    def set_cover(self, url: str) -> None:
        """Set the cover image, percent-encoded where necessary."""
        encoded = quote(url.strip(), safe="!#$%&'()*+,-./:;=?@[]_~")
        encoded = f"https:{encoded}" if encoded.startswith("//") else encoded
        if _IMAGE_URL.fullmatch(encoded) and len(encoded) <= 2000:
            self.fields["cover_image_url"] = encoded
        elif encoded:
            self.note(f"cover image: {url[:100]!r} is not an image URL, left out")
            self.keep("cover_image", url)

    def set_tags(self, names: Iterable[str]) -> None:
        """Set the tags without duplicates, at most MAX_TAGS."""
        tags: dict[str, str] = {}
        for name in names:
            tag = normalize_text(_printable(name))[:MAX_TAG].strip()
            if slugify(tag, fallback="") and (key := tag_key(tag)):
                tags.setdefault(key, tag)
        if len(tags) > MAX_TAGS:
            self.note(f"tags: only the first {MAX_TAGS} of {len(tags)} were imported")
        self.fields["tags"] = list(tags.values())[:MAX_TAGS]

    def set_language(self, language: str) -> None:
        """Set the language tag. `parse_fields` validates it."""
        self.set(language=language.strip())

    def keep(self, name: str, value: Any) -> None:
        """Keep a value for which an article has no field, in `imported`."""
        if value not in (None, "", [], {}):
            self._imported[name] = value

    def leave_out(self, kind: str, count: int = 1) -> None:
        """Count parts of the record that are not imported. `kind` is in the plural."""
        if count:
            self._parts[kind] += count

    def keep_number(self, name: str, value: Any) -> None:
        """Keep a number other than 0, which may be a text."""
        text = str(value).strip()
        if re.fullmatch(r"-?[0-9]{1,9}", text) and int(text):
            self.keep(name, int(text))

    def set_page(self) -> None:
        """Mark the record as a page: a draft, because articles appear in lists and feeds."""
        self.keep("page", True)
        self.restrict(Reason.PAGE, "it is a page of the site")

    def set_further_authors(self, names: Iterable[str]) -> None:
        """Keep the names of further authors. An article has one."""
        if shown := list(dict.fromkeys(filter(None, names))):
            self.note(f"an article has one author, not imported as authors: {', '.join(shown)}")
            self.keep("further_authors", shown)

    def set_comments_closed(self) -> None:
        """Let the article accept no comments."""
        self.fields["comment_policy"] = CommentPolicy.CLOSED

    def add_comment(self, **fields: Any) -> None:
        """Add a comment, with the fields of a CommentRecord. Empty ones are left out."""
        content = fields.get("content", "")
        if not content.strip():
            self.leave_out("empty comments")
        elif len(content) > MAX_IMPORTED_COMMENT:
            self.leave_out(f"comments with more than {MAX_IMPORTED_COMMENT} characters")
        else:
            name = normalize_text(_printable(without_html(fields.pop("name", ""))))
            fields["name"] = name[:MAX_GUEST_NAME].strip()
            if url := fields.pop("url", "").strip():
                url = quote(url, safe="!#$%&'()*+,-./:;=?@[]_~")
                is_usable = _GUEST_URL.fullmatch(url) and len(url) <= MAX_GUEST_URL
                fields["url"] = url if is_usable else ""
            for field in ("created_at", "edited_at"):
                at = fields.get(field)
                fields[field] = None if at is None else _text_of(at)
            kept = {key: value for key, value in fields.items() if value not in ("", None)}
            self._comments.append(kept)

    def read_date(
        self, name: str, value: Any, *, zone: tzinfo | None = None, publishes: bool = False
    ) -> datetime | None:
        """Return a date of the source, or None and a note if it cannot be used.

        A date that publishes the article hides it if it cannot be read: it may be in the future.
        """
        try:
            found = read_date(value, zone or self.options.zone)
        except DateError as error:
            if publishes:
                self.restrict(Reason.UNFINISHED, f"{name}: {error}")
            else:
                self.note(f"{name}: {error}")
            return None
        return self._usable(name, found)

    def _usable(self, name: str, found: FoundDate | None) -> datetime | None:
        if found is None:
            return None
        if found.note:
            self.note(f"{name}: {found.note}")
        if found.at < EARLIEST:
            self.note(f"{name}: {found.at:%Y-%m-%d} is before 1970 and was left out")
            self.keep(name, found.at.isoformat())
            return None
        return found.at

    def set_dates(self, *, created: datetime | None, updated: datetime | None) -> None:
        """Set the dates of creation and of the last change."""
        self.created_at = created
        self.set(
            created_at=None if created is None else _text_of(created),
            updated_at=None if updated is None else _text_of(updated),
        )

    def publish(self, at: datetime | None) -> None:
        """Publish the article, unless a restriction is added. Without a date it is a draft."""
        self._published_at = at
        if at is None:
            self.restrict(Reason.UNFINISHED, "there is no date of publication")

    def restrict(self, reason: Reason, text: str) -> None:
        """Add a restriction: the article becomes a draft."""
        self._restrictions.setdefault(text, reason)

    def add_restrictions(self, restrictions: Iterable[Restriction]) -> None:
        """Add restrictions."""
        for reason, text in restrictions:
            self.restrict(reason, text)

    def _apply_visibility(self) -> None:
        at = self._published_at
        reasons = self._restrictions
        is_overridden = (
            self.options.publish_restricted
            and at is not None
            and all(reason is Reason.RESTRICTED for reason in reasons.values())
        )
        if reasons and not is_overridden:
            if at is not None:
                self.fields.setdefault("created_at", _text_of(at))
            for text in reasons:
                self.note(f"{text}: imported as a draft")
            return
        for text in reasons:
            self.note(f"{text}: published because of --publish-restricted")
        if at is not None:
            self.fields["published_at"] = _text_of(at)
            if at > self.options.now:
                self.note(f"scheduled for {at:%Y-%m-%d %H:%M} UTC")

    def _title_from_text(self) -> None:
        if self.fields.get("title"):
            return
        title = title_of(self.fields.get("content", ""))
        if title:
            self.fields["title"] = title
            self.note(f"the text has no title: {title!r} was made from its beginning")

    def build(self, *, author: str, resolve_author: ResolveAuthor) -> ParsedRecord:
        """Return the validated record. Only empty texts and wrong values are refused."""
        self.set(author=resolve_author(author))
        if not self.fields.get("content", "").strip():
            empty = self.refuse("the text is empty")
            is_page = Reason.PAGE in self._restrictions.values()
            return empty._replace(problem="", left_out=EMPTY_PAGES) if is_page else empty
        self._title_from_text()
        self._apply_visibility()
        if imported := self._fitting(json_value(self._imported)):
            self.fields["imported"] = imported
        if self._comments:
            self.fields["comments"] = self._comments
        if len(self._old_paths) > MAX_OLD_PATHS:
            self.note(f"only the first {MAX_OLD_PATHS} old URLs were kept")
        self.fields["old_paths"] = list(self._old_paths)[:MAX_OLD_PATHS]
        return parse_fields(
            self.position,
            self.fields,
            source_id=self.source_id,
            is_own=self.is_own,
            former_name=self.former_name,
            is_former_name_unique=self.is_former_name_unique,
            slug_source=self.slug_source,
            source_slug=self._source_slug,
            notes=tuple(self._notes),
            parts=dict(self._parts),
        )

    def _fitting(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values without the largest ones, so that they can be stored."""
        total = _json_bytes(values)
        if total <= MAX_IMPORTED_BYTES:
            return values
        flat = [
            (_json_bytes(each), name, key)
            for name, value in values.items()
            for key, each in (value.items() if isinstance(value, dict) else [(None, value)])
        ]
        left_out = []
        for size, name, key in sorted(flat, key=lambda part: part[0], reverse=True):
            if key is None:
                del values[name]
            else:
                del values[name][key]
            left_out.append(name if key is None else str(key))
            total -= size
            if total <= MAX_IMPORTED_BYTES:
                break
        shown = ", ".join(left_out)
        self.note(f"further fields are too long and were left out: {shown}"[:300])
        return {name: value for name, value in values.items() if value != {}}

    def refuse(self, problem: str) -> ParsedRecord:
        """Return the record as invalid."""
        title = self.fields.get("title", "")
        parts = dict(self._parts)
        return ParsedRecord(
            self.position, None, problem, title=title, source_id=self.source_id, parts=parts
        )


def guarded(builder: RecordBuilder, build: Callable[[], ParsedRecord]) -> ParsedRecord:
    """Return the record of `build`, or its error, so that the other records are imported."""
    try:
        return build()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return builder.refuse(str(error)[:300] or f"it cannot be read ({type(error).__name__})")


def title_of(text: str) -> str:
    """Return a title made from the beginning of a Markdown text."""
    for line in text[:5000].splitlines():
        plain = normalize_text(_printable(_MARKUP.sub(" ", _MARKDOWN_SYNTAX.sub(r"\1", line))))
        if not any(letter.isalnum() for letter in plain):
            continue
        sentence = _SENTENCE.match(plain)
        title = sentence[1] if sentence and len(sentence[1]) <= MAX_TITLE_FROM_TEXT else plain
        if len(title) > MAX_TITLE_FROM_TEXT:
            cut = title[:MAX_TITLE_FROM_TEXT]
            title = (cut.rpartition(" ")[0] or cut).rstrip(" ,;:") + "…"
        return title.removesuffix(".")
    return "Untitled"


def _json_bytes(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode(errors="replace"))


def json_value(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON can store it: dates as text, without control characters."""
    if depth > 20:
        return None
    if isinstance(value, Mapping):
        return {
            strip_control_characters(str(name))[:200]: json_value(each, depth + 1)
            for name, each in value.items()
        }
    if isinstance(value, list | tuple | set):
        return [json_value(each, depth + 1) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return None if isinstance(value, float) and not math.isfinite(value) else value
    text = value.isoformat() if isinstance(value, datetime | date) else str(value)
    return strip_control_characters(text)


def without_html(text: str) -> str:
    """Return a title or a name without the markup of words, with its entities decoded once."""
    if "<" not in text and "&" not in text:
        return text
    return html.unescape(_WORD_MARKUP.sub("", text))


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else " " for letter in text)


def strip_control_characters(text: str) -> str:
    """Remove control characters, which texts of articles must not contain."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "", text)


def _text_of(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
