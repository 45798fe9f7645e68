"""Blocks as Markdown.

Elements that Markdown does not have are written as HTML tags on lines of their own, with blank
lines around the Markdown inside: `figure`, `details`, `dl`, and tables with blocks in their cells.
"""

import re
from collections.abc import Iterator, Sequence
from html import escape

from app.services.bulk.converting.inline import Inline, can_be_autolink, destination, escape_text
from app.services.bulk.converting.players import address, canonical_player, file_name, has_player
from app.services.bulk.converting.results import Notes
from app.services.bulk.converting.trees import BREAK, GUTTERS, INLINE, Element, is_left_out

SPACES = " \t\r\n\f"
"""White space of HTML. Other spaces, such as no-break spaces, are text."""
Nodes = Sequence[Element | str]

_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_INLINE = INLINE | {"br", "img", "wbr", "anchor", "input", "span"}
_FENCE = re.compile(r"^ {0,3}(`{3,})", re.MULTILINE)
_LANGUAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+#.-]{0,30}")
_CLASS_LANGUAGE = re.compile(
    r"(?:^|\s)(?:lang(?:uage)?[-:]|brush:\s*|highlight-source-|sourceCode\s+|hljs\s+"
    r"|src\s+src-|wp-block-code\s+)\"?([A-Za-z0-9_+#.-]{1,30})",
    re.IGNORECASE,
)
_NO_LANGUAGE = frozenset(
    {"plain", "text", "none", "nohighlight", "plaintext", "auto", "default", "hljs", "txt"}
)
_ALIGNED = re.compile(r"text-align:\s*(left|center|right)")
_ALIGNMENTS = {"left": ":---", "center": ":---:", "right": "---:"}
_SPANS = re.compile(r"\d{1,4}")


