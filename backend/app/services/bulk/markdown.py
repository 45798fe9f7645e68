"""Texts with front matter, in the variants of Hugo, Jekyll, Astro, Hexo, Eleventy and others.

The file names in the folder are untrusted. Symbolic links are therefore not followed: each folder
and file is opened relative to the file descriptor of its parent.
"""

import codecs
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from app.content.slugs import slugify
from app.services.bulk import files
from app.services.bulk.converting.generators import from_site, from_site_html
from app.services.bulk.converting.results import Context, Converted
from app.services.bulk.foreign import (
    Progress,
    ReadOptions,
    RecordBuilder,
    SourceAuthor,
    Survey,
    guarded,
    without_html,
)
from app.services.bulk.front_matter import FrontMatter, split
from app.services.bulk.markdown_writing import GENERATOR
from app.services.bulk.ndjson import ResolveAuthor
from app.services.bulk.records import ParsedRecord
from app.services.bulk.visibility import (
    Reason,
    expiry,
    is_visibility,
    plain_name,
    restrictions,
    truth,
)

MARKDOWN = {".md", ".markdown", ".mdown", ".mkd", ".mkdn", ".mdwn"}
HTML = {".html", ".htm"}
SUFFIXES = {*MARKDOWN, *HTML, ".mdx"}
"""The endings of files that are read, in lower case."""

_OTHER_TEXTS = {
    ".rst", ".adoc", ".asciidoc", ".asc", ".org", ".textile", ".txt", ".ipynb", ".njk", ".liquid",
    ".haml", ".pug", ".slim", ".docx", ".odt", ".rmd", ".qmd", ".typ",
}  # fmt: skip
"""Endings of files that may be texts in formats that are not read."""
_SECTION_PAGES = {"_index", "_index.zh", "_index.en"}
_NOT_CONTENT = {"themes", "_includes", "_layouts", "_data", "_site", "_sass", "layouts"}
"""Folders of generators with templates, results and programs."""
_PRUNED = {"node_modules", "bower_components", "vendor"}
_DRAFT_FOLDERS = {"_drafts", "drafts", "_draft", "draft", "_private", "_unpublished"}
_INVALID_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DATED_NAME = re.compile(r"(\d{4}-\d{1,2}-\d{1,2})[-_](.+)")
_FIRST_HEADING = re.compile(r"\s*+# ++([^\r\n]*+)")
_HTML_TITLE = re.compile(r"<title[^<>]*+>([^<]*+)</title", re.IGNORECASE)

# Names of front matter fields, without separators. The first one that a file has is used.
_PUBLISHED = (
    "publishedat", "publishdate", "pubdate", "pubdatetime", "publisheddate", "publicationdate",
    "publishedon", "datepublished", "date", "datetime", "posted", "postedat", "postdate",
    "originaldate",
)  # fmt: skip
_CREATED = ("createdat", "created", "datecreated", "createddate", "creationdate")
_UPDATED = (
    "updatedat", "lastmod", "updated", "updateddate", "dateupdated", "lastmodifiedat", "modified",
    "lastmodified", "moddatetime", "modifieddate", "lastupdated", "updatedon",
)  # fmt: skip
_EXCERPT = ("excerpt", "description", "summary")
_COVER = (
    "coverimageurl", "coverimage", "cover", "heroimage", "featureimage", "featuredimage", "image",
    "images", "thumbnail", "ogimage",
)  # fmt: skip
_TAGS = ("tags", "tag", "keywords")
_CATEGORIES = ("categories", "category")
_LANGUAGE = ("language", "lang", "locale")
_AUTHOR = ("author", "authors")
_ADDRESSES = ("permalink", "url", "aliases", "alias", "redirectfrom", "redirects", "path", "link")
_KNOWN = {
    "title", "slug", "archived", "generator", "published", "publish", "layout", "taxonomies",
    *_PUBLISHED, *_CREATED, *_UPDATED, *_EXCERPT, *_COVER, *_TAGS, *_CATEGORIES, *_LANGUAGE,
    *_AUTHOR, *_ADDRESSES,
}  # fmt: skip
"""Fields that are not stored in `imported`."""


class MarkdownFile(NamedTuple):
    """A file's front matter, by names without separators, and its content."""

    values: Mapping[str, Any]
    found: FrontMatter
    note: str = ""

    @property
    def content(self) -> str:
        """The text after the front matter."""
        return self.found.content


class OtherEntry(NamedTuple):
    """A file or folder that is not imported: it cannot be read, or is left out."""

    position: str
    problem: str = ""
    left_out: str = ""
    """The kind in the plural."""
    is_text: bool = True
    """Whether it counts as a record."""


class _Folder(NamedTuple):
    """The folder to import. A single file is in a folder, too."""

    path: Path
    only: str = ""


