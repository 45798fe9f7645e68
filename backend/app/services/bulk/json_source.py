"""The tables of a Ghost export, row by row, however large the file, a row or a text is."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ijson

from app.services.bulk.foreign import MAX_PENDING_BYTES, Progress, SourceError, SourceFile

CHUNK = 64 * 1024
MAX_TEXT = 4 * 1024 * 1024
"""Bytes of a text that are kept. An article has at most 1 MiB."""
MAX_PARTS = 300_000
"""Maximum number of values and containers in a row."""
MAX_DEPTH = 500

POSTS = "posts"
_ROOTS = (["", "db", "item", "data"], ["", "data"])
"""The paths of the tables. Ghost writes the first one."""

_CONTROL_CHARACTERS = dict.fromkeys(range(32), " ")
_QUOTE = re.compile(rb"(?<!\\)(?:\\\\)*+\"")
_STRUCTURE = re.compile(rb"[\[\]{},: ]")
_PARTIAL_ESCAPE = re.compile(rb"\\(?:u[0-9A-Fa-f]{0,3})?\Z")

TOO_LONG = f"a text of the record is longer than {MAX_TEXT} bytes"

Events = Iterator[tuple[str, Any]]


class Oversized(NamedTuple):
    """A row that is too large to be read."""

    problem: str


def posts(path: Path, advance: Progress) -> Iterator[Any]:
    """Yield the rows of the posts. Raises SourceError if the file is not JSON from there on."""
    return (row for table, row in all_rows(path, advance) if table == POSTS)


def all_rows(path: Path, advance: Progress) -> Iterator[tuple[str, Any]]:
    """Yield the rows of all tables with the names of their tables. Raises SourceError."""
    with SourceFile(path, advance) as file:
        try:
            source = _JsonSource(file)
            yield from _rows(iter(ijson.basic_parse(source, use_float=True)), source)
        except (ijson.JSONError, UnicodeDecodeError, ValueError) as error:
            reason = "it ends too early" if "ncomplete" in str(error) else str(error)
            raise SourceError(f"The rest of the file is not JSON: {reason}"[:200]) from error


def _rows(events: Events, source: "_JsonSource") -> Iterator[tuple[str, Any]]:
    """Yield the rows of all tables with the names of their tables."""
    path: list[str] = []
    """The keys of the open containers, and `item` in arrays."""
    arrays: list[bool] = []
    key = ""
    for event, value in events:
        is_item = bool(arrays) and arrays[-1]
        table = path[-1] if is_item and path[:-1] in _ROOTS else None
        if event == "map_key":
            key = value
        elif event in {"end_map", "end_array"}:
            path.pop()
            arrays.pop()
        elif table is not None:
            source.was_cut = False
            row = _row(events, event) if event in _STARTS else value
            yield table, Oversized(TOO_LONG) if source.was_cut else row
        elif event in _STARTS:
            path.append("item" if is_item else key)
            arrays.append(event == "start_array")
            if len(path) > MAX_DEPTH:
                raise SourceError(f"The file is nested more than {MAX_DEPTH} levels deep")


_STARTS = {"start_map", "start_array"}


def _row(events: Events, event: str) -> Any:
    """Return a row whose first event was read, or Oversized."""
    root: dict[str, Any] | list[Any] = {} if event == "start_map" else []
    stack: list[Any] = [root]
    keys: list[str] = [""]
    size, parts, depth = 0, 0, 1
    for kind, value in events:
        parts += 1
        if kind == "map_key":
            keys[-1] = value
            size += len(value)
            continue
        if kind in {"end_map", "end_array"}:
            depth -= 1
            stack.pop()
            keys.pop()
            if not depth:
                return root
            continue
        made = {} if kind == "start_map" else [] if kind == "start_array" else value
        if isinstance(made, str):
            size += len(made)
        if parts > MAX_PARTS or size > MAX_PENDING_BYTES or depth > MAX_DEPTH:
            return _skip(events, depth + (kind in _STARTS))
        if isinstance(stack[-1], list):
            stack[-1].append(made)
        else:
            stack[-1][keys[-1]] = made
        if kind in _STARTS:
            depth += 1
            stack.append(made)
            keys.append("")
    return root


def _skip(events: Events, depth: int) -> Oversized:
    """Read up to the end of a row without keeping it."""
    for kind, _ in events:
        depth += (kind in _STARTS) - (kind in {"end_map", "end_array"})
        if not depth:
            break
    return Oversized(f"the record has more than {MAX_PENDING_BYTES} bytes or {MAX_PARTS} parts")


class _JsonSource:
    """A file without what makes it invalid JSON: wrong bytes and control characters.

    A text that is longer than MAX_TEXT is cut, so that the records after it can be read.
    """

    def __init__(self, source: SourceFile) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._held = b""
        """The beginning of an escape sequence."""
        self._is_in_text = False
        self._without_quote = 0
        """Bytes since the last quote."""
        self.was_cut = False

    def read(self, size: int = CHUNK) -> bytes:
        """Return about CHUNK bytes, or none at the end."""
        if size == 0:
            return b""
        while True:
            chunk = self._source.read(CHUNK)
            self._source.record_ended()
            text = self._decoder.decode(chunk, final=not chunk)
            raw = self._held + text.translate(_CONTROL_CHARACTERS).encode(errors="replace")
            self._held = b""
            if not chunk:
                return raw
            end = _end_of_complete(raw)
            raw, self._held = raw[:end], raw[end:]
            if raw := self._cut(raw):
                return raw

    def _cut(self, raw: bytes) -> bytes:
        """Return the bytes to keep: those of a long text only from its end on."""
        quotes = _count_quotes(raw)
        if quotes == 0 and self._is_in_text:
            self._without_quote += len(raw)
            if self._without_quote <= MAX_TEXT:
                return raw
            self.was_cut = True
            return b""
        if quotes == 0 and len(raw) >= CHUNK and not _STRUCTURE.search(raw):
            raise SourceError(f"A number has more than {CHUNK} digits")
        if self._without_quote > MAX_TEXT and (quote := _QUOTE.search(raw)):
            raw = raw[quote.end() - 1 :]
        self._without_quote = 0
        self._is_in_text ^= quotes % 2 == 1
        return raw


def _count_quotes(raw: bytes) -> int:
    """Return the number of quotes that are not escaped. `raw` begins with no half of an escape."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"")
    return raw.count(b'"') - raw.count(b'\\"')


def _end_of_complete(raw: bytes) -> int:
    """Return the position of an escape sequence that is cut off at the end, or the end."""
    if partial := _PARTIAL_ESCAPE.search(raw, max(0, len(raw) - 5)):
        before = raw[: partial.start()]
        if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
            return partial.start()
    return len(raw)
