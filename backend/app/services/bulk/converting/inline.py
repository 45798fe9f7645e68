"""Inline content as Markdown.

Every character that Markdown would interpret is escaped. Emphasis is written with `*`, `_` and `~`
only where the renderer recognizes it; elsewhere, as in `<strong>Note:</strong>text`, it is HTML.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from functools import lru_cache
from html import escape
from typing import NamedTuple

from markdown_it.common.normalize_url import normalizeLinkText

from app.content.markdown import ATTRIBUTES, flanking, is_punctuation
from app.services.bulk.converting.players import address
from app.services.bulk.converting.results import Notes, names
from app.services.bulk.converting.trees import BREAK, Element, is_left_out

_MARKS = {"em": ("*", "_"), "strong": ("**", "__"), "del": ("~~",)}
_MARKUP = (
    r"(?<=[`*\[\]~])"
    r"|(?<=\\)(?![A-Za-z0-9 ])"
    r"|(?<![A-Za-z0-9]_)(?<=_)|(?<=_)(?![A-Za-z0-9])"
    r"|(?<=<)(?=[A-Za-z/!?])"
    r"|(?<=&)(?=[#A-Za-z])"
)
_BARE_LINK = (
    r"|(?:(?<=[Hh][Tt][Tt][Pp]:)|(?<=[Hh][Tt][Tt][Pp][Ss]:))(?=//)|(?<=[Ww][Ww][Ww]\.)"
    r"|(?<=[A-Za-z0-9.+_-]@)(?=[A-Za-z0-9_-])"
)
"""Parts of URLs and email addresses that the renderer would turn into links, except in links."""
# A set of characters comes first: `re` skips to the next one of them at once.
_ESCAPED = re.compile(rf"[`*\[\]~\\_<&:.@](?:{_MARKUP}{_BARE_LINK})")
_ESCAPED_IN_LINK = re.compile(rf"[`*\[\]~\\_<&](?:{_MARKUP})")
_LINE_START = re.compile(r"(?:[-+](?=[ \n]|\Z)|#{1,6}(?=[ \n]|\Z)|>)")
_SPECIAL_STARTS = frozenset("-+#>=:|")
_NUMBER = re.compile(r"(\d{1,9})([.)])(?=[ \n]|\Z)")
_UNDERLINE = re.compile(r"[-=:|](?=[-=:| ]*+(?:\n|\Z))")
_FOOTNOTE_START = re.compile(r"\[\^[^\]]++\](?=:)")
_SPACES = re.compile(r"[ \t\n\r]+")
_BACKTICKS = re.compile("`+")
_flanking = lru_cache(maxsize=4096)(flanking)
_AUTOLINK = re.compile(r"https?://[A-Za-z0-9./?=#&:@_,+~-]{1,500}")


class Kind(Enum):
    """The kind of a piece of inline content that is not text."""

    OPEN = 2
    CLOSE = 3
    ATOM = 4
    BREAK = 5
    PARAGRAPH = 6


_OPEN, _CLOSE = Kind.OPEN, Kind.CLOSE


class Piece(NamedTuple):
    """A piece of inline content. A closing piece refers to the same element as its opening."""

    kind: Kind
    text: str = ""
    element: Element = BREAK


Pieces = list[Piece | str]
"""Inline content: texts, and everything else. Two texts are never next to each other."""
_LINE_BREAK, _PARAGRAPH = Piece(Kind.BREAK), Piece(Kind.PARAGRAPH)


class Inline:
    """Converts inline content to Markdown."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def paragraphs(self, nodes: Sequence[Element | str]) -> list[str]:
        """Return the paragraphs. Two line breaks in a row separate paragraphs, as on the screen."""
        pieces = _Collector(self._notes).collect(nodes)
        paragraphs, start = [], 0
        for index, piece in enumerate(pieces):
            if piece is _PARAGRAPH:
                paragraphs.append(pieces[start:index])
                start = index + 1
        paragraphs.append(pieces[start:] if start else pieces)
        written = (_write(paragraph, line_break="\\\n") for paragraph in paragraphs if paragraph)
        return [_protect_lines(text) for text in written]

    def line(self, nodes: Sequence[Element | str]) -> str:
        """Return the content as a single line, with `<br>` for line breaks."""
        pieces = [
            _LINE_BREAK if piece is _PARAGRAPH else piece
            for piece in _Collector(self._notes).collect(nodes)
        ]
        return _protect_ends(_write(pieces, line_break="<br>"))

    def heading(self, nodes: Sequence[Element | str]) -> str:
        """Return the content of a heading. `#` at the end would be removed."""
        text = self.line(nodes)
        kept = text.rstrip("#")
        return kept + "\\#" * (len(text) - len(kept))

    def html(self, nodes: Sequence[Element | str]) -> str:
        """Return the content as a single line of HTML."""
        pieces = _Collector(self._notes).collect(nodes)
        return "".join(map(_html, pieces))