def source_folder(path: Path) -> Path:
    """Return the folder whose name is the source's, and to which paths are relative."""
    root = path.resolve()  # the operator may name a symbolic link
    return root if root.is_dir() else root.parent


def survey(path: Path, advance: Progress) -> Survey:
    """Return the authors named in the files, and the number of other files."""
    authors: dict[str, SourceAuthor] = {}
    others: Counter[str] = Counter()
    for found in _walk(path):
        advance(1)
        if isinstance(found, OtherEntry):
            if not found.is_text:
                others[found.left_out] += 1
            continue
        for handle, email in _authors(found[1].values)[:1]:
            authors.setdefault(handle, SourceAuthor(handle, email=email, name=handle))
    return Survey(tuple(authors.values()), left_out=others, site=str(source_folder(path)))


def read(
    path: Path,
    survey: Survey,
    options: ReadOptions,
    *,
    resolve_author: ResolveAuthor,
    advance: Progress,
) -> Iterator[ParsedRecord]:
    """Yield the article of a file, or the articles in a folder and its subfolders.

    An article is identified by its path, relative to the folder.
    """
    is_in_drafts = bool({part.lower() for part in source_folder(path).parts} & {"_drafts"})
    for found in _walk(path):
        advance(1)
        if isinstance(found, OtherEntry):
            if found.is_text:
                problem = found.problem[:300]
                yield ParsedRecord(found.position, None, problem, left_out=found.left_out)
            continue
        position, file = found
        builder = RecordBuilder(position, options)
        if is_in_drafts:
            builder.restrict(Reason.UNFINISHED, "the file is in a folder of drafts")
        yield guarded(builder, partial(_record, builder, file, resolve_author))


def _walk(path: Path) -> Iterator[tuple[str, MarkdownFile] | OtherEntry]:
    """Yield a file, or the files of a folder with their paths, ordered by name.

    Hidden files are skipped. Symbolic links and unreadable files yield the reason.
    """
    failed: list[OSError] = []
    root = path.resolve()
    if not root.is_dir():
        descriptor = os.open(root.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield _entry(root.name, root.name, descriptor, {})
        finally:
            os.close(descriptor)
        return
    inherited: dict[Path, Mapping[str, Any]] = {}
    for within, folders, names, descriptor in os.fwalk(root, onerror=failed.append):
        below = Path(within).relative_to(root)
        for failure in failed:
            yield _unreadable_folder(failure)
        failed.clear()
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in _PRUNED)
        for name in folders:
            if files.is_link(name, folder=descriptor):
                reason = f"the folder cannot be read ({files.SYMLINK_MESSAGE})"
                yield OtherEntry((below / name).as_posix(), reason)
        above = inherited.get(below.parent, {}) if below.parts else {}
        values = {**above, **_folder_values(below.name, names, descriptor)}
        inherited[below] = values
        is_template = bool({part.lower() for part in below.parts} & _NOT_CONTENT)
        for name in sorted(names):
            if name[0] != ".":
                position = (below / name).as_posix()
                kind = _left_out(name, is_template=is_template)
                yield (
                    kind._replace(position=position)
                    if kind
                    else _entry(position, name, descriptor, values)
                )
    for failure in failed:
        yield _unreadable_folder(failure)


def _left_out(name: str, *, is_template: bool) -> OtherEntry | None:
    """Return why a file is left out by its name, or None."""
    suffix = PurePosixPath(name).suffix.lower()
    if is_template and suffix in SUFFIXES:
        return OtherEntry("", left_out="files of themes and templates")
    if suffix in _OTHER_TEXTS:
        return OtherEntry("", left_out=f"{suffix} files")
    if suffix not in SUFFIXES:
        kind = f"other files ({suffix})" if suffix and suffix.isprintable() else "other files"
        return OtherEntry("", left_out=kind[:40], is_text=False)
    if PurePosixPath(name).stem.lower() in _SECTION_PAGES:
        return OtherEntry("", left_out="section pages")
    return None


def _folder_values(folder: str, names: list[str], descriptor: int) -> Mapping[str, Any]:
    """Return the visibility that a folder's own file declares for all its texts.

    Hugo has `cascade` in _index.md, Eleventy a JSON file with the folder's name.
    """
    values: dict[str, Any] = {}
    for name in (f"{folder}.json", f"{folder}.11tydata.json", "_index.md"):
        if name not in names:
            continue
        try:
            text, _ = _decode(files.read(name, folder=descriptor))
            found = split(text).values if name == "_index.md" else json.loads(text)
        except (OSError, ValueError, RecursionError):
            continue
        if name == "_index.md":
            cascade = found.get("cascade")
            found = {}
            for each in cascade if isinstance(cascade, list) else [cascade]:
                found |= each if isinstance(each, dict) else {}
        if isinstance(found, dict):
            values |= {key: value for key, value in found.items() if _is_inherited(key, value)}
    return values


