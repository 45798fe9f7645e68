"""HTML as a tree of the elements that matter for articles.

nh3 parses the HTML like a browser and writes it with closed tags and quoted attributes. This
module reads that output. Elements without a meaning of their own, such as `div` and `font`, are
left out; a `BREAK` replaces the edges of blocks. Therefore the tree is at most MAX_DEPTH deep.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from html import unescape

import nh3

from app.services.bulk.converting.results import Notes, TooComplex, check_size, names
from app.services.bulk.foreign import strip_control_characters

MAX_TAGS = 50_000
MAX_LENGTH = 1024 * 1024
"""Maximum number of characters without tags. An article has at most as many bytes."""
MAX_DEPTH = 40
"""Maximum depth of the tree. Deeper elements lose their tags and keep their text."""
MAX_LEVELS = 30
"""Maximum number of lists, items and quotes around a text. The renderer allows 40."""
MAX_PARSER_COST = 40_000_000
"""Maximum product of the number of tags and their depth: a tag may search all open elements."""

MAX_ATTRIBUTES = 1_000
"""Maximum number of attributes of an element: the parser compares them with each other."""


class Element:
    """An element with its attributes and children."""

    __slots__ = ("attributes", "children", "has_blocks", "name")

    def __init__(self, name: str, attributes: dict[str, str] | None = None) -> None:
        self.name = name
        self.attributes = attributes or {}
        self.children: list[Element | str] = []
        self.has_blocks = False
        """Whether an inline element contains blocks."""

    def get(self, name: str) -> str:
        """Return the value of an attribute, or an empty string."""
        return self.attributes.get(name, "")

    @property
    def classes(self) -> list[str]:
        """The names in the `class` attribute."""
        return self.attributes["class"].split() if "class" in self.attributes else []

    def elements(self) -> "Iterator[Element]":
        """Yield this element and all elements inside it, in document order."""
        waiting = [self]
        while waiting:
            element = waiting.pop()
            yield element
            if element.children:
                waiting += [child for child in element.children[::-1] if isinstance(child, Element)]

    def find(self, *names: str) -> "Element | None":
        """Return the first element inside with one of these names."""
        return next((each for each in self.elements() if each.name in names), None)

    def find_class(self, *names: str) -> "Element | None":
        """Return the first element inside with one of these classes."""
        wanted = set(names)
        return next((each for each in self.elements() if wanted.intersection(each.classes)), None)

    def text(self) -> str:
        """Return the text inside, with line breaks for `br`."""
        parts: list[str] = []
        _collect_text(self, parts)
        return "".join(parts)


def _collect_text(element: Element, parts: list[str]) -> None:
    for child in element.children:
        if isinstance(child, str):
            parts.append(child)
        elif child.name == "br":
            parts.append("\n")
        else:
            _collect_text(child, parts)


BREAK = Element("")
"""The edge of a block without a meaning of its own."""

INLINE = names("""
    a abbr b bdi bdo cite code del dfn em i ins kbd mark q rp rt ruby s samp small span strike
    strong sub sup time tt u var
    """)
LEFT_OUT = frozenset({"wp-block-file__button", "wp-block-file__embed"})
"""Classes of elements that repeat a link beside them."""


def is_left_out(element: Element) -> bool:
    """Return whether an element repeats a link beside it."""
    return "class" in element.attributes and not LEFT_OUT.isdisjoint(element.classes)


VOID = frozenset({"br", "col", "embed", "hr", "img", "input", "param", "source", "track", "wbr"})
LEVELS = frozenset({"ul", "ol", "li", "blockquote"})
_BLOCKS = names("""
    blockquote caption dd details dl dt figcaption figure h1 h2 h3 h4 h5 h6 hr iframe li object ol
    pre summary table tbody td tfoot th thead tr ul video audio embed
    """)
_TRANSPARENT_BLOCKS = names("""
    address article aside center dialog dir div fieldset footer form header hgroup legend main menu
    nav p search section
    """)
_ALL_BLOCKS = _BLOCKS | _TRANSPARENT_BLOCKS
_CONTAINERS = frozenset({"ul", "ol", "table", "tbody", "thead", "tfoot", "tr", "dl"})
"""Elements that cannot contain text."""
_KINDS = {"b": "strong", "i": "em", "strike": "del", "s": "del", "tt": "code"}
"""Elements with the same meaning."""
_PLAIN = frozenset({"br", "img", "wbr", "input", "source", "param", "hr"})

_TAGS = (
    INLINE
    | VOID
    | _BLOCKS
    | _TRANSPARENT_BLOCKS
    | {"big", "button", "colgroup", "font", "label", "picture", "textarea", "wbr", "nobr", "option"}
    | {"area", "map", "optgroup", "output", "meter", "progress", "data", "slot", "acronym"}
)
_REMOVED = {
    "applet", "canvas", "datalist", "frame", "frameset", "head", "math", "noembed", "noframes",
    "noscript", "script", "select", "style", "svg", "template", "title",
}  # fmt: skip
_SCHEMES = {
    "bitcoin", "blob", "data", "ed2k", "feed", "file", "ftp", "ftps", "geo", "git", "http",
    "https", "intent", "irc", "itms", "javascript", "magnet", "mailto", "market", "news", "nntp",
    "sftp", "sip", "skype", "sms", "ssh", "tel", "tg", "urn", "vbscript", "viber", "webcal",
    "whatsapp", "xmpp",
}  # fmt: skip
"""Schemes that are kept until `players.address` decides, so that a loss can be reported."""
_cleaner = nh3.Cleaner(
    tags=set(_TAGS),
    clean_content_tags=_REMOVED,
    attributes={
        "*": {"id", "class", "title", "lang", "dir", "name", "style", "align", "datetime"},
        "a": {"href"},
        "audio": {"src"},
        "embed": {"src"},
        "iframe": {"src", "title"},
        "img": {"src", "alt", "srcset"},
        "input": {"type", "checked"},
        "object": {"data"},
        "ol": {"start", "reversed", "type"},
        "param": {"value"},
        "pre": {"brush"},
        "source": {"src", "srcset"},
        "td": {"colspan", "rowspan"},
        "th": {"colspan", "rowspan"},
        "video": {"src", "poster"},
    },
    generic_attribute_prefixes={"data-"},
    link_rel=None,
    url_schemes=_SCHEMES,
)
_SIMPLE_TEXT = r"(?:[^<&\r]++|&(?:amp|lt|gt|quot|nbsp|#8[0-9]{3});)"
_SIMPLE_FORMATS = "|".join(
    f"<{name}>{_SIMPLE_TEXT}*+</{name}>" for name in ("strong", "em", "b", "i", "code")
)
_SIMPLE_LINK = (
    r'<a href="https?://(?![^"]*xn--)(?:[a-z][a-z0-9-]*\.)++[a-z]{2,}(?:/[A-Za-z0-9./?=#~%_-]*+)?">'
    rf"(?:{_SIMPLE_TEXT}|{_SIMPLE_FORMATS})*+</a>"
)
_SIMPLE_INLINE = rf"(?:{_SIMPLE_TEXT}|<br>|{_SIMPLE_LINK}|{_SIMPLE_FORMATS})*+"
_CLASS = r"(?: class=\"[A-Za-z0-9_ -]++\")?"
_SIMPLE_BLOCKS = "|".join(
    [f"<{name}{_CLASS}>{_SIMPLE_INLINE}</{name}>" for name in ("p", "h2", "h3", "h4", "h5", "h6")]
    + [
        rf"<{name}{_CLASS}>(?:[ \t\n]++|<li>{_SIMPLE_INLINE}</li>)*+</{name}>"
        for name in ("ul", "ol")
    ]
)
_SIMPLE = re.compile(rf"(?:[ \t\n]++|{_SIMPLE_BLOCKS})*+")
"""HTML that the parser writes as it is, up to character references, and so need not read."""
_TAG = re.compile(r"<(/?)([a-z][a-z0-9]*+)((?:[^<>\"]++|\"[^\"]*+\")*+)>([^<]*+)")
_ATTRIBUTE = re.compile(r" ([^\s=\"]++)=\"([^\"]*+)\"")
_FRAGMENT = re.compile(r" href=\"#([^\"]++)\"")
_LOST = {
    "script": "a script was left out",
    "svg": "a drawing (SVG) was left out",
    "form": "a form was left out, its texts were kept",
    "select": "a form was left out, its texts were kept",
    "canvas": "a drawing (canvas) was left out",
    "math": "a formula in MathML was replaced by its text",
}
# Elements whose content is text: (their name, the element that shows the same text).
_RAW_TEXT = {"xmp": "pre", "listing": "pre", "plaintext": "pre"}
_SPECIAL = re.compile(rf"<({'|'.join((*_LOST, *_RAW_TEXT))})(?![a-z0-9])", re.IGNORECASE | re.ASCII)


def parse(html: str, notes: Notes) -> Element:
    """Return the tree of an HTML fragment. Raises TooComplex."""
    check_size(html)
    html = strip_control_characters(html)
    if "\x0c" in html:
        html = html.replace("\x0c", " ")
    _check_cost(html)
    if _SIMPLE.fullmatch(html):
        return _Builder(html).build()
    if special := {tag.lower() for tag in _SPECIAL.findall(html)}:
        for name in sorted(special):
            if name in _LOST:
                notes.add(_LOST[name])
            if name == "math":
                html = _replace_formulas(html)
            elif name in _RAW_TEXT:
                html = _escape_raw_text(html, name)
    return _Builder(_cleaner.clean(html)).build()


def _check_cost(html: str) -> None:
    """Raise TooComplex if parsing would take too long: each tag may search all open elements."""
    tags = html.count("<")
    if tags > MAX_TAGS:
        raise TooComplex(f"The HTML has more than {MAX_TAGS} tags")
    pieces = html.split("<")
    if max(map(len, pieces)) <= 2 * MAX_ATTRIBUTES:
        pieces = []
    for piece in pieces:
        if piece[:1].isalpha() and len(piece) > 2 * MAX_ATTRIBUTES:
            tag = _QUOTED.sub("", piece).partition(">")[0]
            if len(tag.split(maxsplit=MAX_ATTRIBUTES)) > MAX_ATTRIBUTES:
                raise TooComplex(f"An element has more than {MAX_ATTRIBUTES} attributes")
    if tags * tags > MAX_PARSER_COST and tags * _depth(html) > MAX_PARSER_COST:
        raise TooComplex("The HTML is nested too deeply")


def _depth(html: str) -> int:
    """Return about how deeply elements are nested, if all end tags have their start tags."""
    counts: Counter[str] = Counter()
    depth = deepest = 0
    for tag in _TAG_NAME.finditer(html):
        name = tag[2].lower()
        if not tag[1]:
            if name not in _CLOSED:
                counts[name] += 1
                depth += 1
                deepest = max(deepest, depth)
        elif counts[name] > 0:
            counts[name] -= 1
            depth -= 1
    return deepest


_TAG_NAME = re.compile(r"<(/?)([a-z][a-z0-9]*+)", re.IGNORECASE)
_QUOTED = re.compile(r"\"[^\"]*+\"|'[^']*+'")
_CLOSED = VOID | {"p", "li", "td", "th", "tr", "dt", "dd", "option"}
"""Elements without end tags, and those that the next one of their kind ends."""


def _replace_formulas(html: str) -> str:
    """Replace MathML by its TeX source, if it has one, or by its text."""
    parts, at, lower = [], 0, html.lower()
    while (start := lower.find("<math", at)) >= 0:
        end = lower.find("</math", start)
        if end < 0:
            break
        body = html[start:end]
        annotation = body.find("<annotation")
        if annotation >= 0 and "tex" in body[annotation : annotation + 80].lower():
            body = body[annotation:]
        parts += [html[at:start], _ANY_TAG.sub("", body)]
        at = html.find(">", end) + 1 or len(html)
    return "".join([*parts, html[at:]])


_ANY_TAG = re.compile(r"<[^<>]*+>?")


def _escape_raw_text(html: str, name: str) -> str:
    """Replace obsolete elements whose content is text by elements with escaped text."""
    parts, at, lower = [], 0, html.lower()
    while (start := lower.find(f"<{name}", at)) >= 0:
        inner = html.find(">", start) + 1
        if not inner:
            break
        end = lower.find(f"</{name}", inner)
        text = html[inner : end if end >= 0 else len(html)]
        escaped = text.replace("<", "&lt;") if name != "listing" else text
        parts += [html[at:start], f"<{_RAW_TEXT[name]}>", escaped, f"</{_RAW_TEXT[name]}>"]
        at = (html.find(">", end) + 1 or len(html)) if end >= 0 else len(html)
    return "".join([*parts, html[at:]])


def _attributes(text: str) -> dict[str, str]:
    if "&" in text:
        return {name: unescape(value) for name, value in _ATTRIBUTE.findall(text)}
    return dict(_ATTRIBUTE.findall(text))


def _tags(html: str, start: int) -> Iterable[tuple[str, str, str, str]]:
    """Return `/` or nothing, the name, the attributes and the following text of each tag.

    Text that only looks like a tag has no name.
    """
    if "<iframe" not in html:  # the parser writes its content without escaping it
        tags: list[tuple[str, str, str, str]] = _TAG.findall(html, start)
        if len(tags) == html.count("<", start):
            return tags
    return _tags_one_by_one(html, start)


def _tags_one_by_one(html: str, position: int) -> Iterator[tuple[str, str, str, str]]:
    while position < len(html):
        tag = _TAG.match(html, position)
        if tag is None:
            end = html.find("<", position + 1)
            end = len(html) if end < 0 else end
            yield "", "", "", html[position:end]
            position = end
        elif tag[2] == "iframe" and not tag[1]:
            yield tag[1], tag[2], tag[3], ""
            position = max(html.find("</iframe", tag.end()), tag.end(3) + 1)
        else:
            yield tag[1], tag[2], tag[3], tag[4]
            position = tag.end()


class _Builder:
    """Builds the tree from the tags that the parser wrote."""

    def __init__(self, html: str) -> None:
        self._html = html
        self._root = Element("root")
        self._stack: list[Element] = [self._root]
        self._open: list[tuple[str, Element | None]] = []
        """The names of all open elements, with the element if it is in the tree."""
        self._counts: dict[str, int] = {}
        self._levels = 0
        self._length = 0
        self._targets = {unescape(name) for name in _FRAGMENT.findall(html)}

    def build(self) -> Element:
        start = self._html.find("<")
        if start < 0:
            start = len(self._html)
        if start:
            self._add_text(unescape(self._html[:start]))
        for closing, name, attributes, text in _tags(self._html, start):
            if closing:
                self._end(name)
            elif name:
                self._start(name, attributes)
            if text:
                self._add_text(unescape(text) if "&" in text else text)
        return self._root

    def _add_text(self, text: str) -> None:
        self._length += len(text)
        if self._length > MAX_LENGTH:
            raise TooComplex(f"The text has more than {MAX_LENGTH} characters")
        parent = self._stack[-1]
        children = parent.children
        if children and isinstance(children[-1], str):
            children[-1] += text
        elif parent.name not in _CONTAINERS or not text.isspace():
            children.append(text)

    def _start(self, name: str, attributes: str) -> None:
        values = _attributes(attributes) if attributes else {}
        kind = _KINDS.get(name, name)
        is_block = name in _ALL_BLOCKS
        if is_block and self._stack[-1].name in INLINE:
            self._mark_blocks()
        element = self._element(kind, values)
        if values:
            self._add_extras(name, values, element)
        children = self._stack[-1].children
        if element is not None:
            children.append(element)
        elif is_block:
            children.append(BREAK)
        if name in VOID:
            return
        self._open.append((name, element))
        if element is not None:
            self._stack.append(element)
            self._counts[element.name] = self._counts.get(element.name, 0) + 1
            self._levels += element.name in LEVELS

    def _add_extras(self, name: str, values: dict[str, str], element: Element | None) -> None:
        """Add an anchor for a target of links, and the image in the background of an element."""
        anchor = values.get("id") or (values.get("name") if name == "a" else None)
        if anchor and (anchor in self._targets or (name == "a" and "href" not in values)):
            self._add_anchor(anchor, None if name in VOID else element)
        if "background" in values.get("style", "") and _HAS_BACKGROUND.search(
            values.get("class", "")
        ):
            self._add_background(values["style"])

    def _element(self, kind: str, values: dict[str, str]) -> Element | None:  # noqa: PLR0911 - one return for each reason
        """Return the element, or None if only its content is kept."""
        if kind in _PLAIN:
            return Element(kind, values)
        if kind in LEVELS and self._levels >= MAX_LEVELS:
            return None
        if len(self._stack) > MAX_DEPTH:
            return None
        if kind in INLINE:
            if kind != "span" and kind in self._counts and self._counts[kind] > 0:
                return None  # bold in bold
            if kind == "span" and not (
                _is_significant_span(values) or (self._counts.get("pre") and _is_gutter(values))
            ):
                return None
            if kind == "a" and "href" not in values:
                return None
            return Element(kind, values)
        if kind in _BLOCKS:
            return Element(kind, values)
        if values.keys() & _SIGNIFICANT or "kg-" in values.get("class", ""):
            return Element("div" if kind in _TRANSPARENT_BLOCKS else "span", values)
        return Element("pre", values) if kind == "textarea" else None

    def _add_anchor(self, name: str, element: Element | None) -> None:
        anchor = Element("anchor", {"id": name})
        holder = self._stack[-1]
        if element is not None and element.name in _HOLDERS:
            holder = element
        holder.children.append(anchor)

    def _add_background(self, style: str) -> None:
        """Add the background image of a cover or header as an image."""
        if image := _BACKGROUND.search(style):
            self._stack[-1].children += [BREAK, Element("img", {"src": image[1]}), BREAK]

    def _mark_blocks(self) -> None:
        for element in reversed(self._stack):
            if element.name not in INLINE or element.has_blocks:
                break
            element.has_blocks = True

    def _end(self, name: str) -> None:
        while self._open:
            opened, element = self._open.pop()
            if element is not None:
                self._stack.pop()
                self._counts[element.name] -= 1
                self._levels -= element.name in LEVELS
            elif opened in _ALL_BLOCKS:
                self._stack[-1].children.append(BREAK)
            if opened == name:
                return


_HAS_BACKGROUND = re.compile(r"\b(?:wp-block-cover|kg-header-card|kg-signup-card)\b")
_BACKGROUND = re.compile(r"background(?:-image)?:[^;]{0,40}url\(\s*['\"]?([^'\")]{1,1000})")
_SIGNIFICANT = frozenset({"data-markdown", "data-fold", "data-footnotes"})
"""Attributes of `div` elements that other modules create."""
_HOLDERS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6", "li", "td", "th", "dt", "dd"})


GUTTERS = frozenset(
    {"gutter", "gl", "rouge-gutter", "lineno", "linenos", "linenodiv", "line-numbers", "ln", "lnt",
     "line-numbers-rows", "crayon-nums", "hljs-ln-numbers", "line_numbers"}
)  # fmt: skip
"""Classes that highlighters of code give to line numbers."""


def _is_gutter(values: dict[str, str]) -> bool:
    return "class" in values and not GUTTERS.isdisjoint(values["class"].split())


def _is_significant_span(values: dict[str, str]) -> bool:
    return bool(values.keys() & {"lang", "dir", "data-footnote"}) or "kg-" in values.get(
        "class", ""
    )
