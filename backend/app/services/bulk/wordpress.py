"""Parser for WordPress's WXR export: posts and pages with all their fields and comments."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from app.content.slugs import slugify
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
from app.services.bulk.paths import old_path
from app.services.bulk.records import KeySet, ParsedRecord, record_key
from app.services.bulk.references import host_of
from app.services.bulk.spooling import BoundedDict, SpooledDict, SpooledLists
from app.services.bulk.visibility import Reason
from app.services.bulk.wordpress_comments import add_comments
from app.services.bulk.wxr import Header, Piece, WxrFile, local_name, text_of

NO_CATEGORY = "uncategorized"
"""WordPress's category for posts without a category."""
NEVER = "0000-00-00"
MAX_ZONE = timedelta(hours=14, minutes=30)
MAX_FIELD_BYTES = 8 * 1024
"""The longest custom field that is kept: longer ones are layouts of page builders."""
MAX_NAME = 200
"""Maximum length of the name of a category, tag or author. WordPress's database has the same."""
MAX_CAPTION = 10_000
"""Maximum length of the alternative text, the caption and the title of a media file."""
MAX_CATEGORY_DEPTH = 20
MAX_PATHS = 1000
"""The paths of categories that are kept of a post."""

_LEFT_OUT_STATUSES = {"trash": "posts in the trash", "auto-draft": "automatic drafts"}
_ARTICLE_TYPES = {"", "post", "page"}
_LEFT_OUT_TYPES = {
    "attachment": "media files",
    "nav_menu_item": "menu items",
    "wp_block": "reusable blocks",
    "revision": "revisions",
    "wp_navigation": "menus",
    "wp_template": "templates",
    "wp_template_part": "templates",
    "wp_global_styles": "styles",
    "wp_font_family": "fonts",
    "wp_font_face": "fonts",
    "custom_css": "styles",
    "customize_changeset": "styles",
    "oembed_cache": "cached embeds",
    "user_request": "privacy requests",
    "product": "products",
    "product_variation": "product variations",
    "shop_order": "orders",
    "shop_coupon": "coupons",
    "guest-author": "profiles of guest authors",
}
_NO_USER = {"", "0"}
"""The number of the user who wrote a comment, if the reader had not logged in."""
_TAG_DOMAINS = {"post_tag", "tag"}
"""The second one is that of exports before WordPress 3.1."""
_UNFINISHED_STATUSES = {"draft": "", "pending": "the post is pending review"}

_GATE_FIELDS = {
    "_members_access_role", "_jetpack_newsletter_access", "_wpmem_block", "rcp_access_level",
    "rcp_subscription_level", "rcp_user_level", "_is_paid", "_wpac_is_members_only",
    "_memberful_acl", "_ppp_document_settings_protection", "passster_activate_protection",
    "_private_post", "_wc_memberships_content_restricted", "_lm_members_only", "_restricted_to",
    "patreon-level", "patreon-total-patronage-level", "patreon-active-patrons-only",
    "memberful_acl", "memberful_available_to_any_registered_user", "s2member_ccaps_req",
    "pms-content-restrict-user-status", "pms-content-restrict-subscription-plan",
    "wppb-content-restrict-user-status", "groups-read", "groups-groups_read_post",
    "_wppcp_post_page_visibility",
}  # fmt: skip
"""Fields of plugins that show a post to some readers only."""
_PUBLIC_VALUES = {
    "", "0", "no", "none", "everybody", "everyone", "public", "false", "all", "guest",
}  # fmt: skip
_NO_VALUES = re.compile(
    r"(?:a:\d+:\{|\}|(?:i:\d+|s:\d+:\"[^\"]*\");(?=a:|s:0:\"\")|s:0:\"\";)++", re.ASCII
)
"""An array of PHP in which all values are empty."""
_RESTRICTING = {
    "um_content_restriction": re.compile(r"\"_um_custom_access_settings\";(?:b:1|i:1|s:1:\"1\");"),
    "_issuem_leaky_paywall_visibility": re.compile(
        r"\"visibility_type\";s:\d+:\"(?!default\"|always\")"
    ),
}
"""Arrays of settings of plugins, and which of them restrict the post."""
_EXPIRY_FIELDS = {"_expiration-date", "_publishpress_future_date", "_post_expiration", "expiration"}

