"""Unified diffs of two texts, found within a bounded time.

difflib compares in time that grows with the square of the lines, and with the cube where they
repeat. This is the greedy search of E. W. Myers, "An O(ND) Difference Algorithm and Its Variations"
(1986): as long as the two texts differ in little, it takes hardly longer than reading them. Where
they differ in so much that it would, all between what they begin and end with counts as replaced.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

CONTEXT = 3
"""How many lines are shown around a change."""
MAX_STEPS = 500_000
"""How many comparisons and copies the search may take: a quarter of a second."""


class Change(NamedTuple):
    """Lines `start` to `end` of the one text are lines `new_start` to `new_end` of the other."""

    start: int
    end: int
    new_start: int
    new_end: int


def unified_diff(before: str, after: str, *, names: tuple[str, str]) -> str:
    """What `diff -u` prints, with these names in the heading; nothing where they are the same."""
    old, new = before.split("\n"), after.split("\n")
    lines: list[str] = []
    for hunk in _hunks(_changes(old, new)):
        lines += _printed(hunk, old, new)
    if not lines:
        return ""
    return "\n".join([f"--- {names[0]}", f"+++ {names[1]}", *lines, ""])


def _changes(old: Sequence[str], new: Sequence[str]) -> list[Change]:
    """What changed, from top to bottom."""
    start, shorter = 0, min(len(old), len(new))
    while start < shorter and old[start] == new[start]:
        start += 1
    end, new_end = len(old), len(new)
    while end > start and new_end > start and old[end - 1] == new[new_end - 1]:
        end, new_end = end - 1, new_end - 1
    if start in {end, new_end}:
        change = Change(start, end, start, new_end)
        return [change] if end > start or new_end > start else []
    numbers: dict[str, int] = {}
    left = [numbers.setdefault(line, len(numbers)) for line in old[start:end]]
    right = [numbers.setdefault(line, len(numbers)) for line in new[start:new_end]]
    found = _search(left, right)
    if found is None:
        return [Change(start, end, start, new_end)]
    return [Change(*(number + start for number in change)) for change in found]


def _search(old: Sequence[int], new: Sequence[int]) -> list[Change] | None:
    """The fewest lines that have to go and to come; None where finding them takes too long.

    `reached[k]` is how far into `old` one gets with `edits` lines gone or come, on the diagonal on
    which `k` more are behind one there than in `new`.
    """
    size, new_size = len(old), len(new)
    reached = {1: 0}
    history: list[dict[int, int]] = []
    steps = 0
    for edits in range(size + new_size + 1):
        history.append(reached.copy())
        steps += len(reached)
        lowest = 2 * max(0, edits - new_size) - edits
        highest = edits - 2 * max(0, edits - size)
        for k in range(lowest, highest + 1, 2):
            here = _next(reached, k)
            began = here
            while here < size and here - k < new_size and old[here] == new[here - k]:
                here += 1
            reached[k] = here
            steps += 1 + here - began
            if here >= size and here - k >= new_size:
                return _path(history, size, new_size)
        if steps > MAX_STEPS:
            return None
    raise AssertionError("all lines going and all coming is always a way")


def _next(reached: dict[int, int], k: int) -> int:
    """Where diagonal `k` is entered: below a line that came, or beyond one that went."""
    came, went = reached.get(k + 1, -1), reached.get(k - 1, -1)
    return came if went < came else went + 1


def _path(history: Sequence[dict[int, int]], size: int, new_size: int) -> list[Change]:
    """The way that led to the end, as changes; neighbouring lines are one change."""
    changes: list[Change] = []
    here, new_here = size, new_size
    for reached in reversed(history[1:]):
        k = here - new_here
        came = reached.get(k - 1, -1) < reached.get(k + 1, -1)
        before = reached[k + 1] if came else reached[k - 1]
        new_before = before - (k + 1 if came else k - 1)
        change = Change(before, before + (not came), new_before, new_before + came)
        if changes and (change.end, change.new_end) == (changes[-1].start, changes[-1].new_start):
            last = changes.pop()
            change = Change(change.start, last.end, change.new_start, last.new_end)
        changes.append(change)
        here, new_here = before, new_before
    return changes[::-1]


def _hunks(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Changes so near to one another that what is shown around them meets."""
    hunk: list[Change] = []
    for change in changes:
        if hunk and change.start - hunk[-1].end > 2 * CONTEXT:
            yield hunk
            hunk = []
        hunk.append(change)
    if hunk:
        yield hunk


def _printed(hunk: Sequence[Change], old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    first, last = hunk[0], hunk[-1]
    lead = min(first.start, CONTEXT)
    trail = min(len(old) - last.end, CONTEXT)
    place = _place(first.start - lead, last.end + trail)
    new_place = _place(first.new_start - lead, last.new_end + trail)
    yield f"@@ -{place} +{new_place} @@"
    shown = first.start - lead
    for change in hunk:
        yield from (f" {line}" for line in old[shown : change.start])
        yield from (f"-{line}" for line in old[change.start : change.end])
        yield from (f"+{line}" for line in new[change.new_start : change.new_end])
        shown = change.end
    yield from (f" {line}" for line in old[shown : last.end + trail])


def _place(start: int, end: int) -> str:
    """POSIX: the number of the first line and how many; of none, the line before."""
    count = end - start
    if count == 1:
        return f"{start + 1}"
    return f"{start + 1 if count else start},{count}"