class Blocks:
    """Converts the children of an element to Markdown."""

    def __init__(self, notes: Notes, *, raw: Sequence[str] = ()) -> None:
        """`raw` has Markdown that `<div data-markdown="index">` refers to."""
        self._notes = notes
        self._raw = raw
        self._inline = Inline(notes)

    def convert(self, nodes: Nodes) -> str:
        """Return the blocks in `nodes`, separated by blank lines."""
        return "\n\n".join(self._blocks(nodes, ()))

    def _blocks(self, nodes: Nodes, formats: Sequence[Element]) -> list[str]:
        """Return the blocks. `formats` are the inline elements around them, such as links."""
        written: list[str] = []
        waiting: list[Element | str] = []
        for node in nodes:
            if isinstance(node, str) or (node.name in _INLINE and not node.has_blocks):
                waiting.append(node)
                continue
            self._flush(waiting, formats, written)
            if node is BREAK:
                continue
            if not (waiting and node.name in _HEADINGS):
                written += self._block(node, formats)
            else:  # only anchors are waiting
                written += self._heading(node, formats, waiting)
                waiting.clear()
        self._flush(waiting, formats, written, is_last=True)
        return _separate_lists(written)

    def _flush(
        self,
        waiting: list[Element | str],
        formats: Sequence[Element],
        written: list[str],
        *,
        is_last: bool = False,
    ) -> None:
        """Write the inline content as paragraphs. Anchors alone wait for the next block."""
        if not waiting:
            return
        if not is_last and all(
            node.name == "anchor" if isinstance(node, Element) else not node.strip(SPACES)
            for node in waiting
        ):
            waiting[:] = [node for node in waiting if isinstance(node, Element)]
            return
        written += self._inline.paragraphs(_wrapped(waiting, formats))
        waiting.clear()

    def _block(self, node: Element, formats: Sequence[Element]) -> list[str]:  # noqa: C901, PLR0911, PLR0912 - one case for each element
        if is_left_out(node):
            return []
        match node.name:
            case name if name in _HEADINGS:
                return self._heading(node, formats)
            case "blockquote":
                return _nonempty(_quoted("\n\n".join(self._blocks(node.children, formats))))
            case "ul" | "ol":
                return self._list(node, formats)
            case "pre":
                return self._code(node, formats)
            case "hr":
                return ["---"]
            case "table":
                return self._table(node, formats)
            case "figure":
                return self._figure(node, formats)
            case "details":
                return self._details(node, formats)
            case "dl":
                return self._definitions(node, formats)
            case "iframe" | "video" | "audio" | "object" | "embed":
                return self._player(node)
            case "div" if "data-markdown" in node.attributes:
                return _nonempty(self._raw[int(node.get("data-markdown"))].strip("\r\n"))
            case name if name in INLINE:
                return self._blocks(node.children, (*formats, node))
            case _:
                return self._blocks(node.children, formats)

    def _heading(self, node: Element, formats: Sequence[Element], anchors: Nodes = ()) -> list[str]:
        text = self._inline.heading(_wrapped([*anchors, *node.children], formats))
        return [f"{'#' * int(node.name[1])} {text}"] if text else []

    # --- lists

    def _list(self, node: Element, formats: Sequence[Element]) -> list[str]:
        items: list[tuple[str, list[str]]] = []
        for child in node.children:
            if isinstance(child, str) or child.name != "li":
                if child is BREAK or (isinstance(child, str) and not child.strip(SPACES)):
                    continue
                # Lists directly in lists, as old editors wrote them, belong to the item before.
                blocks = self._blocks([child], formats)
                if items:
                    items[-1][1].extend(blocks)
                elif blocks:
                    items.append(("", blocks))
                continue
            items.append((_checkbox(child), self._blocks(child.children, formats)))
        items = [(box, _without_rule(blocks)) for box, blocks in items if box or blocks]
        if not items:
            return []
        number = int(node.get("start")) if re.fullmatch(r"\d{1,9}", node.get("start")) else 1
        loose = any(not _is_tight(blocks) for _, blocks in items)
        lines = []
        for index, (box, blocks) in enumerate(items):
            mark = f"{number + index}. " if node.name == "ol" else "- "
            content = ("\n\n" if loose else "\n").join(blocks)
            lines.append(mark + _indented(box + content, " " * len(mark)))
        return [("\n\n" if loose else "\n").join(lines)]

    def _definitions(self, node: Element, formats: Sequence[Element]) -> list[str]:
        lines = ["<dl>"]
        for child in node.children:
            if isinstance(child, Element) and child.name in {"dt", "dd"}:
                lines.append(self._cell(child.name, child, formats))
            elif isinstance(child, Element) and child is not BREAK:
                lines += ["<dd>", "", *self._blocks([child], formats), "", "</dd>"]
            elif isinstance(child, str) and child.strip(SPACES):
                lines.append(f"<dd>{escape(child.strip(), quote=False)}</dd>")
        return ["\n".join([*lines, "</dl>"])] if len(lines) > 1 else []

    def _cell(self, tag: str, node: Element, formats: Sequence[Element]) -> str:
        """Write an element as one line of HTML, or as HTML around Markdown if it has blocks."""
        name = tag.split(" ", 1)[0]
        if _is_line(node) and not _has_footnotes(node):
            return f"<{tag}>{self._inline.html(_wrapped(node.children, formats))}</{name}>"
        blocks = self._blocks(node.children, formats)
        return "\n".join([f"<{tag}>", "", "\n\n".join(blocks), "", f"</{name}>"])

    # --- code

    def _code(self, node: Element, formats: Sequence[Element]) -> list[str]:
        _remove_gutters(node)
        text_only = not any(
            each.name in {"a", "img", "strong", "em", "del", "sup", "sub", "mark", "u", "kbd"}
            for each in node.elements()
        )
        language = _code_language(node)
        if formats or not (text_only or language):
            inner = _preformatted(_wrapped(node.children, formats), self._notes)
            return [f"<pre>{inner}</pre>"] if inner.strip(SPACES) else []
        code = node.text().replace("\r\n", "\n").replace("\r", "\n")
        return fenced(code, language) if code.strip(SPACES) else []

    # --- tables

    def _table(self, node: Element, formats: Sequence[Element]) -> list[str]:
        code = _code_table(node)
        if code is not None:
            return self._code(code, formats)
        captions = [each for each in node.children if _is_named(each, "caption")]
        before = [
            block
            for caption in captions
            if isinstance(caption, Element)
            for block in self._blocks(caption.children, formats)
        ]
        cells = [row for row in _rows(node) if row]
        if not cells:
            return before
        if len(cells) == len(cells[0]) == 1:  # a frame around the content
            return before + self._blocks(cells[0][0].children, formats)
        if all(_is_simple(cell) for row in cells for cell in row):
            return [*before, self._simple_table(cells, formats)]
        lines = ["<table>"]
        for row in cells:
            lines.append("<tr>")
            for cell in row:
                spans = "".join(
                    f' {name}="{cell.get(name)}"'
                    for name in ("colspan", "rowspan")
                    if _SPANS.fullmatch(cell.get(name)) and cell.get(name) != "1"
                )
                lines.append(self._cell(f"{cell.name}{spans}", cell, formats))
            lines.append("</tr>")
        return [*before, "\n".join([*lines, "</table>"])]

    def _simple_table(self, rows: list[list[Element]], formats: Sequence[Element]) -> str:
        width = max(map(len, rows))
        texts = [
            [
                self._inline.line(_wrapped(cell.children, formats)).replace("|", "\\|")
                for cell in row
            ]
            for row in rows
        ]
        head, *body = texts  # Markdown's tables have a header
        rule = [_alignment([row[column] for row in rows if column < len(row)])
                for column in range(width)]  # fmt: skip
        return "\n".join(
            "| " + " | ".join(row + [""] * (width - len(row))) + " |" for row in [head, rule, *body]
        )

    # --- figures, players

    def _figure(self, node: Element, formats: Sequence[Element]) -> list[str]:
        captions = [each for each in node.children if _is_named(each, "figcaption")]
        others = [each for each in node.children if not _is_named(each, "figcaption")]
        content = self._blocks(others, formats)
        if not content:
            return self._blocks([child for each in captions for child in _nodes(each)], formats)
        lines = [
            self._cell("figcaption", caption, formats)
            for caption in captions
            if isinstance(caption, Element)
            and (caption.text().strip(SPACES) or caption.find("img"))
        ]
        if not lines:
            return content
        return ["\n".join(["<figure>", "", "\n\n".join(content), "", *lines, "</figure>"])]

    def _details(self, node: Element, formats: Sequence[Element]) -> list[str]:
        summary = next((each for each in node.children if _is_named(each, "summary")), None)
        content = self._blocks([each for each in node.children if each is not summary], formats)
        title = (
            self._inline.html(_wrapped(summary.children, formats))
            if isinstance(summary, Element)
            else ""
        )
        lines = ["<details>", *([f"<summary>{title}</summary>"] if title else [])]
        return ["\n".join([*lines, "", "\n\n".join(content), "", "</details>"])]

    def _player(self, node: Element) -> list[str]:
        sources = [node.get("src") or node.get("data-src") or node.get("data")]
        sources += [
            each.get("src") or each.get("value")
            for each in node.elements()
            if each.name in {"source", "embed"}
            or (each.name == "param" and each.get("name") in {"movie", "src"})
        ]
        source = next(filter(None, sources), "")
        url = address(canonical_player(source)) if source != "about:blank" else ""
        if url:
            title = node.get("title") or (url if node.name == "iframe" else "")
            return [player(url, title=title)]
        if source or node.name == "iframe":
            self._notes.add(f"embedded content was left out: {source[:60] or 'it has no URL'}")
        return self._blocks(node.children, ()) if node.name in {"object", "video", "audio"} else []


