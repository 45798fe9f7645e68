"""The items of a WXR file, each parsed on its own, so that a fault costs one item.

The file is cut at `<item>` and `</item>` outside of CDATA. An item that is not well-formed is
repaired: control characters, stray `&`, names of HTML entities. If that does not help, the fields
are found by their tags.
"""

import codecs
import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError, SubElement, XMLParser

from app.services.bulk import foreign
from app.services.bulk.foreign import Progress, SourceFile

CHUNK = 64 * 1024
MAX_HEADER = 1024 * 1024
MAX_READ = 4 * 1024 * 1024
"""Maximum number of bytes that are read at once."""
CUT_OFF = "the file ends within this record"
LONGEST_TOKEN = 32
"""Bytes that are searched again after a chunk was appended, because a tag may begin in them."""
MAX_TAGS = 400_000
"""Maximum number of `<` in an item. Each element takes about 150 bytes."""
MAX_LINES = 500_000
"""Maximum number of lines of an item. The parser keeps each as a text until an element ends."""

_PREFIXES = ("atom", "content", "dc", "excerpt", "georss", "itunes", "media", "slash", "sy", "wfw",
             "wp")  # fmt: skip
_PREFIX = re.compile(r"</?([A-Za-z_][\w.-]*):|\s([A-Za-z_][\w.-]*):[\w.-]+\s*=")
_DECLARED = (b"wp:author", b"wp:wp_author", b"wp:category", b"wp:tag", b"wp:term")
"""The pieces before the items. WP-CLI before 0.19 wrote `wp:wp_author`."""
_START = re.compile(rb"<(item|%b)(?=[\s>/])|</channel\s*>" % b"|".join(_DECLARED))
OUTLINE = (
    b"dc:creator", b"link", b"wp:post_type", b"wp:status", b"wp:post_date", b"wp:post_date_gmt",
)  # fmt: skip
"""The fields of a post that a survey needs, besides its categories."""
_OUTLINE = re.compile(
    rb"<(%b)>(?:<!\[CDATA\[([^<>\]]*+)\]\]>|([^<>&]*+))</\1>" % b"|".join(OUTLINE)
)
_TERM = re.compile(rb'<category domain="([^"<>&]*+)" nicename="([^"<>&]*+)">')
_END = {
    b"item": re.compile(rb"</item\s*+>|<item(?=[\s>])"),
    **{name: re.compile(rb"</%b\s*+>|<(?:item|%b)(?=[\s>])" % (name, name)) for name in _DECLARED},
}
_STRAY_AMPERSAND = re.compile(
    r"&(?!(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});)(\w+;)?"
)
_REFERENCE = re.compile(r"&#(x?)([0-9A-Fa-f]{1,7});")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_TAG = re.compile(r"<((?:[a-z]+:)?[a-z_]+)((?:\s[^<>]*)?)>")
_ATTRIBUTE = re.compile(r'\b([a-z]++)="([^"<>]*+)"')
_ENCODING = re.compile(rb"<\?xml[^<>]*?\sencoding\s*=\s*[\"']([\w.:-]{1,40})[\"']")
_DOCTYPE = re.compile(rb"<!(?:DOCTYPE|ENTITY)\b")
_AS_ASCII = ("utf", "ascii", "iso8859", "latin", "cp125", "koi8", "mac")
"""Encodings in which all bytes of markup mean the same as in ASCII. UTF-16 and 32 have a BOM."""


_NO_ENCODINGS = {"idna", "punycode", "raw-unicode-escape", "unicode-escape", "utf-7"}
"""Codecs that are not encodings of files. Some take quadratic time."""


class Piece(NamedTuple):
    """An author, term or item, or the reason why it cannot be read."""

    name: str
    element: Element | None
    problem: str = ""
    note: str = ""


class Header(NamedTuple):
    """What is before the first author or item."""

    element: Element
    encoding: str
    problems: tuple[str, ...] = ()


def local_name(element: Element) -> str:
    """Return the name of an element without its namespace."""
    tag = element.tag
    return tag[tag.find("}") + 1 :]


