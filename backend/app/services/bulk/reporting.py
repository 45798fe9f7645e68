"""The report of an import from a file or folder, which accounts for every record of the source.

The entries of records are written to a temporary file, so that memory does not grow with them.
"""

import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from math import inf
from typing import Any, BinaryIO, NamedTuple, Self

from app.core.plurals import counted, listed
from app.services.bulk.records import Outcome, Result

MAX_KINDS = 200
"""Kinds of left-out records that are named. A file can have a kind for each record."""

_LABELS: Mapping[Outcome, str] = {
    Outcome.CREATED: "created",
    Outcome.UPDATED: "updated",
    Outcome.UNCHANGED: "unchanged",
    Outcome.FAILED: "refused",
    Outcome.LEFT_OUT: "left out",
}
MAX_KIND = 200
MAX_ADDRESSES = 100_000
"""Remaining addresses that a report lists."""
MAX_PROBLEMS, MAX_PROBLEM = 200, 500
"""Of a report of limited size."""
_WRITTEN = {Outcome.CREATED, Outcome.UPDATED}


class Entry(NamedTuple):
    """What happened to a record."""

    position: int | str
    outcome: str
    title: str
    source_id: str
    slug: str
    state: str
    """public, scheduled or draft; empty if the record was not written."""
    messages: list[str]


class RemainingAddress(NamedTuple):
    """An address of the old site that an article still contains."""

    source_id: str
    slug: str
    """Of the article."""
    address: str
    reason: str
    is_image: bool


class AddressReport:
    """What happened to the addresses of the old site."""

    def __init__(self, max_remaining: int = MAX_ADDRESSES, max_bytes: float = inf) -> None:
        self._max_remaining = max_remaining
        self._room = max_bytes
        self.links = 0
        """Links that lead to other imported articles now."""
        self.images = 0
        """Addresses of images that are those of copies now."""
        self.remaining: list[RemainingAddress] = []
        self.further = 0
        """Remaining addresses that are not listed."""

    def add(self, remaining: RemainingAddress) -> None:
        """Add an address that remains."""
        self._room -= len(_dumps(remaining._asdict()).encode(errors="replace"))
        if len(self.remaining) < self._max_remaining and self._room >= 0:
            self.remaining.append(remaining)
        else:
            self.further += 1

    def sort(self) -> None:
        """Sort the addresses, so that a dry run reports them in the same order."""
        self.remaining.sort()

    def sentences(self) -> list[str]:
        """Return the numbers as sentences."""
        lines = []
        if self.links or self.images:
            lines.append(
                f"New URLs: {counted(self.links, 'link')} to imported articles,"
                f" {counted(self.images, 'copied image')}"
            )
        if total := len(self.remaining) + self.further:
            images = sum(each.is_image for each in self.remaining)
            lines.append(f"Addresses of the old site that remain: {total} ({images} of images)")
        return lines


