"""Conversion of Ghost's editor formats, Lexical and Mobiledoc, to Markdown."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.services.bulk.html import html_to_markdown

MAX_DEPTH = 100

_BACKTICKS = re.compile("`+")
_BOLD, _ITALIC, _STRUCK, _CODE = 1, 2, 4, 16
_MARKS = ((_CODE, "`"), (_BOLD, "**"), (_ITALIC, "*"), (_STRUCK, "~~"))
_TAG_MARKS = {"strong": "**", "b": "**", "em": "*", "i": "*", "code": "`", "s": "~~"}


class InvalidDocument(ValueError):
    """The document is not valid in its format."""


def from_lexical(document: str) -> str:
    """Convert a Lexical document to Markdown. Raises InvalidDocument."""
    root = _parse(document).get("root")
    if not isinstance(root, dict):
        raise InvalidDocument("The Lexical document has no root")
    return "\n\n".join(filter(None, (_block(node, 0) for node in _children(root)))).strip()


def from_mobiledoc(document: str) -> str:
    """Convert a Mobiledoc document to Markdown. Raises InvalidDocument."""
    parsed = _parse(document)
    try:
        blocks = [_section(section, parsed) for section in parsed.get("sections", [])]
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise InvalidDocument("The Mobiledoc document is invalid") from error
    return "\n\n".join(filter(None, blocks)).strip()


def _parse(document: str) -> dict[str, Any]:
    try:
        parsed = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise InvalidDocument("The document is not JSON") from error
    if not isinstance(parsed, dict):
        raise InvalidDocument("The document is not a JSON object")
    return parsed


def _children(node: Mapping[str, Any]) -> list[dict[str, Any]]:
    children = node.get("children")
    return (
        [child for child in children if isinstance(child, dict)]
        if isinstance(children, list)
        else []
    )


def _text(node: Mapping[str, Any], name: str) -> str:
    value = node.get(name)
    return value if isinstance(value, str) else ""


def _block(node: Mapping[str, Any], depth: int) -> str:
    """Convert a block by its type. Unknown types yield their text."""
    if depth > MAX_DEPTH:
        raise InvalidDocument("The Lexical document is nested too deeply")
    kind = _text(node, "type").removeprefix("extended-")
    if kind == "list":
        return _list(node, depth)
    if kind in _BLOCKS:
        return _BLOCKS[kind](node)
    inline = _inline(node, depth)
    if kind == "heading":
        level = _text(node, "tag")[1:2]
        return f"{'#' * (int(level) if level.isdigit() else 2)} {inline}"
    return "\n".join(f"> {line}" for line in inline.split("\n")) if "quote" in kind else inline


def _list(node: Mapping[str, Any], depth: int) -> str:
    numbered = _text(node, "listType") == "number"
    lines = []
    for number, item in enumerate(_children(node), 1):
        mark = f"{number}. " if numbered else "- "
        nested = [child for child in _children(item) if child.get("type") == "list"]
        own_content = {
            **item,
            "children": [each for each in _children(item) if each.get("type") != "list"],
        }
        if text := _inline(own_content, depth + 1):
            lines.append(mark + text)
        for child in nested:
            inner = _block(child, depth + 1)
            lines += [" " * len(mark) + line for line in inner.split("\n")]
    return "\n".join(lines)


def _inline(node: Mapping[str, Any], depth: int) -> str:
    if depth > MAX_DEPTH:
        raise InvalidDocument("The Lexical document is nested too deeply")
    parts = []
    for child in _children(node):
        kind = _text(child, "type").removeprefix("extended-")
        if kind == "linebreak":
            parts.append("\\\n")
        elif kind in {"link", "autolink"}:
            parts.append(f"[{_inline(child, depth + 1)}]({_text(child, 'url')})")
        elif kind in _BLOCKS:
            parts.append(_BLOCKS[kind](child))
        elif "children" in child:
            parts.append(_inline(child, depth + 1))
        else:
            bits = child.get("format")
            parts.append(_apply_format(_text(child, "text"), bits if isinstance(bits, int) else 0))
    return "".join(parts)


def _apply_format(text: str, bits: int) -> str:
    """Surround a text with the marks of its format bits. Outer spaces stay outside."""
    inner = text.strip()
    if not inner:
        return text
    before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    for bit, mark in _MARKS:
        if bits & bit:
            inner = f"{mark}{inner}{mark}"
    return before + inner + after


def _code_block(code: str, language: str) -> str:
    longest = max(map(len, _BACKTICKS.findall(code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def _image(node: Mapping[str, Any]) -> str:
    return f"![{_text(node, 'alt')}]({_text(node, 'src')})"


def _horizontal_rule(_: Mapping[str, Any]) -> str:
    return "---"


def _link(node: Mapping[str, Any]) -> str:
    url = _text(node, "url")
    return f"<{url}>" if url.startswith("http") else ""


_BLOCKS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "image": _image,
    "codeblock": lambda node: _code_block(_text(node, "code"), _text(node, "language")),
    "code": lambda node: _code_block(_text(node, "code"), _text(node, "language")),
    "html": lambda node: html_to_markdown(_text(node, "html")),
    "markdown": lambda node: _text(node, "markdown"),
    "horizontalrule": _horizontal_rule,
    "hr": _horizontal_rule,
    "bookmark": _link,
    "embed": _link,
    "callout": lambda node: f"> {html_to_markdown(_text(node, 'calloutText'))}",
}


def _section(section: Sequence[Any], document: Mapping[str, Any]) -> str:
    """Convert a section: [1, tag, markers], [2, src], [3, tag, items] or [10, card]."""
    kind = section[0]
    if kind == 1:
        tag, text = section[1], _markers(section[2], document)
        if tag in {"h1", "h2", "h3", "h4", "h5", "h6"}:
            return f"{'#' * int(tag[1])} {text}"
        return f"> {text}" if tag == "blockquote" else text
    if kind == 2:
        return f"![]({section[1]})"
    if kind == 3:
        numbered = section[1] == "ol"
        items = (_markers(item, document) for item in section[2])
        return "\n".join(
            f"{number}. {item}" if numbered else f"- {item}" for number, item in enumerate(items, 1)
        )
    if kind == 10:
        name, payload = document["cards"][section[1]]
        convert = _BLOCKS.get("markdown" if name == "card-markdown" else name)
        return convert(payload) if convert else ""
    return ""


def _markers(markers: Sequence[Any], document: Mapping[str, Any]) -> str:
    """Convert markers. Each opens and closes a number of markups around its text."""
    parts: list[str] = []
    opened: list[Sequence[Any]] = []
    for kind, opens, closes, value in markers:
        for index in opens:
            markup = document["markups"][index]
            opened.append(markup)
            parts.append("[" if markup[0] == "a" else _TAG_MARKS.get(markup[0], ""))
        parts.append("\\\n" if kind == 1 else str(value))
        for _ in range(closes):
            markup = opened.pop()
            mark = _TAG_MARKS.get(markup[0], "")
            parts.append(f"]({markup[1][1]})" if markup[0] == "a" else mark)
    return "".join(parts)
