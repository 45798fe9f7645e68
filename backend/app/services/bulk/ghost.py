"""Parser for Ghost's JSON export: posts with their authors and tags. Pages are skipped."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ijson

from app.services.bulk.converting.documents import (
    from_ghost_html,
    from_ghost_markdown,
    from_lexical,
    from_mobiledoc,
)
from app.services.bulk.converting.results import Converted, InvalidDocument, TooComplex
from app.services.bulk.foreign import (
    Progress,
    RecordBuilder,
    SourceAuthor,
    SourceError,
    SourceFile,
    Survey,
    parse_datetime,
)
from app.services.bulk.ndjson import ResolveAuthor
from app.services.bulk.records import ParsedRecord

ROOT_PATHS = ("db.item.data", "data")
"""Possible paths of the tables. Ghost writes the first one."""
SITE_URL = "__GHOST_URL__"

Id = str | int


class References(NamedTuple):
    """The rows that posts refer to."""

    root: str
    tags: Mapping[Id, str]
    tags_of: Mapping[Id, list[tuple[int, Id]]]
    authors_of: Mapping[Id, list[tuple[int, Id]]]


def survey(path: Path, advance: Progress) -> Survey:
    """Read the authors and the rows that posts refer to. Raises SourceError."""
    root = _root_path(path)
    authors = {
        row.get("id", ""): SourceAuthor(
            str(row.get("id")),
            username=_text(row, "slug"),
            email=_text(row, "email"),
            name=_text(row, "name"),
        )
        for row in _rows(path, root, "users")
    }
    tags = {
        row.get("id", ""): _text(row, "name")
        for row in _rows(path, root, "tags")
        # Internal tags of Ghost begin with # and are not public.
        if row.get("visibility") != "internal" and not _text(row, "name").startswith("#")
    }
    tags_of = _relation(path, root, "posts_tags", "tag_id")
    authors_of = _relation(path, root, "posts_authors", "author_id")
    references = References(root, tags, tags_of, authors_of)
    skipped: Counter[str] = Counter()
    authors_by_id: dict[Id, SourceAuthor] = {}
    for row in _rows(path, root, "posts"):
        if _is_page(row):
            skipped["pages"] += 1
        elif (author_id := _first_author(row, references)) in authors:
            authors_by_id[author_id] = authors[author_id]
    return Survey(tuple(authors_by_id.values()), skipped, references)


def read(
    path: Path, survey: Survey, *, resolve_author: ResolveAuthor, advance: Progress
) -> Iterator[ParsedRecord]:
    """Yield the posts. Their position is their number in the table."""
    number = 0
    try:
        for number, row in enumerate(_rows(path, survey.index.root, "posts", advance), 1):
            if not _is_page(row):
                yield _record(f"post {number}", row, survey.index, resolve_author)
    except SourceError as error:
        yield ParsedRecord(f"after post {number}", None, problem=str(error))


def _root_path(path: Path) -> str:
    for root in ROOT_PATHS:
        for table in ("posts", "users"):
            if next(_rows(path, root, table), None) is not None:
                return root
    raise SourceError("This is not a Ghost export: there are no posts in db[0].data")


def _rows(
    path: Path, root: str, table: str, advance: Progress = lambda _: None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table. Raises SourceError if the file is not JSON."""
    with SourceFile(path, advance) as source:
        try:
            for row in ijson.items(source, f"{root}.{table}.item", use_float=True):
                source.record_ended()
                if isinstance(row, dict):
                    yield row
        except (ijson.JSONError, UnicodeDecodeError, ValueError) as error:
            raise SourceError(f"The rest of the file is not JSON: {error}"[:200]) from error


def _relation(path: Path, root: str, table: str, name: str) -> Mapping[Id, list[tuple[int, Id]]]:
    """Return pairs of sort order and related id, by post id."""
    related: dict[Id, list[tuple[int, Id]]] = defaultdict(list)
    for row in _rows(path, root, table):
        order = row.get("sort_order")
        related[row.get("post_id", "")].append((order if isinstance(order, int) else 0, row[name]))
    return related


def _is_page(row: Mapping[str, Any]) -> bool:
    return row.get("type") == "page" or bool(row.get("page"))


def _record(
    position: str, row: Mapping[str, Any], references: References, resolve_author: ResolveAuthor
) -> ParsedRecord:
    builder = RecordBuilder(position)
    builder.set_title(_text(row, "title"))
    builder.set_slug(_text(row, "slug"))
    try:
        converted = _content(row)
    except (TooComplex, InvalidDocument) as error:
        return ParsedRecord(position, None, problem=str(error))
    builder.fields["content"] = converted.markdown
    builder.notes += converted.notes
    builder.set_excerpt(_text(row, "custom_excerpt"))
    builder.set_cover(_text(row, "feature_image").replace(SITE_URL, ""))
    builder.set_language(_text(row, "locale"))
    related = sorted(references.tags_of.get(row.get("id", ""), ()), key=lambda pair: pair[0])
    builder.set_tags(references.tags[tag_id] for _, tag_id in related if tag_id in references.tags)
    if row.get("status") in {"published", "scheduled"}:
        builder.set(published_at=parse_datetime(row.get("published_at") or row.get("created_at")))
    elif row.get("status") == "sent":
        builder.notes.append("the post was only sent by email: imported as a draft")
    builder.set(
        created_at=parse_datetime(row.get("created_at")),
        updated_at=parse_datetime(row.get("updated_at")),
    )
    name = _text(row, "uuid") or str(row.get("id"))
    return builder.build(
        author=str(_first_author(row, references)),
        resolve_author=resolve_author,
        identity=f"ghost:{name}",
    )


def _first_author(row: Mapping[str, Any], references: References) -> Id:
    """Return the id of a post's first author."""
    related = sorted(references.authors_of.get(row.get("id", ""), ()), key=lambda pair: pair[0])
    if related:
        return related[0][1]
    return row.get("author_id") or row.get("created_by") or ""


def _content(row: Mapping[str, Any]) -> Converted:
    """Return the post's content as Markdown. Raises TooComplex, InvalidDocument."""
    for field, convert in (
        ("html", from_ghost_html),
        ("lexical", from_lexical),
        ("mobiledoc", from_mobiledoc),
        ("markdown", from_ghost_markdown),
        ("plaintext", from_ghost_markdown),
    ):
        if text := _text(row, field):
            converted = convert(text)
            if field == "html":
                return converted
            note = f"content: converted from {field}, the export has no HTML"
            return converted._replace(notes=(note, *converted.notes))
    return Converted("")


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""
