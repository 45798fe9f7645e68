"""Which picture a file is, by its content, and that it is nothing else besides.

Each format says itself where it ends. What comes after that no program that shows pictures reads,
but one that reads archives or scripts may: such a file is two things at once. The walk also stops
at structures that no camera and no program writes, and that would take Pillow minutes.
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
"""Of a PNG or a file of boxes; a picture of 20 MB has 2,500 of the size that libpng writes."""

TRUNCATED = "The picture ends in the middle: the upload was cut short, or the file is damaged"
DAMAGED = "The picture is damaged"
MORE = "The file is not only a picture: something else comes after its end. Save it anew"
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
                _require_nothing_else(content, each)
                return each.kind
        if re.search(rb"<(?:[a-z]+:)?svg[\s>]", content[:4096], re.IGNORECASE):
            raise InvalidMedia(SVG)
    raise InvalidMedia


def _require_nothing_else(content: Bytes, its: _Format) -> None:
    try:
        end = its.end(content)
    except IndexError:  # where the next structure should begin, the file is over
        end = len(content) + 1
    if end > len(content):
        raise InvalidMedia(TRUNCATED)
    rest = content[end:]
    if rest.strip(b"\0\t\r\n ") and not (its.kind is Kind.JPEG and _CAMERAS_TAIL.match(rest)):
        raise InvalidMedia(MORE)


_CAMERAS_TAIL = re.compile(rb"\0*(?:\xff\xd8\xff|.{0,4}ftyp|.*SEFT\Z)", re.DOTALL)
"""What cameras append: a preview, the film of a moving picture, Samsung's notes. It is cut off."""


_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE, _ALONE = 0xDA, 0xD9, 0x01


def _end_of_jpeg(content: Bytes) -> int:
    """ITU T.81 §B.1: segments that say how long they are, and scans that the next marker ends."""
    position, scans = 2, 0
    while found := _MARKER.search(content, position):
        marker, position = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            return position
        if marker != _ALONE:
            position += _number(content, position, 2)
        if marker == _START_OF_SCAN:
            scans += 1
            if scans > MAX_SCANS:
                raise InvalidMedia(f"The JPEG has more than {MAX_SCANS} scans")
    return len(content) + 1


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
    """ISO 14496-12 §4.2: boxes up to the end; what is none comes after it."""
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
