"""Parser for Ghost's JSON export: posts and pages with all their fields, and comments."""

import os
import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any

from app.core.enums import CommentStatus
from app.services.bulk import files, ghost_redirects
from app.services.bulk.comment_texts import to_markdown
from app.services.bulk.converting.documents import (
    from_ghost_html,
    from_ghost_markdown,
    from_lexical,
    from_mobiledoc,
)
from app.services.bulk.converting.results import Context, Converted, TooComplex
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
from app.services.bulk.json_source import Oversized, all_rows, posts
from app.services.bulk.ndjson import ResolveAuthor
from app.services.bulk.records import ParsedRecord
from app.services.bulk.spooling import BoundedDict, SpooledDict, SpooledLists
from app.services.bulk.visibility import Reason, truth

SITE_URL = "__GHOST_URL__"

_PAYWALL = re.compile(r'"type"\s*:\s*"paywall"|\[\s*"paywall"')
_READ_TABLES = {
    "posts", "users", "tags", "posts_tags", "posts_authors", "posts_meta", "settings", "comments",
}  # fmt: skip
_COMMENT_FIELDS = (
    "id", "member_id", "parent_id", "in_reply_to_id", "status", "html", "created_at", "edited_at",
)  # fmt: skip
_TABLES = {
    "newsletters": "newsletters",
    "members": "members",
    "products": "tiers for members",
    "offers": "offers",
    "snippets": "snippets",
    "integrations": "integrations",
    "webhooks": "webhooks",
    "emails": "sent emails",
    "invites": "invitations",
    "recommendations": "recommendations",
    "collections": "collections",
    "mentions": "mentions by other sites",
    "labels": "labels of members",
    "comment_likes": "likes of comments",
    "comment_reports": "reports of comments",
    "post_revisions": "revisions",
    "mobiledoc_revisions": "revisions",
    "custom_theme_settings": "settings of the theme",
    "roles": "roles",
    "subscribers": "subscribers",
}
"""What the rows of a table are, in the plural."""
_KEPT_FIELDS = (
    "canonical_url", "meta_title", "meta_description", "og_image", "og_title", "og_description",
    "twitter_image", "twitter_title", "twitter_description", "email_subject", "custom_template",
    "codeinjection_head", "codeinjection_foot", "frontmatter",
)  # fmt: skip
"""Fields of posts, or in newer exports of posts_meta, for which an article has none."""

_NAMES = ("site_uuid", "db_hash", "title")
"""Settings that identify a site."""
_PRIVATE = ("is_private", "isPrivate")
"""The setting that protects a site by a password. The second name is that before Ghost 1.0."""
MAX_SETTING = 1000
MAX_TABLES = 200

Id = str | int


@dataclass
class References:
    """The rows that posts refer to."""

    language: str = ""
    is_private: bool = False
    """Whether readers needed the password of the site."""
    authors: BoundedDict[Id, SourceAuthor] = field(default_factory=BoundedDict)
    tags: BoundedDict[Id, str] = field(default_factory=BoundedDict)
    """Names of tags. Those of internal tags begin with #."""
    tags_of: SpooledLists[tuple[int, Id]] = field(default_factory=SpooledLists)
    authors_of: SpooledLists[tuple[int, Id]] = field(default_factory=SpooledLists)
    meta_of: SpooledDict[Mapping[str, Any]] = field(default_factory=SpooledDict)
    comments_of: SpooledLists[Mapping[str, Any]] = field(default_factory=SpooledLists)
    members: SpooledDict[str] = field(default_factory=SpooledDict)
    """The names of members."""
    redirects: Mapping[str, list[str]] = field(default_factory=dict)
    """Former paths by the slug that they lead to."""
    slugs: SpooledDict[bool] = field(default_factory=SpooledDict)
    used_tags: BoundedDict[Id, bool] = field(default_factory=BoundedDict)
    first_authors: SpooledDict[Id] = field(default_factory=SpooledDict)
    """The author in the row of a post, by the id of the post."""


def survey(path: Path, advance: Progress) -> Survey:
    """Read the authors and the rows that posts refer to. Raises SourceError."""
    references = References()
    settings: BoundedDict[str, str] = BoundedDict()
    problem = "This is not a Ghost export: there are no posts in db[0].data"
    others: Counter[str] = Counter()
    is_export = False
    try:
        for table, row in all_rows(path, advance):
            is_export = is_export or table in {"posts", "users"}
            if table not in _READ_TABLES:
                name = _TABLES.get(table, f"rows of the table {table[:40]!r}")
                others[name if len(others) < MAX_TABLES else "rows of other tables"] += 1
            if isinstance(row, dict):
                _add_row(references, settings, table, row)
    except SourceError as error:  # `read` reports it, too
        problem = str(error)
    if not is_export:
        raise SourceError(problem)
    references.language = settings.get("locale") or settings.get("lang") or ""
    references.is_private = any(truth(settings.get(name)) for name in _PRIVATE)
    used: dict[Id, SourceAuthor] = {}
    for post_id, author_id in references.first_authors.items():
        related = _related(references.authors_of, post_id)
        first = related[0] if related else author_id
        if first in references.authors:
            used[first] = references.authors[first]
    found = _redirects(path, references.slugs)
    references.redirects = found.by_slug
    orphans = sum(
        len(rows)
        for post_id, rows in references.comments_of.items()
        if post_id not in references.first_authors
    )
    return Survey(
        authors=tuple(used.values()),
        site=_site(settings),
        left_out=+Counter(
            {
                "users without posts": len(references.authors) - len(used),
                "tags without posts": len(references.tags.keys() - references.used_tags.keys()),
                "comments on posts that are not in the export": orphans,
                "redirects that are patterns or lead elsewhere": found.left_out,
                **others,
            }
        ),
        problems=found.problems,
        index=references,
    )


