"""Parser for Ghost's JSON export: posts with their authors and tags. Pages are skipped."""

import codecs
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any, NamedTuple

import ijson

from app.services.bulk.converting.documents import (
    from_ghost_html,
    from_ghost_markdown,
    from_lexical,
    from_mobiledoc,
)
from app.services.bulk.converting.results import Context, Converted
from app.services.bulk.foreign import (
    Progress,
    ReadOptions,
    RecordBuilder,
    SourceAuthor,
    SourceError,
    SourceFile,
    Survey,
    guarded,
    without_html,
)
from app.services.bulk.ndjson import ResolveAuthor
from app.services.bulk.records import ParsedRecord
from app.services.bulk.visibility import Reason, truth

ROOT_PATHS = ("db.item.data", "data")
"""Possible paths of the tables. Ghost writes the first one."""
SITE_URL = "__GHOST_URL__"

_CONTROL_CHARACTERS = dict.fromkeys(range(32), " ")
_PAYWALL = re.compile(r'"type"\s*:\s*"paywall"|\[\s*"paywall"')

Id = str | int


class References(NamedTuple):
    """The rows that posts refer to."""

    root: str
    authors: Mapping[Id, SourceAuthor]
    tags: Mapping[Id, str]
    """Public tags. Internal tags have an empty name."""
    tags_of: Mapping[Id, list[tuple[int, Id]]]
    authors_of: Mapping[Id, list[tuple[int, Id]]]
    meta_of: Mapping[Id, Mapping[str, Any]]


class _Source:
    """A Ghost export without what makes it invalid JSON: wrong bytes and control characters."""

    def __init__(self, source: SourceFile) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")

    def read(self, size: int = 65536) -> bytes:
        """Read up to `size` bytes, or a few more."""
        if size == 0:
            return b""
        while True:
            chunk = self._source.read(size)
            text = self._decoder.decode(chunk, final=not chunk)
            if text or not chunk:
                return text.translate(_CONTROL_CHARACTERS).encode(errors="replace")


def survey(path: Path, advance: Progress) -> Survey:
    """Read the authors and the rows that posts refer to. Raises SourceError."""
    root = _root_path(path)
    problems: list[str] = []

    def table(name: str) -> Iterator[dict[str, Any]]:
        try:
            for row in _rows(path, root, name):
                if isinstance(row, dict):
                    yield row
        except SourceError as error:
            problems.append(str(error))

    authors = {
        _id(row): SourceAuthor(
            str(row.get("id")),
            username=_text(row, "slug"),
            email=_text(row, "email"),
            name=without_html(_text(row, "name")),
        )
        for row in table("users")
    }
    tags = {_id(row): _tag_name(row) for row in table("tags")}
    references = References(
        root,
        authors,
        tags,
        _relation(table("posts_tags"), "tag_id"),
        _relation(table("posts_authors"), "author_id"),
        {_id(row, "post_id"): row for row in table("posts_meta")},
    )
    settings = {_text(row, "key"): _text(row, "value") for row in table("settings")}
    used: dict[Id, SourceAuthor] = {}
    for row in table("posts"):
        author_id = _author_ids(row, references)[0]
        if not _is_page(row) and author_id in authors:
            used[author_id] = authors[author_id]
    return Survey(
        authors=tuple(used.values()),
        site=_site(settings),
        left_out={"users without posts": len(authors) - len(used)},
        problems=tuple(dict.fromkeys(problems)),
        index=references,
    )


def read(
    path: Path,
    survey: Survey,
    options: ReadOptions,
    *,
    resolve_author: ResolveAuthor,
    advance: Progress,
) -> Iterator[ParsedRecord]:
    """Yield a record for each row of the table. Its position is its number."""
    number = 0
    try:
        for number, row in enumerate(_rows(path, survey.index.root, "posts", advance), 1):
            position = f"post {number}"
            if not isinstance(row, dict):
                yield ParsedRecord(position, None, problem="the record is not an object")
            elif _is_page(row):
                title = without_html(_text(row, "title"))[:200]
                yield ParsedRecord(position, None, left_out="pages", title=title)
            else:
                yield _record(position, row, survey.index, options, resolve_author)
    except SourceError as error:
        yield ParsedRecord(f"after post {number}", None, problem=str(error))


def _site(settings: Mapping[str, str]) -> str:
    """Return what identifies the site. Exports do not contain its address."""
    for name in ("site_uuid", "db_hash", "title"):
        if settings.get(name):
            return f"ghost: {settings[name]}"[:500]
    return ""


def _root_path(path: Path) -> str:
    for root in ROOT_PATHS:
        for table in ("posts", "users"):
            if next(_rows(path, root, table), None) is not None:
                return root
    raise SourceError("This is not a Ghost export: there are no posts in db[0].data")


def _rows(path: Path, root: str, table: str, advance: Progress = lambda _: None) -> Iterator[Any]:
    """Yield the rows of a table. Raises SourceError if the file is not JSON."""
    with SourceFile(path, advance) as source:
        try:
            for row in ijson.items(_Source(source), f"{root}.{table}.item", use_float=True):
                source.record_ended()
                yield row
        except (ijson.JSONError, UnicodeDecodeError, ValueError) as error:
            reason = "it ends too early" if "ncomplete" in str(error) else str(error)
            raise SourceError(f"The rest of the file is not JSON: {reason}"[:200]) from error


