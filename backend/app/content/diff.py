"""Unified diffs of two texts, computed in bounded time.

difflib takes quadratic time, and cubic time when lines repeat. This module uses the greedy
algorithm of E. W. Myers, "An O(ND) Difference Algorithm and Its Variations" (1986). Its time grows
with the number of differences. A search that exceeds MAX_STEPS stops: all lines between the common
prefix and the common suffix then count as replaced.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

CONTEXT = 3
"""Unchanged lines printed before and after a change."""
MAX_STEPS = 500_000
"""Maximum comparisons and copies of one search: about a quarter of a second."""


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


def _changes(old: Sequence[str], new: Sequence[str]) -> list[Change]:
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
    changes = _search(old_ids, new_ids)
    if changes is None:
        return [Change(start, end, start, new_end)]
    return [Change(*(index + start for index in change)) for change in changes]


def _search(old: Sequence[int], new: Sequence[int]) -> list[Change] | None:
    """Return a shortest edit script, or None after MAX_STEPS.

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
        if steps > MAX_STEPS:
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
