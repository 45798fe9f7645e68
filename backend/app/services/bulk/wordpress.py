"""Parser for WordPress's WXR export: posts with authors, tags, categories and featured images."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from xml.etree.ElementTree import Element

from app.services.bulk.converting.posts import from_wordpress
from app.services.bulk.converting.results import Attachment, Context
from app.services.bulk.dates import DateError, read_date
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
from app.services.bulk.ndjson import ResolveAuthor
from app.services.bulk.records import ParsedRecord
from app.services.bulk.spooling import SpooledDict
from app.services.bulk.visibility import Reason
from app.services.bulk.wxr import Header, Piece, WxrFile, local_name, text_of

NO_CATEGORY = "uncategorized"
"""WordPress's category for posts without a category."""
NEVER = "0000-00-00"
MAX_ZONE = timedelta(hours=14, minutes=30)
MAX_AUTHORS = 50_000
MAX_ATTACHED = 1000
"""Media files of a post that a gallery without ids shows."""

_LEFT_OUT_STATUSES = {"trash": "posts in the trash", "auto-draft": "automatic drafts"}
_LEFT_OUT_TYPES = {
    "attachment": "media files",
    "page": "pages",
    "nav_menu_item": "menu items",
    "wp_block": "reusable blocks",
    "revision": "revisions",
    "wp_navigation": "menus",
    "wp_template": "templates",
    "wp_template_part": "templates",
    "wp_global_styles": "styles",
    "custom_css": "styles",
    "customize_changeset": "styles",
}
_UNFINISHED_STATUSES = {"draft": "", "pending": "the post is pending review"}
_IGNORED_COMMENTS = {"spam": "spam comments", "trash": "comments in the trash"}

_GATES = re.compile(
    r"<!--\s*wp:(?:jetpack/paywall|premium-content/|jetpack/paid-content|pmpro/|memberful/"
    r"|restrict-content-pro/|woocommerce-memberships/)"
    r"|\[(?:restrict|private|members?[_-]?only|memberonly|is_paid|membership|pmpro_membership|rcp_"
    r"|mepr[_-]|wcm_restrict|wlm_|ihc-|um_loggedin|loggedin|members_access|membership_area|s2if"
    r"|content_protector|passster|protected|memberful)",
    re.IGNORECASE,
)
"""Blocks and shortcodes of plugins that show text to some readers only."""
_GATE_FIELDS = {
    "_members_access_role", "_jetpack_newsletter_access", "_wpmem_block", "rcp_access_level",
    "rcp_subscription_level", "rcp_user_level", "_is_paid", "_wpac_is_members_only",
    "_memberful_acl", "_ppp_document_settings_protection", "passster_activate_protection",
    "_private_post", "_wc_memberships_content_restricted", "_lm_members_only", "_restricted_to",
}  # fmt: skip
"""Fields of plugins that show a post to some readers only."""
_PUBLIC_VALUES = {"", "0", "no", "none", "everybody", "everyone", "public", "false", "all"}
_EXPIRY_FIELDS = {"_expiration-date", "_publishpress_future_date", "_post_expiration", "expiration"}


@dataclass
class Index:
    """What the posts refer to."""

    site: str = ""
    attachments: SpooledDict[Attachment] = field(
        default_factory=lambda: SpooledDict(Attachment._make)
    )
    attached: SpooledDict[list[str]] = field(default_factory=SpooledDict)
    reusable_blocks: SpooledDict[str] = field(default_factory=SpooledDict)


def survey(path: Path, advance: Progress) -> Survey:
    """Read the authors, the media files, and what is not a post. Raises SourceError."""
    file = WxrFile(path, advance)
    declared: dict[str, SourceAuthor] = {}
    writers: dict[str, None] = {}
    offsets: Counter[timedelta] = Counter()
    index = Index()
    has_items = False
    for name, element, _, _ in file.outlines():
        if element is None:
            continue
        has_items = has_items or name == "item"
        if name == "author":
            if len(declared) < MAX_AUTHORS:
                author = _author(element)
                declared[author.handle] = author
            continue
        if _left_out(element) is None:
            if len(writers) < MAX_AUTHORS:
                writers[text_of(element, "creator")] = None
            offset = _offset(element)
            if offset is not None:
                offsets[offset] += 1
        _add_to_index(index, element)
    header = file.read_header()
    if not has_items and b"<channel" not in file.header:
        raise SourceError("This is not a WordPress export: it is not XML, or has no channel")
    index.site = _site(header)
    authors = [declared.get(name, SourceAuthor(name, name, name=name)) for name in writers if name]
    problems = [*header.problems]
    if not (file.is_complete or file.ends_in_item):
        problems.append("The file ends before its end: it is incomplete")
    return Survey(
        authors=authors,
        site=index.site,
        zone=timezone(offsets.most_common(1)[0][0]) if offsets else None,
        left_out={"users without posts": sum(name not in writers for name in declared)},
        problems=problems,
        index=index,
    )


