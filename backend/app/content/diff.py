"""Comparisons and merges of texts, computed in bounded time.

difflib takes quadratic time, and cubic time when lines repeat. This module uses the greedy
algorithm of E. W. Myers, "An O(ND) Difference Algorithm and Its Variations" (1986). Its time grows
with the number of differences. A search that exceeds MAX_STEPS stops: all lines between the common
prefix and the common suffix then count as replaced.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

CONTEXT = 3
"""Unchanged lines printed before and after a change."""
MAX_STEPS = 500_000
"""Maximum comparisons and copies of one search: about a quarter of a second."""


MAX_WORD_STEPS = 10_000
"""Maximum steps of the comparison of two lines by words."""
MAX_WORD_COMPARISONS = 100
"""Changed lines beyond this number are not compared by words."""

_WORD = re.compile(r"\s+|\w+|[^\w\s]")


class Change(NamedTuple):
    """Lines `start` to `end` of the old text became `new_start` to `new_end` of the new text."""

    start: int
    end: int
    new_start: int
    new_end: int


def unified_diff(before: str, after: str, *, names: tuple[str, str]) -> str:
    """Return the output of `diff -u` with `names` in the header; "" for equal texts."""
    old, new = before.split("\n"), after.split("\n")
    lines: list[str] = []
    for hunk in _hunks(_changes(old, new)):
        lines += _format_hunk(hunk, old, new)
    if not lines:
        return ""
    return "\n".join([f"--- {names[0]}", f"+++ {names[1]}", *lines, ""])


class Segment(NamedTuple):
    """A part of a line, and whether the other side differs there."""

    text: str
    changed: bool


class Row(NamedTuple):
    """A row of a side-by-side comparison. Line numbers are None where a side has no line.

    The kind `gap` stands for unchanged lines that are left out.
    """

    kind: Literal["same", "changed", "removed", "added", "gap"]
    number: int | None = None
    segments: Sequence[Segment] = ()
    new_number: int | None = None
    new_segments: Sequence[Segment] = ()


def side_by_side(before: str, after: str) -> list[Row]:
    """Return the changed lines with their context; an empty list for equal texts."""
    old, new = before.split("\n"), after.split("\n")
    rows: list[Row] = []
    position = comparisons = 0
    for hunk in _hunks(_changes(old, new)):
        start = max(position, hunk[0].start - CONTEXT)
        if start > position:
            rows.append(Row("gap"))
        offset = hunk[0].new_start - hunk[0].start
        position = start
        for change in hunk:
            rows += _same(old, position, change.start, offset)
            for index in range(max(change.end - change.start, change.new_end - change.new_start)):
                i, j = change.start + index, change.new_start + index
                if i < change.end and j < change.new_end:
                    comparisons += 1
                    by_words = comparisons <= MAX_WORD_COMPARISONS
                    rows.append(_changed_line(i, old[i], j, new[j], by_words=by_words))
                elif i < change.end:
                    rows.append(Row("removed", i + 1, [Segment(old[i], False)]))
                else:
                    added = [Segment(new[j], False)]
                    rows.append(Row("added", new_number=j + 1, new_segments=added))
            position, offset = change.end, change.new_end - change.end
        end = min(len(old), position + CONTEXT)
        rows += _same(old, position, end, offset)
        position = end
    if rows and position < len(old):
        rows.append(Row("gap"))
    return rows


def _same(old: Sequence[str], start: int, end: int, offset: int) -> Iterator[Row]:
    for index in range(start, end):
        line = [Segment(old[index], False)]
        yield Row("same", index + 1, line, index + 1 + offset, line)


def _changed_line(i: int, old: str, j: int, new: str, *, by_words: bool) -> Row:
    words, new_words = _WORD.findall(old), _WORD.findall(new)
    changes = _changes(words, new_words, max_steps=MAX_WORD_STEPS) if by_words else []
    parts = _segments(words, [(each.start, each.end) for each in changes])
    new_parts = _segments(new_words, [(each.new_start, each.new_end) for each in changes])
    return Row("changed", i + 1, parts, j + 1, new_parts)


def _segments(words: Sequence[str], ranges: Sequence[tuple[int, int]]) -> list[Segment]:
    segments: list[Segment] = []
    position = 0
    for start, end in ranges:
        segments.append(Segment("".join(words[position:start]), False))
        segments.append(Segment("".join(words[start:end]), True))
        position = end
    segments.append(Segment("".join(words[position:]), False))
    return [segment for segment in segments if segment.text]


class Merged(NamedTuple):
    """A merged text. Lines that both sides changed are between markers, and are counted."""

    text: str
    conflicts: int


def merge(base: str | None, mine: str, theirs: str, *, labels: tuple[str, str]) -> Merged:
    """Merge two texts that were changed from `base`. `labels` name both sides in the markers.

    If the base is unknown, every difference is a conflict.
    """
    if base is None:
        return _merge_without_base(mine.split("\n"), theirs.split("\n"), labels)
    old, ours, others = base.split("\n"), mine.split("\n"), theirs.split("\n")
    lines: list[str] = []
    position = conflicts = 0
    for start, end, changes, other_changes in _groups(_changes(old, ours), _changes(old, others)):
        lines += old[position:start]
        own = _side(old, ours, changes, start, end)
        other = _side(old, others, other_changes, start, end)
        if own == other or not other_changes:
            lines += own
        elif not changes:
            lines += other
        else:
            conflicts += 1
            lines += _conflict(own, other, labels)
        position = end
    return Merged("\n".join([*lines, *old[position:]]), conflicts)


def _merge_without_base(
    mine: Sequence[str], theirs: Sequence[str], labels: tuple[str, str]
) -> Merged:
    lines: list[str] = []
    position = 0
    changes = _changes(mine, theirs)
    for change in changes:
        own, other = mine[change.start : change.end], theirs[change.new_start : change.new_end]
        lines += [*mine[position : change.start], *_conflict(own, other, labels)]
        position = change.end
    return Merged("\n".join([*lines, *mine[position:]]), len(changes))


def _groups(
    mine: Sequence[Change], theirs: Sequence[Change]
) -> Iterator[tuple[int, int, list[Change], list[Change]]]:
    """Group changes of both sides that overlap or touch. Yields the range of the base."""
    tagged = sorted(
        [(change.start, change.end, 0, change) for change in mine]
        + [(change.start, change.end, 1, change) for change in theirs]
    )
    sides: tuple[list[Change], list[Change]] = ([], [])
    first = last = 0
    for start, end, side, change in tagged:
        if any(sides) and start > last:
            yield first, last, *sides
            sides = ([], [])
        if not any(sides):
            first, last = start, end
        last = max(last, end)
        sides[side].append(change)
    if any(sides):
        yield first, last, *sides


def _side(
    base: Sequence[str], text: Sequence[str], changes: Sequence[Change], start: int, end: int
) -> Sequence[str]:
    """Return the lines of one side for the lines `start` to `end` of the base."""
    if not changes:
        return base[start:end]
    first, last = changes[0], changes[-1]
    return text[first.new_start - (first.start - start) : last.new_end + (end - last.end)]


def _conflict(mine: Sequence[str], theirs: Sequence[str], labels: tuple[str, str]) -> list[str]:
    return [f"<<<<<<< {labels[0]}", *mine, "=======", *theirs, f">>>>>>> {labels[1]}"]


def _changes(
    old: Sequence[str], new: Sequence[str], *, max_steps: int | None = None
) -> list[Change]:
    """Return the changes in ascending order."""
    start, shorter = 0, min(len(old), len(new))
    while start < shorter and old[start] == new[start]:
        start += 1
    end, new_end = len(old), len(new)
    while end > start and new_end > start and old[end - 1] == new[new_end - 1]:
        end, new_end = end - 1, new_end - 1
    if start in {end, new_end}:
        change = Change(start, end, start, new_end)
        return [change] if end > start or new_end > start else []
    line_ids: dict[str, int] = {}
    old_ids = [line_ids.setdefault(line, len(line_ids)) for line in old[start:end]]
    new_ids = [line_ids.setdefault(line, len(line_ids)) for line in new[start:new_end]]
    changes = _search(old_ids, new_ids, MAX_STEPS if max_steps is None else max_steps)
    if changes is None:
        return [Change(start, end, start, new_end)]
    return [Change(*(index + start for index in change)) for change in changes]


def _search(old: Sequence[int], new: Sequence[int], max_steps: int) -> list[Change] | None:
    """Return a shortest edit script, or None after `max_steps`.

    `furthest[k]` is the furthest index in `old` on diagonal `k` (`x - y`) after `edits` insertions
    and deletions.
    """
    size, new_size = len(old), len(new)
    furthest = {1: 0}
    history: list[dict[int, int]] = []
    steps = 0
    for edits in range(size + new_size + 1):
        history.append(furthest.copy())
        steps += len(furthest)
        lowest = 2 * max(0, edits - new_size) - edits
        highest = edits - 2 * max(0, edits - size)
        for k in range(lowest, highest + 1, 2):
            x = start = _enter_diagonal(furthest, k)
            while x < size and x - k < new_size and old[x] == new[x - k]:
                x += 1
            furthest[k] = x
            steps += 1 + x - start
            if x >= size and x - k >= new_size:
                return _backtrack(history, size, new_size)
        if steps > max_steps:
            return None
    raise AssertionError("deleting all old lines and inserting all new ones is always a solution")


def _enter_diagonal(furthest: dict[int, int], k: int) -> int:
    """Return the furthest index on diagonal `k` after one more insertion or deletion."""
    inserted, deleted = furthest.get(k + 1, -1), furthest.get(k - 1, -1)
    return inserted if deleted < inserted else deleted + 1


def _backtrack(history: Sequence[dict[int, int]], size: int, new_size: int) -> list[Change]:
    """Return the changes of the path that was found; adjacent lines form one change."""
    changes: list[Change] = []
    x, y = size, new_size
    for furthest in reversed(history[1:]):
        k = x - y
        inserted = furthest.get(k - 1, -1) < furthest.get(k + 1, -1)
        previous_x = furthest[k + 1] if inserted else furthest[k - 1]
        previous_y = previous_x - (k + 1 if inserted else k - 1)
        change = Change(previous_x, previous_x + (not inserted), previous_y, previous_y + inserted)
        if changes and (change.end, change.new_end) == (changes[-1].start, changes[-1].new_start):
            last = changes.pop()
            change = Change(change.start, last.end, change.new_start, last.new_end)
        changes.append(change)
        x, y = previous_x, previous_y
    return changes[::-1]


def _hunks(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Group changes whose context lines overlap or touch."""
    hunk: list[Change] = []
    for change in changes:
        if hunk and change.start - hunk[-1].end > 2 * CONTEXT:
            yield hunk
            hunk = []
        hunk.append(change)
    if hunk:
        yield hunk


def _format_hunk(hunk: Sequence[Change], old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    first, last = hunk[0], hunk[-1]
    leading = min(first.start, CONTEXT)
    trailing = min(len(old) - last.end, CONTEXT)
    old_range = _format_range(first.start - leading, last.end + trailing)
    new_range = _format_range(first.new_start - leading, last.new_end + trailing)
    yield f"@@ -{old_range} +{new_range} @@"
    position = first.start - leading
    for change in hunk:
        yield from (f" {line}" for line in old[position : change.start])
        yield from (f"-{line}" for line in old[change.start : change.end])
        yield from (f"+{line}" for line in new[change.new_start : change.new_end])
        position = change.end
    yield from (f" {line}" for line in old[position : last.end + trailing])


def _format_range(start: int, end: int) -> str:
    """Return a POSIX line range: the first line and the count.

    An empty range names the line before it.
    """
    count = end - start
    if count == 1:
        return f"{start + 1}"
    return f"{start + 1 if count else start},{count}"