def text_of(element: Element, name: str, *, prefix: str = "") -> str:
    """Return the text of the child with this name, and with this prefix if it is given."""
    if prefix:
        return element.findtext(f"{{{prefix}}}{name}", "")
    qualified = f"}}{name}"
    for child in element:
        tag = child.tag
        if tag.endswith(name) and (tag.endswith(qualified) or tag == name):
            return child.text or ""
    return ""


Parse = Callable[[str, bytes, str], Piece]


class WxrFile:
    """A WXR file, read once from its beginning."""

    def __init__(self, path: Path, advance: Progress) -> None:
        self._path = path
        self._advance = advance
        self.header = b""
        self.is_complete = False
        """Whether the end of the channel was found."""
        self.ends_in_item = False
        """Whether the file ends within an item, which is a problem of the item."""

    def read_header(self) -> Header:
        """Return the channel's own fields."""
        encoding = _declared_encoding(self.header)
        text, note = _decode(self.header, encoding)
        problems = [note] if note else []
        if _DOCTYPE.search(self.header):
            problems.append("The file declares a DTD or entities, which were not read")
        start = text.find("<channel")
        inner = text[text.find(">", start) + 1 :] if start >= 0 else ""
        return Header(_by_tags("channel", inner), encoding, tuple(problems))

    def pieces(self) -> Iterator[Piece]:
        """Yield the authors, terms and items in their order."""
        return self._pieces(_parse)

    def outlines(self) -> Iterator[Piece]:
        """Yield the authors, terms and items. Posts have only their OUTLINE, which is faster."""
        return self._pieces(_parse_outline)

    def _pieces(self, parse: Parse) -> Iterator[Piece]:
        with SourceFile(self._path, self._advance) as source:
            yield from self._cut(_Window(_transcoded(_chunks(source))), parse)

    def _cut(self, window: "_Window", parse: Parse) -> Iterator[Piece]:
        is_first, encoding = True, ""
        while True:
            start = _START.search(window.data, window.at)
            if is_first:
                kept = start.start() if start else max(window.at, len(window.data) - LONGEST_TOKEN)
                room = MAX_HEADER - len(self.header)
                self.header += window.data[window.at : min(kept, window.at + room)]
                window.at = kept
            if start is None:
                window.at = max(window.at, len(window.data) - LONGEST_TOKEN)
                if not window.read_more():
                    break
                continue
            if is_first:
                is_first, encoding = False, _declared_encoding(self.header)
            if start[1] is None:
                self.is_complete = True
                window.at = start.end()
                continue
            window.at = start.start()
            piece = _read_piece(start[1], window, encoding, parse)
            self.ends_in_item = piece.problem == CUT_OFF and piece.name == "item"
            yield piece
        if is_first:
            self.header = (self.header + window.data[window.at :])[:MAX_HEADER]


class _Window:
    """A part of a file, from a position on."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.data = b""
        self.at = 0

    def read_more(self) -> bool:
        """Append a chunk, and drop what is before the position. Return whether there was one.

        As much as is kept is read at once. Otherwise a long record would be copied for each chunk.
        """
        parts, size = [self.data[self.at :]], 0
        wanted = min(len(parts[0]) + 1, MAX_READ)
        while size < wanted and (chunk := next(self._chunks, b"")):
            parts.append(chunk)
            size += len(chunk)
        if size:
            self.data, self.at = b"".join(parts), 0
        return size > 0


def _read_piece(kind: bytes, window: _Window, encoding: str, parse: Parse) -> Piece:
    """Read a piece that begins at the window's position, which is after it then."""
    name = kind.decode().removeprefix("wp:")
    searched = len(kind) + 1
    while True:
        end, searched = _find_end(kind, window.data, window.at, window.at + searched)
        if end is not None:
            start, window.at = window.at, end.end()
            if end.end() - start > foreign.MAX_PENDING_BYTES:
                return Piece(name, None, _too_large())
            if end[0][:2] == b"</":
                return parse(name, window.data[start : window.at], encoding)
            window.at = end.start()
            return Piece(name, None, "the record has no end")
        searched -= window.at
        if len(window.data) - window.at > foreign.MAX_PENDING_BYTES:
            _skip(kind, window)
            return Piece(name, None, _too_large())
        if not window.read_more():
            window.at = len(window.data)
            return Piece(name, None, CUT_OFF)


