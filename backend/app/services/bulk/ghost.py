"""Parser for Ghost's JSON export: posts with their authors and tags. Pages are skipped."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

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
    Survey,
    guarded,
    without_html,
)
from app.services.bulk.json_source import Oversized, Tables, posts
from app.services.bulk.ndjson import ResolveAuthor
from app.services.bulk.records import ParsedRecord
from app.services.bulk.spooling import SpooledDict
from app.services.bulk.visibility import Reason, truth

SITE_URL = "__GHOST_URL__"

_PAYWALL = re.compile(r'"type"\s*:\s*"paywall"|\[\s*"paywall"')

_NAMES = ("site_uuid", "db_hash", "title")
"""Settings that identify a site."""
MAX_AUTHORS = 50_000
MAX_TAGS = 100_000
MAX_RELATED = 1000
"""Tags or authors of a post that are read."""

Id = str | int


class References(NamedTuple):
    """The rows that posts refer to."""

    authors: Mapping[Id, SourceAuthor]
    tags: Mapping[Id, str]
    """Public tags. Internal tags have an empty name."""
    tags_of: Mapping[str, list[tuple[int, Id]]]
    authors_of: Mapping[str, list[tuple[int, Id]]]
    meta_of: Mapping[str, Mapping[str, Any]]


def survey(path: Path, advance: Progress) -> Survey:
    """Read the authors and the rows that posts refer to. Raises SourceError."""
    with Tables(path) as tables:
        if not (tables.counts["posts"] or tables.counts["users"]):
            raise SourceError(
                tables.problem or "This is not a Ghost export: there are no posts in db[0].data"
            )
        return _survey(tables)


def _survey(tables: Tables) -> Survey:
    table = tables.rows
    authors = {
        _id(row): SourceAuthor(
            str(row.get("id")),
            username=_text(row, "slug"),
            email=_text(row, "email"),
            name=without_html(_text(row, "name")),
        )
        for row in islice(table("users"), MAX_AUTHORS)
    }
    tags = {_id(row): _tag_name(row) for row in islice(table("tags"), MAX_TAGS)}
    meta_of: SpooledDict[Mapping[str, Any]] = SpooledDict()
    for row in table("posts_meta"):
        meta_of[str(_id(row, "post_id"))] = row
    references = References(
        authors,
        tags,
        _relation(table("posts_tags"), "tag_id"),
        _relation(table("posts_authors"), "author_id"),
        meta_of,
    )
    values = ((_text(row, "key"), _text(row, "value")) for row in table("settings"))
    settings = {name: value for name, value in values if name in _NAMES}
    used: dict[Id, SourceAuthor] = {}
    for row in table("posts"):
        author_id = _author_ids(row, references)[0]
        if not _is_page(row) and author_id in authors:
            used[author_id] = authors[author_id]
    return Survey(
        authors=tuple(used.values()),
        site=_site(settings),
        left_out={"users without posts": len(authors) - len(used)},
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
        for number, row in enumerate(posts(path, advance), 1):
            position = f"post {number}"
            if isinstance(row, Oversized):
                yield ParsedRecord(position, None, problem=row.problem)
            elif not isinstance(row, dict):
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
    for name in _NAMES:
        if settings.get(name):
            return f"ghost: {settings[name]}"[:500]
    return ""


def _relation(rows: Iterator[dict[str, Any]], name: str) -> Mapping[str, list[tuple[int, Id]]]:
    """Return pairs of sort order and related id, by post id."""
    related: SpooledDict[list[tuple[int, Id]]] = SpooledDict()
    for row in rows:
        order = row.get("sort_order")
        pair = (order if isinstance(order, int) else 0, _id(row, name))
        post_id = str(_id(row, "post_id"))
        pairs = [*related.get(post_id, ()), pair]
        if len(pairs) <= MAX_RELATED:
            related[post_id] = sorted(pairs, key=lambda pair: pair[0])
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
    tag_ids = [tag_id for _, tag_id in references.tags_of.get(str(_id(row)), ())]
    builder.set_tags(references.tags.get(tag_id, "") for tag_id in tag_ids)
    if missing := sum(tag_id not in references.tags for tag_id in tag_ids):
        builder.note(f"tags: {missing} of the post are not in the export")
    author_ids = _author_ids(row, references)
    _note_other_authors(builder, author_ids[1:], references)
    _set_visibility(builder, row, references.meta_of.get(str(_id(row)), {}))
    return builder.build(author=str(author_ids[0]), resolve_author=resolve_author)


def _author_ids(row: Mapping[str, Any], references: References) -> list[Id]:
    """Return the ids of a post's authors, the first author first."""
    related = [author_id for _, author_id in references.authors_of.get(str(_id(row)), ())]
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
