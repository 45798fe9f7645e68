"""Ghost's posts to Markdown: HTML, and the documents of its editors, Lexical and Mobiledoc.

Documents become HTML first, as in Ghost. Markdown cards stay Markdown, if they do not change what
follows them, as an open code block would.
"""

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from markdown_it import MarkdownIt

from app.services.bulk.converting.cards import Payload, card_html, text_of
from app.services.bulk.converting.pages import from_html
from app.services.bulk.converting.results import (
    Context,
    Converted,
    InvalidDocument,
    Notes,
    TooComplex,
    check_size,
)
from app.services.bulk.foreign import strip_control_characters

MAX_DEPTH = 100
MAX_NODES = 200_000
SITE_URL = "__GHOST_URL__"

_FORMATS = (
    (1, "strong"), (2, "em"), (4, "del"), (8, "u"), (16, "code"), (32, "sub"), (64, "sup"),
    (128, "mark"),
)  # fmt: skip
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_MARKUPS = frozenset({"b", "strong", "em", "i", "code", "s", "sub", "sup", "u", "mark", "del"})
_MARKDOWN_CARDS = frozenset({"markdown", "card-markdown"})
_PAYWALL = re.compile(r"<!--\s*+members-only\s*+-->")
_parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
_END = "\n\nend-of-the-card\n"


def from_ghost_html(html: str, context: Context | None = None) -> Converted:
    """Convert the HTML of a Ghost post to Markdown. Raises TooComplex."""
    context, notes = context or Context(), Notes()
    lower = html.lower()
    notes.has_restricted_parts = _PAYWALL.search(lower) is not None or (
        "<!--kg-gated-block:begin" in lower and "nonmember:false" in lower
    )
    return from_html(_without_icons(_with_site(html, context)), context, notes=notes)


def _without_icons(html: str) -> str:
    """Return the HTML of cards without the drawings on their buttons."""
    first, *rest = html.split("<svg")
    parts = [first]
    for piece in rest:
        before = parts[-1].rstrip()
        is_icon = before.endswith(">") and "kg-" in before[before.rfind("<") :]
        _, end, after = piece.partition("</svg>")
        parts.append(after if is_icon and end else f"<svg{piece}")
    return "".join(parts)


def from_lexical(document: str, context: Context | None = None) -> Converted:
    """Convert a Lexical document to Markdown. Raises InvalidDocument and TooComplex."""
    context = context or Context()
    root = _parse(_with_site(document, context)).get("root")
    if not isinstance(root, dict):
        raise InvalidDocument("The Lexical document has no root")
    notes, raw = Notes(), list[str]()
    html = "".join(_Lexical(notes, raw).block(node, 0) for node in _children(root))
    return from_html(html, context, notes=notes, raw=raw)


def from_mobiledoc(document: str, context: Context | None = None) -> Converted:
    """Convert a Mobiledoc document to Markdown. Raises InvalidDocument and TooComplex."""
    context = context or Context()
    parsed = _parse(_with_site(document, context))
    notes, raw = Notes(), list[str]()
    try:
        html = "".join(_section(section, parsed, notes, raw) for section in parsed["sections"])
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidDocument("The Mobiledoc document is invalid") from error
    return from_html(html, context, notes=notes, raw=raw)


def from_ghost_markdown(text: str, context: Context | None = None) -> Converted:
    """Return the Markdown of Ghost before 1.0."""
    return Notes().result(strip_control_characters(_with_site(text, context or Context())))


def _with_site(text: str, context: Context) -> str:
    return text.replace(SITE_URL, context.site.rstrip("/"))


def _parse(document: str) -> dict[str, Any]:
    check_size(document)
    if document.count("{") + document.count("[") > MAX_NODES:
        raise TooComplex(f"The document has more than {MAX_NODES} nodes")
    try:
        parsed = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise InvalidDocument("The document is not JSON") from error
    if not isinstance(parsed, dict):
        raise InvalidDocument("The document is not a JSON object")
    return parsed


def _markdown_card(text: str, raw: list[str]) -> str:
    """Return HTML that stands for Markdown, which is kept if its blocks end with it."""
    if not text.strip():
        return ""
    last = _parser.parse(text + _END)[-3:]
    if [token.type for token in last] == ["paragraph_open", "inline", "paragraph_close"] and (
        last[1].content == _END.strip() and last[0].level == 0
    ):
        raw.append(text)
    else:
        raw.append(from_html(_parser.render(text)).markdown)
    return f'<div data-markdown="{len(raw) - 1}"></div>'


def _card(name: str, payload: Payload, notes: Notes, raw: list[str]) -> str:
    if name in _MARKDOWN_CARDS:
        return _markdown_card(text_of(payload, "markdown"), raw)
    return card_html(name, payload, notes)


# --- Lexical


def _children(node: Mapping[str, Any]) -> list[dict[str, Any]]:
    children = node.get("children")
    if not isinstance(children, list):
        return []
    return [child for child in children if isinstance(child, dict)]