def _too_large() -> str:
    return f"the record is larger than {foreign.MAX_PENDING_BYTES} bytes"


def _find_end(
    kind: bytes, data: bytes, start: int, position: int
) -> tuple[re.Match[bytes] | None, int]:
    """Return the end of a piece, or None and the position from which to search again.

    It is the first end tag outside of CDATA, or the beginning of the next piece.
    """
    while found := _END[kind].search(data, position):
        last_cdata = data.rfind(b"<![CDATA[", start, found.start())
        if last_cdata < 0 or data.find(b"]]>", last_cdata, found.start()) >= 0:
            return found, position
        end = data.find(b"]]>", found.end())
        if end < 0:
            return None, found.start()
        position = end + 3
    return None, max(position, len(data) - LONGEST_TOKEN)


def _skip(kind: bytes, window: _Window) -> None:
    """Move the window to the end of a piece, without keeping what is before it."""
    end = b"</" + kind
    while (position := window.data.find(end, window.at)) < 0:
        window.at = max(window.at, len(window.data) - LONGEST_TOKEN)
        if not window.read_more():
            window.at = len(window.data)
            return
    window.at = position + len(end)


def _chunks(source: SourceFile) -> Iterator[bytes]:
    while chunk := source.read(CHUNK):
        source.record_ended()
        yield chunk