def _is_inherited(name: str, value: Any) -> bool:
    is_not_written = plain_name(name) == "permalink" and truth(value) is False
    return is_not_written or is_visibility(name)


def _entry(
    position: str, name: str, folder: int, inherited: Mapping[str, Any]
) -> tuple[str, MarkdownFile] | OtherEntry:
    """Read the file with this name in `folder` (a file descriptor)."""
    if _INVALID_NAME.search(position):
        shown = position.encode("unicode_escape", "backslashreplace").decode()
        reason = "the file name is not UTF-8 or has control characters: rename it"
        return OtherEntry(shown, reason)
    try:
        text, note = _decode(files.read(name, folder=folder))
    except OSError as error:
        return OtherEntry(position, f"the file cannot be read ({error.strerror or error})")
    found = split(text)
    if PurePosixPath(name).suffix.lower() in HTML and not found.is_present:
        return OtherEntry(position, left_out=".html files without front matter")
    own = {plain_name(key): value for key, value in found.values.items()}
    defaults = {plain_name(key): value for key, value in inherited.items()}
    return position, MarkdownFile({**defaults, **own}, found, note)


def _unreadable_folder(error: OSError) -> OtherEntry:
    return OtherEntry(str(error.filename), f"the folder cannot be read ({error.strerror})")


def _decode(raw: bytes) -> tuple[str, str]:
    """Return the text of a file, and a note if it is not UTF-8."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", errors="replace"), ""
    try:
        return raw.decode("utf-8-sig"), ""
    except UnicodeDecodeError:
        note = "bytes that are no text in UTF-8 were replaced by \ufffd"
        return raw.decode("utf-8-sig", errors="replace"), note


def _record(
    builder: RecordBuilder, file: MarkdownFile, resolve_author: ResolveAuthor
) -> ParsedRecord:
    values, position = file.values, PurePosixPath(str(builder.position))
    builder.note(file.note)
    builder.is_own = values.get("generator") == GENERATOR
    if file.found.damage:
        builder.restrict(Reason.UNFINISHED, file.found.damage)
    name = position.stem
    if name.lower() == "index":
        name = position.parent.name or name
    dated = _DATED_NAME.fullmatch(name)
    undated = dated[2] if dated else name
    title, content = _text(values.get("title")), file.content
    if not title and (heading := _FIRST_HEADING.match(content)):
        title, content = heading[1].rstrip(" \t#"), content[heading.end() :].lstrip("\r\n")
    builder.set_title(title or undated.replace("-", " ").replace("_", " "))
    builder.set_content(_convert(builder, content, position.suffix.lower(), values))
    builder.slug_source = slugify(undated)
    builder.set_slug(_text(values.get("slug")))
    builder.source_id = position.as_posix()
    own_slug = builder.fields.get("slug")
    builder.former_name = f"slug:{own_slug}" if own_slug else f"markdown:{position}"
    _set_dates(builder, values, in_name=dated[1] if dated else None)
    builder.add_restrictions(
        restrictions(values, now=builder.options.now, zone=builder.options.zone)
    )
    if end := expiry(values, now=builder.options.now, zone=builder.options.zone):
        builder.note(f"the text was to expire on {end:%Y-%m-%d}: it will not")
        builder.keep("expires_at", end)
    if {part.lower() for part in position.parent.parts} & _DRAFT_FOLDERS:
        builder.restrict(Reason.UNFINISHED, "the file is in a folder of drafts")
    if position.name[0] == "_":
        builder.restrict(Reason.UNFINISHED, "the name of the file begins with _")
    builder.set_excerpt(_text(_first(values, _EXCERPT)))
    builder.set_cover(_url(_first(values, _COVER)))
    builder.set_tags(_all_tags(values, is_jekyll=bool(dated)))
    builder.set_language(_text(_first(values, _LANGUAGE)))
    if truth(values.get("archived")):
        builder.fields["archived"] = True
    if builder.is_own:
        builder.set(
            comment_policy=_text(values.get("commentpolicy")),
            former_slugs=values.get("formerslugs"),
        )
    _add_addresses(builder, values, position, dated=dated)
    authors = _authors(values)
    if others := [handle for handle, _ in authors[1:]]:
        builder.note(f"an article has one author, not imported as authors: {', '.join(others)}")
        builder.keep("further_authors", others)
    _keep_others(builder, file)
    return builder.build(author=authors[0][0] if authors else "", resolve_author=resolve_author)


def _keep_others(builder: RecordBuilder, file: MarkdownFile) -> None:
    """Keep the fields for which an article has none."""
    if builder.is_own:
        kept = json.loads(_text(file.values.get("imported")) or "{}")
        for name, value in kept.items():
            builder.keep(name, value)
        return
    rest = {
        key: value
        for key, value in file.found.values.items()
        if plain_name(key) not in _KNOWN and not is_visibility(key)
    }
    builder.keep("front_matter", rest)


def _convert(
    builder: RecordBuilder, content: str, suffix: str, values: Mapping[str, Any]
) -> Converted:
    """Return the text as Markdown. Files that Pressroom wrote contain it already."""
    if builder.is_own:
        return Converted(content)
    texts = {name: _text(value) for name, value in values.items()}
    context = Context(site=builder.options.site, values=texts)
    if suffix in HTML:
        if not builder.fields.get("title") and (title := _HTML_TITLE.search(content)):
            builder.set_title(without_html(title[1]))
        return from_site_html(content, context)
    return from_site(content, context, is_mdx=suffix == ".mdx")


def _set_dates(builder: RecordBuilder, values: Mapping[str, Any], *, in_name: str | None) -> None:
    """Set the dates of creation, of the last change, and of publication."""
    created = builder.read_date("created", _first(values, _CREATED))
    updated = builder.read_date("updated", _first(values, _UPDATED))
    at = builder.read_date("date", _first(values, _PUBLISHED))
    if at is None and truth(values.get("published")) is None:  # Dev.to and others: a date or a flag
        at = builder.read_date("published", _text(values.get("published")))
    named = builder.read_date("the date in the file name", in_name)
    if at and named and abs(at - named) > timedelta(hours=38):
        builder.note(f"the file is named {in_name}, but its date is {at:%Y-%m-%d}: this is used")
    builder.set_dates(created=created or at or named, updated=updated)
    if at is None and named is None and created is not None:
        builder.note("the date of creation is used as the date of publication")
    builder.publish(at or named or created)


def _add_addresses(
    builder: RecordBuilder,
    values: Mapping[str, Any],
    position: PurePosixPath,
    *,
    dated: re.Match[str] | None,
) -> None:
    """Add the addresses in the front matter, and the usual ones of generators."""
    found = [values.get(name) for name in _ADDRESSES]
    declared = [
        _text(each) for value in found for each in (value if isinstance(value, list) else [value])
    ]
    usable = [each for each in declared if "/" in each and ":" not in each]
    builder.add_old_address(*usable)
    if builder.is_own:
        return
    if usable:
        builder.note(f"old addresses, which redirect to the article: {', '.join(usable)}"[:300])
    below = position.parent if position.stem.lower() == "index" else position.with_suffix("")
    builder.add_old_address(f"/{below.as_posix()}/")
    if dated:
        day = "/".join(part.zfill(2) for part in dated[1].split("-"))
        builder.add_old_address(f"/{day}/{dated[2]}/", f"/{day}/{dated[2]}.html")
    if slug := _text(values.get("slug")):
        builder.add_old_address(f"/{(below.parent / slug).as_posix()}/")


def _authors(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the names of the authors, with their emails or empty strings."""
    value = _first(values, _AUTHOR)
    found = []
    for each in value if isinstance(value, list) else [value]:
        email = _text(each.get("email")) if isinstance(each, dict) else ""
        name = each.get("name") or each.get("username") if isinstance(each, dict) else each
        if text := _text(name):
            found.append((text, email))
    return found


