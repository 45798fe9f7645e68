"""The addresses in a Markdown text: of images, links and raw HTML, and their replacement.

The parser of the renderer finds them, so that code and escaped text are left alone.
"""

import re
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from html import escape, unescape
from types import SimpleNamespace
from typing import Any, NamedTuple

from markdown_it.common.utils import unescapeAll
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from app.content.markdown import make_parser, parse
from app.core.errors import ContentTooComplex
from app.services.bulk.converting.inline import destination, escape_text
from app.services.bulk.converting.players import address
from app.services.bulk.converting.results import TooComplex

Replace = Callable[["Address"], "str | None"]
"""Returns the new address, or None to keep the old one."""


class Use(StrEnum):
    """What an address is used for."""

    IMAGE = "image"
    LINK = "link"


class Address(NamedTuple):
    """An address as the text contains it, without escapes."""

    url: str
    use: Use
    alt: str = ""
    """The alternative text of an image."""


class LinkedText:
    """A text and the addresses in it. It is parsed once. Raises TooComplex."""

    def __init__(self, markdown: str) -> None:
        self._text = _normalized(markdown)
        is_simple = _SIMPLE.fullmatch(self._text) and "www." not in self._text.lower()
        self._spans = _find_links(self._text) if is_simple else _find(self._text)

    @property
    def addresses(self) -> list[Address]:
        """Return the addresses, in their order."""
        return [span.address for span in self._spans]

    def replace(self, replace: Replace) -> str:
        """Return the text with the addresses that `replace` returns."""
        parts, end = list[str](), 0
        for span in self._spans:
            new = replace(span.address)
            if new is not None and new != span.address.url and span.start >= end:
                parts += [self._text[end : span.start], span.write(new)]
                end = span.end
        return "".join([*parts, self._text[end:]])


def find_addresses(markdown: str) -> list[Address]:
    """Return the addresses in a text, in their order. Raises TooComplex."""
    return LinkedText(markdown).addresses


def replace_addresses(markdown: str, replace: Replace) -> str:
    """Return the text with the addresses that `replace` returns. Raises TooComplex."""
    return LinkedText(markdown).replace(replace)


def _normalized(markdown: str) -> str:
    """Return the text with the line breaks that the parser sees."""
    return markdown.replace("\r\n", "\n").replace("\r", "\n")


class _Syntax(StrEnum):
    """How an address is written."""

    DESTINATION = "[text](address)"
    AUTOLINK = "<address>"
    BARE = "address"
    ATTRIBUTE = '"address"'


class _Span(NamedTuple):
    """An address and its position."""

    start: int
    end: int
    address: Address
    syntax: _Syntax

    def shifted(self, offset: int) -> "_Span":
        return self._replace(start=self.start + offset, end=self.end + offset)

    def write(self, url: str) -> str:
        """Return `url` in the syntax of this address."""
        match self.syntax:
            case _Syntax.ATTRIBUTE:
                return escape(url)
            case _Syntax.DESTINATION:
                return destination(address(url) or url)
        if _ABSOLUTE.fullmatch(url):
            is_bare = self.syntax is _Syntax.BARE and _BARE.fullmatch(url)
            return url if is_bare else f"<{url}>"
        return f"[{escape_text(url, in_link=True)}]({destination(address(url) or url)})"


_MAY_CONTAIN_ADDRESS = re.compile(
    r"\]\(|<|://|\[\^"
)  # or refer to a footnote, which may contain one
_LINK = r"\[(?!\^)(?:[^\x00-\x1f!:\[\]`<\\]|:(?!//))++\]\(((?:https?:/)?/[A-Za-z0-9./:?=#~%_-]++)\)"
_LINE = (
    r"(?:\*\*)?(?=[^\W\d_]|\[)"
    rf"(?:[^\x00-\x1f!:\[\]`<\\]++|!(?!\[)|:(?!//)|\\[!-/:-@\[-`{{-~]|{_LINK})++"
)
_SIMPLE = re.compile(rf"\n*+(?:{_LINE}(?:\\?\n++|\Z))*+")
"""Paragraphs of words and inline links, in which nothing else can contain an address.

Their lines begin with a letter or a link, so they cannot begin other blocks.
"""
_LINKS = re.compile(rf"\\.|{_LINK}")
_ABSOLUTE = re.compile(r"https?://[!#-;=?-\[\]_a-z~]+")
_BARE = re.compile(r"[!#-'*-;=?-Z_a-z~]*[A-Za-z0-9/]")
_TAG = re.compile(r"<[A-Za-z](?:[^<>\"']++|\"[^\"]*+\"|'[^']*+')*+>")
_ATTRIBUTE = re.compile(
    r"(?<=[\s\"'])(href|src|poster)\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)')", re.IGNORECASE
)
_ALT = re.compile(r"(?<=[\s\"'])alt\s*+=\s*+\"([^\"]*+)\"", re.IGNORECASE)
_REFERENCE = re.compile(r"\]:\s*+(?:<([^<>\n]*+)>|([^\s<]\S*+))")


