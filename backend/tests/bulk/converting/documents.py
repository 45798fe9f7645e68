# ruff: noqa: E501 - long lines of input are easier to compare
"""Generated HTML documents, and a description of HTML that survives the conversion to Markdown."""

from collections.abc import Iterator
from html import escape
from html.parser import HTMLParser
from random import Random
from typing import NamedTuple
from urllib.parse import quote, unquote

# --- documents

HOSTILE = [
    "*", "**", "_", "__", "`", "``", "~", "~~", "[", "]", "(", ")", "<", ">", "#", "##", "+", "-", "---",
    "=", "===", "|", "|---|", "\\", "!", "&", "&amp;", "&copy;", "&#35;", ":", ";", "'", '"', "^", "$", "{",
    "}", "1.", "1)", "12. ", "- ", "+ ", "* ", "> ", "# ", "[ ] ", "[x] ", "[^1]", "[^1]:", "[a]: b",
    "http://a.example", "https://a.example/b_c", "HTTPS://", "www.a.example", "WWW.", "a@b.example", "@",
    "<div>", "</div>", "<!--", "<b", "<?", "\\(x_1\\)", "$$x$$", "snake_case", "_x", "x_", "2*3*4", "...",
    "::", ":--", "~~~", "```", "    ", "\t", "\n", "(c)", "--", "[NOTE]", "[!NOTE]", "\u200b", "\ufe0f",
]  # fmt: skip
WORDS = ["a", "b", "word", "1", "中", "文字", "，", "。", "“", "”", "「", "」", "한글", "é", "!", "?", ".",
         ",", "\xa0", "\u3000", "\u2003", "\u2019", "—", "😀", " ", " ", " "]  # fmt: skip
ADDRESSES = [
    "https://a.example/", "/a b.pdf", "/a(b)", "/a)b(", "/(((", "/a'b", "/a|b", "/ä/中", "/a\\b", "/a_b_c",
    "/a*b*", "/a`b", "/?a=1&copy=2", "/?a&lt;b", "/a;b", "#no-heading", "mailto:a@b.example", "/a\"b", "/a[b]", "/a!b",
    "//a.example/b", "?x", "a.html", "https://a.example/#a:b", "/a~b", "/a^b", "/a{b}", "/<a>",
]  # fmt: skip
INLINE = ["strong", "em", "del", "b", "i", "s", "code", "sup", "sub", "mark", "u", "kbd", "small", "q",
          "span", "font", "strong", "em", "b"]  # fmt: skip


def text(random: Random) -> str:
    """Draw a text that Markdown would misunderstand."""
    parts = random.choices(PARTS, k=random.randint(1, 6))
    return escape("".join(parts), quote=False)


def image(random: Random) -> str:
    """Draw an image."""
    src = random.choice(ADDRESSES[:-4])
    alt = text(random).replace('"', "&quot;")
    return f'<img src="{escape(src)}" alt="{alt}"{random.choice(TITLES)}>'


def inline(random: Random, depth: int = 2, *, links: bool = True) -> str:
    """Draw inline content."""
    parts = []
    for kind in random.choices(INLINE_KINDS, k=random.randint(1, 3)):
        if kind == "image":
            parts.append(image(random))
        elif kind == "br":
            parts.append("<br>")
        elif kind == "text" or depth == 0:
            parts.append(text(random))
        elif kind == "a" and links:
            href = random.choice(ADDRESSES)
            parts.append(link(href, inline(random, depth - 1, links=False)))
        else:
            name = random.choice(INLINE)
            parts.append(element(name, inline(random, depth - 1, links=links)))
    return "".join(parts)


def element(name: str, content: str, attributes: str = "") -> str:
    """Write an element."""
    return f"<{name}{attributes}>{content}</{name}>"


def link(href: str, content: str) -> str:
    """Write a link."""
    return f'<a href="{escape(href)}">{content}</a>'


def content(random: Random, depth: int, *, links: bool) -> str:
    """Draw the content of a list item or cell: inline content or blocks."""
    if depth > 0 and random.random() < 0.5:
        return blocks(random, depth - 1, links=links)
    return inline(random, links=links)


def block(random: Random, depth: int, *, links: bool) -> str:  # noqa: C901, PLR0911 - one case for each kind
    """Draw a block."""
    kind = random.choice(BLOCK_KINDS if depth > 0 else BLOCK_KINDS[:5])
    match kind:
        case "text":
            name = random.choice(["p", "p", "p", "div", "h1", "h2", "h3", "h6"])
            return element(name, inline(random, links=links))
        case "pre":
            return element("pre", text(random), random.choice(LANGUAGES))
        case "verse":
            return f"<pre>{text(random)}<em>{text(random)}</em> x</pre>"
        case "figure":
            return element(
                "figure", image(random) + element("figcaption", inline(random, links=links))
            )
        case "hr":
            return "<hr>"
        case "list":
            items = range(random.randint(1, 3))
            written = [element("li", content(random, depth, links=links)) for _ in items]
            return element(random.choice(["ul", "ol"]), "\n".join(written))
        case "table":
            rows = range(random.randint(1, 3))
            cell = random.choice(["td", "th"])
            written = []
            for row in rows:
                name = cell if row == 0 else "td"
                cells = [
                    content(random, depth * random.randint(0, 1), links=links),
                    text(random),
                    "x",
                ]
                written.append(element("tr", "".join(element(name, each) for each in cells)))
            return element("table", "".join(written))
        case "details":
            return element(
                "details", element("summary", text(random)) + blocks(random, depth - 1, links=links)
            )
        case "dl":
            term = element("dt", inline(random, links=links))
            return element("dl", term + element("dd", content(random, depth, links=links)))
        case "a" if links:
            return link(random.choice(ADDRESSES), blocks(random, depth - 1, links=False))
        case "em":
            name = random.choice(["strong", "em", "del", "mark"])
            return element(name, blocks(random, depth - 1, links=links))
    return element("blockquote", blocks(random, depth - 1, links=links))