def _first(values: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((values[name] for name in names if values.get(name) not in (None, "")), None)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value).strip() if isinstance(value, str | int | float) else ""


def _url(value: Any) -> str:
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        value = _first(value, ("image", "url", "src", "path"))
    return _text(value)


def _all_tags(values: Mapping[str, Any], *, is_jekyll: bool) -> Iterator[str]:
    """Yield the tags and categories. Zola has both in a table."""
    taxonomies = values.get("taxonomies")
    tables = [values, *([taxonomies] if isinstance(taxonomies, dict) else [])]
    for names in (_TAGS, _CATEGORIES):
        for table in tables:
            name = next((name for name in names if table.get(name) not in (None, "")), None)
            if name is not None:
                splits = name.endswith("s") and (is_jekyll or "layout" in values)
                yield from _names(table[name], splits_at_spaces=splits)


def _names(value: Any, *, splits_at_spaces: bool) -> Iterator[str]:
    """Yield the names in a list, also a nested one, or a text. Jekyll separates by spaces."""
    if isinstance(value, list):
        for each in value:
            is_name = not isinstance(each, list | dict)
            yield from [_text(each)] if is_name else _names(each, splits_at_spaces=False)
    elif isinstance(value, dict):
        yield _text(value.get("name") or value.get("title") or value.get("slug"))
    elif "," in (text := _text(value)):
        yield from (name.strip() for name in text.split(","))
    else:
        yield from text.split() if splits_at_spaces else [text]