def read(
    path: Path,
    survey: Survey,
    options: ReadOptions,
    *,
    resolve_author: ResolveAuthor,
    advance: Progress,
) -> Iterator[ParsedRecord]:
    """Yield a record for each item. Its position is its number."""
    number = 0
    for piece in WxrFile(path, advance).pieces():
        if piece.name == "item":
            number += 1
            yield _item(f"item {number}", piece, survey.index, options, resolve_author)


def _item(
    position: str, piece: Piece, index: Index, options: ReadOptions, resolve_author: ResolveAuthor
) -> ParsedRecord:
    element = piece.element
    if element is None:
        return ParsedRecord(position, None, problem=piece.problem)
    kind = _left_out(element)
    if kind is not None:
        title = without_html(text_of(element, "title"))[:200]
        return ParsedRecord(position, None, left_out=kind, title=title)
    builder = RecordBuilder(position, options)
    builder.note(piece.note)
    return guarded(builder, lambda: _record(builder, element, index, resolve_author))


def _left_out(item: Element) -> str | None:
    """Return the kind of an item that is not imported, or None for a post."""
    kind = text_of(item, "post_type")
    if kind and kind != "post":
        return _LEFT_OUT_TYPES.get(kind) or f"items of the type {kind[:40]!r}"
    return _LEFT_OUT_STATUSES.get(text_of(item, "status"))


def _author(element: Element) -> SourceAuthor:
    login = text_of(element, "author_login")
    name = without_html(text_of(element, "author_display_name"))
    return SourceAuthor(login, login, text_of(element, "author_email"), name)


def _site(header: Header) -> str:
    """Return the address of the blog, in a network of blogs not that of the network."""
    for name in ("base_blog_url", "link", "base_site_url"):
        if address := text_of(header.element, name).strip():
            return address.rstrip("/")[:500]
    return ""


def _add_to_index(index: Index, item: Element) -> None:
    kind, post_id = text_of(item, "post_type"), text_of(item, "post_id")
    if kind == "wp_block":
        index.reusable_blocks[post_id] = text_of(item, "encoded", prefix="content")
    if kind == "attachment":
        index.attachments[post_id] = Attachment(
            text_of(item, "attachment_url"),
            alt=_meta(item).get("_wp_attachment_image_alt", ""),
            caption=text_of(item, "encoded", prefix="excerpt"),
            title=without_html(text_of(item, "title")),
        )
        parent = text_of(item, "post_parent")
        if parent not in {"", "0"}:
            others = index.attached.get(parent, [])
            if len(others) < MAX_ATTACHED:
                index.attached[parent] = [*others, post_id]


def _record(
    builder: RecordBuilder, item: Element, index: Index, resolve_author: ResolveAuthor
) -> ParsedRecord:
    post_id, guid = text_of(item, "post_id").strip(), text_of(item, "guid").strip()
    builder.source_id = post_id or guid or text_of(item, "link").strip()
    builder.former_name = f"wordpress:{guid or text_of(item, 'link') + '#' + post_id}"
    builder.is_former_name_unique = bool(guid)
    builder.set_title(without_html(text_of(item, "title")))
    slug = text_of(item, "post_name")
    builder.set_slug(slug)
    meta = _meta(item)
    source = text_of(item, "encoded", prefix="content")
    context = Context(
        site=index.site or builder.options.site,
        attachments=index.attachments,
        attached=index.attached.get(post_id, ()),
        reusable_blocks=index.reusable_blocks,
        footnotes=_footnotes(meta),
    )
    builder.set_content(from_wordpress(source, context))
    builder.set_excerpt(text_of(item, "encoded", prefix="excerpt"))
    cover = index.attachments.get(meta.get("_thumbnail_id", ""))
    builder.set_cover(cover.url if cover else "")
    terms = [child for child in item if local_name(child) == "category"]
    builder.set_tags(
        without_html(term.text or "")
        for domain in ("post_tag", "category")
        for term in terms
        if term.get("domain") == domain and term.get("nicename") != NO_CATEGORY
    )
    _add_addresses(builder, item, guid=guid, slug=slug)
    _set_dates(builder, item)
    _restrict(builder, item, source, meta)
    for child in item:
        if local_name(child) == "comment":
            status = text_of(child, "comment_approved")
            builder.leave_out(_IGNORED_COMMENTS.get(status, "comments"))
    return builder.build(author=text_of(item, "creator"), resolve_author=resolve_author)


