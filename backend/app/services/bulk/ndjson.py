"""NDJSON: one JSON object a line, the format that Pressroom itself exports."""

import json
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any, NamedTuple, NoReturn

from app.services.bulk.records import MAX_RECORD_BYTES, Incoming, Position, incoming

TOO_LONG = f"The line is longer than {MAX_RECORD_BYTES} bytes"
MAX_NAMES = 100
_BOM = b"\xef\xbb\xbf"

AuthorOf = Callable[[str], str | None]
"""Which user the author becomes whom a source calls so; "" where it names none."""


class Line(NamedTuple):
    """A line that is not empty; None in place of one that is too long."""

    number: int
    text: bytes | None


async def read_lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[list[Line]]:
    """The lines of each chunk; of one that is too long, no more is kept than the limit."""
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


def parse_lines(lines: Iterable[Line], author_of: AuthorOf | None = None) -> list[Incoming]:
    """The records on these lines."""
    return [
        Incoming(number, None, problem=TOO_LONG)
        if text is None
        else parse_record(number, text, author_of)
        for number, text in lines
    ]


def parse_record(position: Position, text: bytes, author_of: AuthorOf | None = None) -> Incoming:
    """The record that a line has."""
    try:
        fields = json.loads(
            text.removeprefix(_BOM).decode(),
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
        )
    except RecursionError:
        return Incoming(position, None, problem="The JSON is nested too deeply")
    except UnicodeDecodeError:
        return Incoming(position, None, problem="The line is not UTF-8")
    except ValueError as error:  # JSONDecodeError, and numbers of thousands of digits
        return Incoming(position, None, problem=f"The line is not JSON: {error}"[:200])
    if author_of is not None and isinstance(fields, dict):
        author = fields.get("author")
        fields["author"] = author_of(author if isinstance(author, str) else "")
    return incoming(position, fields)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_NAMES:
        raise ValueError(f"an object has more than {MAX_NAMES} names")
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        raise ValueError("an object has the same name twice")
    return parsed


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