def _add_row(
    references: References, settings: dict[str, str], table: str, row: dict[str, Any]
) -> None:
    """Note what posts need of a row."""
    match table:
        case "users":
            name = without_html(_text(row, "name"))
            references.authors[_id(row)] = SourceAuthor(
                str(row.get("id")), _text(row, "slug"), _text(row, "email"), name
            )
        case "tags":
            references.tags[_id(row)] = _tag_name(row)
        case "posts_tags":
            _relate(references.tags_of, row, "tag_id")
            references.used_tags[_id(row, "tag_id")] = True
        case "posts_authors":
            _relate(references.authors_of, row, "author_id")
        case "posts_meta":
            references.meta_of[str(_id(row, "post_id"))] = {
                name: value for name, value in row.items() if value is not None
            }
        case "settings":
            settings[_text(row, "key")] = str(row.get("value") or "")[:MAX_SETTING]
        case "posts":
            author_id = _id(row, "author_id") or _id(row, "created_by")
            references.first_authors[str(_id(row))] = author_id
            references.slugs[_text(row, "slug")] = True
        case "comments":
            kept = {name: row.get(name) for name in _COMMENT_FIELDS}
            references.comments_of.append(str(_id(row, "post_id")), kept)
        case "members":
            references.members[str(_id(row))] = _text(row, "name")


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
            elif isinstance(row, dict):
                builder = RecordBuilder(position, options)
                build = partial(_build, builder, row, survey.index, resolve_author)
                yield guarded(builder, build)
            else:
                yield ParsedRecord(position, None, problem="the record is not an object")
    except SourceError as error:
        yield ParsedRecord(f"after post {number}", None, problem=str(error))


def _site(settings: Mapping[str, str]) -> str:
    """Return what identifies the site. Exports do not contain its address."""
    for name in _NAMES:
        if settings.get(name):
            return f"ghost: {settings[name]}"[:500]
    return ""


def _redirects(path: Path, slugs: Container[str]) -> ghost_redirects.Redirects:
    """Read the redirects that Ghost exports to a file of their own, if it is beside the export."""
    folder = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in ghost_redirects.NAMES:
            try:
                return ghost_redirects.read(name, files.read(name, folder=folder), slugs)
            except FileNotFoundError:
                continue
            except OSError as error:
                problem = f"{name} cannot be read ({error.strerror or error})"
                return ghost_redirects.Redirects({}, 0, (problem,))
    finally:
        os.close(folder)
    return ghost_redirects.Redirects({}, 0)


def _relate(related: SpooledLists[tuple[int, Id]], row: Mapping[str, Any], name: str) -> None:
    """Add a pair of sort order and related id to those of a post."""
    order = row.get("sort_order")
    pair = (order if isinstance(order, int) else 0, _id(row, name))
    related.append(str(_id(row, "post_id")), pair)


def _related(related: Mapping[str, list[tuple[int, Id]]], post_id: Id) -> list[Id]:
    """Return the related ids of a post in their order."""
    pairs = related.get(str(post_id), [])
    return [related_id for _, related_id in sorted(pairs, key=lambda pair: pair[0])]


def _id(row: Mapping[str, Any], name: str = "id") -> Id:
    value = row.get(name)
    return value if isinstance(value, str | int) else ""


def _tag_name(row: Mapping[str, Any]) -> str:
    """Return the name of a tag. That of an internal one begins with #."""
    name = without_html(_text(row, "name"))
    is_internal = row.get("visibility") == "internal" and not name.startswith("#")
    return f"#{name}" if is_internal else name


def _is_page(row: Mapping[str, Any]) -> bool:
    return row.get("type") == "page" or truth(row.get("page")) is True


