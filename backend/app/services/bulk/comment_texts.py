"""Texts of comments in other systems, as the Markdown that comments may have.

Most comments are plain words. They do not need the converter and the renderer, which would take
most of the time of an import.
"""

import re
from html import escape, unescape

import nh3

from app.services.bulk.converting.pages import from_html
from app.services.bulk.converting.paragraphs import add_paragraphs
from app.services.bulk.foreign import strip_control_characters

_TAGS = {
    "a", "b", "blockquote", "br", "code", "del", "em", "i", "li", "ol", "p", "pre", "s", "strike",
    "strong", "ul",
}  # fmt: skip
"""The elements that comments have here. Others are replaced by their content."""
_EMPHASIS = {"b", "del", "em", "i", "s", "strike", "strong"}
_START = r"(?![-+=|#>\s]|\d++[.)])"
_WORDS = r"[^\\`*_~\[\]<>&:@\x00-\x1f\x7f-\x9f\u2028\u2029]++|:(?!//)"
_PLAIN_LINE = re.compile(rf"{_START}(?:{_WORDS})++")
"""A line in which neither HTML nor Markdown would interpret anything, except for `www.`."""
_ESCAPED_LINE = re.compile(rf"{_START}(?:{_WORDS}|\\[!-/:-@\[-`{{-~])++")
"""A line that is plain without its backslashes."""
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
_EMPTY_LINES = re.compile(r"(?:\\\n){2,}")
_IMAGE = re.compile(r"<img\b([^<>]*+)>", re.IGNORECASE)
_SOURCE = re.compile(r"\bsrc\s*=\s*[\"']?(https?://[^\"'\s<>]+)", re.IGNORECASE)
_ALT = re.compile(r"\balt\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", re.IGNORECASE)
_BLOCK = re.compile(
    r"</?(?:address|article|aside|center|dd|details|div|dl|dt|figcaption|figure|footer|form|h[1-6]"
    r"|header|hr|main|section|summary|table|tbody|thead|tr)\b[^<>]*+>",
    re.IGNORECASE,
)
_CELL = re.compile(r"</?t[dh]\b[^<>]*+>", re.IGNORECASE)
_TAG = re.compile(r"(<[^<>]*+>)")
_LITERAL = re.compile(r"<(/?)(?:a|code|pre)\b", re.IGNORECASE)
_URL = re.compile(r"(?<![\w/\"'=@.])(?:https?://|www\.)[^\s<>\"'\x00-\x1f]*[\w/=&#%+~-]")
_ADDRESS = re.compile(
    r"https?://[^\s<>\"'\x00-\x1f]*[\w/=&#%+~-]"
    r"|(?<!\S)www\.[A-Za-z0-9./?=%-]*[A-Za-z0-9/](?=[.,;!?)]*(?:\s|$))"
)
_SPECIAL = re.compile(r"[\\`*_~\[\]<>&]")
_WWW = re.compile(r"(www)\.", re.IGNORECASE)
_LINE_START = re.compile(r"(?m)^([#+=|-]|\d+(?=[.)]))")
_RAW_TAG = re.compile(r"<(?:a|br|code|del|em|pre|strong)\b")
_SHOWN_TAG = re.compile(_RAW_TAG.pattern.replace("<", "&lt;", 1))


def to_markdown(text: str, *, has_paragraphs: bool = False) -> str:
    """Return the HTML of a comment as Markdown. Raises TooComplex.

    Blank lines and line breaks mean paragraphs, unless `has_paragraphs` is set.
    """
    text = strip_control_characters(text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    if "<" not in text and not has_paragraphs:
        return _from_text(unescape(text) if "&" in text else text)
    text = _IMAGE.sub(_link_to_image, text)
    text = _with_links(_CELL.sub(" ", _BLOCK.sub("\n\n", text)))
    html = text if has_paragraphs else add_paragraphs(text)
    for left_out in (set(), _EMPHASIS, {*_EMPHASIS, "a"}):
        cleaned = _clean(html, _TAGS - left_out)
        markdown = from_html(cleaned).markdown.strip()
        # The converter writes some emphasis as HTML, which comments show as it was typed.
        if len(_RAW_TAG.findall(markdown)) <= len(_SHOWN_TAG.findall(cleaned)):
            break
    return markdown


def render_plain(content: str) -> str | None:
    """Return the HTML of a comment of plain words. None: it has to be rendered."""
    paragraphs = [paragraph.split("\\\n") for paragraph in content.split("\n\n")]
    if "www." in content.lower() or not all(
        _is_plain(line) for each in paragraphs for line in each
    ):
        return None
    return "".join("<p>" + "<br>\n".join(map(_shown, lines)) + "</p>\n" for lines in paragraphs)


def _is_plain(line: str) -> bool:
    is_plain = _ESCAPED_LINE.fullmatch(line) is not None
    return is_plain and not line[-1].isspace() and "  " not in line


def _shown(line: str) -> str:
    return escape(_ESCAPE.sub(r"\1", line) if "\\" in line else line, quote=False)


def _from_text(text: str) -> str:
    """Return a text without tags as Markdown."""
    lines = [" ".join(line.split()) for line in text.split("\n")]
    is_plain = all(not line or _PLAIN_LINE.fullmatch(line) for line in lines)
    if not is_plain or "www." in text.lower():
        lines = [_escaped(line) for line in lines]
    return _EMPTY_LINES.sub("\n\n", "\\\n".join(lines))


def _escaped(line: str) -> str:
    """Return a line with links for its addresses, and everything else as it is."""
    parts: list[str] = []
    position = 0
    for url in _ADDRESS.finditer(line):
        is_absolute = url[0].startswith("http")
        link = f"<{url[0]}>" if is_absolute else f"[{url[0]}](http://{url[0]})"
        parts += (_escape_marks(line[position : url.start()]), link)
        position = url.end()
    parts.append(_escape_marks(line[position:]))
    return _LINE_START.sub(_escape_start, "".join(parts))


def _escape_marks(text: str) -> str:
    """Escape what Markdown would interpret, also the beginning of an address."""
    return _WWW.sub(r"\1\\.", _SPECIAL.sub(r"\\\g<0>", text))


def _escape_start(mark: re.Match[str]) -> str:
    return mark[1] + "\\" if mark[1].isdigit() else "\\" + mark[1]


def _clean(html: str, tags: set[str]) -> str:
    return nh3.clean(
        html,
        tags=tags,
        attributes={"a": {"href"}},
        url_schemes={"http", "https", "mailto"},
        link_rel=None,
    )


def _with_links(html: str) -> str:
    """Return HTML with links for its bare addresses, as WordPress shows them."""
    if "http" not in html and "www." not in html:
        return html
    parts, depth = _TAG.split(html), 0
    for number, part in enumerate(parts):
        if number % 2 == 0:
            parts[number] = part if depth > 0 else _URL.sub(_link, part)
        elif tag := _LITERAL.match(part):
            depth += -1 if tag[1] else 1
    return "".join(parts)


def _link(url: re.Match[str]) -> str:
    href = url[0] if url[0][0] == "h" else f"http://{url[0]}"
    return f'<a href="{href}">{url[0]}</a>'


def _link_to_image(image: re.Match[str]) -> str:
    source, alt = _SOURCE.search(image[1]), _ALT.search(image[1])
    text = unescape((alt[1] or alt[2] or "") if alt else "").strip()
    if source is None:
        return escape(text)
    return f'<a href="{source[1]}">{escape(text) or source[1]}</a>'