_NAMED_FIELDS = {
    "canonical_url": "_yoast_wpseo_canonical rank_math_canonical_url _genesis_canonical_uri "
    "_seopress_robots_canonical",
    "meta_title": "_yoast_wpseo_title rank_math_title _aioseo_title _aioseop_title _genesis_title "
    "_seopress_titles_title",
    "meta_description": "_yoast_wpseo_metadesc rank_math_description _aioseo_description "
    "_aioseop_description _genesis_description _seopress_titles_desc",
    "og_title": "_yoast_wpseo_opengraph-title rank_math_facebook_title _aioseo_og_title",
    "og_description": "_yoast_wpseo_opengraph-description rank_math_facebook_description "
    "_aioseo_og_description",
    "og_image": "_yoast_wpseo_opengraph-image rank_math_facebook_image",
    "twitter_title": "_yoast_wpseo_twitter-title rank_math_twitter_title _aioseo_twitter_title",
    "twitter_description": "_yoast_wpseo_twitter-description rank_math_twitter_description "
    "_aioseo_twitter_description",
    "twitter_image": "_yoast_wpseo_twitter-image rank_math_twitter_image",
}
"""Fields of plugins with the same meaning."""
_NAMES = {key: name for name, keys in _NAMED_FIELDS.items() for key in keys.split()}
_COVER_FIELDS = ("fifu_image_url", "_knawatfibu_url", "_external_thumbnail_url")
"""Fields of plugins with the address of a cover image on another site."""
_INTERNAL_FIELDS = {
    "_edit_last", "_edit_lock", "_wp_old_slug", "_wp_old_date", "_thumbnail_id", "_pingme",
    "_encloseme", "_wp_desired_post_slug", "_trackbackme", "_wp_suggested_privacy_policy_content",
    "footnotes", *_COVER_FIELDS,
}  # fmt: skip
_IMAGE_TAG = re.compile(r"<img\b[^<>]*+>")
_QUOTES = re.compile(r"[\"']")
_IMAGE_SOURCE = re.compile(r"\bsrc=[\"'](https?://[^\"']++)")
_INTERNAL = re.compile(r"_(?:oembed_|wp_trash_|menu_item_|wp_attach|publicize_|wpas_)")
"""Fields in which WordPress and Jetpack note what they have done."""


class Byline(NamedTuple):
    """A term of Co-Authors Plus or PublishPress Authors: an author whom readers see."""

    login: str
    """The login without special characters."""
    name: str
    """The login, or the name that readers see."""


class Term(NamedTuple):
    """A category."""

    name: str
    parent: str
    """The key of the category above it, or an empty string."""


@dataclass
class Index:
    """What the posts refer to."""

    site: str = ""
    language: str = ""
    attachments: SpooledDict[Attachment] = field(
        default_factory=lambda: SpooledDict(Attachment._make)
    )
    attached: SpooledLists[str] = field(default_factory=SpooledLists)
    reusable_blocks: SpooledDict[str] = field(default_factory=SpooledDict)
    categories: BoundedDict[str, Term] = field(default_factory=BoundedDict)
    names: BoundedDict[str, str] = field(default_factory=BoundedDict)
    """The names of authors and guest authors, by login."""
    logins: BoundedDict[str, str] = field(default_factory=BoundedDict)
    """The logins of authors by their number."""
    paths: KeySet = field(default_factory=KeySet)
    """The paths that the posts have, besides former ones."""


