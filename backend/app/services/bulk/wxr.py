"""The items of a WXR file, each parsed on its own, so that a fault costs one item.

The file is cut at `<item>` and `</item>` outside of CDATA. An item that is not well-formed is
repaired: control characters, stray `&`, names of HTML entities. If that does not help, the fields
are found by their tags.
"""

import codecs
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from app.services.bulk import foreign
from app.services.bulk.foreign import Progress, SourceFile

CHUNK = 64 * 1024
MAX_HEADER = 1024 * 1024
MAX_TAGS = 1_000_000
"""Maximum number of `<` in an item. Each element takes about a hundred bytes."""

_PREFIXES = ("atom", "content", "dc", "excerpt", "georss", "itunes", "media", "slash", "sy", "wfw",
             "wp")  # fmt: skip
_DECLARED = (b"wp:author", b"wp:category", b"wp:tag", b"wp:term")
"""The pieces before the items."""
_START = re.compile(rb"<(item|%b)(?=[\s>/])|</channel\s*>" % b"|".join(_DECLARED))
_END = {
    b"item": re.compile(rb"<!\[CDATA\[|</item\s*>|<item(?=[\s>])"),
    **{
        name: re.compile(rb"<!\[CDATA\[|</%b\s*>|<item(?=[\s>])|<%b(?=[\s>])" % (name, name))
        for name in _DECLARED
    },
}
_LONGEST_TOKEN = 32
_STRAY_AMPERSAND = re.compile(
    r"&(?!(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});)(\w+;)?"
)
_REFERENCE = re.compile(r"&#(x?)([0-9A-Fa-f]{1,7});")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_PREFIX = re.compile(r"</?([A-Za-z_][\w.-]*):|\s([A-Za-z_][\w.-]*):[\w.-]+\s*=")
_TAG = re.compile(r"<((?:[a-z]+:)?[a-z_]+)((?:\s[^<>]*)?)>")
_ATTRIBUTE = re.compile(r'\b([a-z]++)="([^"<>]*+)"')
_ENCODING = re.compile(rb"<\?xml[^<>]*?\sencoding\s*=\s*[\"']([\w.:-]{1,40})[\"']")
_DOCTYPE = re.compile(rb"<!(?:DOCTYPE|ENTITY)\b")
_AS_ASCII = ("utf", "ascii", "iso8859", "latin", "cp125", "koi8", "mac")
"""Encodings in which all bytes of markup mean the same as in ASCII. UTF-16 and 32 have a BOM."""


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
    return element.tag.rpartition("}")[2]


def text_of(element: Element, name: str, *, prefix: str = "") -> str:
    """Return the text of the child with this name, and with this prefix if it is given."""
    for child in element:
        if local_name(child) == name and (not prefix or child.tag == f"{{{prefix}}}{name}"):
            return child.text or ""
    return ""


class WxrFile:
    """A WXR file, read once from its beginning."""

    def __init__(self, path: Path, advance: Progress) -> None:
        self._path = path
        self._advance = advance
        self.header = b""
        self.is_complete = False
        """Whether the end of the channel was found."""

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
        with SourceFile(self._path, self._advance) as source:
            chunks = _transcoded(_chunks(source))
            yield from self._cut(chunks)

    def _cut(self, chunks: Iterator[bytes]) -> Iterator[Piece]:
        buffer, is_first = b"", True
        encoding = ""
        for chunk in chunks:
            buffer += chunk
            while start := _START.search(buffer):
                if is_first:
                    self.header = (self.header + buffer[: start.start()])[:MAX_HEADER]
                    is_first, encoding = False, _declared_encoding(self.header)
                if start[1] is None:
                    self.is_complete = True
                    buffer = buffer[start.end() :]
                    continue
                buffer = buffer[start.start() :]
                piece, buffer = _read_piece(start[1], buffer, chunks, encoding)
                yield piece
            kept = buffer[-_LONGEST_TOKEN:]
            if is_first:
                self.header = (self.header + buffer[: len(buffer) - len(kept)])[:MAX_HEADER]
            buffer = kept
        if is_first:
            self.header = (self.header + buffer)[:MAX_HEADER]


