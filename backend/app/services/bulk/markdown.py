"""Markdown files with YAML front matter, in the spellings of Hugo, Jekyll and Astro.

The operator did not choose the names in the folder. So no symbolic link is followed: each folder
and file is opened below the one that holds it, by a descriptor.
"""

import os
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from app.core.text import slugify
from app.services.bulk import files
from app.services.bulk.foreign import Advance, Draft, ForeignAuthor, Survey, moment
from app.services.bulk.ndjson import AuthorOf
from app.services.bulk.records import Incoming

MAX_FRONT_MATTER = 64 * 1024

SUFFIXES = {".md", ".markdown"}
_NOT_ARTICLES = {"_index.md"}
"""Hugo's pages about a section."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_FRONT_MATTER = re.compile(
    r"---[ \t]*\r?\n(?:(.*?)\r?\n)??(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL
)
_NO_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DATED_NAME = re.compile(r"(\d{4}-\d\d-\d\d)-(.+)")
_HEADING = re.compile(r"\s*+# ++([^\r\n]*+)")

# The first of these that a file has.
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
    """The front matter cannot be read; the message says why."""


class File(NamedTuple):
    """A file's front matter, its names in small letters, and what follows it."""

    front_matter: Mapping[str, Any]
    content: str


class Unread(NamedTuple):
    """A file or folder that is not imported, and why."""

    position: str
    problem: str


def survey(path: Path, advance: Advance) -> Survey:
    """The authors that the files name."""
    authors: dict[str, ForeignAuthor] = {}
    for found in _files(path):
        advance(1)
        if isinstance(found, Unread):
            continue
        handle, email = _author(found[1].front_matter)
        if handle:
            authors.setdefault(handle, ForeignAuthor(handle, email=email, name=handle))
    return Survey(tuple(authors.values()))


def read(
    path: Path, survey: Survey, *, author_of: AuthorOf, advance: Advance
) -> Iterator[Incoming]:
    """The article of a file, or those in a folder and below it.

    Without a slug, an article is known by its path: below the folder, or the file's absolute one.
    """
    for found in _files(path):
        advance(1)
        if isinstance(found, Unread):
            yield Incoming(found.position, None, problem=found.problem[:300])
        else:
            position, file = found
            yield _record(position, file, author_of)


