"""Markdown files with YAML front matter, in the variants of Hugo, Jekyll and Astro.

The file names in the folder are untrusted. Symbolic links are therefore not followed: each folder
and file is opened relative to the file descriptor of its parent.
"""

import os
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from app.content.slugs import slugify
from app.services.bulk import files
from app.services.bulk.converting.generators import from_site
from app.services.bulk.converting.results import Context
from app.services.bulk.foreign import Progress, RecordBuilder, SourceAuthor, Survey, parse_datetime
from app.services.bulk.ndjson import ResolveAuthor
from app.services.bulk.records import ParsedRecord

MAX_FRONT_MATTER = 64 * 1024

SUFFIXES = {".md", ".markdown"}
_NOT_ARTICLES = {"_index.md"}
"""Section pages of Hugo."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_FRONT_MATTER = re.compile(
    r"---[ \t]*\r?\n(?:(.*?)\r?\n)??(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL
)
_INVALID_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DATED_NAME = re.compile(r"(\d{4}-\d\d-\d\d)-(.+)")
_HEADING = re.compile(r"\s*+# ++([^\r\n]*+)")

# Names of front matter fields. The first one that a file has is used.
_PUBLISHED = ("published_at", "publishdate", "pubdate", "date")
_CREATED = ("created_at", "created", "date")
_UPDATED = ("updated_at", "lastmod", "updated", "updateddate", "last_modified_at", "modified")
_EXCERPT = ("excerpt", "description", "summary")
_COVER = (
    "cover_image_url",
    "cover_image",
    "cover",
    "heroimage",
    "feature_image",
    "image",
    "images",
)
_TAGS = ("tags", "tag", "keywords")
_CATEGORIES = ("categories", "category")
_LANGUAGE = ("language", "lang", "locale")
_AUTHOR = ("author", "authors")


class FrontMatterError(ValueError):
    """The front matter cannot be read. The message contains the reason."""


class MarkdownFile(NamedTuple):
    """A file's front matter, with lower-case names, and its content."""

    front_matter: Mapping[str, Any]
    content: str


class UnreadableEntry(NamedTuple):
    """A file or folder that cannot be imported, and the reason."""

    position: str
    problem: str


def survey(path: Path, advance: Progress) -> Survey:
    """Return the authors named in the files."""
    authors: dict[str, SourceAuthor] = {}
    for found in _walk(path):
        advance(1)
        if isinstance(found, UnreadableEntry):
            continue
        handle, email = _author(found[1].front_matter)
        if handle:
            authors.setdefault(handle, SourceAuthor(handle, email=email, name=handle))
    return Survey(tuple(authors.values()))


def read(
    path: Path, survey: Survey, *, resolve_author: ResolveAuthor, advance: Progress
) -> Iterator[ParsedRecord]:
    """Yield the article of a file, or the articles in a folder and its subfolders.

    An article without a slug is identified by its path: relative to the folder, or the absolute
    path of a single file.
    """
    for found in _walk(path):
        advance(1)
        if isinstance(found, UnreadableEntry):
            yield ParsedRecord(found.position, None, problem=found.problem[:300])
        else:
            position, file = found
            yield _record(position, file, resolve_author)