class Item:
    """The fields, terms and comments of an item."""

    def __init__(self, element: Element) -> None:
        self.fields: dict[str, str] = {}
        self.content = self.excerpt = ""
        self.comments: list[Element] = []
        self.meta: dict[str, list[str]] = {}
        terms: dict[tuple[str, str], Element] = {}
        for child in element:
            name = local_name(child)
            if name == "category":
                key = child.get("nicename") or child.text or ""
                terms.setdefault((child.get("domain", ""), key), child)
            elif name == "comment":
                self.comments.append(child)
            elif name == "postmeta":
                values = self.meta.setdefault(text_of(child, "meta_key"), [])
                values.append(text_of(child, "meta_value"))
            elif name == "encoded":
                if child.tag.startswith("{excerpt}"):
                    self.excerpt = self.excerpt or child.text or ""
                elif child.tag.startswith("{content}"):
                    self.content = self.content or child.text or ""
            else:
                self.fields.setdefault(name, child.text or "")
        self.terms = list(terms.values())

    def get(self, name: str) -> str:
        """Return the text of a field, or an empty string."""
        return self.fields.get(name, "")

    @property
    def bylines(self) -> tuple[Byline, ...]:
        """The authors whom readers see, if a plugin lists them."""
        return tuple(
            Byline(term.get("nicename", "").removeprefix("cap-"), without_html(term.text or ""))
            for term in self.terms
            if term.get("domain") == "author"
        )

    def meta_value(self, name: str) -> str:
        """Return the last value of a custom field, or an empty string."""
        return self.meta.get(name, [""])[-1]


class _Survey:
    """Collects what a file contains besides its posts."""

    def __init__(self) -> None:
        self.index = Index()
        self.authors: BoundedDict[str, SourceAuthor] = BoundedDict()
        self.credits: BoundedDict[tuple[str, tuple[Byline, ...]], None] = BoundedDict()
        self.terms: BoundedDict[tuple[str, str], None] = BoundedDict()
        self.used_terms: BoundedDict[tuple[str, str], None] = BoundedDict()
        self.menus = 0
        self.offsets: Counter[timedelta] = Counter()
        self.has_items = False

    def add(self, name: str, element: Element) -> None:
        """Add an author, a term or an item."""
        if name in {"author", "wp_author"}:
            author = _author(element)
            self.authors[author.handle] = author
            self.index.names[author.handle] = author.name or author.handle
            number = text_of(element, "author_id").strip()
            if number not in _NO_USER:
                self.index.logins[number] = author.handle
        elif name == "item":
            self._add_item(Item(element))
        elif name == "term":
            self.menus += text_of(element, "term_taxonomy") == "nav_menu"
        elif (term := _add_term(self.index, name, element))[1]:
            self.terms[term] = None

    def _add_item(self, item: Item) -> None:
        self.has_items = True
        if _left_out(item) is None:
            self.credits[item.get("creator"), item.bylines] = None
            if path := old_path(item.get("link")):
                self.index.paths.add(record_key("", path))
            for each in item.terms:
                domain = each.get("domain", "")
                kind = "post_tag" if domain in _TAG_DOMAINS else domain
                self.used_terms[kind, each.get("nicename", "")] = None
            offset = _offset(item)
            if offset is not None:
                self.offsets[offset] += 1
        _add_to_index(self.index, item)

    @property
    def writers(self) -> list[str]:
        """The logins of the authors of posts."""
        return list(dict.fromkeys(_writer(*credit, self.index) for credit in self.credits))

    @property
    def left_out(self) -> Counter[str]:
        """What is not imported, by kind."""
        writers = set(self.writers)
        unused = self.terms.keys() - _with_parents(self.used_terms, self.index)
        return +Counter(
            {
                "users without posts": sum(name not in writers for name in self.authors),
                "categories and tags without posts": len(unused),
                "menus": self.menus,
            }
        )


