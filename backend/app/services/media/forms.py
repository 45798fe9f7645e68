"""Streaming parser for an upload form: the file is written to disk as it arrives."""

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
WRITE_BYTES = 256 * 1024
"""Bytes that are buffered before a thread writes them."""

_ALT: TypeAdapter[str] = TypeAdapter(Alt)


class Form(NamedTuple):
    """The content of a form, except for the file itself."""

    alt: str
    digest: bytes
    """SHA-256 of the file."""


async def receive(
    content_type: str, body: AsyncIterator[bytes], *, path: Path, max_bytes: int
) -> Form:
    """Write the form's file to `path`.

    The file's name and type are ignored: the client can choose them freely. Raises
    UnsupportedMediaType, InvalidRequest, InvalidInput, and ContentTooLarge as soon as the file
    exceeds `max_bytes`.
    """
    parser = _FormParser(_boundary(content_type), max_bytes=max_bytes)
    digest = hashlib.sha256()
    with await asyncio.to_thread(path.open, "xb") as file:

        def write(chunk: bytes) -> None:
            digest.update(chunk)
            file.write(chunk)

        async for chunk in body:
            parser.feed(chunk)
            if len(parser.file) >= WRITE_BYTES:
                await asyncio.to_thread(write, parser.pop_file_bytes())
        await asyncio.to_thread(write, parser.pop_file_bytes())
    return Form(alt=parser.finish(), digest=digest.digest())


def _boundary(content_type: str) -> bytes:
    media_type, options = parse_options_header(content_type)
    if media_type != b"multipart/form-data":
        raise UnsupportedMediaType("Send the image as multipart/form-data")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046 §5.1.1
        raise InvalidRequest("The Content-Type has no valid boundary")
    return boundary


class _FormParser:
    """Parses a form in chunks, and buffers the file and the `alt` field."""

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
        self._is_complete = False
        callbacks: dict[str, Callable[..., None]] = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }
        self._parser = MultipartParser(
            boundary,
            callbacks,  # type: ignore[arg-type]  # the stub requires its TypedDict
            max_header_count=MAX_HEADERS,
        )

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except MultipartParseError:
            raise InvalidRequest("The form is not valid multipart/form-data") from None

    def pop_file_bytes(self) -> bytes:
        """Return the bytes of the file that arrived since the last call."""
        content = bytes(self.file)
        self.file.clear()
        return content

    def finish(self) -> str:
        """Return the alternative text. Raises InvalidRequest if the form is incomplete."""
        if not self._is_complete:
            raise InvalidRequest("The form is incomplete")
        if FILE not in self._seen:
            raise InvalidInput(f"Send the image in the form field `{FILE}`")
        try:
            return _ALT.validate_python(self._alt.decode())
        except UnicodeDecodeError:
            raise InvalidInput(f"{ALT}: is not UTF-8") from None
        except ValidationError as error:
            raise InvalidInput(f"{ALT}: {describe(error.errors()[0])}") from None

    def _on_part_begin(self) -> None:
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition.decode("latin-1"))
        self._field = options.get(b"name", b"").decode("latin-1")
        if kind != b"form-data" or self._field not in {FILE, ALT}:
            raise InvalidInput(f"Only the form fields `{FILE}` and `{ALT}` are allowed")
        if self._field in self._seen:
            raise InvalidInput(f"The form field `{self._field}` occurs more than once")
        self._seen.add(self._field)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field == FILE:
            self._file_bytes += end - start
            if self._file_bytes > self._max_bytes:
                raise ContentTooLarge(f"An image may have at most {self._max_bytes} bytes")
            self.file += data[start:end]
        else:
            if len(self._alt) + end - start > MAX_ALT_BYTES:
                raise InvalidInput(f"{ALT}: is too long")
            self._alt += data[start:end]

    def _on_end(self) -> None:
        self._is_complete = True
