"""Front matter in YAML, TOML and JSON, in all forms that generators of sites accept.

Values stay text where a generator would show text: `12:30`, `no` and `1.10` are not converted.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

MAX_LENGTH = 64 * 1024
MAX_DOTS = 100
"""Maximum dots in a line of TOML, and so in a key."""
MAX_NODES = 10_000
"""Maximum number of YAML nodes after the expansion of aliases."""

_FIRST_FENCE = re.compile(r"\s*+(-{3,}+|\+{3,}+|;{3,}+)[ \t]*+(\w*+)[ \t]*+\r?\n")
_CLOSING = {
    "-": re.compile(r"\n(?:---+|\.\.\.)[ \t]*\r?(?:\n|\Z)"),
    "+": re.compile(r"\n\+\+\++[ \t]*\r?(?:\n|\Z)"),
    ";": re.compile(r"\n;;;+[ \t]*\r?(?:\n|\Z)"),
}
_UNOPENED_END = re.compile(r"\n(---+|;;;+)[ \t]*\r?(?:\n|\Z)")
_FIRST_FIELD = re.compile(r"\s*\"?[A-Za-z_][\w-]*\"?[ \t]*:[ \t]")
_LINE_END = re.compile(r"[ \t]*(?:\r?\n|\Z)")
_BLANK_LINE = re.compile(r"\n[ \t]*\r?\n")
_LINE = re.compile(r"([A-Za-z_][\w.-]*)[ \t]*:(?:[ \t]+(.*)|)")
_TOML_LINE = re.compile(r"([A-Za-z_][\w.-]*)[ \t]*=[ \t]*(.*)")
_ITEM = re.compile(r"[ \t]*-[ \t]+(.+)")
_USUAL_NAMES = {"title", "date", "layout", "tags", "categories", "category", "slug", "author"}


class FrontMatter(NamedTuple):
    """The fields of a file, with names in lower case, and its content."""

    values: Mapping[str, Any]
    content: str
    damage: str = ""
    """What is wrong with it. Some fields may then be missing."""
    is_present: bool = True


class FrontMatterError(ValueError):
    """The front matter cannot be read. The message contains the reason."""


class _Loader(yaml.CSafeLoader):
    """A safe loader for which all plain scalars are text, except for null."""


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"<<\Z"), ["<"])


def _construct_unknown(loader: Any, _: str, node: yaml.Node) -> Any:
    """Return a value with an unknown tag as if it had none."""
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


_Loader.add_multi_constructor("", _construct_unknown)


def split(text: str) -> FrontMatter:
    """Split a file into front matter and content."""
    text = text.removeprefix("\ufeff")
    opening = _FIRST_FENCE.match(text)
    if opening:
        mark, language = opening[1][0], opening[2].lower()
        closing = _CLOSING[mark].search(text, opening.end() - 1)
        if closing is None:
            return _unclosed(text, opening.end())
        raw, content = text[opening.end() : closing.start()], _content(text[closing.end() :])
        if language and language not in {"yaml", "yml", "toml", "json"}:
            damage = f"front matter in {language[:20]} cannot be read"
            return FrontMatter(_by_lines(raw), content, damage)
        form = language or {"-": "yaml", "+": "toml", ";": "json"}[mark]
        found = _parse(form, raw, content)
        return found or FrontMatter({}, text, is_present=False)
    if text.lstrip().startswith("{"):
        return _json_first(text)
    return _unopened(text)


def _content(text: str) -> str:
    """Return the text without the blank line after the front matter."""
    return text.removeprefix("\r\n") if text.startswith("\r\n") else text.removeprefix("\n")


def _unclosed(text: str, start: int) -> FrontMatter:
    blank = _BLANK_LINE.search(text, start)
    end = min(blank.start() if blank else len(text), start + MAX_LENGTH)
    values = _by_lines(text[start:end])
    if not values:
        return FrontMatter({}, text, is_present=False)
    content = text[blank.end() if blank and blank.start() == end else end :]
    return FrontMatter(values, content, "the front matter has no end")


def _json_first(text: str) -> FrontMatter:
    start = len(text) - len(text.lstrip())
    try:
        values, end = _json_decoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return FrontMatter({}, text, is_present=False)
    if not isinstance(values, dict) or not _LINE_END.match(text, end):
        return FrontMatter({}, text, is_present=False)
    rest = text[end:].lstrip(" \t\r").removeprefix("\n")
    return FrontMatter(_lowered(values), _content(rest))


def _unopened(text: str) -> FrontMatter:
    """Read front matter without a first fence (Hexo), or without any (Pelican, MultiMarkdown)."""
    nothing = FrontMatter({}, text, is_present=False)
    if not _FIRST_FIELD.match(text):
        return nothing
    end = _UNOPENED_END.search(text[:MAX_LENGTH])
    if end is not None:
        form = "json" if end[1][0] == ";" else "yaml"
        found = _parse(form, text[: end.start()], _content(text[end.end() :]))
        if found and not found.damage and _USUAL_NAMES & set(found.values):
            return found
    blank = _BLANK_LINE.search(text[:MAX_LENGTH])
    head = text[: blank.start()] if blank else text[:MAX_LENGTH]
    values = _by_lines(head)
    lines = [line for line in head.splitlines() if line.strip()]
    is_complete = all(_LINE.match(line) or line[0] in " \t-" for line in lines)
    if is_complete and len(_USUAL_NAMES & set(values)) > 1 and "title" in values:
        return FrontMatter(values, text[blank.end() :] if blank else "")
    return nothing


def _parse(form: str, raw: str, content: str) -> FrontMatter | None:
    """Return the fields, or None if the text is not front matter but the author's own."""
    if len(raw) > MAX_LENGTH:
        damage = f"the front matter is longer than {MAX_LENGTH} characters"
        return FrontMatter(_by_lines(raw[:MAX_LENGTH]), content, damage)
    try:
        values = _PARSERS[form](raw)
    except FrontMatterError as error:
        return FrontMatter(_by_lines(raw[:MAX_LENGTH]), content, str(error))
    if values is None:
        return FrontMatter({}, content)
    if not isinstance(values, dict):
        return None
    return FrontMatter(_lowered(values), content)