def _find_links(text: str) -> list[_Span]:
    """Return the addresses in a text of _SIMPLE paragraphs, without a parser."""
    return [
        _Span(*link.span(1), Address(link[1], Use.LINK), _Syntax.DESTINATION)
        for link in _LINKS.finditer(text)
        if link[1]
    ]


def _find(text: str) -> list[_Span]:
    try:
        return sorted(_own.finder.find(text), key=lambda span: span.start)
    except ContentTooComplex as error:
        raise TooComplex(str(error)) from error


class _Finder:
    """A parser with rules that record where addresses are. It parses one text at a time."""

    def __init__(self) -> None:
        self._parser = parser = make_parser()
        as_written: Any = {"normalizeLink": str, "normalizeLinkText": str}
        vars(parser).update(as_written)
        helpers = parser.helpers
        recording: Any = SimpleNamespace(
            parseLinkLabel=helpers.parseLinkLabel,
            parseLinkTitle=helpers.parseLinkTitle,
            parseLinkDestination=self._recorded_destination(helpers.parseLinkDestination),
        )
        parser.helpers = recording
        inline, block = parser.inline.ruler, parser.block.ruler
        for name in ("link", "image"):
            inline.at(name, self._recorded(_rule(inline, name), self._destination))
        inline.at("autolink", self._recorded(_rule(inline, "autolink"), _autolink))
        inline.at("html_inline", self._recorded(_rule(inline, "html_inline"), _html_inline))
        inline.at("bare_url", self._recorded(_rule(inline, "bare_url"), _bare_url))
        block.at("reference", self._recorded_reference(_rule(block, "reference")))
        parser.core.ruler.at("inline", self._parse_inline)

    def find(self, text: str) -> list[_Span]:
        """Return the addresses in a text, in any order."""
        self._content = ""
        """The inline content that is being parsed."""
        self._current = list[_Span]()
        self._destinations = list[tuple[int, int]]()
        self._before = 0
        self._references = list[_Span]()
        self._inline = dict[int, list[_Span]]()
        """The addresses in inline content, by the identity of the token."""
        tokens = parse(self._parser, text)
        return [*self._references, *_Locator(text).locate(tokens, self._inline)]

    def _parse_inline(self, state: StateCore) -> None:
        for token in state.tokens:
            if token.type == "inline" and _MAY_CONTAIN_ADDRESS.search(token.content):
                self._content, self._current = token.content, []
                self._destinations = []
                token.children = []
                state.md.inline.parse(token.content, state.md, state.env, token.children)
                self._inline[id(token)] = self._current

    def _recorded(
        self,
        rule: Callable[[StateInline, bool], bool],
        measure: Callable[[StateInline, int, int], Iterator[_Span]],
    ) -> Callable[[StateInline, bool], bool]:
        def record(state: StateInline, silent: bool) -> bool:
            start, before = state.pos, len(self._destinations)
            matched = rule(state, silent)
            if matched and not silent and state.src is self._content:
                self._before = before
                self._current += measure(state, start, state.pos)
            return matched

        return record

    def _recorded_destination(self, parse_destination: Callable[..., Any]) -> Callable[..., Any]:
        def record(source: str, position: int, maximum: int) -> Any:
            result = parse_destination(source, position, maximum)
            if result.ok and source is self._content:
                self._destinations.append((position, result.pos))
            return result

        return record

    def _destination(self, state: StateInline, start: int, end: int) -> Iterator[_Span]:
        """Yield the destination of a link: the last one inside that was parsed."""
        found = [each for each in self._destinations[self._before :] if start <= each[0] < end]
        if found:
            first, last = max(found)
            if state.src[first] == "<":
                first, last = first + 1, last - 1
            is_image = state.src[start] == "!"
            address = Address(
                unescapeAll(state.src[first:last]),
                Use.IMAGE if is_image else Use.LINK,
                alt=state.tokens[-1].content if is_image else "",
            )
            yield _Span(first, last, address, _Syntax.DESTINATION)

    def _recorded_reference(self, rule: Callable[..., bool]) -> Callable[..., bool]:
        def record(state: StateBlock, start: int, end: int, silent: bool) -> bool:
            matched = rule(state, start, end, silent)
            if matched and not silent:
                first = state.bMarks[start] + state.tShift[start]
                found = _REFERENCE.search(state.src, first, state.eMarks[state.line - 1])
                if found:
                    group = 1 if found[1] is not None else 2
                    address = Address(unescapeAll(found[group]), Use.LINK)
                    position = found.span(group)
                    self._references.append(_Span(*position, address, _Syntax.DESTINATION))
            return matched

        return record