def _build(
    builder: RecordBuilder,
    row: Mapping[str, Any],
    references: References,
    resolve_author: ResolveAuthor,
) -> ParsedRecord:
    uuid, slug, site = _text(row, "uuid"), _text(row, "slug"), builder.options.site
    meta = references.meta_of.get(str(_id(row)), {})
    builder.source_id = uuid or str(row.get("id", ""))
    builder.former_name = f"ghost:{builder.source_id}"
    builder.is_former_name_unique = bool(uuid)
    builder.set_title(without_html(_text(row, "title")))
    builder.set_slug(slug)
    builder.add_old_address(f"/{slug}/", *references.redirects.get(slug, ()))
    builder.set_content(_content(row, Context(site=site)))
    builder.set_excerpt(_text(row, "custom_excerpt"))
    builder.set_language(_text(row, "locale") or _text(row, "language") or references.language)
    _set_cover(builder, row, meta)
    _set_tags(builder, row, references)
    author_ids = _author_ids(row, references)
    authors = (references.authors.get(author_id) for author_id in author_ids[1:])
    builder.set_further_authors(each.name or each.username for each in authors if each)
    if _is_page(row):
        builder.set_page()
    _set_visibility(builder, row, meta, references)
    _keep_others(builder, row, meta)
    _add_comments(builder, references.comments_of.get(str(_id(row)), []), references)
    return builder.build(author=str(author_ids[0]), resolve_author=resolve_author)


def _author_ids(row: Mapping[str, Any], references: References) -> list[Id]:
    """Return the ids of a post's authors, the first author first."""
    related = _related(references.authors_of, _id(row))
    return related or [_id(row, "author_id") or _id(row, "created_by")]


def _set_cover(builder: RecordBuilder, row: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Set the cover image, which was called `image` before Ghost 1.0."""
    cover = _text(row, "feature_image") or _text(row, "image")
    cover = f"/{cover}" if cover.startswith("content/") else cover
    builder.set_cover(cover.replace(SITE_URL, builder.options.site.rstrip("/")))
    for name in ("alt", "caption"):
        text = _text(meta, f"feature_image_{name}") or _text(row, f"feature_image_{name}")
        builder.keep(f"cover_{name}", without_html(text))


def _set_tags(builder: RecordBuilder, row: Mapping[str, Any], references: References) -> None:
    tag_ids = _related(references.tags_of, _id(row))
    names = [references.tags[tag_id] for tag_id in tag_ids if tag_id in references.tags]
    builder.set_tags(name for name in names if not name.startswith("#"))
    builder.keep("internal_tags", [name for name in names if name.startswith("#")])
    if missing := len(tag_ids) - len(names):
        builder.note(f"tags: {missing} of the post are not in the export")


def _set_visibility(
    builder: RecordBuilder,
    row: Mapping[str, Any],
    meta: Mapping[str, Any],
    references: References,
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
    if status != "sent" and any(truth(each.get("email_only")) for each in (meta, row)):
        builder.restrict(Reason.RESTRICTED, "the post was only sent by email")
    if visibility not in {"public", ""}:
        builder.restrict(Reason.RESTRICTED, f"the post is for some readers only ({visibility})")
    if references.is_private:
        builder.restrict(Reason.RESTRICTED, "the site was private")
    if _PAYWALL.search(_text(row, "lexical") or _text(row, "mobiledoc")):
        builder.restrict(Reason.RESTRICTED, "parts of the text were for members only")


def _keep_others(builder: RecordBuilder, row: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Keep the fields for which an article has none."""
    for name in _KEPT_FIELDS:
        text = _text(row, name) or _text(meta, name)
        builder.keep(name, text.replace(SITE_URL, builder.options.site.rstrip("/")))
    if truth(row.get("featured")):
        builder.keep("featured", True)


def _add_comments(
    builder: RecordBuilder, rows: Sequence[Mapping[str, Any]], references: References
) -> None:
    """Add the comments of members. An export contains them only if all tables were exported."""
    parents = {_id(row): _id(row, "in_reply_to_id") or _id(row, "parent_id") for row in rows}
    kept = {_id(row) for row in rows if _text(row, "status") != "deleted"}
    for row in rows:
        comment_id = _id(row)
        if comment_id not in kept:
            builder.leave_out("deleted comments")
            continue
        try:
            content = to_markdown(_text(row, "html"), has_paragraphs=True)
        except TooComplex:
            builder.leave_out("comments that are too complex")
            continue
        parent, seen = parents[comment_id], {comment_id}
        while parent and parent not in kept and parent not in seen:
            seen.add(parent)
            parent = parents.get(parent, "")
        is_hidden = _text(row, "status") not in {"published", ""}
        builder.add_comment(
            id=str(comment_id),
            parent=str(parent) if parent in kept else None,
            content=content,
            name=references.members.get(str(_id(row, "member_id")), ""),
            status=CommentStatus.HIDDEN.value if is_hidden else None,
            created_at=builder.read_date("comment", row.get("created_at"), zone=UTC)
            or builder.created_at,
            edited_at=builder.read_date("comment", row.get("edited_at"), zone=UTC),
        )


def _content(row: Mapping[str, Any], context: Context) -> Converted:
    """Return the post's content as Markdown. Raises TooComplex, InvalidDocument."""
    for name, convert in (
        ("html", from_ghost_html),
        ("lexical", from_lexical),
        ("mobiledoc", from_mobiledoc),
        ("markdown", from_ghost_markdown),
        ("plaintext", from_ghost_markdown),
    ):
        if text := _text(row, name):
            return convert(text, context)
    return Converted("")


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""
