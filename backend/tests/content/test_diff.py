"""Unified diffs: their correctness, compared with difflib and patch, and their cost. Merges."""

import difflib
import random
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from app.content import diff as diffs
from app.content.diff import Row, Segment, merge, side_by_side, unified_diff

NAMES = ("a", "b")


def apply_diff(text: str, diff: str) -> str:
    """Apply `diff` to `text` like `patch`, and check the context of each hunk."""
    old, new, position = text.split("\n"), [], 0
    lines = diff.split("\n")[2:-1] if diff else []
    hunk = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
    for line in lines:
        if match := hunk.fullmatch(line):
            start = int(match[1]) - (match[2] != "0")
            new += old[position:start]
            position = start
            assert int(match[3]) - (match[4] != "0") == len(new)
        elif line.startswith("+"):
            new.append(line[1:])
        else:
            assert old[position] == line[1:]
            position += 1
            if line.startswith(" "):
                new.append(line[1:])
    return "\n".join(new + old[position:])


def test_output_has_the_format_of_diff() -> None:
    before = "".join(f"line {number}\n" for number in range(1, 21))
    after = before.replace("line 3\n", "").replace("line 15\n", "line 15b\nline 15c\n")
    assert unified_diff(before, after, names=("old", "new")).splitlines() == [
        "--- old",
        "+++ new",
        "@@ -1,6 +1,5 @@",
        " line 1",
        " line 2",
        "-line 3",
        " line 4",
        " line 5",
        " line 6",
        "@@ -12,7 +11,8 @@",
        " line 12",
        " line 13",
        " line 14",
        "-line 15",
        "+line 15b",
        "+line 15c",
        " line 16",
        " line 17",
        " line 18",
    ]


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("", "", 0),
        ("same\nsame", "same\nsame", 0),
        ("", "new", 2),
        ("old", "", 2),
        ("a\nb\nc", "c\nb\na", 4),
        ("x", "x\n", 1),
        ("a\r\nb", "a\nb", 2),
        ("a\u2028b\x0cc", "a\u2028b\x0cd", 2),
    ],
)
def test_diff_of_edge_cases_applies_cleanly(before: str, after: str, changed: int) -> None:
    diff = unified_diff(before, after, names=NAMES)
    assert apply_diff(before, diff) == after
    assert sum(line.startswith(("+", "-")) for line in diff.split("\n")[2:]) == changed


@pytest.mark.parametrize("seed", range(120))
def test_diff_of_random_texts_is_minimal(seed: int) -> None:
    rng = random.Random(seed)
    letters = "ab" if seed % 2 else "abcdefgh"
    before = [rng.choice(letters) for _ in range(rng.randrange(30))]
    after = [rng.choice(letters) for _ in range(rng.randrange(30))]
    if seed % 3 == 0:
        after = [letter for letter in before if rng.random() < 0.8] + after[:3]
    texts = "\n".join(before), "\n".join(after)
    diff = unified_diff(*texts, names=NAMES)
    assert apply_diff(texts[0], diff) == texts[1]
    edits = sum(line.startswith(("+", "-")) for line in diff.split("\n")[2:])
    assert edits == fewest_edits(texts[0].split("\n"), texts[1].split("\n"))


def fewest_edits(before: list[str], after: list[str]) -> int:
    """Return the minimum number of edits, by the longest common subsequence."""
    row = [0] * (len(after) + 1)
    for line in before:
        last = row
        row = [0]
        for column, other in enumerate(after):
            common = last[column] + 1 if line == other else max(last[column + 1], row[-1])
            row.append(common)
    return len(before) + len(after) - 2 * row[-1]


@pytest.mark.parametrize("seed", range(20))
def test_distinct_lines_have_the_hunks_of_difflib(seed: int) -> None:
    rng = random.Random(seed)
    before = [f"line {number}" for number in range(150)]
    after = [line for line in before if rng.random() < 0.95]
    for number in range(5):
        after.insert(rng.randrange(len(after)), f"new {number}")
    actual = unified_diff("\n".join(before), "\n".join(after), names=NAMES).split("\n")[:-1]
    expected = difflib.unified_diff(before, after, "a", "b", lineterm="")
    assert sorted(actual) == sorted(expected)


SIZE = 64 * 1024


def random_lines(seed: int) -> str:
    return "".join(random.Random(seed).choices("ab\n", k=2 * SIZE))


def numbers(order: Iterable[int]) -> str:
    return "".join(f"{number}\n" for number in order)


