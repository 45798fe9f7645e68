"""NDJSON, one JSON object per line: the format of Pressroom's own exports."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from json import JSONDecodeError
from typing import NamedTuple

from app.core.strict_json import MAX_MEMBERS, parse_json
from app.services.bulk.records import MAX_RECORD_BYTES, ParsedRecord, parse_fields

TOO_LONG = f"The line is longer than {MAX_RECORD_BYTES} bytes"
MAX_IMPORTED_MEMBERS = 20_000
"""Maximum members of the object `imported`, which are at most MAX_IMPORTED_BYTES."""
_BOM = b"\xef\xbb\xbf"

ResolveAuthor = Callable[[str], str | None]
"""Returns the username for an author of the source. The argument is "" if none is named."""


def fixed_author(author: str, _: str) -> str:
    """Return the author of all records, as a ResolveAuthor with its first argument."""
    return author


class Line(NamedTuple):
    """A line that is not empty. `text` is None if the line is too long."""

    number: int
    text: bytes | None


async def read_lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[list[Line]]:
    """Yield the complete lines of each chunk. At most MAX_RECORD_BYTES of a line are buffered."""
    number, parts, size = 1, list[bytes](), 0
    async for chunk in chunks:
        complete: list[Line] = []
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            if size + len(piece) > MAX_RECORD_BYTES:
                complete.append(Line(number, None))
            elif text := b"".join((*parts, piece)).strip():
                complete.append(Line(number, text))
            number, parts, size = number + 1, [], 0
        size += len(rest)
        if size > MAX_RECORD_BYTES:
            parts.clear()
        elif rest:
            parts.append(rest)
        if complete:
            yield complete
    if size > MAX_RECORD_BYTES:
        yield [Line(number, None)]
    elif text := b"".join(parts).strip():
        yield [Line(number, text)]


def parse_lines(
    lines: Iterable[Line], resolve_author: ResolveAuthor | None = None
) -> list[ParsedRecord]:
    """Parse lines to records."""
    return [
        ParsedRecord(number, None, problem=TOO_LONG, number=number)
        if text is None
        else parse_record(number, text, resolve_author)
        for number, text in lines
    ]


def parse_record(
    number: int, text: bytes, resolve_author: ResolveAuthor | None = None
) -> ParsedRecord:
    """Parse a line to a record."""
    try:
        fields = parse_json(text.removeprefix(_BOM), max_members=MAX_IMPORTED_MEMBERS)
    except JSONDecodeError as error:
        place = f" at character {error.pos + 1}" if error.pos else ""
        problem = f"The line is not JSON: {error.msg}{place}"
        return ParsedRecord(number, None, problem=problem, number=number)
    if isinstance(fields, dict) and len(fields) > MAX_MEMBERS:
        problem = f"The record has more than {MAX_MEMBERS} members"
        return ParsedRecord(number, None, problem=problem, number=number)
    if resolve_author is not None and isinstance(fields, dict):
        author = fields.get("author")
        fields["author"] = resolve_author(author if isinstance(author, str) else "")
    return parse_fields(number, fields, number=number, is_own=True)
