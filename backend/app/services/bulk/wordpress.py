"""Parser for WordPress's WXR export: posts with authors, tags, categories and featured images."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from app.services.bulk.converting.posts import from_wordpress
from app.services.bulk.converting.results import Attachment, Context, TooComplex
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

STATUSES = {"publish", "future", "draft", "pending", "private"}
"""Statuses of imported posts. Other posts are in the trash or are automatic drafts."""
NO_CATEGORY = "uncategorized"
"""WordPress's category for posts without a category."""
NEVER = "0000-00-00"


class References(NamedTuple):
    """What posts refer to."""

    site: str
    attachments: dict[str, Attachment]
    attached: dict[str, list[str]]
    """The ids of the attachments of each post, by its id."""
    blocks: dict[str, str]
    """The content of reusable blocks by id."""


def survey(path: Path, advance: Progress) -> Survey:
    """Read the authors, the images and the numbers of skipped items. Raises SourceError."""
    authors: dict[str, SourceAuthor] = {}
    skipped: Counter[str] = Counter()
    references = References("", {}, defaultdict(list), {})
    for element in _elements(path, {"author", "item", "base_blog_url"}, advance):
        if _local(element) == "base_blog_url":
            references = references._replace(site=(element.text or "").strip())
            continue
        if _local(element) == "author":
            login = _text(element, "author_login")
            name = _text(element, "author_display_name")
            authors[login] = SourceAuthor(login, login, _text(element, "author_email"), name)
            continue
        login = _text(element, "creator")
        authors.setdefault(login, SourceAuthor(login, login, name=login))
        kind = _text(element, "post_type")
        if kind == "attachment":
            _add_attachment(references, element)
        elif kind == "wp_block":
            name, content = _text(element, "post_id"), _text(element, "encoded", of="/content/")
            references.blocks[name] = content
        elif kind == "page":
            skipped["pages"] += 1
        elif kind == "post" and _text(element, "status") not in STATUSES:
            skipped["posts in the trash"] += 1
        elif kind != "post":
            skipped["other items"] += 1
    named = tuple(author for author in authors.values() if author.handle)
    return Survey(named, skipped, references)


def _add_attachment(references: References, item: Element) -> None:
    name = _text(item, "post_id")
    references.attachments[name] = Attachment(
        _text(item, "attachment_url"),
        alt=_meta(item, "_wp_attachment_image_alt"),
        caption=_text(item, "encoded", of="excerpt"),
        title=_text(item, "title"),
    )
    if (parent := _text(item, "post_parent")) not in {"", "0"}:
        references.attached[parent].append(name)


def _context(item: Element, references: References) -> Context:
    """Return what the content of a post refers to."""
    return Context(
        site=references.site,
        attachments=references.attachments,
        attached=references.attached.get(_text(item, "post_id"), ()),
        reusable_blocks=references.blocks,
        footnotes=_footnotes(_meta(item, "footnotes")),
    )


def _footnotes(meta: str) -> Mapping[str, str]:
    """Return the texts of a post's footnotes by id, from JSON like `[{"id": …, "content": …}]`."""
    try:
        notes = json.loads(meta) if meta else []
    except (ValueError, RecursionError):
        return {}
    return {
        str(note["id"]): str(note.get("content", ""))
        for note in (notes if isinstance(notes, list) else ())
        if isinstance(note, dict) and "id" in note
    }


def read(
    path: Path, survey: Survey, *, resolve_author: ResolveAuthor, advance: Progress
) -> Iterator[ParsedRecord]:
    """Yield the posts. Their position is their number among the items."""
    number = 0
    try:
        for number, item in enumerate(_elements(path, {"item"}, advance), 1):
            if _text(item, "post_type") == "post" and _text(item, "status") in STATUSES:
                yield _record(f"item {number}", item, survey.index, resolve_author)
    except SourceError as error:
        yield ParsedRecord(f"after item {number}", None, problem=str(error))


def _elements(path: Path, names: set[str], advance: Progress) -> Iterator[Element]:
    """Yield the channel's children with these names. Each is cleared afterwards to free memory.

    Raises SourceError if the file is not XML, or has entities, which can expand without limit.
    """
    with SourceFile(path, advance) as source:
        above: list[Element] = []
        try:
            for event, element in iterparse(source, ("start", "end"), forbid_dtd=True):
                if event == "start":
                    above.append(element)
                    continue
                above.pop()
                if len(above) == 2:  # rss and channel
                    source.record_ended()
                    if _local(element) in names:
                        yield element
                    above[-1].clear()
        except DefusedXmlException as error:
            raise SourceError(
                "The file declares a DTD or entities, which are not allowed"
            ) from error
        except (ParseError, ValueError, LookupError) as error:
            raise SourceError(f"The rest of the file is not XML: {error}"[:200]) from error


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(element: Element, name: str, *, of: str = "") -> str:
    """Return the text of the child with this name. `of` is a part of its namespace."""
    for child in element:
        if _local(child) == name and of in child.tag:
            return child.text or ""
    return ""


def _record(
    position: str, item: Element, references: References, resolve_author: ResolveAuthor
) -> ParsedRecord:
    builder = RecordBuilder(position)
    builder.set_title(_text(item, "title"))
    builder.set_slug(_text(item, "post_name"))
    try:
        content = _text(item, "encoded", of="/content/")
        converted = from_wordpress(content, _context(item, references))
    except TooComplex as error:
        return ParsedRecord(position, None, problem=str(error))
    builder.fields["content"] = converted.markdown
    builder.notes += converted.notes
    builder.set_excerpt(_text(item, "encoded", of="excerpt"))
    cover = references.attachments.get(_meta(item, "_thumbnail_id"))
    builder.set_cover(cover.url if cover else "")
    terms = [child for child in item if _local(child) == "category"]
    builder.set_tags(
        term.text or ""
        for domain in ("post_tag", "category")
        for term in terms
        if term.get("domain") == domain and term.get("nicename") != NO_CATEGORY
    )
    _set_dates(builder, item)
    name = _text(item, "guid") or f"{_text(item, 'link')}#{_text(item, 'post_id')}"
    author = _text(item, "creator")
    return builder.build(author=author, resolve_author=resolve_author, identity=f"wordpress:{name}")


def _set_dates(builder: RecordBuilder, item: Element) -> None:
    """Set the creation, update and publication dates. Posts that were not public are drafts."""
    status = _text(item, "status")
    written = _moment(item, "post_date_gmt") or _moment(item, "post_date")
    builder.set(created_at=written)
    if status in {"publish", "future"}:
        if _text(item, "post_password"):
            builder.notes.append("the post has a password: imported as a draft")
        else:
            builder.set(published_at=written)
    elif status == "private":
        builder.notes.append("the post is private: imported as a draft")
    builder.set(updated_at=_moment(item, "post_modified_gmt"))


def _moment(item: Element, name: str) -> Any:
    value = _text(item, name)
    return None if value.startswith(NEVER) else parse_datetime(value)


def _meta(item: Element, key: str) -> str:
    for child in item:
        if _local(child) == "postmeta" and _text(child, "meta_key") == key:
            return _text(child, "meta_value")
    return ""
