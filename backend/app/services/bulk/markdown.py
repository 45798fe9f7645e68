"""Texts with front matter, in the variants of Hugo, Jekyll, Astro, Hexo, Eleventy and others.

The file names in the folder are untrusted. Symbolic links are therefore not followed: each folder
and file is opened relative to the file descriptor of its parent.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Self

from app.content.documents import GENERATOR
from app.content.slugs import slugify
from app.services.bulk import files
from app.services.bulk.converting.generators import from_site, from_site_html
from app.services.bulk.converting.results import Context, Converted
from app.services.bulk.directories import Defaults, Site, data_files, folder_defaults, nested
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
from app.services.bulk.ndjson import ResolveAuthor
from app.services.bulk.permalinks import expand
from app.services.bulk.records import ParsedRecord
from app.services.bulk.visibility import (
    Reason,
    Restriction,
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
_SECTION_PAGE = re.compile(r"_index(?:\.[a-z]{2,3}(?:-[a-z]+)*)?", re.IGNORECASE)
_INDEX_PAGE = re.compile(
    r"index(?:\.[a-z]{2,3}(?:-[a-z]+)*)?\.(?:md|markdown|html?)", re.IGNORECASE
)
_TRANSLATION = re.compile(r"(.+)\.([a-z]{2}(?:-[a-z]{2,4})*)", re.IGNORECASE)
_NOT_CONTENT = {"themes", "_includes", "_layouts", "_data", "_site", "_sass", "layouts"}
"""Folders of generators with templates, results and programs."""
_PRUNED = {"node_modules", "bower_components", "vendor"}
_DRAFT_FOLDERS = {"_drafts", "drafts", "_draft", "draft", "_private", "_unpublished"}
_DOT = re.compile(r"\.")
_INVALID_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DATED_NAME = re.compile(r"(\d{4}-\d{1,2}-\d{1,2})[-_](.+)")
_FIRST_HEADING = re.compile(r"\s*+# ++([^\r\n]*+)")
_HTML_TITLE = re.compile(r"<title[^<>]*+>([^<]*+)</title", re.IGNORECASE)

_PART_OF_BUNDLE = Restriction(Reason.UNFINISHED, "Hugo does not publish files beside index.md")
# Names of front matter fields, without separators. The first one that a file has is used.
_PUBLISHED = (
    "publishedat", "publishdate", "pubdate", "pubdatetime", "publisheddate", "publicationdate",
    "publishedon", "datepublished", "date", "datetime", "posted", "postedat", "postdate",
    "originaldate",
)  # fmt: skip
_CREATED = ("createdat", "created", "datecreated", "createddate", "creationdate")
_UPDATED = (
    "updatedat", "lastmod", "updated", "updateddate", "dateupdated", "lastmodifiedat", "modified",
    "lastmodified", "moddatetime", "moddate", "lastmoddate", "modifieddate", "lastupdated",
    "updatedon",
)  # fmt: skip
_EXCERPT = ("excerpt", "description", "summary")
_COVER = (
    "coverimageurl", "coverimage", "cover", "heroimage", "featureimage", "featuredimage", "image",
    "images", "coverurl", "thumbnail", "indeximg", "headerimg", "bannerimg", "teaser", "ogimage",
    "overlayimage", "photos",
)  # fmt: skip
_TAGS = ("tags", "tag", "keywords")
_CATEGORIES = ("categories", "category")
_LANGUAGE = ("language", "lang", "locale")
_AUTHOR = ("author", "authors")
_ADDRESSES = ("permalink", "url", "aliases", "alias", "redirectfrom", "redirects", "path", "link")
_ALIASES = {"aliases", "alias", "redirectfrom", "redirects"}
_GROUPS = (
    _PUBLISHED, _CREATED, _UPDATED, _EXCERPT, _COVER, _TAGS, _CATEGORIES, _LANGUAGE, _AUTHOR,
)  # fmt: skip
"""Of each group of names, one field is used."""
_CANONICAL = ("canonicalurl", "canonical", "canonicallink")
_FEATURED = ("featured", "pinned", "pin", "sticky", "top")
_COVER_ALT = ("coveralt", "coverimagealt", "imagealt", "heroimagealt", "heroalt", "thumbnailalt")
_COVER_CAPTION = ("covercaption", "coverimagecaption", "imagecaption", "herocaption")
_NO_COMMENTS = ("disablecomments", "nocomments", "commentsdisabled", "hidecomments")
_NESTED = ("params", "extra", "header")
"""Tables with further fields: of Hugo, Zola, and the theme Minimal Mistakes."""
_KNOWN = {
    "title", "slug", "archived", "generator", "published", "publish", "layout", *_FEATURED,
    *_CANONICAL, *_COVER_ALT, *_COVER_CAPTION,
}  # fmt: skip
"""Fields that are not stored in `imported.front_matter`."""


class MarkdownFile(NamedTuple):
    """A file's front matter, by names without separators, and its content."""

    values: Mapping[str, Any]
    found: FrontMatter
    note: str = ""
    hidden: Sequence[Restriction] = ()
    """Why the configuration of the site or of a folder may hide it."""
    language: str = ""
    """The language in its name, if it is a translation."""

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
    """A folder, opened, with what applies to its texts."""

    descriptor: int
    names: frozenset[str]
    translated: Mapping[str, int]
    """The number of texts by the beginnings of their names, up to each dot."""
    defaults: Sequence[Defaults]
    is_bundle: bool = False
    """Whether it has an index page, or is below such a folder. The root is none."""
    is_in_bundle: bool = False

    @classmethod
    def of(
        cls, descriptor: int, names: Iterable[str], *, name: str, above: Self | None = None
    ) -> Self:
        """Read what the files in a folder declare, besides what applies to the one above."""
        unique = frozenset(names)
        own = folder_defaults(name, unique, descriptor)
        translated = Counter(_beginnings(unique))
        if above is None:
            return cls(descriptor, unique, translated, nested((), own))
        is_bundle = above.is_bundle or any(map(_INDEX_PAGE.fullmatch, unique))
        defaults = nested(above.defaults, own)
        return cls(descriptor, unique, translated, defaults, is_bundle, above.is_bundle)

    def has_part(self, name: str) -> bool:
        """Whether a file is a part of a bundle, and not its page."""
        return self.is_in_bundle or (self.is_bundle and not _INDEX_PAGE.fullmatch(name))