def _add_addresses(builder: RecordBuilder, item: Element, *, guid: str, slug: str) -> None:
    """Add the permanent link, those of former slugs, and those by number."""
    link = text_of(item, "link").strip()
    builder.add_old_address(link)
    if slug:
        builder.add_old_address(f"/{slug}/")
    if guid.startswith("http") and "?" not in guid:
        builder.add_old_address(guid)
    if post_id := text_of(item, "post_id").strip():
        builder.add_old_address(f"/?p={post_id}")
    for name, value in _all_meta(item):
        if name == "_wp_old_slug" and value:
            builder.add_old_address(f"/{value}/")
            if slug and slug in link:
                before, _, after = link.rpartition(slug)
                builder.add_old_address(f"{before}{value}{after}")


def _set_dates(builder: RecordBuilder, item: Element) -> None:
    """Set the dates of creation and of the last change, and publish the post."""
    written = _date(builder, item, "post_date")
    builder.set_dates(created=written, updated=_date(builder, item, "post_modified"))
    status = text_of(item, "status")
    if status not in _UNFINISHED_STATUSES:
        builder.publish(written or _published(builder, item))
    if status == "future" and written is not None and written <= builder.options.now:
        builder.restrict(Reason.RESTRICTED, "the post was still scheduled, for a date in the past")


def _published(builder: RecordBuilder, item: Element) -> datetime | None:
    """Return the date of the feed, for posts without another date."""
    text = text_of(item, "pubDate")
    return None if "-0001" in text else builder.read_date("pubDate", text)


def _restrict(builder: RecordBuilder, item: Element, source: str, meta: Mapping[str, str]) -> None:
    """Add the restrictions of WordPress and of its plugins."""
    status = text_of(item, "status")
    if status in _UNFINISHED_STATUSES:
        if reason := _UNFINISHED_STATUSES[status]:
            builder.restrict(Reason.UNFINISHED, reason)
    elif status == "private":
        builder.restrict(Reason.RESTRICTED, "the post is private")
    elif status not in {"publish", "future"}:
        builder.restrict(Reason.UNFINISHED, f"the post has the status {status[:40]!r}")
    if text_of(item, "post_password"):
        builder.restrict(Reason.RESTRICTED, "the post has a password")
    if gate := _GATES.search(source):
        shown = gate[0].removeprefix("<!--").strip().removeprefix("wp:").strip("[/")
        builder.restrict(Reason.RESTRICTED, f"parts of the text were for members only ({shown})")
    for name, value in meta.items():
        if name in _GATE_FIELDS and value.strip().lower() not in _PUBLIC_VALUES:
            builder.restrict(Reason.RESTRICTED, f"a plugin restricted the post ({name})")
        if name in _EXPIRY_FIELDS and value.strip():
            _expire(builder, name, value)


def _expire(builder: RecordBuilder, name: str, value: str) -> None:
    try:
        found = read_date(value.strip(), builder.options.zone)
    except DateError:
        found = None
    if found is None:
        builder.restrict(Reason.RESTRICTED, f"the post expires, but {name} is no date")
    elif found.at <= builder.options.now:
        builder.restrict(Reason.RESTRICTED, f"the post expired on {found.at:%Y-%m-%d}")
    else:
        builder.note(f"the post was to expire on {found.at:%Y-%m-%d}: it will not")
        builder.keep("expires_at", found.at)


def _date(builder: RecordBuilder, item: Element, name: str) -> datetime | None:
    """Return a date in UTC. WordPress writes it in UTC and in the zone of the site."""
    universal, local = (_naive(item, name + ending) for ending in ("_gmt", ""))
    if universal is None and local is None:
        text = text_of(item, name).strip()
        return None if text.startswith(NEVER) else builder.read_date(name, text)
    if universal is None:
        return builder.read_date(name, local)
    if local is not None and abs(local - universal) > MAX_ZONE:
        builder.note(f"{name}: {local} and {universal} UTC contradict each other, UTC is used")
    return builder.read_date(name, universal, zone=UTC)


def _naive(item: Element, name: str) -> datetime | None:
    text = text_of(item, name).strip()
    if not text or text.startswith(NEVER):
        return None
    try:
        found = read_date(text, UTC)
    except DateError:
        return None
    return found.at.replace(tzinfo=None) if found else None


def _offset(item: Element) -> timedelta | None:
    universal, local = _naive(item, "post_date_gmt"), _naive(item, "post_date")
    if universal is None or local is None or abs(local - universal) > MAX_ZONE:
        return None
    return timedelta(minutes=round((local - universal).total_seconds() / 900) * 15)


def _all_meta(item: Element) -> Iterator[tuple[str, str]]:
    for child in item:
        if local_name(child) == "postmeta":
            yield text_of(child, "meta_key"), text_of(child, "meta_value")


def _meta(item: Element) -> dict[str, str]:
    return dict(_all_meta(item))


def _footnotes(meta: Mapping[str, str]) -> Mapping[str, str]:
    """Return the footnotes of the block editor by id."""
    try:
        notes = json.loads(meta.get("footnotes", ""))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(notes, list):
        return {}
    return {
        str(note.get("id")): str(note.get("content")) for note in notes if isinstance(note, dict)
    }
