"""Receiving a form with a file in it, straight to disk."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.core.config import describe
from app.core.errors import ContentTooLarge, InvalidInput, InvalidRequest, UnsupportedMediaType
from app.schemas.media import Alt

FILE, ALT = "file", "alt"
MAX_ALT_BYTES = 4 * 1000
MAX_HEADERS = 10
PIECE = 256 * 1024
"""Written at once: a thread is asked so often, and no oftener."""

_ALT: TypeAdapter[str] = TypeAdapter(Alt)


class Form(NamedTuple):
    """What a form had in it, besides the file's bytes."""

    alt: str
    digest: bytes
    """Of the file's bytes."""


async def receive(
    content_type: str, body: AsyncIterator[bytes], *, path: Path, max_bytes: int
) -> Form:
    """Write the form's file to `path`.

    The file's name and type are what its sender claims: neither is looked at. Raises
    UnsupportedMediaType, InvalidRequest, InvalidInput, and ContentTooLarge as soon as the file has
    more than `max_bytes`.
    """
    reader = _Reader(_boundary(content_type), max_bytes=max_bytes)
    written = hashlib.sha256()
    with await asyncio.to_thread(path.open, "xb") as file:

        def write(piece: bytes) -> None:
            written.update(piece)
            file.write(piece)

        async for chunk in body:
            reader.feed(chunk)
            if len(reader.file) >= PIECE:
                await asyncio.to_thread(write, reader.take())
        await asyncio.to_thread(write, reader.take())
    return Form(alt=reader.finish(), digest=written.digest())


def _boundary(content_type: str) -> bytes:
    media_type, options = parse_options_header(content_type)
    if media_type != b"multipart/form-data":
        raise UnsupportedMediaType("Send the picture as a form: multipart/form-data")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046 §5.1.1
        raise InvalidRequest("The form has no boundary")
    return boundary


class _Reader:
    """Takes a form apart as it comes in: what has come of the file since, and the other field."""

    def __init__(self, boundary: bytes, *, max_bytes: int) -> None:
        self.file = bytearray()
        self._max_bytes = max_bytes
        self._file_bytes = 0
        self._alt = bytearray()
        self._seen: set[str] = set()
        self._field = ""
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._is_over = False
        callbacks: dict[str, Callable[..., None]] = {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header,
            "on_header_value": self._on_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._name_field,
            "on_part_data": self._on_data,
            "on_end": self._end,
        }
        self._parser = MultipartParser(
            boundary,
            callbacks,  # type: ignore[arg-type]  # a TypedDict, where any mapping would do
            max_header_count=MAX_HEADERS,
        )

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except MultipartParseError:
            raise InvalidRequest("The form cannot be read") from None

    def take(self) -> bytes:
        """What has come of the file since the last time."""
        taken = bytes(self.file)
        self.file.clear()
        return taken

    def finish(self) -> str:
        """The text that stands for the picture, once all has come."""
        if not self._is_over:
            raise InvalidRequest("The form ends in the middle")
        if FILE not in self._seen:
            raise InvalidInput(f"Send the picture as the form's field `{FILE}`")
        try:
            return _ALT.validate_python(self._alt.decode())
        except UnicodeDecodeError:
            raise InvalidInput(f"{ALT}: is not UTF-8") from None
        except ValidationError as error:
            raise InvalidInput(f"{ALT}: {describe(error.errors()[0])}") from None

    def _begin(self) -> None:
        self._disposition = b""

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _name_field(self) -> None:
        kind, options = parse_options_header(self._disposition.decode("latin-1"))
        self._field = options.get(b"name", b"").decode("latin-1")
        if kind != b"form-data" or self._field not in {FILE, ALT}:
            raise InvalidInput(f"The form takes the fields `{FILE}` and `{ALT}`, and no others")
        if self._field in self._seen:
            raise InvalidInput(f"The form has more than one `{self._field}`")
        self._seen.add(self._field)

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._field == FILE:
            self._file_bytes += end - start
            if self._file_bytes > self._max_bytes:
                raise ContentTooLarge(f"A picture may have {self._max_bytes} bytes at most")
            self.file += data[start:end]
        else:
            if len(self._alt) + end - start > MAX_ALT_BYTES:
                raise InvalidInput(f"{ALT}: is too long")
            self._alt += data[start:end]

    def _end(self) -> None:
        self._is_over = True