def load_yaml(raw: str, max_nodes: int = MAX_NODES) -> Any:
    """Return the value of a YAML document, with plain scalars as text. Raises FrontMatterError."""
    loader = _Loader(raw.replace("\t", "  ") if "\n\t" in raw else raw)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, {}, max_nodes)
        return loader.construct_document(node)
    except RecursionError as error:
        raise FrontMatterError("the front matter is nested too deeply") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        if isinstance(error, FrontMatterError):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 2})" if mark else ""
        reason = getattr(error, "problem", None) or str(error)
        raise FrontMatterError(f"the front matter is not valid YAML{where}: {reason}") from error
    finally:
        loader.dispose()


def _check_size(node: yaml.Node, sizes: dict[int, int], limit: int) -> int:
    """Return the number of nodes with aliases expanded. Raises FrontMatterError."""
    known = sizes.get(id(node))
    if known is not None:
        if known == 0:
            raise FrontMatterError("the front matter contains itself")
        return known
    sizes[id(node)] = 0
    size = 1
    if isinstance(node, yaml.SequenceNode):
        size += sum(_check_size(child, sizes, limit) for child in node.value)
    elif isinstance(node, yaml.MappingNode):
        size += sum(_check_size(child, sizes, limit) for pair in node.value for child in pair)
    if size > limit:
        raise FrontMatterError(f"it has more than {limit} values")
    sizes[id(node)] = size
    return size


def load_toml(raw: str) -> Any:
    """Return the values of a TOML document. Raises FrontMatterError.

    tomllib takes quadratic time and memory for the parts of a key.
    """
    if any(line.count(".") > MAX_DOTS for line in raw.split("\n")):
        raise FrontMatterError(f"a line has more than {MAX_DOTS} dots")
    try:
        return tomllib.loads(raw.replace("\r\n", "\n").removesuffix("\r"), parse_float=str)
    except (ValueError, RecursionError) as error:
        raise FrontMatterError(f"the front matter is not valid TOML: {error}"[:200]) from error


def _parse_json(raw: str) -> Any:
    text = raw.strip()
    if not text.startswith("{"):  # Hexo writes it without braces
        text = "{" + text.removesuffix(",") + "}"
    try:
        return _json_decoder().decode(text)
    except (ValueError, RecursionError) as error:
        raise FrontMatterError(f"the front matter is not valid JSON: {error}"[:200]) from error


_PARSERS = {"yaml": load_yaml, "yml": load_yaml, "toml": load_toml, "json": _parse_json}


def _json_decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_float=str, parse_int=str, strict=False)


def _lowered(values: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name).lower(): value for name, value in values.items()}


def _by_lines(raw: str) -> dict[str, Any]:
    """Return the fields `name: value`, and lists of lines with hyphens."""
    values: dict[str, Any] = {}
    last = ""
    for line in raw.splitlines():
        if field := _LINE.fullmatch(line.rstrip()) or _TOML_LINE.fullmatch(line.rstrip()):
            last = field[1].lower()
            values[last] = _unquoted(field[2] or "")
        elif (item := _ITEM.fullmatch(line.rstrip())) and last:
            before = values[last]
            if not isinstance(before, list):
                before = values[last] = [before] if before else []
            before.append(_unquoted(item[1]))
    return values


def _unquoted(text: str) -> Any:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    if text.startswith("[") and text.endswith("]"):
        return [_unquoted(item) for item in text[1:-1].split(",") if item.strip()]
    return text