class Report:
    """Collects the results of an import. It is the same for a dry run."""

    def __init__(
        self, *, now: datetime, max_entries: int | None = None, max_bytes: float = inf
    ) -> None:
        """Keep the entries of at most `max_entries` records, and count all of them.

        `max_bytes` limits the size of the entries as JSON. Remaining addresses may have a quarter
        of it.
        """
        self.source = ""
        self.source_format = ""
        self.records = 0
        """The number of records that were read from the source."""
        self.counts: Counter[Outcome] = Counter()
        self.left_out: Counter[str] = Counter()
        """The records that were left out, by kind."""
        self.parts: Counter[str] = Counter()
        """The parts of records and other things in the source that were left out, by kind."""
        self.problems: list[str] = []
        self.users: list[str] = []
        self.omitted = 0
        """The number of records without an entry."""
        self.addresses = AddressReport(max_entries or MAX_ADDRESSES, max_bytes / 4)
        self._now = now
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._offsets = array("Q")
        self._numbers = array("Q")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, results: Sequence[Result]) -> None:
        """Add results, in any order."""
        for result in results:
            parsed = result.parsed
            self.counts[result.outcome] += 1
            if result.outcome is Outcome.LEFT_OUT:
                _count(self.left_out, result.message, 1)
            for kind, count in parsed.parts.items():
                _count(self.parts, kind, count)
            self.users += [name for name in result.new_authors if name not in self.users]
            entry = _dumps(self._entry(result)._asdict()).encode() + b"\n"
            offset = self._file.tell()
            is_full = len(self._numbers) == self._max_entries
            if self.omitted or is_full or offset + len(entry) > self._max_bytes:
                self.omitted += 1
                continue
            self._numbers.append(parsed.number)
            self._offsets.append(offset)
            self._file.write(entry)

    def _entry(self, result: Result) -> Entry:
        parsed, record = result.parsed, result.parsed.record
        messages = [result.message] if result.message else []
        messages += result.notes
        if result.outcome in _WRITTEN:
            messages += [
                f"{count} {kind} were not imported" for kind, count in parsed.parts.items()
            ]
        position = parsed.position
        return Entry(
            position=position if isinstance(position, int) else _storable(position),
            outcome=_LABELS[result.outcome],
            title=_storable(record.title if record else parsed.title),
            source_id=_storable(result.source_id or parsed.source_id),
            slug=result.slug,
            state=self._state(result),
            messages=list(map(_storable, messages)),
        )

    def _state(self, result: Result) -> str:
        record = result.parsed.record
        if record is None or result.outcome not in _WRITTEN:
            return ""
        if record.archived:
            return "archived"
        if record.published_at is None:
            return "public" if record.published else "draft"
        return "public" if record.published_at <= self._now else "scheduled"

    def entries(self) -> Iterator[Entry]:
        """Yield the entries in the order of the source."""
        for line in self._lines():
            yield Entry(**json.loads(line))

    def _lines(self) -> Iterator[bytes]:
        """Yield the entries as JSON."""
        order = sorted(range(len(self._numbers)), key=lambda index: self._numbers[index])
        for index in order:
            self._file.seek(self._offsets[index])
            yield self._file.readline()
        self._file.seek(0, 2)

    def numbers(self) -> dict[str, int]:
        """Return the counts by outcome, and the number of records of the source."""
        return {
            **{label: self.counts[outcome] for outcome, label in _LABELS.items()},
            "records": self.records,
        }

    def sentences(self) -> list[str]:
        """Return what the counts of records do not say."""
        lines = []
        left_out = [*self.left_out.items(), *self.parts.items()]
        if shown := listed(left_out):
            lines.append(f"Left out: {shown}")
        if self.users:
            lines.append(f"Users for authors without an account: {', '.join(self.users)}")
        lines += [*self.addresses.sentences(), *self._listed_problems()]
        if self.omitted:
            lines.append(
                f"The list of records ends before the last {counted(self.omitted, 'record')}"
            )
        return list(map(_storable, lines))

    def _listed_problems(self) -> list[str]:
        if self._max_bytes == inf:
            return self.problems
        shown = [each[:MAX_PROBLEM] for each in self.problems[:MAX_PROBLEMS]]
        further = len(self.problems) - len(shown)
        return [*shown, f"Further problems: {further}"] if further else shown

    def write_json(self, file: BinaryIO) -> None:
        """Write the report as JSON, one record a line."""
        head = {
            "source": self.source,
            "format": self.source_format,
            "counts": {name.replace(" ", "_"): count for name, count in self.numbers().items()},
            "left_out": dict(self.left_out),
            "parts_left_out": {kind: count for kind, count in self.parts.items() if count},
            "users": self.users,
            "problems": self._listed_problems(),
            "links_replaced": self.addresses.links,
            "images_replaced": self.addresses.images,
            "remaining_addresses": [each._asdict() for each in self.addresses.remaining],
        }
        file.write(_dumps(head).encode(errors="replace").removesuffix(b"}") + b',"records":[')
        separator = b"\n"
        for line in self._lines():
            file.write(separator + line.rstrip(b"\n"))
            separator = b",\n"
        file.write(b"\n]}\n")

    def write_html(self, file: BinaryIO) -> None:
        """Write the report as a page."""
        counts = "".join(
            f"<tr><th>{escape(name)}<td>{count}" for name, count in self.numbers().items()
        )
        lines = "".join(f"<p>{_text(line)}</p>\n" for line in self.sentences())
        file.write(
            "<!doctype html>\n<html lang=en><meta charset=utf-8><title>Import report</title>\n"
            f"<style>{_STYLE}</style>\n<h1>Import from {_text(self.source)}</h1>\n"
            f"<table class=counts>{counts}</table>\n{lines}"
            "<table><thead><tr><th>Record<th>Title<th>Result<th>Address<th>What changed</thead>"
            "<tbody>\n".encode()
        )
        for entry in self.entries():
            outcome = f"{entry.outcome}, {entry.state}" if entry.state else entry.outcome
            messages = "<br>".join(map(_text, entry.messages))
            cells = (_text(str(entry.position)), _text(entry.title), outcome, entry.slug, messages)
            row = "<td>".join(cells)
            name = entry.outcome.replace(" ", "-")
            file.write(f"<tr class={name}><td>{row}\n".encode())
        file.write(b"</tbody></table>")
        if self.addresses.remaining:
            file.write(b"<h2>Addresses of the old site that remain</h2>\n<table>")
            for each in self.addresses.remaining:
                values = (each.source_id, each.slug, each.address, each.reason)
                file.write(f"<tr><td>{'<td>'.join(map(_text, values))}\n".encode())
            file.write(b"</table>")
        file.write(b"</html>\n")


def _count(counts: Counter[str], kind: str, count: int) -> None:
    kind = kind[:MAX_KIND]
    is_named = kind in counts or len(counts) < MAX_KINDS
    counts[kind if is_named else "of other kinds"] += count


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;max-width:80rem}"
    "table{border-collapse:collapse;margin:1rem 0}th,td{text-align:left;vertical-align:top;"
    "padding:.25rem .75rem;border-bottom:1px solid #ddd;overflow-wrap:anywhere}"
    ".counts td{text-align:right}.refused{background:#fdecea}.left-out,.unchanged{color:#666}"
)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_LINE_BREAKS)


_LINE_BREAKS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def _storable(text: str) -> str:
    """Replace what neither a file in UTF-8 nor PostgreSQL can contain."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")


def _text(text: str) -> str:
    return escape(text, quote=False)