def blocks(random: Random, depth: int, *, links: bool) -> str:
    """Draw blocks."""
    return "\n".join(block(random, depth, links=links) for _ in range(random.randint(1, 3)))


def document(random: Random) -> str:
    """Draw a document."""
    return blocks(random, random.choice([0, 1, 1, 2, 3]), links=True)


PARTS = HOSTILE + WORDS * 3
TITLES = ["", ' title="t"', ' title="a &quot;b&quot; \\ &amp;amp;"']
LANGUAGES = ["", ' class="language-python"', ' class="brush: php"']
INLINE_KINDS = ["text", "text", "text", "element", "element", "a", "image", "br"]
BLOCK_KINDS = ["text", "pre", "verse", "figure", "hr", "text", "text", "list", "list", "table", "details",
               "dl", "a", "em", "blockquote"]  # fmt: skip


# --- their description

SPACES = " \t\n\r\f"
STYLES = {"strong": "strong", "b": "strong", "em": "em", "i": "em", "del": "del", "s": "del",
          "strike": "del", "code": "code", "tt": "code"} | {
              name: name for name in ("sup", "sub", "mark", "u", "kbd", "small", "q")}  # fmt: skip
CONTAINERS = {"ul", "ol", "li", "blockquote", "details", "summary", "dl", "dt", "dd", "td", "figcaption",
              "table", "h1", "h2", "h3", "h4", "h5", "h6", "pre"}  # fmt: skip
BREAKING = {"p", "div", "hr", "tr", "th", "tbody", "thead", "figure", "br", "section"}


class Line(NamedTuple):
    """A line of text between blocks or line breaks."""

    containers: tuple[str, ...]
    """The numbered containers around it, from the outside."""
    content: tuple[tuple[str, frozenset[str], str], ...]
    """Each character or image, with its styles and the address of its link."""


class _Describer(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[Line] = []
        self._stack: list[tuple[str, str, str]] = []
        """The name, the kind and the address of each open element."""
        self._numbers: dict[int, str] = {}
        self._opened: list[int] = []
        self._ids = 0
        self._line: list[tuple[str, frozenset[str], str]] = []
        self._in_pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if (tag in CONTAINERS or tag in BREAKING) and not (tag == "br" and self._in_pre):
            self._end_line()
        if tag == "br":
            if self._in_pre:
                self._add("\n")
            return
        if tag == "hr":
            self._line.append(("HR", frozenset(), ""))
            self._end_line()
            return
        if tag == "img":
            title = " ".join(values.get("title", "").split())
            self._add(f"IMG {address(values['src'])} {' '.join(values['alt'].split())!r} {title}")
            return
        if tag in {"wbr", "input"}:
            return
        self._ids += 1
        self._opened.append(self._ids)
        tag = "td" if tag == "th" else tag
        self._stack.append((tag, STYLES.get(tag, ""), address(values.get("href", ""))))
        self._in_pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag in {"br", "hr", "img", "wbr", "input"}:
            return
        if tag in CONTAINERS or tag in BREAKING:
            self._end_line()
        name = self._stack.pop()[0]
        self._opened.pop()
        assert name == ("td" if tag == "th" else tag), (name, tag)
        self._in_pre -= tag == "pre"

    def handle_data(self, data: str) -> None:
        for character in data:
            self._add(character)

    def _add(self, character: str) -> None:
        styles = {kind for _, kind, _ in self._stack if kind}
        if self._in_pre and not styles - {"code"}:
            styles = set()
        link = next((href for name, _, href in self._stack if name == "a" and href), "")
        self._line.append((character, frozenset(styles), link))

    def _end_line(self) -> None:
        line, self._line = self._line, []
        if self._in_pre:
            while line and line[-1][0] in SPACES:
                line.pop()
            while line and line[0][0] == "\n":
                line.pop(0)
        else:
            line = list(_collapsed(line))
        if not line:
            return
        path = []
        for (name, _, _), number in zip(self._stack, self._opened, strict=True):
            if name in CONTAINERS:
                # Elements are numbered when they have content: others may vanish.
                path.append(self._numbers.setdefault(number, f"{name}{len(self._numbers)}"))
        self.lines.append(Line(tuple(path), tuple(line)))

    def close(self) -> None:
        super().close()
        self._end_line()


def _collapsed(
    line: list[tuple[str, frozenset[str], str]],
) -> Iterator[tuple[str, frozenset[str], str]]:
    space = False
    has_content = False
    for character, styles, link in line:
        if character in SPACES:
            space = True
            continue
        if space and has_content:
            yield " ", frozenset(), ""
        yield character, styles, link
        space, has_content = False, True


def address(url: str) -> str:
    """Return an address without the differences of percent-encoding."""
    return unquote(quote(url.strip(), safe="%/:?#[]@!$&'()*+,;=~ ")).replace("\\", "/")


def describe(html: str) -> list[Line]:
    """Return the lines of text with their containers, styles and links."""
    describer = _Describer()
    describer.feed(html)
    describer.close()
    return describer.lines
