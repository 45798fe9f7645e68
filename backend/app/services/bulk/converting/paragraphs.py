"""Paragraphs from blank lines, as WordPress makes them when it shows a post (`wpautop`).

A blank line ends a paragraph and a single line break becomes `<br>`, except beside block elements
and in preformatted text. The HTML parser corrects nesting afterwards, as browsers do.
"""

import re

from app.services.bulk.converting.results import names

BLOCKS = names("""
    address area article aside blockquote caption col colgroup dd details div dl dt fieldset
    figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr legend li map menu nav ol p pre
    section style summary table tbody td tfoot th thead tr ul
    """)
_VOID = frozenset({"area", "col", "hr"})
_WITHOUT_PARAGRAPH = names("""
    caption dd dt figcaption h1 h2 h3 h4 h5 h6 legend li summary td th
    """)
"""Blocks whose text is not a paragraph before the first blank line."""
_UNCHANGED = frozenset({"pre", "script", "style", "svg", "textarea"})
_TOKEN = re.compile(
    r"<!--(?:[^<-]++|<(?!!--)|-(?!->))*+-->"
    r"|<(/?)([A-Za-z][A-Za-z0-9-]*+)(?:[^<>\"']++|\"[^\"]*+\"|'[^']*+')*+>"
    r"|[^<]++|<"
)
_BLANK_LINES = re.compile(r"\n(?:[ \t]*+\n)++")


def add_paragraphs(html: str) -> str:
    """Return the HTML with `<p>` and `<br>` where WordPress adds them."""
    return _Paragraphs(html.replace("\r\n", "\n").replace("\r", "\n")).add()


class _Paragraphs:
    def __init__(self, html: str) -> None:
        self._html = html
        self._out: list[str] = []
        self._in_paragraph = False
        self._has_content = False
        """Whether there is content since the last edge of a block or paragraph."""
        self._line_break = False
        """Whether a line break precedes the next content."""
        self._blocks: list[str] = []
        self._blank_line = False
        """Whether there was a blank line since the innermost block began."""

    def add(self) -> str:
        position = 0
        while token := _TOKEN.match(self._html, position):
            position = token.end()
            if token[2]:
                name = token[2].lower()
                if name in _UNCHANGED and not token[1]:
                    position = self._copy(token, name)
                else:
                    self._tag(token[0], name, is_end=bool(token[1]))
            elif token[0].startswith("<!--"):
                self._out.append(token[0])
            else:
                self._text(token[0])
        self._end_paragraph()
        return "".join(self._out)

    def _copy(self, token: re.Match[str], name: str) -> int:
        """Copy an element whose text must not change, and return its end."""
        end = self._html.lower().find(f"</{name}", token.end())
        end = self._html.find(">", end) + 1 if end >= 0 else 0
        end = end or len(self._html)
        if name in BLOCKS:
            self._end_paragraph()
        else:
            self._begin_content()
        self._out.append(self._html[token.start() : end])
        return end

    def _tag(self, tag: str, name: str, *, is_end: bool) -> None:
        if name in BLOCKS:
            self._block(tag, name, is_end=is_end)
            return
        if name == "br" and not is_end:
            self._line_break = self._has_content = False
        elif not is_end:
            self._begin_content()
        self._out.append(tag)

    def _block(self, tag: str, name: str, *, is_end: bool) -> None:
        if name == "p" and is_end and not self._in_paragraph:
            return
        if not (name == "p" and is_end):
            self._end_paragraph()
        self._out.append(tag)
        self._line_break = self._has_content = False
        if name == "p":
            self._in_paragraph = not is_end
        elif is_end:
            if name in self._blocks:
                while self._blocks.pop() != name:
                    pass
            self._blank_line = False
        elif name not in _VOID:
            self._blocks.append(name)
            self._blank_line = False

    def _text(self, text: str) -> None:
        if "\n" not in text:
            self._line(text)
            return
        for index, part in enumerate(_BLANK_LINES.split(text)):
            if index > 0:
                self._end_paragraph()
                self._blank_line = True
            for number, line in enumerate(part.split("\n")):
                if number > 0 and self._has_content:
                    self._line_break = True
                if line:
                    self._line(line)

    def _line(self, line: str) -> None:
        if line.strip(" \t"):
            self._begin_content()
            self._out.append(line)
        elif self._has_content and not self._line_break:
            self._out.append(line)

    def _begin_content(self) -> None:
        if not self._in_paragraph and self._needs_paragraph():
            self._out.append("<p>")
            self._in_paragraph = True
        elif self._line_break:
            self._out.append("<br>")
        self._has_content, self._line_break = True, False

    def _needs_paragraph(self) -> bool:
        inner = self._blocks[-1] if self._blocks else ""
        return inner not in _WITHOUT_PARAGRAPH or self._blank_line

    def _end_paragraph(self) -> None:
        if self._in_paragraph:
            self._out.append("</p>\n")
        self._in_paragraph = self._has_content = self._line_break = False
