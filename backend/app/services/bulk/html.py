"""Conversion from HTML of other systems' editors to Markdown, without editor-specific markup."""

import re
from collections.abc import Iterator
from typing import Any

from bs4 import BeautifulSoup, Tag
from markdownify import MarkdownConverter

from app.services.bulk.foreign import strip_control_characters

_PREFORMATTED = re.compile(r"<(/?)pre\b", re.IGNORECASE)
# Neither pattern may match across its own start: otherwise a search takes quadratic time.
_BLOCK_COMMENT = re.compile(
    r"<!--\s*+/?(?:wp:|kg-card|more\b|nextpage\b)(?:[^<-]++|<(?!!--)|-(?!->))*+-->"
)
_SHORTCODE = re.compile(
    r"\[/?(?:caption|wp_caption|gallery|embed|audio|video|playlist)\b[^\[\]]*+\]"
)
_PARAGRAPH = re.compile(r"<p[\s>]", re.IGNORECASE)
_BLOCK = re.compile(
    r"</?(?:p|div|h[1-6]|ul|ol|li|table|thead|tbody|tr|td|th|blockquote|pre|figure|figcaption|hr|dl"
    r"|dt|dd|section|article|iframe|form)\b",
    re.IGNORECASE,
)
_BLANK_LINES = re.compile(r"\n{3,}")
_SPACES = re.compile(r"[ \t]{2,}")
_EMBEDS = ("iframe", "embed", "video", "audio")


MAX_TAGS = 50_000
MAX_SIBLINGS = 1_000
"""Child elements of an element. The converter is quadratic: it counts the preceding siblings."""


class HtmlTooComplex(ValueError):
    """The HTML would take too long to convert: too many elements, or nested too deeply."""


def html_to_markdown(html: str) -> str:
    """Convert HTML to Markdown as far as possible. Raises HtmlTooComplex."""
    if html.count("<") > MAX_TAGS:
        raise HtmlTooComplex(f"The HTML has more than {MAX_TAGS} tags")
    html = strip_control_characters(_without_editor_markup(html))
    last = html.rfind("<")
    if last > html.rfind(">") and html[last + 1 : last + 2].strip(" \t\r\n0123456789"):
        html += ">"  # html.parser reads the rest again for each unclosed tag
    soup = BeautifulSoup(html, "html.parser")
    for element in soup(["script", "style", "noscript", "template"]):
        element.decompose()
    for embed in soup(_EMBEDS):
        _replace_with_link(soup, embed)
    for parent in soup(["ol", "thead", "tbody", "table"]):
        if len(parent.contents) > 2 * MAX_SIBLINGS:  # including the whitespace between them
            raise HtmlTooComplex(
                f"The HTML has a list or table of more than {MAX_SIBLINGS} entries"
            )
    for text in soup.find_all(string=_SPACES):  # the converter's pattern is quadratic in runs
        if text.find_parent("pre") is None:
            text.replace_with(_SPACES.sub(" ", text))
    try:
        converted = _CONVERTER.convert_soup(soup)
    except RecursionError as error:
        raise HtmlTooComplex("The HTML is nested too deeply") from error
    return _BLANK_LINES.sub("\n\n", str(converted)).strip()


def _without_editor_markup(html: str) -> str:
    """Remove editor markup, and convert lines to paragraphs where WordPress would."""
    by_lines = not _BLOCK_COMMENT.search(html) and not _PARAGRAPH.search(html)
    return "".join(
        part if is_preformatted else _clean_part(part, by_lines=by_lines)
        for part, is_preformatted in _split_preformatted(html)
    )


def _clean_part(html: str, *, by_lines: bool) -> str:
    """Remove editor markup from a part outside of `<pre>`."""
    html = _SHORTCODE.sub(" ", _BLOCK_COMMENT.sub("", html))
    return _paragraphs(html) if by_lines else html


def _split_preformatted(html: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts outside and inside of `<pre>`, each with whether it is inside."""
    start, is_preformatted = 0, False
    for tag in _PREFORMATTED.finditer(html):
        if bool(tag[1]) is is_preformatted:
            yield html[start : tag.start()], is_preformatted
            start, is_preformatted = tag.start(), not is_preformatted
    yield html[start:], is_preformatted


def _paragraphs(text: str) -> str:
    pieces = re.split(r"(?:\r?\n[ \t]*){2,}", text)
    return "\n\n".join(
        piece
        if not piece.strip() or _BLOCK.match(piece.lstrip())
        else f"<p>{re.sub(chr(13) + '?' + chr(10), '<br>', piece.strip())}</p>"
        for piece in pieces
    )


def _replace_with_link(soup: BeautifulSoup, embed: Tag) -> None:
    """Replace an embedded player with a link to its source."""
    inner = embed.find("source")
    source = embed.get("src") or (inner.get("src") if isinstance(inner, Tag) else None)
    if not isinstance(source, str) or not source.startswith(("http://", "https://", "/")):
        embed.decompose()
        return
    paragraph, link = soup.new_tag("p"), soup.new_tag("a", href=source)
    link.string = source
    paragraph.append(link)
    embed.replace_with(paragraph)


def _code_language(element: Any) -> str:
    """Return the language of a code block from its class, such as `language-python`."""
    for each in (element, element.find("code")):
        for name in (each.get("class") or ()) if each is not None else ():
            if found := re.fullmatch(r"lang(?:uage)?-([\w+#.-]+)", name):
                return found[1]
    return ""


class _Converter(MarkdownConverter):
    def convert_pre(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        """Strip blank lines without the library's pattern, which is quadratic in runs of spaces."""
        blank = text[: len(text) - len(text.lstrip(" \n"))]
        text = text[blank.rfind("\n") + 1 :].rstrip(" \n")
        # The library's stubs omit its converters.
        converted: str = super().convert_pre(el, text, parent_tags)  # type: ignore[misc]
        return converted


_CONVERTER = _Converter(
    heading_style="ATX",
    bullets="-",
    code_language_callback=_code_language,
    strip_pre=None,
    table_infer_header=True,
)
