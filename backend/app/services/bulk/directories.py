"""What a site's configuration and its folders declare for the texts below them.

Jekyll has `defaults`, `exclude` and `collections` in _config.yml, Hugo `cascade` in its
configuration and in _index.md, Eleventy data files for folders and texts. They can hide texts, so
what cannot be evaluated makes drafts.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import tzinfo
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from app.services.bulk import files
from app.services.bulk.dates import DateError, find_zone
from app.services.bulk.front_matter import FrontMatterError, load_toml, load_yaml, split
from app.services.bulk.visibility import Reason, Restriction, is_visibility, plain_name, truth

_PROGRAMS = (".11tydata.js", ".11tydata.cjs", ".11tydata.mjs", ".11tydata.ts")
_CONFIGURATIONS = (
    "_config.yml", "_config.yaml", "_config.toml", "hugo.toml", "hugo.yaml", "hugo.yml",
    "hugo.json", "config.toml", "config.yaml", "config.yml", "config.json",
)  # fmt: skip
_CONTENT_FOLDERS = {
    "_posts", "_drafts", "_pages", "content", "posts", "post", "source", "src", "blog", "docs",
}  # fmt: skip
"""Names of folders whose site may be the folder above."""
_NOT_INHERITED = {
    "title", "slug", "url", "aliases", "date", "cascade", "menu", "menus", "weight", "linktitle",
}  # fmt: skip
_SECTION_FILES = re.compile(r"_index(?:\.[a-z-]+)?\.(?:md|markdown|html)", re.IGNORECASE)
_COMMENT = re.compile(r"(?<!:)//[^\n]*")
_WORDS = re.compile(r"[A-Za-z_$][\w$]*")
_UNKNOWN_DATA = {"permalink", "eleventycomputed", "require", "import", "export const", "fetch"}
_REDIRECTING = {"301", "302", "303", "307", "308"}
MAX_PATTERN = 500
MAX_WILDCARDS = 3
MAX_PATH = 1000
"""The part of a path that patterns see: they may take the third power of its length."""


class Defaults(NamedTuple):
    """Values for the texts below a folder, or the reason why they may be hidden."""

    values: Mapping[str, Any]
    path: re.Pattern[str] | None = None
    """Which texts, by their path in the content folder; None for all."""
    reason: str = ""


class Inherited(NamedTuple):
    """What applies to one text."""

    values: Mapping[str, Any]
    """By names without separators."""
    hidden: Sequence[Restriction] = ()
    """Why the text was not published, or may not have been."""


class Site:
    """The configuration of the site that a folder belongs to."""

    def __init__(self, root: Path) -> None:
        self.zone: tzinfo | None = None
        self.problems: list[str] = []
        self.permalinks: Mapping[str, Any] = {}
        """Hugo's patterns of addresses by section."""
        self.authors: Mapping[str, Any] = {}
        """Names and emails of authors by the key that front matter has."""
        self.redirects: dict[str, list[str]] = {}
        """Former paths by the path that they lead to, without a slash at its end."""
        self.left_out_redirects = 0
        self.is_jekyll = False
        self._defaults: list[tuple[str, str, Mapping[str, Any]]] = []
        self._cascade: list[Defaults] = []
        self._site_values: dict[str, Any] = {}
        self._excluded: list[re.Pattern[str]] = []
        self._included: set[str] = set()
        self._collections: Mapping[str, Any] = {}
        self._prefix = PurePosixPath()
        parts = root.parts
        self._content = PurePosixPath(*parts[_last(parts, "content") + 1 :])
        self._has_content = "content" in parts
        for folder in self._folders(root):
            if self._load(folder):
                self._prefix = PurePosixPath(root.relative_to(folder).as_posix())
                break
        self._load_ignored(root)
        self._load_data(root)

    @staticmethod
    def _folders(root: Path) -> Iterator[Path]:
        yield root
        for _ in range(2):
            if root.name not in _CONTENT_FOLDERS or root == root.parent:
                return
            root = root.parent
            yield root

    def _load(self, folder: Path) -> bool:
        """Read the configuration in a folder. Return whether there is one."""
        found = [*self._values(folder, _CONFIGURATIONS)]
        found += self._values(folder / "config" / "_default", _CONFIGURATIONS[3:])
        for key in ("cascade", "permalinks"):
            names = [f"{key}{ending}" for ending in (".toml", ".yaml", ".yml", ".json")]
            parts = self._values(folder / "config" / "_default", names)
            found += [(name, {key: values}) for name, values in parts]
        for name, values in found:
            if isinstance(values, dict):
                self._use(name, {str(key).lower(): each for key, each in values.items()})
        return bool(found)

    def _values(self, folder: Path, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """Yield the values of the configurations in a folder that can be read."""
        for name in names:
            try:
                text = _read(folder, name)
                if text is not None:
                    yield name, _parse(name, text)
            except (OSError, ValueError) as error:
                self.problems.append(f"{name} cannot be read: {str(error)[:200]}")

    def _use(self, name: str, values: Mapping[str, Any]) -> None:
        is_hexo = bool({"source_dir", "new_post_name", "post_asset_folder"} & set(values))
        self.is_jekyll = self.is_jekyll or (name.startswith("_config") and not is_hexo)
        if isinstance(zone := values.get("timezone"), str) and zone.strip():
            try:
                self.zone = find_zone(zone)
            except DateError as error:
                self.problems.append(f"{name}: {error}")
        self._use_site_values(values)
        for entry in _dicts(values.get("defaults")):
            scope, defaults = entry.get("scope"), entry.get("values")
            if isinstance(defaults, dict):
                scope = scope if isinstance(scope, dict) else {}
                path = str(scope.get("path") or "").strip("/")[:MAX_PATTERN]
                self._defaults.append((path, str(scope.get("type") or ""), defaults))
        self._defaults.sort(key=lambda each: (len(each[0]), bool(each[1])))
        self._cascade += cascade_of(values)
        collections = values.get("collections")
        if isinstance(collections, list):
            collections = {str(each): {} for each in collections}
        self._collections = collections if isinstance(collections, dict) else {}
        self._included |= {each.strip("/") for each in _texts(values.get("include"))}
        for key in ("exclude", "ignore"):
            self._excluded += map(_glob, _texts(values.get(key)))
        self._excluded += map(_expression, _texts(values.get("ignorefiles")))
        permalinks = values.get("permalinks")
        self.permalinks = permalinks if isinstance(permalinks, dict) else {}

    def _use_site_values(self, values: Mapping[str, Any]) -> None:
        """Use the author, language and pattern of addresses as defaults of all texts."""
        params = values.get("params")
        tables = [values, params if isinstance(params, dict) else {}]
        for name, names in {
            "author": ("author", "authors"),
            "lang": ("lang", "locale", "languagecode", "defaultcontentlanguage", "language"),
        }.items():
            found = [table[each] for table in tables for each in names if table.get(each)]
            if found:
                first = found[0]
                is_list = name == "lang" and isinstance(first, list) and first
                self._site_values[name] = first[0] if is_list else first
        if isinstance(permalink := values.get("permalink"), str):
            self._site_values["permalink"] = permalink
        elif self.is_jekyll:
            self._site_values["permalink"] = "date"

    def _lines(self, folder: Path, name: str) -> list[str]:
        """Return the lines of a file that may be missing."""
        try:
            return (_read(folder, name) or "").splitlines()
        except OSError as error:
            self.problems.append(f"{name} cannot be read: {error.strerror or error}")
            return []

    def _load_ignored(self, root: Path) -> None:
        """Read what Eleventy does not publish."""
        lines = (line.strip() for line in self._lines(root, ".eleventyignore"))
        self._excluded += [_glob(line) for line in lines if line and line[0] not in "#!"][:1000]

    def _load_data(self, root: Path) -> None:
        """Read the names of authors, and the redirects of hosts of static sites."""
        for folder in (root / "_data", root / "data", root):
            for _, values in self._values(folder, ("authors.yml", "authors.yaml", "authors.json")):
                if isinstance(values, dict):
                    self.authors = {**values, **self.authors}
        for folder in (root, root / "static", root / "public", root / "source"):
            for line in self._lines(folder, "_redirects"):
                self._add_redirect(line.partition("#")[0].split())

    def _add_redirect(self, parts: Sequence[str]) -> None:
        if len(parts) < 2 or parts[0][0] != "/":
            return
        source, target = parts[0], parts[1]
        code = parts[2].rstrip("!") if len(parts) > 2 else "301"
        if target[0] != "/" or {"*", ":"} & set(source + target) or code not in _REDIRECTING:
            self.left_out_redirects += 1
        else:
            self.redirects.setdefault(target.rstrip("/"), []).append(source)

    def inherited(self, position: PurePosixPath, folders: Iterable[Defaults]) -> Inherited:
        """Return what applies to a text. `folders` has the values of its folders, far ones first.

        Values of a nearer folder take precedence.
        """
        path = self._prefix / position
        kind = _kind(path)
        values = dict(self._site_values)
        if kind not in {"posts", "drafts"} and values.get("permalink") == "date":
            del values["permalink"]
        for scope, of_kind, defaults in self._defaults:
            if (not of_kind or of_kind == kind) and _is_below(path, scope):
                values |= defaults
        content_path = ("/" + self._content_path(position).as_posix().lower())[:MAX_PATH]
        hidden: list[Restriction] = []
        for each in (*self._cascade, *folders):
            if each.path is None or each.path.fullmatch(content_path):
                values |= each.values
                if each.reason:
                    hidden.append(Restriction(Reason.RESTRICTED, each.reason))
        if any(pattern.search(path.as_posix()[:MAX_PATH]) for pattern in self._excluded):
            reason = "the configuration of the site excludes the file"
            hidden.append(Restriction(Reason.UNFINISHED, reason))
        if folder := self._unpublished_folder(path):
            reason = f"Jekyll does not publish the folder {folder}"
            hidden.append(Restriction(Reason.UNFINISHED, reason))
        return Inherited({plain_name(name): each for name, each in values.items()}, hidden)

    def categories(self, position: PurePosixPath) -> list[str]:
        """Return the folders above `_posts`, which are categories in Jekyll."""
        parts = (self._prefix / position).parts
        if not self.is_jekyll or "_posts" not in parts:
            return []
        return [part for part in parts[: parts.index("_posts")] if part[0] not in "_."]

    def permalink(self, position: PurePosixPath, values: Mapping[str, Any]) -> str:
        """Return the pattern of the address of a text, or an empty string."""
        if isinstance(own := values.get("permalink"), str) and truth(own) is None:
            return own
        pages = self.permalinks.get("page")
        patterns = pages if isinstance(pages, dict) else self.permalinks
        parts = [part for part in (self._prefix / position).parts[:-1] if part != "content"]
        pattern = patterns.get(parts[0]) if parts else None
        return pattern if isinstance(pattern, str) else ""

    def redirects_to(self, paths: Iterable[str]) -> list[str]:
        """Return the former paths that lead to one of these paths."""
        return [each for path in paths for each in self.redirects.get(path.rstrip("/"), ())]

    def _content_path(self, position: PurePosixPath) -> PurePosixPath:
        """Return the path without suffix, as Hugo counts it: below the folder `content`."""
        path = position.parent if position.stem.lower() == "index" else position.with_suffix("")
        if self._has_content:
            return self._content / path
        return PurePosixPath(*path.parts[1:]) if path.parts[:1] == ("content",) else path

    def _unpublished_folder(self, path: PurePosixPath) -> str:
        if not self.is_jekyll:
            return ""
        for part in path.parts[:-1]:
            if part[0] == "_" and part not in {"_posts", "_drafts"} and part not in self._included:
                collection = self._collections.get(part[1:])
                output = collection.get("output") if isinstance(collection, dict) else None
                if truth(output) is not True:
                    return part
        return ""


def folder_defaults(folder: str, names: Sequence[str], descriptor: int) -> list[Defaults]:
    """Return what the files in a folder declare for all texts in it and below it."""
    found: list[Defaults] = []
    for name in names:
        if _SECTION_FILES.fullmatch(name):
            found += _section(name, descriptor)
    return found + data_files(folder, names, descriptor)


def data_files(stem: str, names: Iterable[str], descriptor: int) -> list[Defaults]:
    """Return what Eleventy's data files of a folder or text declare."""
    present = set(names)
    data = {f"{stem}.json", f"{stem}.11tydata.json"} & present
    programs = {f"{stem}{ending}" for ending in _PROGRAMS} & present
    return [
        *(_data_file(name, descriptor) for name in sorted(data, key=len)),
        *(_program(name, descriptor) for name in sorted(programs)),
    ]


def cascade_of(values: Mapping[str, Any]) -> Iterator[Defaults]:
    """Yield Hugo's `cascade`: one table or several, each with the texts that it is for."""
    for each in _dicts(values.get("cascade")):
        target = each.get("target", each.get("_target"))
        yield from _targeted(
            {key: value for key, value in each.items() if key not in {"target", "_target"}},
            target,
        )


def _targeted(values: Mapping[str, Any], target: Any) -> Iterator[Defaults]:
    """Yield the values for each target. A page is of the kind `page`, not `section`."""
    targets = _dicts(target)
    for each in targets or [{}]:
        kind, environment = each.get("kind"), each.get("environment")
        if kind is not None and not _matches(kind, "page"):
            continue
        if environment is not None and not _matches(environment, "production"):
            continue
        path = each.get("path")
        yield Defaults(_inheritable(values), None if path is None else _hugo_glob(str(path)))


def _section(name: str, descriptor: int) -> Iterator[Defaults]:
    """Yield what a section page declares. A draft of a section hides all texts in it."""
    try:
        text, _ = files.decode(files.read(name, folder=descriptor))
    except OSError:
        yield Defaults({}, reason=f"{name} of the folder cannot be read")
        return
    found = split(text)
    if found.damage:
        yield Defaults({}, reason=f"{name} of the folder: {found.damage}")
    own = {
        key: value
        for key, value in found.values.items()
        if is_visibility(key) and plain_name(key) not in {"build", "headless"}
    }
    yield Defaults(own)
    yield from cascade_of(found.values)


def _data_file(name: str, descriptor: int) -> Defaults:
    try:
        text, _ = files.decode(files.read(name, folder=descriptor))
        values = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return Defaults({}, reason=f"the data file {name} cannot be read")
    if not isinstance(values, dict):
        return Defaults({})
    # Tags are the names of Eleventy's collections.
    return Defaults({key: value for key, value in _inheritable(values).items() if key != "tags"})


def _program(name: str, descriptor: int) -> Defaults:
    """Return whether a program may hide texts: by the names that occur in it."""
    try:
        text, _ = files.decode(files.read(name, folder=descriptor))
    except OSError:
        return Defaults({}, reason=f"the data file {name} cannot be read")
    words = {plain_name(word) for word in _WORDS.findall(_without_comments(text))}
    may_hide = "..." in text or bool(words & _UNKNOWN_DATA) or any(map(is_visibility, words))
    reason = f"the data file {name} is a program that may hide the text"
    return Defaults({}, reason=reason if may_hide else "")


def _without_comments(text: str) -> str:
    """Return a program without its comments."""
    parts, position = [], 0
    while (start := text.find("/*", position)) >= 0 and (end := text.find("*/", start + 2)) >= 0:
        parts.append(text[position:start])
        position = end + 2
    return _COMMENT.sub("", " ".join((*parts, text[position:])))


def _inheritable(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        str(name): value
        for name, value in values.items()
        if plain_name(str(name)) not in _NOT_INHERITED
    }


def _read(folder: Path, name: str) -> str | None:
    """Return the text of a file, or None if it does not exist. Raises OSError."""
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(folder, flags)
    except OSError:
        return None
    try:
        return files.decode(files.read(name, folder=descriptor))[0]
    except FileNotFoundError:
        return None
    finally:
        os.close(descriptor)


def _parse(name: str, text: str) -> Any:
    """Return the values of a configuration. Raises ValueError."""
    try:
        if name.endswith(".toml"):
            return load_toml(text)
        if name.endswith(".json"):
            return json.loads(text)
        return load_yaml(text)
    except RecursionError as error:
        raise FrontMatterError("it is nested too deeply") from error


def _kind(path: PurePosixPath) -> str:
    """Return Jekyll's type of a text: posts, drafts, the name of a collection, or pages."""
    for part in reversed(path.parts[:-1]):
        if part[0] == "_":
            return part[1:]
    return "pages"


def _is_below(path: PurePosixPath, scope: str) -> bool:
    """Return whether Jekyll's scope, a path or a pattern, contains a text."""
    if not scope:
        return True
    if any(mark in scope for mark in "*?["):
        return _glob(scope).search(path.as_posix()[:MAX_PATH]) is not None
    return path.as_posix() == scope or path.as_posix().startswith(f"{scope}/")


def _glob(pattern: str) -> re.Pattern[str]:
    """Return a pattern for a path below which everything is meant, as in .gitignore."""
    text = pattern.strip().removeprefix("./").strip("/")
    return re.compile(f"(?:^|/){_translate(text)}(?:/|$)" if text else "(?!)")


def _expression(text: str) -> re.Pattern[str]:
    """Return a regular expression of a configuration; one that matches all if it may be slow."""
    try:
        return re.compile("" if sum(map(text.count, "*+{")) > 1 else text[:MAX_PATTERN])
    except re.error:
        return re.compile("")


def _hugo_glob(pattern: str) -> re.Pattern[str]:
    text = pattern.strip().lower()
    return re.compile(_translate(text if text.startswith(("/", "{")) else f"/{text}"))


def _translate(pattern: str) -> str:
    """Return a glob as a regular expression: `**`, `*`, `?` and `{a,b}`.

    A glob that may be slow matches all.
    """
    if len(pattern) > MAX_PATTERN or len(re.findall(r"\*+", pattern)) > MAX_WILDCARDS:
        return ".*"
    parts = []
    depth = 0
    for mark in re.findall(r"\*\*/?|.", pattern, re.DOTALL):
        if mark == "**/":
            parts.append("(?:.*/)?")
        elif mark == "**":
            parts.append(".*")
        elif mark == "*":
            parts.append("[^/]*")
        elif mark == "?":
            parts.append("[^/]")
        elif mark == "{":
            depth += 1
            parts.append("(?:")
        elif mark == "}" and depth:
            depth -= 1
            parts.append(")")
        else:
            parts.append("|" if mark == "," and depth else re.escape(mark))
    return "".join(parts) + ")" * depth


def _matches(glob: Any, name: str) -> bool:
    return re.compile(_translate(str(glob).strip().lower())).fullmatch(name) is not None


def _dicts(value: Any) -> list[dict[str, Any]]:
    """Return the tables in a value, which may be one table or a list."""
    return [
        each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)
    ]


def _texts(value: Any) -> list[str]:
    return [str(each) for each in (value if isinstance(value, list) else [value]) if each][:1000]


def _last(parts: Sequence[str], name: str) -> int:
    return max((index for index, part in enumerate(parts) if part == name), default=len(parts) - 1)