def survey(path: Path, advance: Progress) -> Survey:
    """Read the authors, the media files, and what is not a post. Raises SourceError."""
    file = WxrFile(path, advance)
    found = _Survey()
    for name, element, _, _ in file.outlines():
        if element is not None:
            found.add(name, element)
    header = file.read_header()
    if not found.has_items and b"<channel" not in file.header:
        raise SourceError("This is not a WordPress export: it is not XML, or has no channel")
    found.index.site = _site(header)
    found.index.language = text_of(header.element, "language").strip()
    problems = [*header.problems]
    if not (file.is_complete or file.ends_in_item):
        problems.append("The file ends before its end: it is incomplete")
    return Survey(
        authors=[
            found.authors.get(
                name, SourceAuthor(name, name, name=found.index.names.get(name) or name)
            )
            for name in found.writers
            if name
        ],
        site=found.index.site,
        zone=timezone(found.offsets.most_common(1)[0][0]) if found.offsets else None,
        left_out=found.left_out,
        problems=problems,
        hosts={host_of(attachment.url) for attachment in found.index.attachments.values()},
        index=found.index,
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
    if piece.element is None:
        return ParsedRecord(position, None, problem=piece.problem)
    item = Item(piece.element)
    kind = _left_out(item)
    if kind is not None:
        title = without_html(item.get("title"))[:200]
        parts = {f"comments on {kind}": len(item.comments)} if item.comments else {}
        return ParsedRecord(position, None, left_out=kind, title=title, parts=parts)
    builder = RecordBuilder(position, options)
    builder.note(piece.note)
    return guarded(builder, lambda: _record(builder, item, index, resolve_author))


def _left_out(item: Item) -> str | None:
    """Return the kind of an item that is not imported, or None for a post or page."""
    kind = item.get("post_type").strip()
    if kind not in _ARTICLE_TYPES:
        return _LEFT_OUT_TYPES.get(kind) or f"items of the type {kind[:40]!r}"
    return _LEFT_OUT_STATUSES.get(item.get("status"))


def _author(element: Element) -> SourceAuthor:
    login = text_of(element, "author_login")
    name = without_html(text_of(element, "author_display_name"))[:MAX_NAME]
    return SourceAuthor(login, login, text_of(element, "author_email"), name)


def _writer(creator: str, bylines: Sequence[Byline], index: Index) -> str:
    """Return the login of the author: the first of those whom readers see.

    It is the user who saved the post, if readers see this one at all.
    """
    if not bylines or any(_is_of(byline, creator, index) for byline in bylines):
        return creator
    first = bylines[0]
    return first.name if first.name in index.names else first.login


def _is_of(byline: Byline, login: str, index: Index) -> bool:
    """Whether a byline is that of a user or guest."""
    return login in byline or byline in {
        byline._replace(login=slugify(login, fallback="")),
        byline._replace(name=index.names.get(login, "")),
    }


def _add_term(index: Index, name: str, element: Element) -> tuple[str, str]:
    """Note a category, and return the domain and key of the category or tag."""
    if name == "tag":
        return "post_tag", text_of(element, "tag_slug")
    key = text_of(element, "category_nicename")
    title = without_html(text_of(element, "cat_name"))[:MAX_NAME]
    index.categories[key] = Term(title, text_of(element, "category_parent"))
    return "category", key


def _site(header: Header) -> str:
    """Return the address of the blog, in a network of blogs not that of the network."""
    for name in ("base_blog_url", "link", "base_site_url"):
        if address := text_of(header.element, name).strip():
            return address.rstrip("/")[:500]
    return ""


def _add_to_index(index: Index, item: Item) -> None:
    kind, post_id = item.get("post_type"), item.get("post_id")
    if kind == "wp_block":
        if item.get("status") == "publish" and not item.get("post_password"):
            index.reusable_blocks[post_id] = item.content
    elif kind == "attachment":
        url = item.get("attachment_url").strip() or item.get("guid").strip()
        index.attachments[post_id] = Attachment(
            url,
            alt=item.meta_value("_wp_attachment_image_alt")[:MAX_CAPTION],
            caption=item.excerpt[:MAX_CAPTION],
            title=without_html(item.get("title"))[:MAX_CAPTION],
        )
        parent = item.get("post_parent")
        if parent not in {"", "0"}:
            index.attached.append(parent, post_id)
    elif kind == "guest-author":
        name = without_html(item.meta_value("cap-display_name") or item.get("title"))[:MAX_NAME]
        for key in (item.meta_value("cap-user_login"), item.get("post_name")):
            if key.removeprefix("cap-") not in index.names:
                index.names[key.removeprefix("cap-")] = name


def _with_parents(used: Iterable[tuple[str, str]], index: Index) -> set[tuple[str, str]]:
    """Return the terms in use, with the categories above them."""
    found = set(used)
    for domain, key in list(found):
        if domain == "category":
            found.update((domain, above) for above in _above(index, key))
    return found | {("category", NO_CATEGORY)}


def _above(index: Index, key: str) -> list[str]:
    """Return the keys of the nearest categories above a category, the nearest one first."""
    keys: list[str] = []
    parent = index.categories[key].parent if key in index.categories else ""
    while len(keys) < MAX_CATEGORY_DEPTH and parent in index.categories:
        if parent in {"", key, *keys}:
            break
        keys.append(parent)
        parent = index.categories[parent].parent
    return keys


def _record(
    builder: RecordBuilder, item: Item, index: Index, resolve_author: ResolveAuthor
) -> ParsedRecord:
    post_id, guid = item.get("post_id").strip(), item.get("guid").strip()
    builder.source_id = post_id or guid or item.get("link").strip()
    builder.former_name = f"wordpress:{guid or item.get('link') + '#' + post_id}"
    builder.is_former_name_unique = bool(guid)
    builder.set_title(without_html(item.get("title")))
    slug = item.get("post_name")
    builder.set_slug(slug)
    context = Context(
        site=index.site or builder.options.site,
        attachments=index.attachments,
        attached=index.attached.get(post_id, ()),
        reusable_blocks=index.reusable_blocks,
        footnotes=_footnotes(item),
    )
    builder.set_content(from_wordpress(item.content, context))
    builder.set_excerpt(item.excerpt)
    _set_cover(builder, item, index)
    _set_terms(builder, item, index)
    writer = _writer(item.get("creator"), item.bylines, index)
    others = (byline for byline in item.bylines if not _is_of(byline, writer, index))
    builder.set_further_authors(
        index.names.get(login) or index.names.get(name) or name for login, name in others
    )
    _add_addresses(builder, item, index, guid=guid, slug=slug)
    _set_dates(builder, item)
    _restrict(builder, item)
    _keep_others(builder, item, index)
    add_comments(builder, item.comments, logins=index.logins, resolve_author=resolve_author)
    return builder.build(author=writer, resolve_author=resolve_author)


def _set_cover(builder: RecordBuilder, item: Item, index: Index) -> None:
    """Set the featured image, also one whose media file is not in the export."""
    number = item.meta_value("_thumbnail_id").strip()
    cover = index.attachments.get(number)
    if cover is not None and cover.url:
        builder.set_cover(cover.url)
        builder.keep("cover_alt", without_html(cover.alt))
        builder.keep("cover_caption", without_html(cover.caption))
        return
    fields = (item.meta_value(name).strip() for name in _COVER_FIELDS)
    if url := next(filter(None, fields), ""):
        builder.set_cover(url)
        builder.keep("cover_alt", item.meta_value("fifu_image_alt"))
    elif number.isdigit() and number != "0":
        if url := _image_in_text(item.content, number):
            builder.set_cover(url)
        else:
            builder.note(f"cover image: the media file {number} is not in the export")
            builder.keep("cover_image", f"attachment {number}")


def _image_in_text(content: str, number: str) -> str:
    """Return the address of an image in a text, by the number of its media file."""
    for image in _IMAGE_TAG.findall(content):
        if f"wp-image-{number}" in _QUOTES.sub(" ", image).split():
            source = _IMAGE_SOURCE.search(image)
            return source[1] if source else ""
    return ""


def _set_terms(builder: RecordBuilder, item: Item, index: Index) -> None:
    """Set the tags: tags, then categories, then the categories above them."""
    tags: list[str] = []
    categories: list[str] = []
    above: dict[str, None] = {}
    paths: list[str] = []
    others: dict[str, list[str]] = {}
    language = index.language
    for term in item.terms:
        domain, key = term.get("domain", ""), term.get("nicename", "")
        name = without_html(term.text or "")[:MAX_NAME]
        if domain in _TAG_DOMAINS:
            tags.append(name)
        elif domain in {"category", ""} and key != NO_CATEGORY:
            categories.append(name)
            parents = [index.categories[each].name for each in _above(index, key)]
            above |= dict.fromkeys(parents)
            if parents and len(paths) <= MAX_PATHS:
                paths.append(" / ".join([*reversed(parents), name]))
        elif domain == "post_format":
            builder.keep("format", key.removeprefix("post-format-"))
        elif domain == "language":
            language = key or name
        elif domain not in {"category", "author"}:
            others.setdefault(domain, []).append(name)
    builder.set_tags([*tags, *categories, *above])
    _keep_paths(builder, paths)
    builder.keep("taxonomies", others)
    builder.set_language(language)


def _keep_paths(builder: RecordBuilder, paths: list[str]) -> None:
    if len(paths) > MAX_PATHS:
        builder.note(f"only the first {MAX_PATHS} paths of categories were kept")
    builder.keep("categories", paths[:MAX_PATHS])


def _add_addresses(
    builder: RecordBuilder, item: Item, index: Index, *, guid: str, slug: str
) -> None:
    """Add the permanent link, those of former slugs and dates, and those by number."""

    def add_former(address: str) -> None:
        """Add an address that WordPress redirects, unless it is that of another post now."""
        if record_key("", old_path(address) or "") not in index.paths:
            builder.add_old_address(address)

    link = item.get("link").strip()
    builder.add_old_address(link)
    if slug and item.get("post_type") != "page":
        add_former(f"/{slug}/")
    if guid.startswith("http") and "?" not in guid:
        builder.add_old_address(guid)
    if post_id := item.get("post_id").strip():
        name = "page_id" if item.get("post_type") == "page" else "p"
        builder.add_old_address(f"/?{name}={post_id}")
    for former in filter(None, item.meta.get("_wp_old_slug", ())):
        add_former(f"/{former}/")
        if slug and slug in link:
            before, _, after = link.rpartition(slug)
            add_former(f"{before}{former}{after}")
    today = item.get("post_date")[:10].replace("-", "/")
    for former in item.meta.get("_wp_old_date", ()):
        if today and f"/{today}/" in link:
            add_former(link.replace(today, former.strip().replace("-", "/"), 1))


def _set_dates(builder: RecordBuilder, item: Item) -> None:
    """Set the dates of creation and of the last change, and publish the post."""
    written = _date(builder, item, "post_date")
    builder.set_dates(created=written, updated=_date(builder, item, "post_modified"))
    status = item.get("status")
    if status in _UNFINISHED_STATUSES:
        return
    published = written or _published(builder, item)
    builder.publish(published)
    if status == "future" and published is not None and published <= builder.options.now:
        builder.restrict(Reason.RESTRICTED, "the post was still scheduled, for a date in the past")


def _published(builder: RecordBuilder, item: Item) -> datetime | None:
    """Return the date of the feed, for posts without another date."""
    text = item.get("pubDate")
    return None if "-0001" in text else builder.read_date("pubDate", text)


def _restrict(builder: RecordBuilder, item: Item) -> None:
    """Add the restrictions of WordPress and of its plugins."""
    if item.get("post_type") == "page":
        builder.set_page()
    status = item.get("status")
    if status in _UNFINISHED_STATUSES:
        if reason := _UNFINISHED_STATUSES[status]:
            builder.restrict(Reason.UNFINISHED, reason)
    elif status == "private":
        builder.restrict(Reason.RESTRICTED, "the post is private")
    elif status not in {"publish", "future"}:
        builder.restrict(Reason.UNFINISHED, f"the post has the status {status[:40]!r}")
    if item.get("post_password"):
        builder.restrict(Reason.RESTRICTED, "the post has a password")
    _restrict_by_fields(builder, item)


def _restrict_by_fields(builder: RecordBuilder, item: Item) -> None:
    for name, values in item.meta.items():
        for value in values:
            if _hides(name, value.strip()):
                builder.restrict(Reason.RESTRICTED, f"a plugin restricted the post ({name})")
            if name in _EXPIRY_FIELDS and value.strip():
                _expire(builder, name, value)


def _hides(name: str, value: str) -> bool:
    """Return whether the value of a field of a plugin shows the post to some readers only."""
    if settings := _RESTRICTING.get(name):
        return settings.search(value) is not None
    is_public = value.lower() in _PUBLIC_VALUES or _NO_VALUES.fullmatch(value) is not None
    return name in _GATE_FIELDS and not is_public


def _expire(builder: RecordBuilder, name: str, value: str) -> None:
    try:
        found = read_date(value.strip(), builder.options.zone)
    except DateError:
        found = None
    if found is None:
        builder.restrict(Reason.RESTRICTED, f"the post expires, but {name} is not a date")
    elif found.at <= builder.options.now:
        builder.restrict(Reason.RESTRICTED, f"the post expired on {found.at:%Y-%m-%d}")
    else:
        builder.note(f"the post does not expire here ({found.at:%Y-%m-%d})")
        builder.keep("expires_at", found.at)


def _keep_others(builder: RecordBuilder, item: Item, index: Index) -> None:
    """Set whether comments are closed, and keep the fields for which an article has none."""
    if item.get("comment_status").strip() == "closed":
        builder.set_comments_closed()
    if item.get("is_sticky").strip() == "1":
        builder.keep("featured", True)
    builder.keep_number("menu_order", item.get("menu_order"))
    custom: dict[str, str | list[str]] = {}
    for name, values in item.meta.items():
        if name in _NAMES:
            builder.keep(_NAMES[name], values[-1].strip())
        elif name in _INTERNAL_FIELDS or _INTERNAL.match(name) or not any(map(str.strip, values)):
            continue
        elif len("".join(values)) > MAX_FIELD_BYTES:
            builder.note(f"the custom field {name[:60]!r} is too long and was left out")
        else:
            custom[name] = values[0] if len(values) == 1 else values
    builder.keep("custom_fields", custom)


def _date(builder: RecordBuilder, item: Item, name: str) -> datetime | None:
    """Return a date in UTC. WordPress writes it in UTC and in the zone of the site."""
    universal, local = (_naive(item, name + ending) for ending in ("_gmt", ""))
    if universal is None and local is None:
        text = item.get(name).strip()
        return None if text.startswith(NEVER) else builder.read_date(name, text)
    if universal is None:
        return builder.read_date(name, local)
    if local is not None and abs(local - universal) > MAX_ZONE:
        builder.note(f"{name}: {local} and {universal} UTC contradict each other, UTC is used")
    return builder.read_date(name, universal, zone=UTC)


def _naive(item: Item, name: str) -> datetime | None:
    text = item.get(name).strip()
    if not text or text.startswith(NEVER):
        return None
    try:
        found = read_date(text, UTC)
    except DateError:
        return None
    return found.at.replace(tzinfo=None) if found else None


def _offset(item: Item) -> timedelta | None:
    universal, local = _naive(item, "post_date_gmt"), _naive(item, "post_date")
    if universal is None or local is None or abs(local - universal) > MAX_ZONE:
        return None
    return timedelta(minutes=round((local - universal).total_seconds() / 900) * 15)


def _footnotes(item: Item) -> Mapping[str, str]:
    """Return the footnotes of the block editor by id."""
    text = item.meta_value("footnotes")
    if not text:
        return {}
    try:
        notes = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(notes, list):
        return {}
    return {
        str(note.get("id")): str(note.get("content")) for note in notes if isinstance(note, dict)
    }