def _relation(rows: Iterator[dict[str, Any]], name: str) -> Mapping[Id, list[tuple[int, Id]]]:
    """Return pairs of sort order and related id, by post id."""
    related: dict[Id, list[tuple[int, Id]]] = defaultdict(list)
    for row in rows:
        order = row.get("sort_order")
        pair = (order if isinstance(order, int) else 0, _id(row, name))
        related[_id(row, "post_id")].append(pair)
    for pairs in related.values():
        pairs.sort(key=lambda pair: pair[0])
    return related


def _id(row: Mapping[str, Any], name: str = "id") -> Id:
    value = row.get(name)
    return value if isinstance(value, str | int) else ""


def _tag_name(row: Mapping[str, Any]) -> str:
    """Return the name of a tag; an empty string for an internal one, which begins with #."""
    name = without_html(_text(row, "name"))
    return "" if row.get("visibility") == "internal" or name.startswith("#") else name


def _is_page(row: Mapping[str, Any]) -> bool:
    return row.get("type") == "page" or truth(row.get("page")) is True


def _record(
    position: str,
    row: Mapping[str, Any],
    references: References,
    options: ReadOptions,
    resolve_author: ResolveAuthor,
) -> ParsedRecord:
    builder = RecordBuilder(position, options)
    return guarded(builder, lambda: _build(builder, row, references, resolve_author))


def _build(
    builder: RecordBuilder,
    row: Mapping[str, Any],
    references: References,
    resolve_author: ResolveAuthor,
) -> ParsedRecord:
    uuid, site = _text(row, "uuid"), builder.options.site
    builder.source_id = uuid or str(row.get("id", ""))
    builder.former_name = f"ghost:{builder.source_id}"
    builder.is_former_name_unique = bool(uuid)
    builder.set_title(without_html(_text(row, "title")))
    builder.set_slug(_text(row, "slug"))
    builder.add_old_address(f"/{_text(row, 'slug')}/")
    builder.set_content(_content(row, Context(site=site)))
    builder.set_excerpt(_text(row, "custom_excerpt"))
    cover = _text(row, "feature_image") or _text(row, "image")
    builder.set_cover(cover.replace(SITE_URL, site.rstrip("/")))
    builder.set_language(_text(row, "locale") or _text(row, "language"))
    tag_ids = [tag_id for _, tag_id in references.tags_of.get(_id(row), ())]
    builder.set_tags(references.tags.get(tag_id, "") for tag_id in tag_ids)
    if missing := sum(tag_id not in references.tags for tag_id in tag_ids):
        builder.note(f"tags: {missing} of the post are not in the export")
    author_ids = _author_ids(row, references)
    _note_other_authors(builder, author_ids[1:], references)
    _set_visibility(builder, row, references.meta_of.get(_id(row), {}))
    return builder.build(author=str(author_ids[0]), resolve_author=resolve_author)


def _author_ids(row: Mapping[str, Any], references: References) -> list[Id]:
    """Return the ids of a post's authors, the first author first."""
    related = [author_id for _, author_id in references.authors_of.get(_id(row), ())]
    return related or [_id(row, "author_id") or _id(row, "created_by")]


def _note_other_authors(
    builder: RecordBuilder, author_ids: list[Id], references: References
) -> None:
    """Keep the names of further authors. An article has one."""
    names = [
        author.name or author.username
        for author_id in author_ids
        if (author := references.authors.get(author_id))
    ]
    if names:
        builder.note(f"an article has one author, not imported as authors: {', '.join(names)}")
        builder.keep("further_authors", names)


def _set_visibility(
    builder: RecordBuilder, row: Mapping[str, Any], meta: Mapping[str, Any]
) -> None:
    """Set the dates, and publish the post if all readers could read it."""
    status, visibility = _text(row, "status"), _text(row, "visibility")
    created = builder.read_date("created_at", row.get("created_at"), zone=UTC)
    updated = builder.read_date("updated_at", row.get("updated_at"), zone=UTC)
    builder.set_dates(created=created, updated=updated)
    if status == "draft":
        return
    at = builder.read_date("published_at", row.get("published_at"), zone=UTC) or created
    builder.publish(at)
    if status == "scheduled" and at is not None and at <= builder.options.now:
        builder.restrict(Reason.RESTRICTED, "the post was still scheduled, for a date in the past")
    elif status == "sent":
        builder.restrict(Reason.RESTRICTED, "the post was only sent by email")
    elif status not in {"published", "scheduled"}:
        builder.restrict(Reason.UNFINISHED, f"the post has the status {status[:40]!r}")
    if truth(meta.get("email_only")) and status != "sent":
        builder.restrict(Reason.RESTRICTED, "the post was only sent by email")
    if visibility not in {"public", ""}:
        builder.restrict(Reason.RESTRICTED, f"the post is for some readers only ({visibility})")
    if _PAYWALL.search(_text(row, "lexical") or _text(row, "mobiledoc")):
        builder.restrict(Reason.RESTRICTED, "parts of the text were for members only")


def _content(row: Mapping[str, Any], context: Context) -> Converted:
    """Return the post's content as Markdown. Raises TooComplex, InvalidDocument."""
    for field, convert in (
        ("html", from_ghost_html),
        ("lexical", from_lexical),
        ("mobiledoc", from_mobiledoc),
        ("markdown", from_ghost_markdown),
        ("plaintext", from_ghost_markdown),
    ):
        if text := _text(row, field):
            return convert(text, context)
    return Converted("")


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""