def _rule(ruler: Any, name: str) -> Callable[..., bool]:
    rule: Callable[..., bool] = next(each.fn for each in ruler.__rules__ if each.name == name)
    return rule


def _autolink(state: StateInline, start: int, end: int) -> Iterator[_Span]:
    url = state.src[start + 1 : end - 1]
    if "://" in url:
        yield _Span(start, end, Address(url, Use.LINK), _Syntax.AUTOLINK)


def _bare_url(state: StateInline, _: int, end: int) -> Iterator[_Span]:
    url = state.tokens[-2].content
    if "://" in url:
        yield _Span(end - len(url), end, Address(url, Use.LINK), _Syntax.BARE)


def _html_inline(state: StateInline, start: int, end: int) -> Iterator[_Span]:
    return (span.shifted(start) for span in _in_html(state.src[start:end]))


def _in_html(html: str) -> Iterator[_Span]:
    for tag in _TAG.finditer(html):
        use = Use.IMAGE if tag[0][1:4].lower() == "img" else Use.LINK
        alt = _ALT.search(tag[0]) if use is Use.IMAGE else None
        for match in _ATTRIBUTE.finditer(tag[0]):
            group = 2 if match[2] is not None else 3
            address = Address(unescape(match[group]), use, unescape(alt[1]) if alt else "")
            span = _Span(*match.span(group), address, _Syntax.ATTRIBUTE)
            yield span.shifted(tag.start())


class _Own(threading.local):
    """What each thread has of its own: making a parser takes half as long as parsing a text."""

    def __init__(self) -> None:
        self.finder = _Finder()


_own = _Own()


class _Locator:
    """Finds positions in the text for positions in the content of its blocks."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)
        self._columns: dict[int, int] = {}
        """Where the last cell of a table begins, by line."""

    def locate(self, tokens: Sequence[Token], inline: dict[int, list[_Span]]) -> Iterator[_Span]:
        for token in tokens:
            if token.map is None:
                continue
            spans = list(_in_html(token.content)) if token.type == "html_block" else []
            if token.type == "inline":
                spans = inline.get(id(token), [])
            yield from self._in_block(token, spans)

    def _in_block(self, token: Token, spans: Sequence[_Span]) -> Iterator[_Span]:
        if not token.map or not (spans or token.type == "inline"):
            return
        starts = [0]
        content = token.content.split("\n")
        for line in content:
            starts.append(starts[-1] + len(line) + 1)
        offsets: dict[int, int] = {}
        for span in spans:
            row = bisect_right(starts, span.start) - 1
            number = token.map[0] + row
            if number >= len(self._lines):
                continue
            if row not in offsets:
                offsets[row] = self._offset(number, content[row])
            offset = offsets[row]
            if offset < 0:  # the escaped "|" in a cell are not in the content
                raw = token.content[span.start : span.end]
                start = self._lines[number].find(raw)
                if start >= 0:
                    yield span.shifted(self._starts[number] + start - span.start)
                continue
            yield span.shifted(self._starts[number] + offset - starts[row])

    def _offset(self, number: int, content: str) -> int:
        """Return the column where the content of a block begins in a line."""
        line, content = self._lines[number].rstrip(), content.rstrip()
        if line.endswith(content):
            return len(line) - len(content)
        column = line.find(content, self._columns.get(number, -1) + 1)
        self._columns[number] = max(column, self._columns.get(number, -1))
        return column
