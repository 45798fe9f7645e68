"""Recognise the format of an uploaded picture, and refuse structures that are expensive to decode.

Each format is read up to its end, so that a truncated upload is reported as such. Bytes after the
end are ignored: a picture is always encoded anew, and nothing of the upload itself is kept.

Every pattern and loop here takes time linear in the length of the file at most: `re` holds the GIL.
"""

import mmap
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from app.core.errors import InvalidMedia

CONTENT_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "avif": "image/avif",
}
"""Of what is kept, by the suffix of its file."""
SUFFIXES = {content_type: suffix for suffix, content_type in CONTENT_TYPES.items()}

MAX_SCANS = 100
"""Of a progressive JPEG; each is a pass over all of it, and may be a few bytes long."""
MAX_CHUNKS = 100_000
"""Chunks of a PNG, boxes of an AVIF or segments of a JPEG. A PNG of 20 MB as libpng writes it has
2,500 chunks."""
MAX_FILL = 64 * 1024
"""Bytes of a JPEG between its segments in total. Pillow reads them one by one."""
WINDOW = 1024 * 1024
"""Bytes that one search reads while it holds the GIL: about 20 ms at worst."""

TRUNCATED = "The picture ends in the middle: the upload was cut short, or the file is damaged"
DAMAGED = "The picture is damaged"
SVG = "SVG is not taken, for it can carry scripts: send JPEG, PNG, WebP, GIF or AVIF"


class Kind(StrEnum):
    """The formats that are taken, as Pillow calls them."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    GIF = "GIF"
    AVIF = "AVIF"


Bytes = mmap.mmap


class _Format(NamedTuple):
    kind: Kind
    start: re.Pattern[bytes]
    end: Callable[[Bytes], int]


def recognise(path: Path) -> Kind:
    """What picture the file is. Raises InvalidMedia, which says what is wrong."""
    if path.stat().st_size == 0:
        raise InvalidMedia("The file is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for each in _FORMATS:
            if each.start.match(content):
                _require_complete(content, each)
                return each.kind
        if _SVG.search(content[:4096]):
            raise InvalidMedia(SVG)
    raise InvalidMedia


_SVG = re.compile(rb"<(?:[a-z]+:)?svg[\s>]", re.IGNORECASE)


def _require_complete(content: Bytes, its: _Format) -> None:
    try:
        end = its.end(content)
    except IndexError:  # the file ends where the next structure should begin
        end = len(content) + 1
    if end > len(content):
        raise InvalidMedia(TRUNCATED)


# Two bytes: any number of fill bytes (0xFF) may precede the second one, and must not be counted.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE, _ALONE = 0xDA, 0xD9, 0x01


def _next_marker(content: Bytes, start: int, end: int) -> re.Match[bytes] | None:
    for position in range(start, end - 1, WINDOW):
        if found := _MARKER.search(content, position, min(position + WINDOW + 1, end)):
            return found
    return None


def _end_of_jpeg(content: Bytes) -> int:
    """ITU T.81 §B.1: segments with a length each, and scans that end at the next marker."""
    position, scans, fill, in_scan = 2, 0, MAX_FILL, False
    for _ in range(MAX_CHUNKS):
        end = len(content) if in_scan else min(position + fill + 2, len(content))
        found = _next_marker(content, position, end)
        if found is None and end < len(content):
            raise InvalidMedia(DAMAGED)
        if found is None:
            return len(content) + 1
        if not in_scan:
            fill -= found.start() - position
        marker, position = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            if not scans:  # Pillow would look for one in all that follows, byte by byte
                raise InvalidMedia(DAMAGED)
            return position
        if marker != _ALONE:
            position += _number(content, position, 2)
        in_scan = marker == _START_OF_SCAN
        scans += in_scan
        if scans > MAX_SCANS:
            raise InvalidMedia(f"The JPEG has more than {MAX_SCANS} scans")
    raise InvalidMedia(DAMAGED)


def _end_of_png(content: Bytes) -> int:
    position = 8
    for _ in range(MAX_CHUNKS):
        kind = content[position + 4 : position + 8]
        position += _number(content, position, 4) + 12
        if kind == b"IEND":
            return position
    raise InvalidMedia(DAMAGED)


def _end_of_riff(content: Bytes) -> int:
    length = int.from_bytes(content[4:8], "little")
    return 8 + length + length % 2


_GIF_TRAILER, _GIF_EXTENSION, _GIF_IMAGE = 0x3B, 0x21, 0x2C


def _end_of_gif(content: Bytes) -> int:
    """GIF89a, appendix B: blocks, each of which is followed by its sub-blocks."""
    position = 13 + _color_table(content[10])
    blocks_left = len(content) // 50 + 10_000  # a sub-block is 255 bytes long, but for the last
    while (block := content[position]) != _GIF_TRAILER:
        if block == _GIF_EXTENSION:
            position += 2
        elif block == _GIF_IMAGE:
            position += 11 + _color_table(content[position + 9])
        else:
            raise InvalidMedia(DAMAGED)
        while length := content[position]:
            position += 1 + length
            blocks_left -= 1
        position += 1
        blocks_left -= 1
        if blocks_left < 0:
            raise InvalidMedia(DAMAGED)
    return position + 1


def _color_table(packed: int) -> int:
    return 3 << (packed & 7) + 1 if packed & 0x80 else 0


_BOXES = frozenset(
    (b"ftyp", b"meta", b"mdat", b"moov", b"moof", b"free", b"skip", b"uuid", b"sidx")
)


def _end_of_boxes(content: Bytes) -> int:
    """ISO 14496-12 §4.2: boxes; the first bytes that are not one end the picture."""
    position = 0
    for _ in range(MAX_CHUNKS):
        if position >= len(content) or content[position + 4 : position + 8] not in _BOXES:
            break
        length = _number(content, position, 4)
        if length == 0:  # up to the end of the file
            return len(content)
        if length == 1:
            length = _number(content, position + 8, 8)
        if length < 8:
            raise InvalidMedia(DAMAGED)
        position += length
    return position


def _number(content: Bytes, position: int, length: int) -> int:
    digits = content[position : position + length]
    if len(digits) < length:
        raise IndexError
    return int.from_bytes(digits, "big")


def _starts(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


_FORMATS = (
    _Format(Kind.JPEG, _starts(rb"\xff\xd8\xff"), _end_of_jpeg),
    _Format(Kind.PNG, _starts(rb"\x89PNG\r\n\x1a\n"), _end_of_png),
    _Format(Kind.GIF, _starts(rb"GIF8[79]a.{7}"), _end_of_gif),
    _Format(Kind.WEBP, _starts(rb"RIFF....WEBPVP8[ LX]"), _end_of_riff),
    _Format(Kind.AVIF, _starts(rb"....ftyp(?:avif|avis|mif1|msf1)"), _end_of_boxes),
)

KEPT_AS: Mapping[Kind, str] = {
    Kind.JPEG: "jpg",
    Kind.PNG: "png",
    Kind.GIF: "webp",
    Kind.WEBP: "webp",
    Kind.AVIF: "avif",
}
"""What a still picture is kept as; what moves is kept as WebP."""