def write(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a record as a file that `read` makes the same of."""
    front_matter: dict[str, Any] = {"title": record["title"], "slug": record["slug"]}
    published_at = record.get("published_at")
    front_matter |= {"date": published_at} if published_at else {"draft": True}
    for ours, theirs in {
        "excerpt": "description",
        "tags": "tags",
        "author": "author",
        "cover_image_url": "cover_image",
        "language": "language",
        "archived": "archived",
        "created_at": "created_at",
        "updated_at": "updated_at",
    }.items():
        if ours in record:
            front_matter[theirs] = record[ours]
    text = yaml.dump(
        front_matter, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=10_000
    )
    day = (published_at or record["created_at"])[:10]
    path = folder / f"{day}-{record['slug']}.md"
    with files.create(path) as file:
        file.write(f"---\n{text}---\n\n{record['content']}".encode())


def _files(path: Path) -> Iterator[tuple[str, File] | Unread]:
    """A file, or the Markdown files of a folder by their paths, in the order of their names.

    Hidden ones are left out. Links, and what cannot be read, come with the reason.
    """
    failed: list[OSError] = []
    root = path.resolve()  # it may be a link itself: the operator named it
    if not root.is_dir():
        descriptor = os.open(root.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield _found(root.as_posix(), root.name, descriptor)
        finally:
            os.close(descriptor)
        return
    for within, folders, names, descriptor in os.fwalk(root, onerror=failed.append):
        below = Path(within).relative_to(root)
        for failure in failed:
            yield _unread_folder(failure)
        failed.clear()
        folders[:] = sorted(name for name in folders if name[0] != "." and name != "node_modules")
        for name in folders:
            if files.is_link(name, folder=descriptor):
                yield Unread((below / name).as_posix(), f"{files.LINK}: the folder is left out")
        for name in sorted(names):
            if Path(name).suffix in SUFFIXES and name[0] != "." and name not in _NOT_ARTICLES:
                yield _found((below / name).as_posix(), name, descriptor)
    for failure in failed:
        yield _unread_folder(failure)


def _found(position: str, name: str, descriptor: int) -> tuple[str, File] | Unread:
    """The file of this name in a folder, an open descriptor."""
    try:
        return position, _read(position, files.read(name, folder=descriptor))
    except OSError as error:
        return Unread(position, f"The file cannot be read ({error.strerror or error})")
    except FrontMatterError as error:
        return Unread(position, str(error))


def _unread_folder(error: OSError) -> Unread:
    return Unread(str(error.filename), f"The folder cannot be read ({error.strerror})")


def _read(position: str, raw: bytes) -> File:
    """A file in its two parts. Raises FrontMatterError."""
    if _NO_NAME.search(position):
        raise FrontMatterError("The name is not UTF-8, or has control characters: rename the file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FrontMatterError("The file is not UTF-8") from error
    if text.startswith("+++"):
        raise FrontMatterError("TOML front matter is not read: write it in YAML, between ---")
    found = _FRONT_MATTER.match(text)
    if found is None:
        return File({}, text)
    rest = text[found.end() :]
    content = rest.removeprefix("\r\n") if rest.startswith("\r\n") else rest.removeprefix("\n")
    return File(_parse(found[1] or ""), content)


def _parse(text: str) -> dict[str, Any]:
    """YAML as a mapping. Raises FrontMatterError; for aliases too, which make much of little."""
    if len(text) > MAX_FRONT_MATTER:
        raise FrontMatterError(f"The front matter is longer than {MAX_FRONT_MATTER} characters")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_LOADER)):
            raise FrontMatterError("The front matter has YAML aliases: write the values out")
        parsed = yaml.load(text, Loader=_LOADER)  # noqa: S506 - the safe loader, in C
    except RecursionError as error:
        raise FrontMatterError("The front matter is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, FrontMatterError):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 2})" if mark else ""
        reason = getattr(error, "problem", None) or str(error)
        raise FrontMatterError(f"The front matter is not YAML{where}: {reason}") from error
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise FrontMatterError("The front matter is no list of names and values")
    return {str(name).lower(): value for name, value in parsed.items()}


def _record(position: str, file: File, author_of: AuthorOf) -> Incoming:
    given = file.front_matter
    draft = Draft(position)
    name = Path(position).stem
    if name == "index":
        name = Path(position).parent.name or name
    dated = _DATED_NAME.fullmatch(name)
    content = file.content
    title = _text(given.get("title"))
    if not title and (heading := _HEADING.match(content)):
        title, content = heading[1].rstrip(" \t#"), content[heading.end() :].lstrip("\r\n")
    named = dated[2] if dated else name
    draft.titled(title or named.replace("-", " ").replace("_", " "))
    draft.fields["content"] = content
    draft.wish = slugify(named)
    draft.named(_text(given.get("slug")))
    in_drafts = "_drafts" in Path(position).parts
    _date(draft, given, in_name=dated[1] if dated else None, in_drafts=in_drafts)
    draft.summed_up(_text(_first(given, _EXCERPT)))
    draft.covered(_address(_first(given, _COVER)))
    draft.tagged([*_words(_first(given, _TAGS)), *_words(_first(given, _CATEGORIES))])
    draft.spoken(_text(_first(given, _LANGUAGE)))
    if given.get("archived") is True:
        draft.fields["archived"] = True
    identity = "" if "slug" in draft.fields else f"markdown:{position}"
    return draft.done(author=_author(given)[0], author_of=author_of, identity=identity)


def _date(draft: Draft, given: Mapping[str, Any], *, in_name: str | None, in_drafts: bool) -> None:
    """Set when it was written, changed and published: a draft is not, and needs no date."""
    published_at = moment(_first(given, _PUBLISHED) or _day(given.get("published")) or in_name)
    is_draft = given.get("draft") is True or given.get("published") is False or in_drafts
    if is_draft:
        draft.say(created_at=published_at)
    elif published_at is None:
        draft.notes.append("it has no date: imported as a draft")
    else:
        draft.fields["published_at"] = published_at
    draft.say(
        created_at=moment(_first(given, _CREATED)), updated_at=moment(_first(given, _UPDATED))
    )


def _day(value: Any) -> Any:
    return value if isinstance(value, str | date | datetime) else None


def _author(given: Mapping[str, Any]) -> tuple[str, str]:
    """What the first author is called, and their email where it is given."""
    value = _first(given, _AUTHOR)
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        return _text(value.get("name") or value.get("username")), _text(value.get("email"))
    return _text(value), ""


def _first(given: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((given[name] for name in names if given.get(name) not in (None, "")), None)


def _text(value: Any) -> str:
    return str(value).strip() if isinstance(value, str | int | float | date) else ""


def _address(value: Any) -> str:
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        value = _first(value, ("image", "url", "src", "path"))
    return _text(value)


def _words(value: Any) -> list[str]:
    """A list, or a text: Jekyll separates words by spaces, others by commas."""
    if isinstance(value, list):
        return [_text(word) for word in value]
    text = _text(value)
    return [word.strip() for word in text.split(",")] if "," in text else text.split()