def _beginnings(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if PurePosixPath(name).suffix.lower() in SUFFIXES:
            yield from (name[: dot.start()] for dot in _DOT.finditer(name))


def source_folder(path: Path) -> Path:
    """Return the folder whose name is the source's, and to which paths are relative."""
    root = path.resolve()  # the operator may name a symbolic link
    return root if root.is_dir() else root.parent


def survey(path: Path, advance: Progress) -> Survey:
    """Return the authors named in the files, and the number of other files."""
    authors: dict[str, SourceAuthor] = {}
    others: Counter[str] = Counter()
    site = Site(source_folder(path))
    for found in _walk(path, site):
        advance(1)
        if isinstance(found, OtherEntry):
            if not found.is_text:
                others[found.left_out] += 1
            continue
        for handle, email in _authors(found[1].values)[:1]:
            authors.setdefault(handle, _source_author(site, handle, email))
    return Survey(
        tuple(authors.values()),
        site=str(source_folder(path)),
        zone=site.zone,
        left_out=+Counter(
            {
                **others,
                "redirects that are patterns or lead elsewhere": site.left_out_redirects,
            }
        ),
        problems=tuple(dict.fromkeys(site.problems)),
        index=site,
    )


def _source_author(site: Site, handle: str, email: str) -> SourceAuthor:
    """Return an author, whose name may be in a data file."""
    known = site.authors.get(handle)
    known = known if isinstance(known, dict) else {}
    name = _text(known.get("name")) or handle
    return SourceAuthor(handle, email=email or _text(known.get("email")), name=name)


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
    site: Site = survey.index
    for found in _walk(path, site):
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
        yield guarded(builder, partial(_record, builder, file, site, resolve_author))


def _walk(path: Path, site: Site) -> Iterator[tuple[str, MarkdownFile] | OtherEntry]:
    """Yield a file, or the files of a folder with their paths, ordered by name.

    Hidden files are skipped. Symbolic links and unreadable files yield the reason.
    """
    failed: list[OSError] = []
    root = path.resolve()
    if not root.is_dir():
        descriptor = os.open(root.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            names = os.listdir(descriptor)  # noqa: PTH208 - the folder is open, its path may change
            folder = _Folder.of(descriptor, names, name=root.parent.name)
            yield _entry(PurePosixPath(root.name), folder, site)
        finally:
            os.close(descriptor)
        return
    inherited: dict[Path, _Folder] = {}  # the folders above
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
        inherited = {each: inherited[each] for each in below.parents if each in inherited}
        above = inherited.get(below.parent) if below.parts else None
        folder = _Folder.of(descriptor, names, name=below.name or root.name, above=above)
        inherited[below] = folder
        is_template = bool({part.lower() for part in below.parts} & _NOT_CONTENT)
        for name in sorted(names):
            if name[0] != ".":
                position = PurePosixPath((below / name).as_posix())
                kind = _left_out(position, is_template=is_template)
                yield kind or _entry(position, folder, site)
    for failure in failed:
        yield _unreadable_folder(failure)


def _left_out(position: PurePosixPath, *, is_template: bool) -> OtherEntry | None:
    """Return why a file is left out by its name, or None."""
    suffix, name = position.suffix.lower(), position.as_posix()
    if is_template and suffix in SUFFIXES:
        return OtherEntry(name, left_out="files of themes and templates")
    if suffix in _OTHER_TEXTS:
        return OtherEntry(name, left_out=f"{suffix} files")
    if suffix not in SUFFIXES:
        if is_template and "comments" in position.parent.parts:
            return OtherEntry(name, left_out="comments in data files", is_text=False)
        kind = f"other files ({suffix})" if suffix and suffix.isprintable() else "other files"
        return OtherEntry(name, left_out=kind[:40], is_text=False)
    if _SECTION_PAGE.fullmatch(position.stem):
        return OtherEntry(name, left_out="section pages")
    return None


def _entry(
    position: PurePosixPath, folder: _Folder, site: Site
) -> tuple[str, MarkdownFile] | OtherEntry:
    """Read a file in a folder."""
    shown = position.as_posix()
    if _INVALID_NAME.search(shown):
        shown = shown.encode("unicode_escape", "backslashreplace").decode()
        reason = "the file name is not UTF-8 or has control characters: rename it"
        return OtherEntry(shown, reason)
    try:
        text, note = files.decode(files.read(position.name, folder=folder.descriptor))
    except OSError as error:
        return OtherEntry(shown, f"the file cannot be read ({error.strerror or error})")
    found = split(text)
    if position.suffix.lower() in HTML and not found.is_present:
        return OtherEntry(shown, left_out=".html files without front matter")
    data = data_files(position.stem, folder.names, folder.descriptor)
    inherited = site.inherited(position, [*folder.defaults, *data])
    own = {plain_name(key): value for key, value in found.values.items()}
    values: dict[str, Any] = {}
    for source in (inherited.values, own):
        for table in map(source.get, _NESTED):
            if isinstance(table, dict):
                values |= {plain_name(str(key)): value for key, value in table.items()}
        values |= source
    language = _language_in_name(position, folder.translated)
    hidden = [*inherited.hidden]
    if site.has_bundles and folder.has_part(position.name):
        hidden.append(_PART_OF_BUNDLE)
    return shown, MarkdownFile(values, found, note, hidden, language)


def _language_in_name(position: PurePosixPath, translated: Mapping[str, int]) -> str:
    """Return the language of `post.fr.md`, if there is another language of the text."""
    translation = _TRANSLATION.fullmatch(position.stem)
    if translation is None:
        return ""
    is_usual = translated.get(translation[1], 0) > 1 or translation[1].lower() == "index"
    return translation[2] if is_usual else ""


def _unreadable_folder(error: OSError) -> OtherEntry:
    return OtherEntry(str(error.filename), f"the folder cannot be read ({error.strerror})")


def _record(
    builder: RecordBuilder, file: MarkdownFile, site: Site, resolve_author: ResolveAuthor
) -> ParsedRecord:
    values, position = file.values, PurePosixPath(str(builder.position))
    builder.note(file.note)
    builder.is_own = values.get("generator") == GENERATOR
    if file.found.damage:
        builder.restrict(Reason.UNFINISHED, file.found.damage)
    name = _Name.of(position, file.language)
    title, content = _text(values.get("title")), file.content
    if not title and (heading := _FIRST_HEADING.match(content)):
        title, content = heading[1].rstrip(" \t#"), content[heading.end() :].lstrip("\r\n")
    builder.set_title(title or name.text.replace("-", " ").replace("_", " "))
    builder.set_content(_convert(builder, content, position.suffix.lower(), values))
    builder.slug_source = slugify(f"{name.text} {file.language}")
    builder.set_slug(_text(values.get("slug")))
    builder.source_id = position.as_posix()
    own_slug = builder.fields.get("slug")
    builder.former_name = f"slug:{own_slug}" if own_slug else f"markdown:{position}"
    published = _set_dates(builder, values, in_name=name.date)
    _restrict(builder, file, position)
    categories = site.categories(position)
    builder.set_excerpt(_text(_first(values, _EXCERPT)))
    builder.set_cover(_url(_first(values, _COVER)))
    separates = not site.is_hexo and (bool(name.date) or "layout" in values)
    builder.set_tags([*_all_tags(values, splits_at_spaces=separates), *categories])
    names = {f"#{tag.lower()}" for tag in builder.fields["tags"]} | {title.lower()}
    if names & site.encrypted and values.get("password") != "":
        builder.restrict(Reason.RESTRICTED, "the configuration of the site sets a password")
    builder.set_language(
        _text(_first(file.found.values, _LANGUAGE))
        or file.language
        or _text(_first(values, _LANGUAGE))
    )
    if truth(values.get("archived")):
        builder.fields["archived"] = True
    used = _add_addresses(builder, file, name)
    if not builder.is_own:
        pattern = site.permalink(position, values)
        parts = _address_parts(values, position, name, categories)
        builder.add_old_address(expand(pattern, at=published, values=parts))
        builder.add_old_address(*site.redirects_to(builder.old_paths))
    authors = _authors(values)
    builder.set_further_authors(handle for handle, _ in authors[1:])
    _keep_others(builder, file, used)
    return builder.build(author=authors[0][0] if authors else "", resolve_author=resolve_author)


class _Name(NamedTuple):
    """The name of a text: that of its folder if the file is called `index`."""

    text: str
    date: str | None
    below: PurePosixPath
    """The path without suffix and language."""

    @classmethod
    def of(cls, position: PurePosixPath, language: str) -> "_Name":
        """Return the name of a file."""
        stem = position.stem.removesuffix(f".{language}") if language else position.stem
        is_index = stem.lower() == "index"
        below = position.parent if is_index else position.with_name(stem)
        name = below.name or stem
        dated = _DATED_NAME.fullmatch(name)
        return cls(dated[2] if dated else name, dated[1] if dated else None, below)


def _restrict(builder: RecordBuilder, file: MarkdownFile, position: PurePosixPath) -> None:
    """Add the restrictions by front matter, folders and the configuration of the site."""
    now, zone = builder.options.now, builder.options.zone
    builder.add_restrictions(restrictions(file.values, now=now, zone=zone))
    if end := expiry(file.values, now=now, zone=zone):
        builder.note(f"the text does not expire here ({end:%Y-%m-%d})")
        builder.keep("expires_at", end)
    if {part.lower() for part in position.parent.parts} & _DRAFT_FOLDERS:
        builder.restrict(Reason.UNFINISHED, "the file is in a folder of drafts")
    if position.name[0] == "_":
        builder.restrict(Reason.UNFINISHED, "the name of the file begins with _")
    builder.add_restrictions(file.hidden)


def _keep_others(builder: RecordBuilder, file: MarkdownFile, used: set[str]) -> None:
    """Keep the fields for which an article has none, and set whether comments are closed."""
    values = file.values
    if builder.is_own:
        kept = json.loads(_text(values.get("imported")) or "{}")
        for name, value in kept.items():
            builder.keep(name, value)
        builder.set(
            comment_policy=_text(values.get("commentpolicy")),
            former_slugs=values.get("formerslugs"),
        )
        return
    comments = values.get("comments")
    enabled = comments.get("enable", True) if isinstance(comments, dict) else comments
    used |= {*_NO_COMMENTS, *(["comments"] if truth(comments) is not None else [])}
    if truth(enabled) is False or any(truth(values.get(name)) for name in _NO_COMMENTS):
        builder.set_comments_closed()
    if any(truth(values.get(name)) for name in _FEATURED):
        builder.keep("featured", True)
    builder.keep("canonical_url", _text(_first(values, _CANONICAL)))
    cover = _first(values, _COVER)
    cover = cover if isinstance(cover, dict) else {}
    builder.keep("cover_alt", _text(cover.get("alt") or _first(values, _COVER_ALT)))
    builder.keep("cover_caption", _text(cover.get("caption") or _first(values, _COVER_CAPTION)))
    used |= {name for group in _GROUPS if (name := _first_name(values, group))}
    rest = {
        key: value
        for key, value in file.found.values.items()
        if plain_name(key) not in {*_KNOWN, *used} and not is_visibility(key)
    }
    if isinstance(taxonomies := rest.get("taxonomies"), dict):
        rest["taxonomies"] = {
            key: value for key, value in taxonomies.items() if key not in {*_TAGS, *_CATEGORIES}
        }
    builder.keep("front_matter", {key: value for key, value in rest.items() if value != {}})


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


def _set_dates(
    builder: RecordBuilder, values: Mapping[str, Any], *, in_name: str | None
) -> datetime | None:
    """Set the dates of creation, of the last change, and of publication.

    Return the date that the old address may contain, in the zone of the site.
    """
    created = builder.read_date("created", _first(values, _CREATED))
    updated = builder.read_date("updated", _first(values, _UPDATED))
    at = builder.read_date("date", _first(values, _PUBLISHED), publishes=True)
    if at is None and truth(values.get("published")) is None:  # Dev.to and others: a date or a flag
        at = builder.read_date("published", _text(values.get("published")), publishes=True)
    named = builder.read_date("the date in the file name", in_name)
    if at and named and abs(at - named) > timedelta(hours=38):
        builder.note(f"the file is named {in_name}, but its date is {at:%Y-%m-%d}: this is used")
    builder.set_dates(created=created or at or named, updated=updated)
    if at is None and named is None and created is not None:
        builder.note("the date of creation is used as the date of publication")
    published = at or named or created
    builder.publish(published)
    return published.astimezone(builder.options.zone) if published else None


def _add_addresses(builder: RecordBuilder, file: MarkdownFile, name: _Name) -> set[str]:
    """Add the addresses in the front matter, and the usual ones of generators.

    Return the names of the fields that were used.
    """
    own = {plain_name(key): value for key, value in file.found.values.items()}
    declared: list[str] = []
    used: set[str] = set()
    for field in _ADDRESSES:
        value = own.get(field)
        texts = [_text(each) for each in (value if isinstance(value, list) else [value])]
        usable = [address for each in texts if (address := _address(field, each, name))]
        declared += usable
        if len(usable) == len(texts) or field == "permalink":
            used.add(field)
    builder.add_old_address(*declared)
    if builder.is_own:
        return used
    if declared:
        builder.note(f"old URLs, which redirect to the article: {', '.join(declared)}"[:300])
    builder.add_old_address(f"/{name.below.as_posix()}/")
    if file.language:
        builder.add_old_address(f"/{file.language.lower()}/{name.below.as_posix()}/")
    if name.date:
        day = "/".join(part.zfill(2) for part in name.date.split("-"))
        builder.add_old_address(f"/{day}/{name.text}/", f"/{day}/{name.text}.html")
    if slug := _text(own.get("slug")):
        builder.add_old_address(f"/{(name.below.parent / slug).as_posix()}/")
    return used


def _address(field: str, text: str, name: _Name) -> str:
    """Return a declared address, or an empty string if it is none of the article here."""
    is_alias = field in _ALIASES
    if not text or "{" in text or (not is_alias and ("/" not in text or ":" in text)):
        return ""
    if is_alias and "/" not in text:
        return (PurePosixPath("/") / name.below.parent / text).as_posix()
    return text


def _address_parts(
    values: Mapping[str, Any], position: PurePosixPath, name: _Name, categories: Sequence[str]
) -> dict[str, str]:
    """Return the parts of an address by their names in patterns of Jekyll, Hugo and Hexo."""
    own = [_text(each) for each in _names(_first(values, _CATEGORIES), splits_at_spaces=False)]
    all_categories = "/".join(dict.fromkeys([*categories, *filter(None, own)])).lower()
    slug = _text(values.get("slug"))
    folders = [part for part in name.below.parent.parts if part != "content"]
    return {
        "title": slug or name.text,
        "slug": slug or name.text,
        "slugorfilename": slug or name.text,
        "filename": name.text,
        "contentbasename": name.text,
        "basename": name.text,
        "name": name.text,
        "fileSlug": name.text,
        "filePathStem": name.below.as_posix(),
        "path": name.below.as_posix(),
        "post_title": slugify(_text(values.get("title"))),
        "categories": all_categories,
        "category": all_categories,
        "slugified_categories": "/".join(map(slugify, all_categories.split("/"))),
        "collection": position.parts[0].lstrip("_"),
        "section": folders[0] if folders else "",
        "sections": "/".join(folders),
    }


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
    return values.get(_first_name(values, names))


def _first_name(values: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Return the first of the names that has a value, or an empty string."""
    return next((name for name in names if values.get(name) not in (None, "", [], {})), "")


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


def _all_tags(values: Mapping[str, Any], *, splits_at_spaces: bool) -> Iterator[str]:
    """Yield the tags and categories. Zola has both in a table."""
    taxonomies = values.get("taxonomies")
    tables = [values, *([taxonomies] if isinstance(taxonomies, dict) else [])]
    for names in (_TAGS, _CATEGORIES):
        for table in tables:
            name = next((name for name in names if table.get(name) not in (None, "")), None)
            if name is not None:
                splits = name.endswith("s") and splits_at_spaces
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