LARGE: dict[str, Callable[[], tuple[str, str]]] = {
    "other lines": lambda: ("a\n" * SIZE, "b\n" * SIZE),
    "lines by turns": lambda: ("a\nb\n" * (SIZE // 2), "b\na\n" * (SIZE // 2)),
    "fewer lines": lambda: ("a\n" * SIZE, "a\n" * (SIZE // 2)),
    "empty lines": lambda: ("\n" * 2 * SIZE, "x"),
    "one line": lambda: ("x" * 2 * SIZE, "x" * (2 * SIZE - 1) + "y"),
    "lines in reverse": lambda: (numbers(range(20_000)), numbers(range(20_000, 0, -1))),
    "random lines": lambda: (random_lines(1), random_lines(2)),
}


@pytest.mark.no_cover
@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.usefixtures("_steps_are_counted")
def test_cost_of_comparing_long_texts_is_limited(kind: str) -> None:
    """Without a limit, most of them take billions of steps."""
    before, after = LARGE[kind]()
    diff = unified_diff(before, after, names=NAMES)
    assert apply_diff(before, diff) == after


class Steps:
    """Counts the steps of the search, and fails if there are too many."""

    limit = 50_000
    left = 8 * limit

    def spend(self) -> None:
        self.left -= 1
        assert self.left > 0, "the search takes too long"


@pytest.fixture
def _steps_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, search, enter = Steps(), diffs._search, diffs._enter_diagonal

    class Lines(list[int]):
        def __getitem__(self, index: Any) -> Any:
            steps.spend()
            return super().__getitem__(index)

    def counted(reached: dict[int, int], k: int) -> int:
        steps.spend()
        return enter(reached, k)

    monkeypatch.setattr(diffs, "MAX_STEPS", steps.limit)
    monkeypatch.setattr(
        diffs, "_search", lambda old, new, limit: search(Lines(old), Lines(new), limit)
    )
    monkeypatch.setattr(diffs, "_enter_diagonal", counted)


def test_two_changes_in_a_megabyte_are_two_hunks() -> None:
    before = [f"paragraph {number} of a long text" for number in range(30_000)]
    after = [before[0] + "!", *before[1:-1], before[-1] + "!"]
    diff = unified_diff("\n".join(before), "\n".join(after), names=NAMES)
    assert sum(line.startswith("@@") for line in diff.split("\n")) == 2
    assert len(diff) < 1000


def test_search_over_the_limit_replaces_the_middle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(diffs, "MAX_STEPS", 3)
    diff = unified_diff("a\nb\nc\nd\ne", "a\n1\nc\n2\ne", names=NAMES)
    assert diff.split("\n")[3:-1] == [" a", "-b", "-c", "-d", "+1", "+c", "+2", " e"]


def text_of(segments: Iterable[Segment]) -> str:
    return "".join(segment.text for segment in segments)


def edited(numbers: random.Random, lines: list[str]) -> list[str]:
    """Return the lines with some of them changed, removed or added."""
    result: list[str] = []
    for line in lines:
        kind = numbers.randrange(8)
        result += [] if kind == 0 else [f"{line} more"] if kind == 1 else [line]
        result += [f"new {numbers.randrange(5)}"] if kind == 2 else []
    return result


class TestSideBySide:
    def test_equal_texts_have_no_rows(self) -> None:
        assert side_by_side("a\nb", "a\nb") == []

    def test_changed_words_are_marked(self) -> None:
        (row,) = side_by_side("one two three", "one 2 three")
        assert row == Row(
            "changed",
            1,
            [Segment("one ", False), Segment("two", True), Segment(" three", False)],
            1,
            [Segment("one ", False), Segment("2", True), Segment(" three", False)],
        )

    def test_context_and_gaps(self) -> None:
        before = [str(number) for number in range(20)]
        after = [*before[:10], "new", *before[10:]]
        rows = side_by_side("\n".join(before), "\n".join(after))
        assert [row.kind for row in rows] == ["gap", *["same"] * 3, "added", *["same"] * 3, "gap"]
        assert (rows[5].number, rows[5].new_number) == (11, 12)

    @pytest.mark.parametrize("seed", range(50))
    def test_every_difference_has_its_lines(self, seed: int) -> None:
        numbers = random.Random(seed)
        before = [f"line {numbers.randrange(9)}" for _ in range(numbers.randrange(60))]
        after = edited(numbers, before)
        rows = side_by_side("\n".join(before), "\n".join(after))
        old, new = "\n".join(before).split("\n"), "\n".join(after).split("\n")
        shown, new_shown = set(), set()
        for row in rows:
            if row.number is not None:
                assert text_of(row.segments) == old[row.number - 1]
                shown.add(row.number)
            if row.new_number is not None:
                assert text_of(row.new_segments) == new[row.new_number - 1]
                new_shown.add(row.new_number)
        hidden = [line for number, line in enumerate(old, 1) if number not in shown]
        assert hidden == [line for number, line in enumerate(new, 1) if number not in new_shown]


class TestMerge:
    labels = ("mine", "theirs")

    def test_changes_of_different_lines(self) -> None:
        merged = merge("a\nb\nc", "A\nb\nc", "a\nb\nC\nd", labels=self.labels)
        assert merged == ("A\nb\nC\nd", 0)

    def test_changes_of_the_same_line(self) -> None:
        merged = merge("a\nb", "a\nmine", "a\ntheirs", labels=self.labels)
        marked = "a\n<<<<<<< mine\nmine\n=======\ntheirs\n>>>>>>> theirs"
        assert merged == (marked, 1)
        assert merge(None, "a\nmine", "a\ntheirs", labels=self.labels) == (marked, 1)

    @pytest.mark.parametrize("seed", range(50))
    def test_one_sided_and_equal_changes_need_no_choice(self, seed: int) -> None:
        numbers = random.Random(seed)
        lines = [f"line {numbers.randrange(9)}" for _ in range(numbers.randrange(60))]
        base, changed = "\n".join(lines), "\n".join(edited(numbers, lines))
        for mine, theirs in ((changed, base), (base, changed), (changed, changed)):
            assert merge(base, mine, theirs, labels=self.labels) == (changed, 0)

    @pytest.mark.parametrize("seed", range(50))
    def test_both_sides_are_in_the_result(self, seed: int) -> None:
        numbers = random.Random(seed)
        lines = [f"line {number}" for number in range(numbers.randrange(40))]
        base, mine, theirs = lines, edited(numbers, lines), edited(numbers, lines)
        merged = merge("\n".join(base), "\n".join(mine), "\n".join(theirs), labels=self.labels)
        result = merged.text.split("\n")
        for side in (mine, theirs):
            for line in set(side) - set(base):
                assert line in result
        assert result.count("=======") == merged.conflicts
