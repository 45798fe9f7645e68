"""What a site's configuration and its folders declare for the texts below them.

Jekyll has `defaults`, `exclude` and `collections` in _config.yml, Hugo `cascade` in its
configuration and in _index.md, Eleventy data files for folders and texts. They can hide texts, so
what cannot be evaluated makes drafts.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import tzinfo
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from app.services.bulk import files
from app.services.bulk.dates import DateError, find_zone
from app.services.bulk.front_matter import FrontMatterError, load_toml, load_yaml, split
from app.services.bulk.globs import (
    MAX_TOTAL_ITEMS,
    Alternative,
    Matcher,
    Unsupported,
    below,
    expression,
    glob,
)
from app.services.bulk.visibility import Reason, Restriction, is_visibility, plain_name, truth

_PROGRAMS = (".11tydata.js", ".11tydata.cjs", ".11tydata.mjs", ".11tydata.ts")
_IGNORED = ".eleventyignore"
_REDIRECTS = "_redirects"
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
_DEFAULT_CONFIGURATION = "config/_default"
"""Hugo's folder of configurations."""
MAX_CONFIGURATION = 256 * 1024
"""Maximum characters of a file with values. Their nodes take a hundred times as much memory."""
MAX_TABLES = 200
"""Maximum tables of values that apply to a text. Each has a pattern of its own."""
MAX_PATTERN_PROBLEMS = 10


def is_configuration(name: str) -> bool:
    """Whether a file of this name is read although it is no text, JSON, YAML or TOML."""
    return name in {_IGNORED, _REDIRECTS} or name.endswith(_PROGRAMS)


class Defaults(NamedTuple):
    """Values for the texts below a folder, or the reason why they may be hidden."""

    values: Mapping[str, Any]
    path: Matcher | None = None
    """Which texts, by their path in the content folder; None for all."""
    reason: str = ""


