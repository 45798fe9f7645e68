"""WordPress's posts to Markdown: blocks, shortcodes and classic paragraphs."""

import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, NamedTuple

from app.services.bulk.converting.gates import find_gate
from app.services.bulk.converting.pages import from_html
from app.services.bulk.converting.paragraphs import add_paragraphs
from app.services.bulk.converting.results import (
    Context,
    Converted,
    Notes,
    TooComplex,
    check_size,
    names,
)
from app.services.bulk.converting.shortcodes import image_html, replace_shortcodes

MAX_INSERTED_BLOCKS = 100
MAX_LENGTH = 8 * 1024 * 1024
"""Maximum length of a post with its reusable blocks."""

_BLOCK = re.compile(r"<!--\s*+(/?)wp:([a-z0-9_/-]++)((?:[^<-]++|<(?!!--)|-(?!->))*+)-->")
_MARKER = re.compile(
    r"<!--\s*+(more|nextpage|noteaser)\b(?:[^<-]++|<(?!!--)|-(?!->))*+-->", re.IGNORECASE
)
_LONE_URL = re.compile(r"[ \t]*+(https?://[^\s<>\"]++)[ \t]*+\r?", re.IGNORECASE)
_EMBED = re.compile(
    r"(wp-block-embed__wrapper[^<>]*+>)\s*+((?i:https?)://[^\s<>\"]++)\s*+(?=</(?i:div))"
)
_LONE_PARAGRAPH = re.compile(r"<p(?:\s[^<>]*+)?>\s*+(https?://[^\s<>\"]++)\s*+</p>", re.IGNORECASE)
_PREFORMATTED = re.compile(r"(<pre[\s>])", re.IGNORECASE)
_CLASSIC = frozenset({"shortcode", "core/shortcode", "freeform", "core/freeform"})
_EMPTY = names("""
    footnotes more nextpage spacer separator paragraph image heading list post-content button
    buttons column columns group html table code quote
    """)
"""Blocks that may be empty. They need no note."""
_ADDRESSES = ("url", "feedURL", "src", "href", "link", "mediaUrl", "videoUrl", "mapUrl")


class _Part(NamedTuple):
    """A part of a post: text between blocks, or the beginning or end of a block."""

    text: str
    name: str = ""
    attributes: Mapping[str, Any] = {}
    is_end: bool = False
    is_void: bool = False


def from_wordpress(content: str, context: Context | None = None) -> Converted:
    """Convert the content of a WordPress post to Markdown. Raises TooComplex."""
    check_size(content)
    context, notes = context or Context(), Notes()
    content = _insert_reusable_blocks(content.replace("\r\n", "\n"), context, notes)
    notes.gate = find_gate(content)
    content = _MARKER.sub(_marker(notes), content)
    content = replace_shortcodes(content, context, notes)
    if "<!--" not in content or not _BLOCK.search(content):
        html = add_paragraphs(_with_players(content))
    else:
        html = "".join(_convert_blocks(content, context, notes))
    return from_html(html, context, notes=notes)


def _marker(notes: Notes) -> "Any":
    def replace(marker: re.Match[str]) -> str:
        if marker[1].lower() != "nextpage":
            return '<span id="more"></span>' if marker[1].lower() == "more" else ""
        notes.add("the pages of the post were joined")
        return "\n\n"

    return replace


def _insert_reusable_blocks(content: str, context: Context, notes: Notes) -> str:
    """Replace references to reusable blocks by their content, also in their content."""
    for _ in range(5):
        if "wp:block " not in content:
            return content
        inserted, length = 0, len(content)

        def insert(block: re.Match[str]) -> str:
            nonlocal inserted, length
            if block[2] not in {"block", "core/block"} or block[1]:
                return block[0]
            reference = str(_attributes(block[3]).get("ref", ""))
            found = context.reusable_blocks.get(reference)
            if found is None:
                notes.add("a reusable block that is not in the export, or not public, was left out")
                return ""
            inserted += 1
            if inserted > MAX_INSERTED_BLOCKS:
                raise TooComplex(f"The post has more than {MAX_INSERTED_BLOCKS} reusable blocks")
            length += len(found) - len(block[0])
            if length > MAX_LENGTH:
                raise TooComplex("The post is too long with its reusable blocks")
            return found

        content = _BLOCK.sub(insert, content)
    notes.add("reusable blocks that contain each other were left out")
    return _BLOCK.sub(
        lambda block: "" if block[2] in {"block", "core/block"} else block[0], content
    )