def _transcoded(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the chunks, in UTF-8 if the encoding of the markup is not that of ASCII."""
    first = next(chunks, b"")
    encoding = _byte_order(first) or _declared_encoding(first)
    if not _byte_order(first):
        is_ascii = encoding.startswith(_AS_ASCII)
        if is_ascii or _is_utf8(first):
            yield first
            yield from chunks
            return
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    text = decoder.decode(first)
    yield text.removeprefix("\ufeff").encode(errors="replace")
    for chunk in chunks:
        yield decoder.decode(chunk).encode(errors="replace")


def _byte_order(first: bytes) -> str:
    if first.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    return {b"<\x00?\x00": "utf-16-le", b"\x00<\x00?": "utf-16-be"}.get(first[:4], "")


def _is_utf8(first: bytes) -> bool:
    """Return whether bytes are UTF-8 and more than ASCII, up to a character that is cut off."""
    try:
        return not codecs.getincrementaldecoder("utf-8")().decode(first).isascii()
    except UnicodeDecodeError:
        return False


def _declared_encoding(header: bytes) -> str:
    """Return the codec of the declared encoding, or UTF-8 if there is no such codec for texts."""
    declared = _ENCODING.search(header)
    try:
        codec = codecs.lookup(declared[1].decode() if declared else "utf-8")
        codec.decode(b"<")
    except (LookupError, UnicodeDecodeError, ValueError):
        return "utf-8"
    is_wrong = codec.name.startswith(("utf-16", "utf-32")) or codec.name in _NO_ENCODINGS
    return "utf-8" if is_wrong else codec.name


def _decode(raw: bytes, encoding: str) -> tuple[str, str]:
    """Return the text and a note. UTF-8 comes first: declared encodings are often wrong."""
    try:
        return raw.decode(), ""
    except UnicodeDecodeError:
        text = raw.decode(encoding, errors="replace")
    if encoding != "utf-8" and "\ufffd" not in text:
        return text, ""
    return text, "bytes that are not UTF-8 were replaced by \ufffd"


def _parse(name: str, raw: bytes, encoding: str) -> Piece:
    if raw.count(b"<") > MAX_TAGS:
        return Piece(name, None, f"the record has more than {MAX_TAGS} tags")
    if raw.count(b"\n") > MAX_LINES:
        return Piece(name, None, f"the record has more than {MAX_LINES} lines")
    element = _try_parse(raw)
    if element is not None:
        return Piece(name, element)
    text, note = _decode(raw, encoding)
    element = None if raw.isascii() else _try_parse(text.encode(errors="replace"))
    if element is not None:
        return Piece(name, element, note=note)
    notes = [note] if note else []
    repaired = _NOT_XML.sub("", text)
    if repaired != text:
        notes.append("control characters were removed")
    repaired = "".join(_repaired_parts(repaired))
    prefixes = {prefix for found in _PREFIX.findall(repaired) for prefix in found if prefix}
    further = sorted(prefixes - {*_PREFIXES, "xml", "xmlns"})
    element = _try_parse(repaired.encode(errors="replace"), (*_PREFIXES, *further))
    if element is None:
        notes.append("the record is damaged: its fields were found by their tags")
        element = _by_tags(name, repaired)
    return Piece(name, element, note="; ".join(notes))


def _parse_outline(name: str, raw: bytes, encoding: str) -> Piece:
    """Return an item with the fields of OUTLINE, or with all if they are not found for certain."""
    found = _OUTLINE.findall(raw) if name == "item" else []
    fields = {tag: cdata or text for tag, cdata, text in found}
    terms = _TERM.findall(raw)
    is_article = fields.get(b"wp:post_type") in {b"post", b"page"} and fields.get(b"dc:creator")
    is_clear = len(found) == len(fields) and len(terms) == raw.count(b"<category")
    is_clear = is_clear and all(domain != b"author" for domain, _ in terms)  # their texts matter
    if not (is_article and is_clear and all(map(bytes.isascii, fields.values()))):
        return _parse(name, raw, encoding)
    element = Element(name)
    for tag, value in fields.items():
        prefix, _, local = tag.decode().rpartition(":")
        SubElement(element, f"{{{prefix}}}{local}" if prefix else local).text = value.decode()
    for domain, key in terms:
        attributes = {"domain": domain.decode(), "nicename": key.decode(errors="replace")}
        SubElement(element, "category", attributes)
    return Piece(name, element)


def _try_parse(raw: bytes, prefixes: tuple[str, ...] = _PREFIXES) -> Element | None:
    """Parse an element in UTF-8. A DTD inside the root is an error, so there are no entities.

    The prefixes of namespaces stand for their addresses, which exports often do not declare.
    """
    declared = " ".join(f'xmlns:{prefix}="{prefix}"' for prefix in prefixes)
    parser = XMLParser(encoding="utf-8")  # noqa: S314 - see above
    try:
        parser.feed(f"<root {declared}>")
        parser.feed(raw)
        parser.feed("</root>")
        root: Element = parser.close()
    except (ParseError, ValueError):
        return None
    return root[0] if len(root) == 1 else None


def _repaired_parts(text: str) -> Iterator[str]:
    """Yield the text with its references repaired, except in CDATA."""
    position = 0
    while (start := text.find("<![CDATA[", position)) >= 0:
        yield _repair_references(text[position:start])
        end = text.find("]]>", start)
        position = len(text) if end < 0 else end + 3
        yield text[start:position]
    yield _repair_references(text[position:])


def _repair_references(text: str) -> str:
    text = _STRAY_AMPERSAND.sub(_replace_ampersand, text)
    return _REFERENCE.sub(_valid_reference, text)


def _replace_ampersand(match: re.Match[str]) -> str:
    if match[1]:
        character = html.unescape(match[0])
        if character != match[0]:
            return html.escape(character, quote=False)
    return "&amp;" + (match[1] or "")


def _valid_reference(match: re.Match[str]) -> str:
    number = int(match[2], 16 if match[1] else 10) if match[1] or match[2].isdigit() else 0
    is_valid = 0 < number <= 0x10FFFF and not _NOT_XML.fullmatch(chr(number))
    return match[0] if is_valid else ""


def _by_tags(name: str, text: str) -> Element:
    """Return an element with the fields that can be found by their tags."""
    element, position = Element(name), 0
    endless: set[str] = set()
    while tag := _TAG.search(text, position):
        prefix, _, local = tag[1].rpartition(":")
        child = Element(f"{{{prefix}}}{local}" if prefix else local)
        position = tag.end()
        if text.startswith("<![CDATA[", position):
            start, closing = position + 9, f"]]></{tag[1]}>"
            end = -1 if closing in endless else text.find(closing, start)
            if end < 0:
                endless.add(closing)
                end = text.find("]]>", start)
            end = len(text) if end < 0 else end
            child.text, position = text[start:end], end + 3
        else:
            end = text.find("<", position)
            end = len(text) if end < 0 else end
            child.text, position = html.unescape(text[position:end]), end
        for attribute, value in _ATTRIBUTE.findall(tag[2]):
            child.set(attribute, html.unescape(value))
        element.append(child)
    return element
