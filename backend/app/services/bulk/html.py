"""HTML as Markdown: what other systems' editors have made, without what only they understand."""

import re
from typing import Any

from bs4 import BeautifulSoup, Tag
from markdownify import MarkdownConverter

from app.services.bulk.foreign import clean

_PREFORMATTED = re.compile(r"(<pre\b.*?</pre>)", re.DOTALL | re.IGNORECASE)
_BLOCK_COMMENT = re.compile(r"<!--\s*/?(?:wp:|kg-card|more\b|nextpage\b).*?-->", re.DOTALL)
_SHORTCODE = re.compile(r"\[/?(?:caption|wp_caption|gallery|embed|audio|video|playlist)\b[^\]]*\]")
_PARAGRAPH = re.compile(r"<p[\s>]", re.IGNORECASE)
_BLOCK = re.compile(
    r"</?(?:p|div|h[1-6]|ul|ol|li|table|thead|tbody|tr|td|th|blockquote|pre|figure|figcaption|hr|dl"
    r"|dt|dd|section|article|iframe|form)\b",
    re.IGNORECASE,
)
_BLANK_LINES = re.compile(r"\n{3,}")
_FRAME = ("iframe", "embed", "video", "audio")


class TooDeep(ValueError):
    """Elements within elements, further than anybody writes."""


def markdown_of(html: str) -> str:
    """The Markdown that renders as this HTML, as far as Markdown goes. Raises TooDeep."""
    soup = BeautifulSoup(clean(_unwrapped(html)), "html.parser")
    for element in soup(["script", "style", "noscript", "template"]):
        element.decompose()
    for frame in soup(_FRAME):
        _link_to(soup, frame)
    try:
        text = _CONVERTER.convert_soup(soup)
    except RecursionError as error:
        raise TooDeep("The HTML is nested too deeply") from error
    return _BLANK_LINES.sub("\n\n", str(text)).strip()


def _unwrapped(html: str) -> str:
    """Without the marks of editors; lines as paragraphs where WordPress would make them."""
    by_lines = not _BLOCK_COMMENT.search(html) and not _PARAGRAPH.search(html)
    parts = _PREFORMATTED.split(html)
    for index in range(0, len(parts), 2):  # those between are preformatted
        part = _SHORTCODE.sub(" ", _BLOCK_COMMENT.sub("", parts[index]))
        parts[index] = _paragraphs(part) if by_lines else part
    return "".join(parts)


def _paragraphs(text: str) -> str:
    pieces = re.split(r"(?:\r?\n[ \t]*){2,}", text)
    return "\n\n".join(
        piece
        if not piece.strip() or _BLOCK.match(piece.lstrip())
        else f"<p>{re.sub(chr(13) + '?' + chr(10), '<br>', piece.strip())}</p>"
        for piece in pieces
    )


def _link_to(soup: BeautifulSoup, frame: Tag) -> None:
    """A link in place of a player: its address is what can be kept."""
    inner = frame.find("source")
    source = frame.get("src") or (inner.get("src") if isinstance(inner, Tag) else None)
    if not isinstance(source, str) or not source.startswith(("http://", "https://", "/")):
        frame.decompose()
        return
    paragraph, link = soup.new_tag("p"), soup.new_tag("a", href=source)
    link.string = source
    paragraph.append(link)
    frame.replace_with(paragraph)


def _language(element: Any) -> str:
    """Of a code block, as highlighters name it in a class: `language-python`, `lang-py`."""
    for each in (element, element.find("code")):
        for name in (each.get("class") or ()) if each is not None else ():
            if found := re.fullmatch(r"lang(?:uage)?-([\w+#.-]+)", name):
                return found[1]
    return ""


_CONVERTER = MarkdownConverter(
    heading_style="ATX", bullets="-", code_language_callback=_language, table_infer_header=True
)
