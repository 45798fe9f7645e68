"""Detection of image formats, and rejection of files that are expensive to decode.

Each format is read up to its end, so that a truncated upload is reported as such. Bytes after the
end are ignored: an image is always re-encoded, and the uploaded file itself is not stored.

Every pattern and loop here takes at most linear time in the file size, because `re` holds the GIL.
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
"""Content types of stored files by file suffix."""
SUFFIXES = {content_type: suffix for suffix, content_type in CONTENT_TYPES.items()}

MAX_SCANS = 100
"""Scans of a progressive JPEG. Each costs a pass over the image, and can be a few bytes long."""
MAX_CHUNKS = 100_000
"""Chunks of a PNG, boxes of an AVIF or segments of a JPEG. A PNG of 20 MB as libpng writes it has
2,500 chunks."""
MAX_FILL_BYTES = 64 * 1024
"""Total bytes between the segments of a JPEG. Pillow reads them one by one."""
WINDOW_BYTES = 1024 * 1024
"""Bytes per regular expression search. A search holds the GIL for at most about 20 ms."""

TRUNCATED = "The image is incomplete: the upload was cut short, or the file is damaged"
DAMAGED = "The image is damaged"
SVG = "SVG is not supported because it can contain scripts: send JPEG, PNG, WebP, GIF or AVIF"


class ImageFormat(StrEnum):
    """The supported formats, by Pillow's names."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    GIF = "GIF"
    AVIF = "AVIF"


Buffer = mmap.mmap


class _Format(NamedTuple):
    name: ImageFormat
    start: re.Pattern[bytes]
    end: Callable[[Buffer], int]


def detect_format(path: Path) -> ImageFormat:
    """Return the format of an image file. Raises InvalidMedia with the reason."""
    if path.stat().st_size == 0:
        raise InvalidMedia("The file is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for image_format in _FORMATS:
            if image_format.start.match(content):
                _require_complete(content, image_format)
                return image_format.name
        if _SVG.search(content[:4096]):
            raise InvalidMedia(SVG)
    raise InvalidMedia


_SVG = re.compile(rb"<(?:[a-z]+:)?svg[\s>]", re.IGNORECASE)


def _require_complete(content: Buffer, image_format: _Format) -> None:
    try:
        end = image_format.end(content)
    except IndexError:  # the file ends where the next structure should begin
        end = len(content) + 1
    if end > len(content):
        raise InvalidMedia(TRUNCATED)


# Match two bytes only: any number of fill bytes (0xFF) may precede the marker code.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE, _TEMPORARY = 0xDA, 0xD9, 0x01


def _next_marker(content: Buffer, start: int, end: int) -> re.Match[bytes] | None:
    for position in range(start, end - 1, WINDOW_BYTES):
        if found := _MARKER.search(content, position, min(position + WINDOW_BYTES + 1, end)):
            return found
    return None


def _end_of_jpeg(content: Buffer) -> int:
    """ITU T.81 §B.1: segments with a length each, and scans that end at the next marker."""
    position, scans, fill, in_scan = 2, 0, MAX_FILL_BYTES, False
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
            if not scans:  # Pillow would search the remaining file for one, byte by byte
                raise InvalidMedia(DAMAGED)
            return position
        if marker != _TEMPORARY:
            position += _read_integer(content, position, 2)
        in_scan = marker == _START_OF_SCAN
        scans += in_scan
        if scans > MAX_SCANS:
            raise InvalidMedia(f"The JPEG has more than {MAX_SCANS} scans")
    raise InvalidMedia(DAMAGED)


def _end_of_png(content: Buffer) -> int:
    position = 8
    for _ in range(MAX_CHUNKS):
        kind = content[position + 4 : position + 8]
        position += _read_integer(content, position, 4) + 12
        if kind == b"IEND":
            return position
    raise InvalidMedia(DAMAGED)


def _end_of_riff(content: Buffer) -> int:
    length = int.from_bytes(content[4:8], "little")
    return 8 + length + length % 2


_GIF_TRAILER, _GIF_EXTENSION, _GIF_IMAGE = 0x3B, 0x21, 0x2C


def _end_of_gif(content: Buffer) -> int:
    """GIF89a, appendix B: blocks, each followed by its sub-blocks."""
    position = 13 + _color_table(content[10])
    blocks_left = len(content) // 50 + 10_000  # all sub-blocks but the last have 255 bytes
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


def _end_of_boxes(content: Buffer) -> int:
    """ISO 14496-12 §4.2: boxes. The image ends before the first unknown box."""
    position = 0
    for _ in range(MAX_CHUNKS):
        if position >= len(content) or content[position + 4 : position + 8] not in _BOXES:
            break
        length = _read_integer(content, position, 4)
        if length == 0:  # the box extends to the end of the file
            return len(content)
        if length == 1:
            length = _read_integer(content, position + 8, 8)
        if length < 8:
            raise InvalidMedia(DAMAGED)
        position += length
    return position


def _read_integer(content: Buffer, position: int, length: int) -> int:
    digits = content[position : position + length]
    if len(digits) < length:
        raise IndexError
    return int.from_bytes(digits, "big")


def _signature(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


_FORMATS = (
    _Format(ImageFormat.JPEG, _signature(rb"\xff\xd8\xff"), _end_of_jpeg),
    _Format(ImageFormat.PNG, _signature(rb"\x89PNG\r\n\x1a\n"), _end_of_png),
    _Format(ImageFormat.GIF, _signature(rb"GIF8[79]a.{7}"), _end_of_gif),
    _Format(ImageFormat.WEBP, _signature(rb"RIFF....WEBPVP8[ LX]"), _end_of_riff),
    _Format(ImageFormat.AVIF, _signature(rb"....ftyp(?:avif|avis|mif1|msf1)"), _end_of_boxes),
)

OUTPUT_SUFFIXES: Mapping[ImageFormat, str] = {
    ImageFormat.JPEG: "jpg",
    ImageFormat.PNG: "png",
    ImageFormat.GIF: "webp",
    ImageFormat.WEBP: "webp",
    ImageFormat.AVIF: "avif",
}
"""File suffixes of stored still images. Animations are stored as WebP."""