class _Lexical:
    """Writes the nodes of a Lexical document as HTML."""

    def __init__(self, notes: Notes, raw: list[str]) -> None:
        self._notes = notes
        self._raw = raw

    def block(self, node: Mapping[str, Any], depth: int) -> str:  # noqa: PLR0911 - one case for each type
        """Return a block. Unknown types yield their text."""
        if depth > MAX_DEPTH:
            raise InvalidDocument("The Lexical document is nested too deeply")
        kind = _kind(node)
        match kind:
            case "list":
                return self._list(node, depth)
            case "heading":
                tag = node.get("tag")
                name = tag if isinstance(tag, str) and tag in _HEADINGS else "h2"
                return f"<{name}>{self._inline(node, depth)}</{name}>"
            case "quote" | "aside":
                return f"<blockquote><p>{self._inline(node, depth)}</p></blockquote>"
            case "paragraph":
                return f"<p>{self._inline(node, depth)}</p>"
        if "children" in node:
            return f"<p>{self._inline(node, depth)}</p>"
        if kind in {"text", "tk"}:
            return f"<p>{_text(node)}</p>"
        return _card(kind, node, self._notes, self._raw)

    def _list(self, node: Mapping[str, Any], depth: int) -> str:
        tag = "ol" if node.get("listType") == "number" else "ul"
        start = node.get("start")
        numbered = f' start="{start}"' if tag == "ol" and isinstance(start, int) else ""
        items, is_open = [f"<{tag}{numbered}>"], False
        for item in _children(node):
            nested = [child for child in _children(item) if _kind(child) == "list"]
            others = [child for child in _children(item) if _kind(child) != "list"]
            own = {**item, "children": others}
            content = self._inline(own, depth + 1)
            if content or not is_open:
                items.append(("</li>" if is_open else "") + "<li>" + _box(item) + content)
                is_open = True
            items += [self.block(child, depth + 1) for child in nested]
        return "".join([*items, "</li>" if is_open else "", f"</{tag}>"])

    def _inline(self, node: Mapping[str, Any], depth: int) -> str:
        if depth > MAX_DEPTH:
            raise InvalidDocument("The Lexical document is nested too deeply")
        parts = []
        for child in _children(node):
            kind = _kind(child)
            if kind == "linebreak":
                parts.append("<br>")
            elif kind == "tab":
                parts.append(" ")
            elif kind == "list":
                parts.append(self.block(child, depth + 1))
            elif kind in {"link", "autolink", "at-link"}:
                inner = self._inline(child, depth + 1)
                title = text_of(child, "title")
                titled = f' title="{escape(title)}"' if title else ""
                url = text_of(child, "url")
                parts.append(f'<a href="{escape(url)}"{titled}>{inner or escape(url)}</a>')
            elif "children" in child:
                parts.append(self._inline(child, depth + 1))
            elif isinstance(child.get("text"), str):
                parts.append(_text(child))
            elif kind != "zwnj":
                parts.append(_card(kind, child, self._notes, self._raw))
        return "".join(parts)


def _kind(node: Mapping[str, Any]) -> str:
    kind = node.get("type")
    return kind.removeprefix("extended-") if isinstance(kind, str) else ""


def _box(item: Mapping[str, Any]) -> str:
    checked = item.get("checked")
    if not isinstance(checked, bool):
        return ""
    return f'<input type="checkbox"{" checked" if checked else ""}>'


def _text(node: Mapping[str, Any]) -> str:
    text = escape(str(node.get("text", "")), quote=False).replace("\n", "<br>")
    bits = node.get("format")
    for bit, tag in reversed(_FORMATS):
        if isinstance(bits, int) and bits & bit:
            text = f"<{tag}>{text}</{tag}>"
    return text


# --- Mobiledoc


def _section(
    section: Sequence[Any], document: Mapping[str, Any], notes: Notes, raw: list[str]
) -> str:
    """Return a section: [1, tag, markers], [2, src], [3, tag, items] or [10, card]."""
    kind = section[0]
    if kind == 1:
        tag = section[1] if section[1] in _HEADINGS | {"blockquote", "p"} else "p"
        if section[1] in {"aside", "pull-quote"}:
            tag = "blockquote"
        return f"<{tag}>{_markers(section[2], document)}</{tag}>"
    if kind == 2:
        return f'<p><img src="{escape(section[1])}" alt=""></p>'
    if kind == 3:
        tag = "ol" if section[1] == "ol" else "ul"
        items = "".join(f"<li>{_markers(item, document)}</li>" for item in section[2])
        return f"<{tag}>{items}</{tag}>"
    if kind == 10:
        name, payload = document["cards"][section[1]]
        return _card(str(name), payload if isinstance(payload, dict) else {}, notes, raw)
    return ""


def _markers(markers: Sequence[Any], document: Mapping[str, Any]) -> str:
    """Return markers. Each opens markups before its text, and closes some after it."""
    parts: list[str] = []
    opened: list[str] = []
    for kind, opens, closes, value in markers:
        for index in opens:
            markup = document["markups"][index]
            tag = str(markup[0]).lower()
            if tag == "a":
                values = dict(zip(markup[1][::2], markup[1][1::2], strict=False))
                parts.append(f'<a href="{escape(str(values.get("href", "")))}">')
            elif tag in _MARKUPS:
                parts.append(f"<{tag}>")
            opened.append(tag)
        parts.append(_atom(value, document) if kind == 1 else escape(str(value), quote=False))
        for _ in range(closes):
            tag = opened.pop()
            if tag == "a" or tag in _MARKUPS:
                parts.append(f"</{tag}>")
    return "".join(parts)


def _atom(index: Any, document: Mapping[str, Any]) -> str:
    """Return an atom: a line break, or the text of another one."""
    atoms = document.get("atoms") or ()
    if not isinstance(index, int) or not 0 <= index < len(atoms):
        return "<br>"
    name, text = atoms[index][0], atoms[index][1]
    return "<br>" if name == "soft-return" else escape(str(text), quote=False)