def _read_piece(
    kind: bytes, buffer: bytes, chunks: Iterator[bytes], encoding: str
) -> tuple[Piece, bytes]:
    """Read until the end of a piece that begins the buffer. Return it and the following bytes."""
    name = kind.decode().removeprefix("wp:")
    position, in_cdata = len(kind) + 1, False
    while True:
        if in_cdata:
            end = buffer.find(b"]]>", position)
            if end >= 0:
                position, in_cdata = end + 3, False
                continue
            position = max(position, len(buffer) - 2)
        elif found := _END[kind].search(buffer, position):
            if found[0] == b"<![CDATA[":
                position, in_cdata = found.end(), True
                continue
            if found[0][:2] != b"</":
                problem = "the record has no end"
                return Piece(name, None, problem), buffer[found.start() :]
            return _parse(name, buffer[: found.end()], encoding), buffer[found.end() :]
        else:
            position = max(position, len(buffer) - _LONGEST_TOKEN)
        chunk = next(chunks, b"")
        if not chunk:
            return Piece(name, None, "the file ends within this record"), b""
        buffer += chunk
        if len(buffer) > foreign.MAX_PENDING_BYTES:
            problem = f"the record is larger than {foreign.MAX_PENDING_BYTES} bytes"
            return Piece(name, None, problem), _skip(kind, buffer, chunks)


def _skip(kind: bytes, buffer: bytes, chunks: Iterator[bytes]) -> bytes:
    """Return what follows the end of a piece, without keeping what is before it."""
    end = b"</" + kind
    while (position := buffer.find(end)) < 0:
        chunk = next(chunks, b"")
        if not chunk:
            return b""
        buffer = buffer[-_LONGEST_TOKEN:] + chunk
    return buffer[position + len(end) :]


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
    if declared := _ENCODING.search(header):
        try:
            codec = codecs.lookup(declared[1].decode())
            codec.decode(b"<")
            return "utf-8" if codec.name.startswith("utf-16") else codec.name
        except (LookupError, UnicodeDecodeError, ValueError):
            pass
    return "utf-8"


def _decode(raw: bytes, encoding: str) -> tuple[str, str]:
    """Return the text and a note. UTF-8 comes first: declarations of other encodings often lie."""
    try:
        return raw.decode(), ""
    except UnicodeDecodeError:
        text = raw.decode(encoding, errors="replace")
    if encoding != "utf-8" and "\ufffd" not in text:
        return text, ""
    return text, "bytes that are no text in UTF-8 were replaced by \ufffd"


def _parse(name: str, raw: bytes, encoding: str) -> Piece:
    if raw.count(b"<") > MAX_TAGS:
        return Piece(name, None, f"the record has more than {MAX_TAGS} tags")
    text, note = _decode(raw, encoding)
    element = _try_parse(text, _PREFIXES)
    if element is not None:
        return Piece(name, element, note=note)
    notes = [note] if note else []
    repaired = _NOT_XML.sub("", text)
    if repaired != text:
        notes.append("control characters were removed")
    repaired = "".join(_repaired_parts(repaired))
    prefixes = {prefix for found in _PREFIX.findall(repaired) for prefix in found if prefix}
    element = _try_parse(repaired, (*_PREFIXES, *sorted(prefixes - {*_PREFIXES, "xml", "xmlns"})))
    if element is None:
        notes.append("the record is damaged: its fields were found by their tags")
        element = _by_tags(name, repaired)
    return Piece(name, element, note="; ".join(notes))


def _try_parse(text: str, prefixes: tuple[str, ...]) -> Element | None:
    declared = " ".join(f'xmlns:{prefix}="{prefix}"' for prefix in prefixes)
    try:
        root: Element = fromstring(f"<root {declared}>{text}</root>", forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError):
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
