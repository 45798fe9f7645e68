"""Ghost's JSON export: its posts, with their authors and tags. Pages are left out."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ijson

from app.services.bulk.foreign import (
    Advance,
    Draft,
    ForeignAuthor,
    Source,
    SourceError,
    Survey,
    clean,
    moment,
)
from app.services.bulk.html import TooDeep, markdown_of
from app.services.bulk.lexical import UnknownDocument, from_lexical, from_mobiledoc
from app.services.bulk.ndjson import AuthorOf
from app.services.bulk.records import Incoming

PLACES = ("db.item.data", "data")
"""Where an export has its tables: Ghost writes the first."""
OWN_HOST = "__GHOST_URL__"

Id = str | int


class Found(NamedTuple):
    """What posts refer to."""

    place: str
    tags: Mapping[Id, str]
    tags_of: Mapping[Id, list[tuple[int, Id]]]
    authors_of: Mapping[Id, list[tuple[int, Id]]]


def survey(path: Path, advance: Advance) -> Survey:
    """The export's authors, and what its posts refer to. Raises SourceError."""
    place = _place(path)
    authors = {
        row.get("id", ""): ForeignAuthor(
            str(row.get("id")),
            username=_text(row, "slug"),
            email=_text(row, "email"),
            name=_text(row, "name"),
        )
        for row in _rows(path, place, "users")
    }
    tags = {
        row.get("id", ""): _text(row, "name")
        for row in _rows(path, place, "tags")
        # Ghost's own marks begin with #: readers never see them.
        if row.get("visibility") != "internal" and not _text(row, "name").startswith("#")
    }
    tags_of = _relation(path, place, "posts_tags", "tag_id")
    authors_of = _relation(path, place, "posts_authors", "author_id")
    found = Found(place, tags, tags_of, authors_of)
    left_out: Counter[str] = Counter()
    writers: dict[Id, ForeignAuthor] = {}
    for row in _rows(path, place, "posts"):
        if _is_page(row):
            left_out["pages"] += 1
        elif (writer := _writer(row, found)) in authors:
            writers[writer] = authors[writer]
    return Survey(tuple(writers.values()), left_out, found)


def read(
    path: Path, survey: Survey, *, author_of: AuthorOf, advance: Advance
) -> Iterator[Incoming]:
    """The export's posts, each by its number in the table."""
    number = 0
    try:
        for number, row in enumerate(_rows(path, survey.found.place, "posts", advance), 1):
            if not _is_page(row):
                yield _record(f"post {number}", row, survey.found, author_of)
    except SourceError as error:
        yield Incoming(f"after post {number}", None, problem=str(error))


def _place(path: Path) -> str:
    for place in PLACES:
        for table in ("posts", "users"):
            if next(_rows(path, place, table), None) is not None:
                return place
    raise SourceError("This is no export of Ghost: it has no posts in db[0].data")


def _rows(
    path: Path, place: str, table: str, advance: Advance = lambda _: None
) -> Iterator[dict[str, Any]]:
    """A table's rows, one at a time. Raises SourceError where the file is not JSON."""
    with Source(path, advance) as source:
        try:
            for row in ijson.items(source, f"{place}.{table}.item", use_float=True):
                source.record_ended()
                if isinstance(row, dict):
                    yield row
        except (ijson.JSONError, UnicodeDecodeError, ValueError) as error:
            raise SourceError(f"The file is not JSON from here on: {error}"[:200]) from error


def _relation(path: Path, place: str, table: str, name: str) -> Mapping[Id, list[tuple[int, Id]]]:
    """What each post refers to, in its order."""
    found: dict[Id, list[tuple[int, Id]]] = defaultdict(list)
    for row in _rows(path, place, table):
        order = row.get("sort_order")
        found[row.get("post_id", "")].append((order if isinstance(order, int) else 0, row[name]))
    return found


def _is_page(row: Mapping[str, Any]) -> bool:
    return row.get("type") == "page" or bool(row.get("page"))


def _record(position: str, row: Mapping[str, Any], found: Found, author_of: AuthorOf) -> Incoming:
    draft = Draft(position)
    draft.titled(_text(row, "title"))
    draft.named(_text(row, "slug"))
    try:
        draft.fields["content"] = _content(row, draft)
    except (TooDeep, UnknownDocument) as error:
        return Incoming(position, None, problem=str(error))
    draft.summed_up(_text(row, "custom_excerpt"))
    draft.covered(_text(row, "feature_image").replace(OWN_HOST, ""))
    draft.spoken(_text(row, "locale"))
    related = sorted(found.tags_of.get(row.get("id", ""), ()), key=lambda pair: pair[0])
    draft.tagged(found.tags[tag_id] for _, tag_id in related if tag_id in found.tags)
    if row.get("status") in {"published", "scheduled"}:
        draft.say(published_at=moment(row.get("published_at") or row.get("created_at")))
    elif row.get("status") == "sent":
        draft.notes.append("it was sent by mail alone: imported as a draft")
    draft.say(created_at=moment(row.get("created_at")), updated_at=moment(row.get("updated_at")))
    name = _text(row, "uuid") or str(row.get("id"))
    return draft.done(
        author=str(_writer(row, found)), author_of=author_of, identity=f"ghost:{name}"
    )


def _writer(row: Mapping[str, Any], found: Found) -> Id:
    """Who comes first among those who wrote a post."""
    writers = sorted(found.authors_of.get(row.get("id", ""), ()), key=lambda pair: pair[0])
    if writers:
        return writers[0][1]
    return row.get("author_id") or row.get("created_by") or ""


def _content(row: Mapping[str, Any], draft: Draft) -> str:
    """The post's Markdown. Raises TooDeep, UnknownDocument."""
    if html := _text(row, "html"):
        return markdown_of(html.replace(OWN_HOST, ""))
    for editor, read_document in (("lexical", from_lexical), ("mobiledoc", from_mobiledoc)):
        if document := _text(row, editor):
            draft.notes.append(f"content: made from its {editor} document, the export has no HTML")
            return read_document(document.replace(OWN_HOST, ""))
    return clean(_text(row, "plaintext") or _text(row, "markdown"))


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""