def write(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a record as a file. `read` returns the same record for it."""
    front_matter: dict[str, Any] = {"title": record["title"], "slug": record["slug"]}
    published_at = record.get("published_at")
    front_matter |= {"date": published_at} if published_at else {"draft": True}
    for field, name in {
        "excerpt": "description",
        "tags": "tags",
        "author": "author",
        "cover_image_url": "cover_image",
        "language": "language",
        "archived": "archived",
        "created_at": "created_at",
        "updated_at": "updated_at",
    }.items():
        if field in record:
            front_matter[name] = record[field]
    text = yaml.dump(
        front_matter, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=10_000
    )
    day = (published_at or record["created_at"])[:10]
    path = folder / f"{day}-{record['slug']}.md"
    with files.create(path) as file:
        file.write(f"---\n{text}---\n\n{record['content']}".encode())


def _walk(path: Path) -> Iterator[tuple[str, MarkdownFile] | UnreadableEntry]:
    """Yield a file, or the Markdown files of a folder with their paths, ordered by name.

    Hidden files are skipped. Symbolic links and unreadable files yield the reason.
    """
    failed: list[OSError] = []
    root = path.resolve()  # the operator may name a symbolic link
    if not root.is_dir():
        descriptor = os.open(root.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield _entry(root.as_posix(), root.name, descriptor)
        finally:
            os.close(descriptor)
        return
    for within, folders, names, descriptor in os.fwalk(root, onerror=failed.append):
        below = Path(within).relative_to(root)
        for failure in failed:
            yield _unreadable_folder(failure)
        failed.clear()
        folders[:] = sorted(name for name in folders if name[0] != "." and name != "node_modules")
        for name in folders:
            if files.is_link(name, folder=descriptor):
                reason = f"The folder cannot be read ({files.SYMLINK_MESSAGE})"
                yield UnreadableEntry((below / name).as_posix(), reason)
        for name in sorted(names):
            if Path(name).suffix in SUFFIXES and name[0] != "." and name not in _NOT_ARTICLES:
                yield _entry((below / name).as_posix(), name, descriptor)
    for failure in failed:
        yield _unreadable_folder(failure)


def _entry(position: str, name: str, folder: int) -> tuple[str, MarkdownFile] | UnreadableEntry:
    """Read the file with this name in `folder` (a file descriptor)."""
    try:
        return position, _read(position, files.read(name, folder=folder))
    except OSError as error:
        reason = f"The file cannot be read ({error.strerror or error})"
        return UnreadableEntry(position, reason)
    except FrontMatterError as error:
        return UnreadableEntry(position, str(error))


def _unreadable_folder(error: OSError) -> UnreadableEntry:
    return UnreadableEntry(str(error.filename), f"The folder cannot be read ({error.strerror})")


def _read(position: str, raw: bytes) -> MarkdownFile:
    """Split a file into front matter and content. Raises FrontMatterError."""
    if _INVALID_NAME.search(position):
        raise FrontMatterError("The file name is not UTF-8 or has control characters: rename it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FrontMatterError("The file is not UTF-8") from error
    if text.startswith("+++"):
        raise FrontMatterError("TOML front matter is not supported: use YAML between --- lines")
    found = _FRONT_MATTER.match(text)
    if found is None:
        return MarkdownFile({}, text)
    rest = text[found.end() :]
    content = rest.removeprefix("\r\n") if rest.startswith("\r\n") else rest.removeprefix("\n")
    return MarkdownFile(_parse(found[1] or ""), content)


def _parse(text: str) -> dict[str, Any]:
    """Parse YAML. Raises FrontMatterError, also for aliases, which can expand without limit."""
    if len(text) > MAX_FRONT_MATTER:
        raise FrontMatterError(f"The front matter is longer than {MAX_FRONT_MATTER} characters")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_LOADER)):
            raise FrontMatterError("YAML aliases are not supported: repeat the values")
        parsed = yaml.load(text, Loader=_LOADER)  # noqa: S506 - the C version of the safe loader
    except RecursionError as error:
        raise FrontMatterError("The front matter is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, FrontMatterError):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 2})" if mark else ""
        reason = getattr(error, "problem", None) or str(error)
        raise FrontMatterError(f"The front matter is not valid YAML{where}: {reason}") from error
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise FrontMatterError("The front matter is not a YAML mapping")
    return {str(name).lower(): value for name, value in parsed.items()}


def _record(position: str, file: MarkdownFile, resolve_author: ResolveAuthor) -> ParsedRecord:
    values = file.front_matter
    builder = RecordBuilder(position)
    name = Path(position).stem
    if name == "index":
        name = Path(position).parent.name or name
    dated = _DATED_NAME.fullmatch(name)
    content = file.content
    title = _text(values.get("title"))
    if not title and (heading := _HEADING.match(content)):
        title, content = heading[1].rstrip(" \t#"), content[heading.end() :].lstrip("\r\n")
    undated = dated[2] if dated else name
    builder.set_title(title or undated.replace("-", " ").replace("_", " "))
    texts = {name: _text(value) for name, value in values.items()}
    converted = from_site(content, Context(values=texts), is_mdx=Path(position).suffix == ".mdx")
    builder.fields["content"] = converted.markdown
    builder.notes += converted.notes
    builder.slug_source = slugify(undated)
    builder.set_slug(_text(values.get("slug")))
    in_drafts = "_drafts" in Path(position).parts
    _set_dates(builder, values, in_name=dated[1] if dated else None, in_drafts=in_drafts)
    builder.set_excerpt(_text(_first(values, _EXCERPT)))
    builder.set_cover(_url(_first(values, _COVER)))
    builder.set_tags([*_names(_first(values, _TAGS)), *_names(_first(values, _CATEGORIES))])
    builder.set_language(_text(_first(values, _LANGUAGE)))
    if values.get("archived") is True:
        builder.fields["archived"] = True
    identity = "" if "slug" in builder.fields else f"markdown:{position}"
    author, _ = _author(values)
    return builder.build(author=author, resolve_author=resolve_author, identity=identity)


def _set_dates(
    builder: RecordBuilder, values: Mapping[str, Any], *, in_name: str | None, in_drafts: bool
) -> None:
    """Set the creation, update and publication dates. A draft has no publication date."""
    published = values.get("published")
    published_at = parse_datetime(_first(values, _PUBLISHED) or _date_or_text(published) or in_name)
    if values.get("draft") is True or published is False or in_drafts:
        builder.set(created_at=published_at)
    elif published_at is None:
        builder.notes.append("the file has no date: imported as a draft")
    else:
        builder.fields["published_at"] = published_at
    builder.set(
        created_at=parse_datetime(_first(values, _CREATED)),
        updated_at=parse_datetime(_first(values, _UPDATED)),
    )


def _date_or_text(value: Any) -> Any:
    return value if isinstance(value, str | date | datetime) else None


def _author(values: Mapping[str, Any]) -> tuple[str, str]:
    """Return the name of the first author, and the email or an empty string."""
    value = _first(values, _AUTHOR)
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        return _text(value.get("name") or value.get("username")), _text(value.get("email"))
    return _text(value), ""


def _first(values: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((values[name] for name in names if values.get(name) not in (None, "")), None)


def _text(value: Any) -> str:
    return str(value).strip() if isinstance(value, str | int | float | date) else ""


def _url(value: Any) -> str:
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        value = _first(value, ("image", "url", "src", "path"))
    return _text(value)


def _names(value: Any) -> list[str]:
    """Return the names in a list or a text. Jekyll separates them by spaces, others by commas."""
    if isinstance(value, list):
        return [_text(name) for name in value]
    text = _text(value)
    return [name.strip() for name in text.split(",")] if "," in text else text.split()
