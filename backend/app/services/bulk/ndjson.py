"""NDJSON, one JSON object per line: the format of Pressroom's own exports."""

import json
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any, NamedTuple, NoReturn

from app.services.bulk.records import MAX_RECORD_BYTES, ParsedRecord, Position, parse_fields

TOO_LONG = f"The line is longer than {MAX_RECORD_BYTES} bytes"
MAX_KEYS = 100
_BOM = b"\xef\xbb\xbf"

ResolveAuthor = Callable[[str], str | None]
"""Returns the username for an author of the source. The argument is "" if none is named."""


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
        ParsedRecord(number, None, problem=TOO_LONG)
        if text is None
        else parse_record(number, text, resolve_author)
        for number, text in lines
    ]


def parse_record(
    position: Position, text: bytes, resolve_author: ResolveAuthor | None = None
) -> ParsedRecord:
    """Parse a line to a record."""
    try:
        fields = json.loads(
            text.removeprefix(_BOM).decode(),
            object_pairs_hook=_reject_duplicates,
            parse_constant=_reject_constant,
        )
    except RecursionError:
        return ParsedRecord(position, None, problem="The JSON is nested too deeply")
    except UnicodeDecodeError:
        return ParsedRecord(position, None, problem="The line is not UTF-8")
    except ValueError as error:  # JSONDecodeError, and numbers with thousands of digits
        return ParsedRecord(position, None, problem=f"The line is not JSON: {error}"[:200])
    if resolve_author is not None and isinstance(fields, dict):
        author = fields.get("author")
        fields["author"] = resolve_author(author if isinstance(author, str) else "")
    return parse_fields(position, fields)


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise ValueError(f"an object has more than {MAX_KEYS} keys")
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        raise ValueError("an object has a duplicate key")
    return parsed


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