def _attributes(text: str) -> Mapping[str, Any]:
    text = text.strip().removesuffix("/").strip()
    if not text:
        return {}
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _parts(content: str) -> Iterator[_Part]:
    position = 0
    for block in _BLOCK.finditer(content):
        yield _Part(content[position : block.start()])
        position = block.end()
        is_void = block[3].rstrip().endswith("/")
        name = block[2].removeprefix("core/")
        attributes = _attributes(block[3]) if is_void or "code" in name else {}
        yield _Part("", name, attributes, is_end=bool(block[1]), is_void=is_void)
    yield _Part(content[position:])


def _convert_blocks(content: str, context: Context, notes: Notes) -> Iterator[str]:
    """Yield the HTML. Text outside of blocks, and shortcodes, are classic paragraphs."""
    names: list[str] = []
    language = ""
    for part in _parts(content):
        if part.is_void:
            yield _void_block(part, context, notes)
        elif part.is_end:
            if part.name in names:
                while names.pop() != part.name:
                    pass
        elif part.name:
            names.append(part.name)
            language = str(part.attributes.get("language", ""))
        elif not names or names[-1] in _CLASSIC:
            if part.text.strip(" \n\t"):
                yield add_paragraphs(_with_players(part.text))
        else:
            text = part.text
            if "wp-block-embed__wrapper" in text:
                text = _EMBED.sub(r'\1<iframe src="\2"></iframe>', text)
            yield _LONE_PARAGRAPH.sub(_replace_with_player, _with_language(text, language))
            language = ""


def _with_language(html: str, language: str) -> str:
    """Add the language of a code block, which is in the attributes of the block."""
    return html.replace("<pre", f'<pre data-lang="{escape(language)}"', 1) if language else html


def _with_players(text: str) -> str:
    """Replace addresses on lines of their own by players, as WordPress does."""
    if "://" not in text:
        return text
    text = _LONE_PARAGRAPH.sub(_replace_with_player, text)
    parts = _PREFORMATTED.split(text)
    for index in range(0, len(parts), 2):
        before, after = "", parts[index]
        if index > 0:
            at = after.lower().find("</pre")
            before, after = (after[:at], after[at:]) if at >= 0 else (after, "")
        parts[index] = before + "\n".join(map(_with_player, after.split("\n")))
    return "".join(parts)


def _with_player(line: str) -> str:
    match = _LONE_URL.fullmatch(line) if "://" in line else None
    return _replace_with_player(match) if match else line


def _replace_with_player(match: re.Match[str]) -> str:
    url = match[1].replace("&amp;", "&")
    return f'<figure><iframe src="{escape(url)}"></iframe></figure>'


def _void_block(part: _Part, context: Context, notes: Notes) -> str:
    """Return the HTML of a block without content of its own, which WordPress computes."""
    ids = part.attributes.get("ids")
    unique = dict.fromkeys(map(str, ids)) if isinstance(ids, list) else ()
    images = [context.attachments.get(each) for each in unique]
    if found := [image for image in images if image is not None]:
        if len(found) < len(images):
            notes.add("an image of a gallery is not in the export and was left out")
        return "".join(image_html(image, notes) for image in found)
    for name in _ADDRESSES:
        url = part.attributes.get(name)
        if isinstance(url, str) and url.startswith(("http", "/")):
            text = part.attributes.get("title") or part.attributes.get("label")
            text = text if isinstance(text, str) else part.attributes.get("service") or url
            return f'<p><a href="{escape(url)}">{escape(str(text))}</a></p>'
    if part.name not in _EMPTY:
        notes.add(f"the block {part.name[:60]!r}, whose content is not in the export, was left out")
    return ""