def player(url: str, *, title: str = "") -> str:
    """Return a paragraph with embedded content: the address alone, or a link."""
    if has_player(url):
        return url
    text = " ".join(title.split()) or file_name(url)
    if text == url and can_be_autolink(url):
        return f"<{url}>"
    return f"[{escape_text(text, in_link=True)}]({destination(url)})"


def fenced(code: str, language: str = "") -> list[str]:
    """Return a fenced code block, as a list with one element."""
    code = code.rstrip(SPACES).lstrip("\n")
    longest = max((len(run) for run in _FENCE.findall(code)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}\n{code}\n{fence}"]


def _nonempty(text: str) -> list[str]:
    return [text] if text.strip(SPACES) else []


def _is_named(node: Element | str, name: str) -> bool:
    return isinstance(node, Element) and node.name == name


def _nodes(node: Element | str) -> Nodes:
    return node.children if isinstance(node, Element) else [node]


def _wrapped(nodes: Nodes, formats: Sequence[Element]) -> Nodes:
    """Put inline content into copies of these elements."""
    for element in reversed(formats):
        copy = Element(element.name, element.attributes)
        copy.children = list(nodes)
        nodes = [copy]
    return nodes


def _indented(text: str, indent: str) -> str:
    first, *rest = text.split("\n")
    return "\n".join([first, *(indent + line if line else "" for line in rest)])


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" if line else ">" for line in text.split("\n")) if text else ""


# --- lists

_ITEM = re.compile(r"([-+]|\d+[.)]) ")
_CONTINUING_ITEM = re.compile(r"(?:[-+]|1[.)]) ")
"""An item that can follow a paragraph without a blank line."""
_ITEM_LINES = re.compile(r"^[-+](?= )|^\d+[.)](?= )", re.MULTILINE)
_HTML = re.compile(r"<(?:details|dl|figure|pre|table)\b")
_OTHER_MARKS = {"-": "+", "+": "-", ".": ")", ")": "."}


def _separate_lists(blocks: list[str]) -> list[str]:
    """Change the marks of a list after a list of the same kind, which would continue it."""
    first: re.Match[str] | None = None
    for index, block in enumerate(blocks):
        second = _ITEM.match(block)
        if first and second and first[1][-1] == second[1][-1]:
            blocks[index] = _ITEM_LINES.sub(_other_mark, block)
            second = _ITEM.match(blocks[index])
        first = second
    return blocks


def _other_mark(mark: re.Match[str]) -> str:
    return mark[0][:-1] + _OTHER_MARKS[mark[0][-1]]


def _without_rule(blocks: list[str]) -> list[str]:
    """Write a rule at the beginning of an item as `***`: `- ---` is a rule itself."""
    return ["***", *blocks[1:]] if blocks[:1] == ["---"] else blocks


def _is_tight(blocks: Sequence[str]) -> bool:
    """Return whether an item has only a paragraph, and lists after it."""
    if len(blocks) > 1 and _HTML.match(blocks[0]):
        return False  # HTML ends at a blank line
    return all(_CONTINUING_ITEM.match(block) for block in blocks[1:]) and not any(
        "\n\n" in block for block in blocks
    )


def _checkbox(item: Element) -> str:
    """Return the Markdown for a checkbox at the beginning of an item."""
    for child in item.children:
        if isinstance(child, str) and not child.strip(SPACES):
            continue
        if isinstance(child, str) or child.name not in {"input", ""}:
            return ""
        if child.get("type") == "checkbox":
            return "[x] " if "checked" in child.attributes else "[ ] "
    return ""


# --- code


def _code_language(node: Element) -> str:
    """Return the language of a code block from the attributes of highlighters, or ""."""
    for each in node.elements():
        for name in ("data-lang", "data-language", "data-enlighter-language", "lang", "brush"):
            value = each.get(name).strip().lower()
            if _LANGUAGE.fullmatch(value) and name != "lang":
                return "" if value in _NO_LANGUAGE else value
        match = _CLASS_LANGUAGE.search(each.get("class"))
        if match and each.name in {"pre", "code", "span"}:
            value = match[1].lower()
            return "" if value in _NO_LANGUAGE else value
    # WP-Syntax and GeSHi have the language in `lang`.
    value = node.get("lang").lower()
    return value if _LANGUAGE.fullmatch(value) and value not in _NO_LANGUAGE else ""


def _is_gutter(node: Element | str) -> bool:
    return isinstance(node, Element) and not GUTTERS.isdisjoint(node.classes)


def _remove_gutters(node: Element) -> None:
    for element in node.elements():
        element.children = [child for child in element.children if not _is_gutter(child)]


def _code_table(table: Element) -> Element | None:
    """Return the code in a table of line numbers and code, as highlighters write it."""
    if not any(map(_is_gutter, table.elements())):
        return None
    code = Element("pre")
    for cell in table.elements():
        if cell.name == "td" and not _is_gutter(cell):
            code.children += cell.children
    return code if code.text().strip(SPACES) else None


def _preformatted(nodes: Nodes, notes: Notes) -> str:
    """Return preformatted text with links and emphasis as HTML. Line breaks are kept."""
    parts: list[str] = []
    for child in nodes:
        if isinstance(child, str):
            text = child.replace("\r\n", "\n").replace("\r", "\n")
            parts.append(escape(text, quote=False))
        elif child.name == "br":
            parts.append("\n")
        elif child.name == "img":
            parts.append(Inline(notes).html([child]))
        elif child.name == "a" and address(child.get("href")):
            href = escape(address(child.get("href")))
            parts.append(f'<a href="{href}">{_preformatted(child.children, notes)}</a>')
        elif child.name in INLINE and child.name not in {"a", "span"}:
            parts.append(f"<{child.name}>{_preformatted(child.children, notes)}</{child.name}>")
        else:
            parts.append(_preformatted(child.children, notes))
    return "".join(parts)


# --- tables


def _rows(table: Element) -> Iterator[list[Element]]:
    for child in table.children:
        if not isinstance(child, Element):
            continue
        if child.name in {"thead", "tbody", "tfoot"}:
            yield from _rows(child)
        elif child.name == "tr":
            yield [
                cell
                for cell in child.children
                if isinstance(cell, Element) and cell.name in {"td", "th"}
            ]


def _is_simple(cell: Element) -> bool:
    return (
        _is_line(cell)
        and cell.get("colspan") in {"", "1"}
        and cell.get("rowspan") in {"", "1", "0"}
    )


def _is_line(node: Element) -> bool:
    """Return whether an element has only inline content, or one paragraph of it."""
    has_text = is_paragraph_over = False
    for child in node.children:
        if child is BREAK:
            is_paragraph_over = has_text
        elif isinstance(child, str):
            if child.strip(SPACES):
                if is_paragraph_over:
                    return False
                has_text = True
        elif child.name not in _INLINE or child.has_blocks or is_paragraph_over:
            return False
        else:
            has_text = True
    return True


def _has_footnotes(node: Element) -> bool:
    return any("data-footnote" in each.attributes for each in node.elements())


def _alignment(cells: Sequence[Element]) -> str:
    """Return the delimiter of a column, aligned if all its cells are."""
    found = set()
    for cell in cells:
        style = _ALIGNED.search(cell.get("style"))
        found.add(style[1] if style else cell.get("align").lower())
    return _ALIGNMENTS.get(found.pop(), "---") if len(found) == 1 else "---"