class _Collector:
    """Flattens nodes to pieces, without superfluous spaces and empty elements.

    Spaces and line breaks at the edges of elements are moved outside, because emphasis cannot
    begin or end with them.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._pieces: Pieces = []
        self._opening: list[Element] = []
        """Elements that begin before the next content."""
        self._open = 0
        self._space = False
        self._breaks = 0

    def collect(self, nodes: Iterable[Element | str]) -> Pieces:
        for node in nodes:
            self._add(node)
        return self._pieces

    def _add(self, node: Element | str) -> None:  # noqa: C901 - one case for each element
        if isinstance(node, str):
            self._text(node)
        elif node.name == "br":
            self._breaks += 1
            self._space = False
        elif node is BREAK or node.name in _IGNORED or is_left_out(node):
            self._space = True
        elif node.name == "img":
            self._image(node)
        elif node.name == "wbr":
            self._content(Piece(Kind.ATOM, "<wbr>"))
        elif node.name == "anchor":
            name = escape(node.get("id"))
            self._content(Piece(Kind.ATOM, f'<a id="{name}"></a>', node))
        elif "data-footnote" in node.attributes:
            label = node.get("data-footnote")
            self._content(Piece(Kind.ATOM, f"[^{label}]", node))
        elif node.name == "code" and _is_plain(node):
            self._code(node)
        elif node.name == "a":
            self._link(node)
        elif node.name in _MARKS or node.name in _KEPT:
            self._element(node)
        else:
            self._children(node)

    def _children(self, element: Element) -> None:
        for child in element.children:
            self._add(child)

    def _text(self, text: str) -> None:
        words = single_spaces(text)
        if words[:1] == " ":
            self._space = True
            words = words[1:]
        if not words:
            return
        ends = words[-1] == " "
        if ends:
            words = words[:-1]
        if self._opening or self._breaks or not self._pieces:
            self._content(words)
        else:
            self._append_text(" " + words if self._space else words)
        self._space = ends

    def _content(self, piece: Piece | str) -> None:
        """Append visible content, after the spaces, breaks and elements before it."""
        if self._pieces:
            if self._breaks > 1 and self._open == 0:
                self._pieces.append(_PARAGRAPH)
            elif self._breaks:
                self._pieces += [_LINE_BREAK] * self._breaks
            elif self._space:
                self._append_text(" ")
        self._breaks, self._space = 0, False
        if self._opening:
            self._pieces += [Piece(_OPEN, "", element) for element in self._opening]
            self._open += len(self._opening)
            self._opening.clear()
        if isinstance(piece, str):
            self._append_text(piece)
        else:
            self._pieces.append(piece)

    def _append_text(self, text: str) -> None:
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, str):
            self._pieces[-1] = last + text
        else:
            self._pieces.append(text)

    def _element(self, element: Element) -> None:
        self._opening.append(element)
        self._children(element)
        if self._opening and self._opening[-1] is element:
            self._opening.pop()  # it has no content
            return
        self._open -= 1
        self._pieces.append(Piece(_CLOSE, "", element))

    def _link(self, link: Element) -> None:
        source = link.get("href")
        if "href" not in link.attributes:
            self._children(link)
            return
        url = address(source)
        if url:
            kept = Element("a", {"href": url, "title": link.get("title")})
            kept.children = link.children
            self._element(kept)
            return
        self._notes.add(f"a link to {source[:60]!r} was removed, its text was kept")
        self._children(link)

    def _image(self, image: Element) -> None:
        url = address(image_source(image))
        if not url or url.startswith("data:"):
            if source := image.get("src")[:40]:
                self._notes.add(f"an image whose URL cannot be kept was left out: {source}")
            return
        self._content(Piece(Kind.ATOM, "", Element("img", {**image.attributes, "src": url})))

    def _code(self, code: Element) -> None:
        text = _SPACES.sub(" ", code.text())
        if text[:1] == " ":
            self._space = True
        if text.strip(" "):
            self._content(Piece(Kind.ATOM, text.strip(" "), code))
            self._space = text[-1] == " "


_KEPT = names(
    "abbr bdi bdo cite code dfn ins kbd mark q rp rt ruby samp small span sub sup time u var"
)
"""Elements that are kept as HTML, because Markdown has nothing for them."""
_IGNORED = frozenset({"source", "param", "hr", "input"})


def _is_plain(code: Element) -> bool:
    """Return whether a code element contains only text, as code in Markdown must."""
    return not any(
        each.name in _MARKS or each.name in {"a", "br", "img", "anchor"} or each.name in _KEPT
        for child in code.children
        if isinstance(child, Element)
        for each in child.elements()
    )


def image_source(image: Element) -> str:
    """Return the address of an image; scripts that load images later keep it elsewhere."""
    source = image.get("src")
    if source and not source.startswith("data:"):
        return source
    for name in ("data-src", "data-lazy-src", "data-original", "data-orig-file", "data-large-file"):
        if image.get(name):
            return image.get(name)
    candidates = image.get("srcset") or image.get("data-srcset")
    return candidates.strip().split(" ")[0] if candidates else source


def single_spaces(text: str) -> str:
    """Return the text with white space of HTML collapsed, as on the screen."""
    if "  " in text or "\n" in text or "\t" in text or "\r" in text:
        return _SPACES.sub(" ", text)
    return text


def escape_text(text: str, *, in_link: bool = False) -> str:
    """Escape everything in a text that Markdown would interpret inside a line."""
    return (_ESCAPED_IN_LINK if in_link else _ESCAPED).sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return "\\" + match[0]


def destination(url: str) -> str:
    """Write the destination of a link."""
    if url.count("(") != url.count(")") or url.find(")") < url.find("("):
        url = url.replace("(", "%28").replace(")", "%29")
    url = url.replace("\\", "%5C").replace("`", "%60")
    return _ENTITY.sub(r"\\&", url)


_ENTITY = re.compile(r"&(?=#?[A-Za-z0-9]{1,32};)")


def _title(title: str) -> str:
    """Write the title of a link or image, after a space."""
    title = _SPACES.sub(" ", title).strip()
    if not title:
        return ""
    escaped = _ENTITY.sub(r"\\&", title.replace("\\", "\\\\").replace('"', '\\"'))
    return f' "{escaped}"'


def code_span(code: str) -> str:
    """Write code between as many backticks as necessary."""
    if "`" not in code and code[0] != " ":
        return f"`{code}`"
    longest = {len(run) for run in _BACKTICKS.findall(code)}
    fence = "`"
    while len(fence) in longest:
        fence += "`"
    padding = " " if code[0] == "`" or code[-1] == "`" or (code[0] == code[-1] == " ") else ""
    return f"{fence}{padding}{code}{padding}{fence}"


def _atom(piece: Piece) -> str:
    if piece.element.name == "img":
        image = piece.element
        alt = escape_text(_SPACES.sub(" ", image.get("alt")).strip())
        return f"![{alt}]({destination(image.get('src'))}{_title(image.get('title'))})"
    return code_span(piece.text) if piece.element.name == "code" else piece.text


def _write(pieces: Pieces, *, line_break: str) -> str:
    """Return the pieces as Markdown. Marks are chosen after everything around them is known."""
    if len(pieces) == 1 and isinstance(pieces[0], str):
        return escape_text(pieces[0])
    parts, links = _sources(pieces, line_break)
    if links and len(pieces) > 3:
        _shorten_links(pieces, parts, links)
    marks: dict[int, str] = {}
    for start, end, name in sorted(_marked(pieces)):
        mark = _choose_mark(parts, marks, start, end, _MARKS[name])
        parts[start], parts[end] = (mark, mark) if mark else (f"<{name}>", f"</{name}>")
        marks[start] = marks[end] = mark[:1]
    return _join(parts, pieces)


def _sources(pieces: Pieces, line_break: str) -> tuple[list[str], list[int]]:
    """Return the Markdown of each piece without marks, and where links begin."""
    parts: list[str] = []
    links: list[int] = []
    open_links = 0
    for index, piece in enumerate(pieces):
        if isinstance(piece, str):
            parts.append((_ESCAPED_IN_LINK if open_links else _ESCAPED).sub(_escape, piece))
            continue
        parts.append(_source(piece, line_break))
        if piece.element.name == "a":
            if piece.kind is _OPEN:
                links.append(index)
                open_links += 1
            elif piece.kind is _CLOSE:
                open_links -= 1
    return parts, links


def _marked(pieces: Pieces) -> Iterator[tuple[int, int, str]]:
    """Yield the first index, the last index and the name of each emphasis."""
    starts: list[int] = []
    for index, piece in enumerate(pieces):
        if not isinstance(piece, str) and piece.element.name in _MARKS:
            if piece.kind is _OPEN:
                starts.append(index)
            elif piece.kind is _CLOSE:
                yield starts.pop(), index, piece.element.name


def _choose_mark(
    parts: Sequence[str], marks: dict[int, str], start: int, end: int, candidates: Sequence[str]
) -> str:
    """Return the first mark that the renderer recognizes at both places, or an empty string."""
    edges = []
    for index in (start, end):
        before = parts[index - 1][-1:] if index > 0 else "\n"
        after = parts[index + 1][:1] if index + 1 < len(parts) else "\n"
        edges.append((before or "*", after or "*"))  # an undecided mark is punctuation, too
    opening, closing = edges
    around = {marks.get(index + side, "") for index in (start, end) for side in (-1, 1)}
    if not _flanking(*opening)[0] or not _flanking(*closing)[1]:
        return ""
    for mark in candidates:
        if mark[0] in around:
            continue
        if mark[0] != "_" or (
            (not _flanking(*opening)[1] or is_punctuation(opening[0]))
            and (not _flanking(*closing)[0] or is_punctuation(closing[1]))
        ):
            return mark
    return ""


def _source(piece: Piece, line_break: str) -> str:
    """Return the Markdown of a piece, or an empty string for a mark that is chosen later."""
    element = piece.element
    match piece.kind:
        case Kind.ATOM:
            return _atom(piece)
        case Kind.BREAK:
            return line_break
        case _ if element.name in _MARKS:
            return ""
        case Kind.OPEN:
            return "[" if element.name == "a" else _start_tag(element)
        case _ if element.name == "a":
            return f"]({destination(element.get('href'))}{_title(element.get('title'))})"
        case _:
            return f"</{element.name}>"


def _shorten_links(pieces: Pieces, parts: list[str], links: Sequence[int]) -> None:
    """Write links that show their address as `<address>`, unless they are alone.

    The renderer turns an address alone in a paragraph into a player. `links` are the indices of
    the beginnings of links.
    """
    for index in links:
        opening, text, *rest = pieces[index : index + 3]
        if (
            rest
            and isinstance(opening, Piece)
            and isinstance(text, str)
            and isinstance(rest[0], Piece)
            and rest[0].element is opening.element
            and text == opening.element.get("href")
            and not opening.element.get("title")
            and can_be_autolink(text)
        ):
            parts[index : index + 3] = ["<", text, ">"]


def can_be_autolink(url: str) -> bool:
    """Return whether `<url>` is a link with the same text."""
    return _AUTOLINK.fullmatch(url) is not None and normalizeLinkText(url) == url


def _join(parts: list[str], pieces: Pieces) -> str:
    """Join the parts. Escape characters that would combine with the next part."""
    for index in range(1, len(parts)):
        first = parts[index][:1]
        if first == "[":
            if parts[index - 1][-1:] == "!":
                parts[index - 1] = parts[index - 1][:-1] + "\\!"
        elif first == "(":
            before = pieces[index - 1]
            if not isinstance(before, str) and "data-footnote" in before.element.attributes:
                parts[index] = "\\" + parts[index]
        elif first == "^" and parts[index - 1] == "[":
            parts[index] = "\\" + parts[index]
    return "".join(parts)


def _start_tag(element: Element) -> str:
    kept = ATTRIBUTES.get(element.name, set()) | {"lang", "dir", "title"}
    attributes = "".join(
        f' {name}="{escape(_SPACES.sub(" ", value))}"'
        for name, value in sorted(element.attributes.items())
        if name in kept and value
    )
    return f"<{element.name}{attributes}>"


def _html(piece: Piece | str) -> str:  # noqa: PLR0911 - one return for each kind
    """Return a piece as HTML."""
    if isinstance(piece, str):
        return escape(piece, quote=False)
    element = piece.element
    match piece.kind:
        case Kind.BREAK | Kind.PARAGRAPH:
            return "<br>"
        case Kind.ATOM if element.name == "img":
            attributes = "".join(
                f' {name}="{escape(_SPACES.sub(" ", element.get(name)))}"'
                for name in ("src", "alt", "title")
                if element.get(name) or name == "alt"
            )
            return f"<img{attributes}>"
        case Kind.ATOM if element.name == "code":
            return f"<code>{escape(piece.text, quote=False)}</code>"
        case Kind.ATOM:
            return piece.text
        case Kind.OPEN if element.name == "a":
            title = f' title="{escape(element.get("title"))}"' if element.get("title") else ""
            return f'<a href="{escape(element.get("href"))}"{title}>'
        case Kind.OPEN:
            return _start_tag(element)
        case _:
            return f"</{element.name}>"


def _protect_lines(text: str) -> str:
    """Escape what Markdown interprets at the beginning of a line, and spaces it would strip."""
    if "\n" not in text:
        return _protect_ends(_protect_line(text, is_first=True))
    first, *rest = text.split("\n")
    lines = [_protect_line(first, is_first=True)]
    lines += [_protect_line(line, is_first=False) for line in rest]
    return _protect_ends("\n".join(lines))


def _protect_line(line: str, *, is_first: bool) -> str:
    first = line[:1]
    if first in _SPECIAL_STARTS:
        if _LINE_START.match(line) or (_UNDERLINE.match(line) and (not is_first or first == "-")):
            return "\\" + line
    elif first.isdecimal():
        if number := _NUMBER.match(line):
            return f"{number[1]}\\{line[number.end(1) :]}"
    elif first == "[" and (note := _FOOTNOTE_START.match(line)):
        return f"{note[0]}\\{line[note.end() :]}"
    return line


def _protect_ends(text: str) -> str:
    """Write spaces such as a no-break space at both ends as entities; Markdown strips them."""
    if text and (text[0].isspace() or text[-1].isspace()):
        inner = text.strip()
        start = text.find(inner) if inner else len(text)
        before, after = text[:start], text[start + len(inner) :]
        return "".join(map(_space, before)) + inner + "".join(map(_space, after))
    return text


def _space(character: str) -> str:
    if character in " \n":
        return character
    return "&nbsp;" if character == "\xa0" else f"&#{ord(character)};"