class _Scope(NamedTuple):
    """Jekyll's defaults for the texts below a path, or for those that a pattern matches."""

    path: str
    kind: str
    values: Mapping[str, Any]
    pattern: Matcher | None
    reason: str
    """Why it cannot be evaluated. It then contains all texts, which may be hidden."""

    def contains(self, path: str, kind: str) -> bool:
        """Return whether a text is meant."""
        if self.kind and self.kind != kind:
            return False
        if self.pattern is not None:
            return self.pattern.matches(f"/{path}/")
        is_below = not self.path or path == self.path or path.startswith(f"{self.path}/")
        return is_below or bool(self.reason)


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
        self.is_hexo = False
        self.is_hugo = False
        self.encrypted: set[str] = set()
        """Titles, and tags with a #, in lower case. Hexo encrypts these texts with a password."""
        self._defaults: list[_Scope] = []
        self._cascade: tuple[Defaults, ...] = ()
        self._site_values: dict[str, Any] = {}
        self._globs: list[Alternative] = []
        self._expressions: list[Alternative] = []
        self._unknown_patterns: list[str] = []
        self._included: set[str] = set()
        self._collections: Mapping[str, Any] = {}
        self._prefix = PurePosixPath()
        self._source = PurePosixPath()
        """Jekyll's folder of sources, to which paths in its configuration are relative."""
        parts = root.parts
        self._content = PurePosixPath(*parts[_last(parts, "content") + 1 :])
        self._has_content = "content" in parts
        for folder in self._folders(root):
            if self._load(folder):
                self._prefix = PurePosixPath(root.relative_to(folder).as_posix())
                break
        self._load_ignored(root)
        self._load_data(root)
        self._excluded = self._matcher(self._globs)
        self._ignored = self._matcher(self._expressions)
        self.problems += self._unknown_patterns

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
        found = [*self._values(folder, "", _CONFIGURATIONS)]
        found += self._values(folder, _DEFAULT_CONFIGURATION, _CONFIGURATIONS[3:])
        for key in ("cascade", "permalinks"):
            names = [f"{key}{ending}" for ending in (".toml", ".yaml", ".yml", ".json")]
            parts = self._values(folder, _DEFAULT_CONFIGURATION, names)
            found += [(name, {key: values}) for name, values in parts]
        for name, values in found:
            if isinstance(values, dict):
                self._use(name, {str(key).lower(): each for key, each in values.items()})
        return bool(found)

    def _values(self, root: Path, folder: str, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """Yield the values of the configurations in a folder below `root` that can be read."""
        with self._opened(root, folder) as descriptor:
            if descriptor is None:
                return
            for name in names:
                try:
                    text = _read(name, folder=descriptor)
                    if text is not None:
                        yield name, _parse(name, text)
                except (OSError, ValueError) as error:
                    self.problems.append(f"{name} cannot be read: {str(error)[:200]}")

    @contextmanager
    def _opened(self, root: Path, folder: str) -> Iterator[int | None]:
        """Open a folder below `root`. It may be missing, and must not be a symbolic link."""
        try:
            descriptor = files.open_folder(root, folder)
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        except OSError as error:
            self.problems.append(f"{folder or root.name} cannot be read: {error.strerror}")
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _use(self, name: str, values: Mapping[str, Any]) -> None:
        is_hexo = bool({"source_dir", "new_post_name", "post_asset_folder"} & set(values))
        self.is_hexo = self.is_hexo or is_hexo
        self.is_jekyll = self.is_jekyll or (name.startswith("_config") and not is_hexo)
        self.is_hugo = self.is_hugo or not name.startswith("_config")
        if isinstance(encrypt := values.get("encrypt"), dict):
            named = [(each.get("name"), "#") for each in _dicts(encrypt.get("tags"))]
            named += [(each.get("title"), "") for each in _dicts(encrypt.get("blogs"))]
            self.encrypted |= {f"{mark}{str(text).strip().lower()}" for text, mark in named if text}
        if isinstance(zone := values.get("timezone"), str) and zone.strip():
            try:
                self.zone = find_zone(zone)
            except DateError as error:
                self.problems.append(f"{name}: {error}")
        self._use_site_values(values)
        for entry in _dicts(values.get("defaults")):
            scope, defaults = entry.get("scope"), entry.get("values")
            if isinstance(defaults, dict):
                self._defaults.append(_scope(scope if isinstance(scope, dict) else {}, defaults))
        self._defaults.sort(key=lambda each: (len(each.path), bool(each.kind)))
        if len(self._defaults) > MAX_TABLES:
            del self._defaults[MAX_TABLES:]
            self._note_pattern(name, f"`defaults` has more than {MAX_TABLES} entries")
        self._cascade = nested(self._cascade, cascade_of(values))
        if isinstance(source := values.get("source"), str):
            self._source = PurePosixPath(source.strip("/"))
        collections = values.get("collections")
        if isinstance(collections, list):
            collections = {str(each): {} for each in collections}
        self._collections = collections if isinstance(collections, dict) else {}
        self._included |= {each.strip("/") for each in _texts(values.get("include"))}
        for key in ("exclude", "ignore"):
            self._exclude(name, self._globs, below, _texts(values.get(key)))
        self._exclude(name, self._expressions, expression, _texts(values.get("ignorefiles")))
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

    def _exclude(
        self,
        name: str,
        known: list[Alternative],
        parse: Callable[[str], list[Alternative]],
        patterns: Iterable[str],
    ) -> None:
        """Add the patterns of texts that are not published."""
        total = 0
        for pattern in patterns:
            try:
                found = parse(pattern)
            except Unsupported as error:
                self._note_pattern(name, f"{pattern[:100]!r} is not supported ({error})")
                continue
            known += found
            total += sum(map(len, found))
            if total > MAX_TOTAL_ITEMS:  # the matcher refuses them
                return

    def _note_pattern(self, name: str, problem: str) -> None:
        """Note that the configuration cannot be evaluated as a whole. All texts become drafts."""
        if len(self._unknown_patterns) < MAX_PATTERN_PROBLEMS:
            problem = f"{name}: {problem}. All texts may be hidden, and become drafts"
            self._unknown_patterns.append(problem)

    def _matcher(self, alternatives: Sequence[Alternative]) -> Matcher:
        try:
            return Matcher(alternatives)
        except Unsupported as error:
            self._note_pattern("patterns of texts that are not published", str(error))
            return Matcher(())

    def _lines(self, root: Path, folder: str, name: str) -> list[str]:
        """Return the lines of a file that may be missing."""
        with self._opened(root, folder) as descriptor:
            if descriptor is None:
                return []
            try:
                return (_read(name, folder=descriptor) or "").splitlines()
            except OSError as error:
                self.problems.append(f"{name} cannot be read: {error.strerror or error}")
                return []

    def _load_ignored(self, root: Path) -> None:
        """Read what Eleventy does not publish, also for the folder above its input folder."""
        for folder in self._folders(root):
            inside = f"{root.relative_to(folder).as_posix()}/"
            lines = (line.strip() for line in self._lines(folder, "", _IGNORED))
            patterns = (line.removeprefix("./").lstrip("/") for line in lines if line)
            own = (each.removeprefix(inside) for each in patterns if each[:1] not in {"#", "!"})
            self._exclude(_IGNORED, self._globs, below, own)

    def _load_data(self, root: Path) -> None:
        """Read the names of authors, and the redirects of hosts of static sites."""
        names = ("authors.yml", "authors.yaml", "authors.json")
        for folder in ("_data", "data", ""):
            for _, values in self._values(root, folder, names):
                if isinstance(values, dict):
                    self.authors = {**values, **self.authors}
        for folder in ("", "static", "public", "source"):
            for line in self._lines(root, folder, _REDIRECTS):
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
        path = self._path(position)
        name = path.as_posix()
        kind = _kind(path)
        hidden: list[Restriction] = []
        values = dict(self._site_values)
        if kind not in {"posts", "drafts"} and values.get("permalink") == "date":
            del values["permalink"]
        for scope in self._defaults:
            if scope.contains(name, kind):
                values |= scope.values
                if scope.reason:
                    hidden.append(Restriction(Reason.RESTRICTED, scope.reason))
        content_path = "/" + self._content_path(position).as_posix().lower()
        for each in nested(self._cascade, folders):
            if each.path is None or each.path.matches(content_path):
                values |= each.values
                if each.reason:
                    hidden.append(Restriction(Reason.RESTRICTED, each.reason))
        hidden += [Restriction(Reason.UNFINISHED, each) for each in self._exclusions(path)]
        return Inherited({plain_name(name): each for name, each in values.items()}, hidden)

    def _exclusions(self, path: PurePosixPath) -> Iterator[str]:
        """Yield why the configuration of the site excludes a file."""
        name = path.as_posix()
        if self._unknown_patterns:
            yield "the configuration of the site has patterns that are not supported"
        elif self._excluded.matches(f"/{name}/") or self._ignored.matches(name):
            yield "the configuration of the site excludes the file"
        if folder := self._unpublished_folder(path):
            yield f"the folder {folder} is not published, because its name begins with _"

    @property
    def has_bundles(self) -> bool:
        """Whether the generator is Hugo, which has bundles of files, and folders of any names."""
        return self.is_hugo and not (self.is_jekyll or self.is_hexo)

    def categories(self, position: PurePosixPath) -> list[str]:
        """Return the folders above `_posts`, which are categories in Jekyll."""
        parts = self._path(position).parts
        if not self.is_jekyll or "_posts" not in parts:
            return []
        return [part for part in parts[: parts.index("_posts")] if part[0] not in "_."]

    def permalink(self, position: PurePosixPath, values: Mapping[str, Any]) -> str:
        """Return the pattern of the address of a text, or an empty string."""
        if isinstance(own := values.get("permalink"), str) and truth(own) is None:
            return own
        pages = self.permalinks.get("page")
        patterns = pages if isinstance(pages, dict) else self.permalinks
        parts = [part for part in self._path(position).parts[:-1] if part != "content"]
        pattern = patterns.get(parts[0]) if parts else None
        return pattern if isinstance(pattern, str) else ""

    def _path(self, position: PurePosixPath) -> PurePosixPath:
        """Return the path of a text as the configuration names it."""
        path = self._prefix / position
        return path.relative_to(self._source) if path.is_relative_to(self._source) else path

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
        if self.has_bundles:
            return ""
        for part in path.parts[:-1]:
            if part[0] == "_" and part not in {"_posts", "_drafts"} and part not in self._included:
                collection = self._collections.get(part[1:])
                output = collection.get("output") if isinstance(collection, dict) else None
                if truth(output) is not True:
                    return part
        return ""


def nested(above: Sequence[Defaults], own: Iterable[Defaults]) -> tuple[Defaults, ...]:
    """Return values of folders and those of a folder in them, of which the nearest are kept."""
    found = (*above, *own)
    if len(found) <= MAX_TABLES:
        return found
    reason = f"more than {MAX_TABLES} tables of values apply to the text"
    return (Defaults({}, reason=reason), *found[-MAX_TABLES + 1 :])


def folder_defaults(folder: str, names: frozenset[str], descriptor: int) -> list[Defaults]:
    """Return what the files in a folder declare for all texts in it and below it."""
    found: list[Defaults] = []
    for name in sorted(names):
        if _SECTION_FILES.fullmatch(name):
            found += _section(name, descriptor)
    return found + data_files(folder, names, descriptor)


def data_files(stem: str, names: frozenset[str], descriptor: int) -> list[Defaults]:
    """Return what Eleventy's data files of a folder or text declare."""
    data = {f"{stem}.json", f"{stem}.11tydata.json"} & names
    programs = {f"{stem}{ending}" for ending in _PROGRAMS} & names
    return [
        *(_data_file(name, descriptor) for name in sorted(data, key=len)),
        *(_program(name, descriptor) for name in sorted(programs)),
    ]


def cascade_of(values: Mapping[str, Any]) -> tuple[Defaults, ...]:
    """Return Hugo's `cascade`: one table or several, each with the texts that it is for."""
    return nested((), islice(_cascade(values), MAX_TABLES + 1))


def _cascade(values: Mapping[str, Any]) -> Iterator[Defaults]:
    for each in _dicts(values.get("cascade")):
        target = each.get("target", each.get("_target"))
        own = {key: value for key, value in each.items() if key not in {"target", "_target"}}
        yield from _targeted(_inheritable(own), target)


def _targeted(values: Mapping[str, Any], target: Any) -> Iterator[Defaults]:
    """Yield the values for each target. A page is of the kind `page`, not `section`."""
    for each in _dicts(target) or [{}]:
        kind, environment, path = map(each.get, ("kind", "environment", "path"))
        try:
            is_meant = (kind is None or _matches(kind, "page")) and (
                environment is None or _matches(environment, "production")
            )
            if is_meant:
                yield Defaults(values, None if path is None else _hugo_glob(str(path)))
        except Unsupported as error:
            yield Defaults(values, reason=f"a target of `cascade` is not supported ({error})")


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
        values = _parse(name, text)
    except (OSError, ValueError):
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


def _read(name: str, *, folder: int) -> str | None:
    """Return the text of a file in a folder, or None if it does not exist. Raises OSError."""
    try:
        return files.decode(files.read(name, folder=folder))[0]
    except FileNotFoundError:
        return None


def _parse(name: str, text: str) -> Any:
    """Return the values of a configuration. Raises ValueError."""
    if len(text) > MAX_CONFIGURATION:
        raise FrontMatterError(f"it is longer than {MAX_CONFIGURATION} characters")
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


def _scope(scope: Mapping[str, Any], values: Mapping[str, Any]) -> _Scope:
    path = str(scope.get("path") or "").strip("/")
    pattern, reason = None, ""
    if any(mark in path for mark in "*?["):
        try:
            pattern = Matcher(below(path))
        except Unsupported as error:
            reason = f"a path in `defaults` is not supported ({error})"
    return _Scope(path, str(scope.get("type") or ""), values, pattern, reason)


def _hugo_glob(pattern: str) -> Matcher:
    """Return the matcher of a path in Hugo's content folder. Raises Unsupported."""
    text = pattern.strip().lower()
    return Matcher(glob(text if text.startswith(("/", "{")) else f"/{text}"))


def _matches(pattern: Any, name: str) -> bool:
    """Return whether a glob matches a name. Raises Unsupported."""
    return Matcher(glob(str(pattern).strip().lower())).matches(name)


def _dicts(value: Any) -> list[dict[str, Any]]:
    """Return the tables in a value, which may be one table or a list."""
    return [
        each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)
    ]


def _texts(value: Any) -> list[str]:
    return [str(each) for each in (value if isinstance(value, list) else [value]) if each]


def _last(parts: Sequence[str], name: str) -> int:
    return max((index for index, part in enumerate(parts) if part == name), default=len(parts) - 1)
