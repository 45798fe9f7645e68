"""Inputs that expose quadratic code, and a measurement of growth with the input length."""

import itertools
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

# The parser of regular expressions is private, and typeshed does not describe it.
codes = import_module("re._constants")
parser = import_module("re._parser")

SHORT = 4_000
TINY = 24
"""Characters of the first input, short enough for exponential code to finish."""
FLOOR = 0.0004
"""Seconds of CPU time that are always allowed. A linear pattern usually takes less."""
GROWTH = 9
"""Allowed ratio of CPU time for four times the length: linear is 4, quadratic is 16."""
QUADRATIC = 16
"""Ratio of quadratic CPU time for four times the length."""
SUSPICIOUS = 5
"""Ratio from which a longer input is tried: GROWTH there is at least 5.8 for the shorter one."""
ROUNDS = 3
"""The number of comparisons that must all exceed GROWTH."""

Make = Callable[[int], str]
"""Creates an input of about this many characters."""


def cost(run: Callable[[str], object], text: str) -> float:
    """Return the seconds of CPU time that `run` takes in this thread."""
    started = time.thread_time()
    run(text)
    return time.thread_time() - started


def elapsed(run: Callable[[str], object], text: str) -> float:
    """Return the seconds that `run` takes. They are at least its CPU time.

    Reading the clock takes much less time than reading the CPU time.
    """
    started = time.perf_counter()
    run(text)
    return time.perf_counter() - started


def grows_too_fast(
    run: Callable[[str], object], make: Make, *, short: int = SHORT, floor: float = FLOOR
) -> bool:
    """Return whether CPU time grows faster than the length of `make`'s inputs.

    Costs are compared with each other, so that the speed of the machine does not matter. Patterns
    with a bounded repetition are linear only from a certain length, so that a longer input decides.
    """
    if elapsed(run, make(TINY)) > floor and exceeds_growth(
        run, make(TINY), make(TINY // 4), floor=floor
    ):
        return True
    for length in (short // 4, short):
        taken = cost(run, make(length))
        if (
            taken > floor
            and taken > SUSPICIOUS * cost(run, make(length // 4))
            and exceeds_growth(run, make(4 * length), make(length), floor=floor)
        ):
            return True
        if taken < floor / QUADRATIC:
            return False  # four times the length cannot exceed the floor
    return False


def exceeds_growth(run: Callable[[str], object], text: str, quarter: str, *, floor: float) -> bool:
    """Return whether `text` costs more than `floor` and GROWTH times the cost of `quarter`."""
    return all(cost(run, text) > max(floor, GROWTH * cost(run, quarter)) for _ in range(ROUNDS))


def runs(prefixes: list[str], alphabet: list[str]) -> Iterator[tuple[str, Make]]:
    """Return long repetitions and near matches of each prefix and after each prefix."""
    for prefix, letter in itertools.product(["", *prefixes], alphabet):
        for end in ("\x01", "") if prefix else ("\x01",):
            yield f"{prefix!r} + {letter!r} * n + {end!r}", partial(run_of, prefix, letter, end)
        if prefix:
            yield f"({prefix!r} + {letter!r}) * n", partial(run_of, "", prefix + letter, "")
            yield f"{prefix!r} * n + {letter!r} * n", partial(_two_runs, prefix, letter)


def run_of(prefix: str, repeated: str, end: str, length: int) -> str:
    return prefix + repeated * (length // len(repeated)) + end


def _two_runs(first: str, second: str, length: int) -> str:
    return run_of("", first, "", length // 2) + run_of("", second, "", length // 2)


def inputs_for(pattern: re.Pattern[Any]) -> Iterator[tuple[str, Make]]:
    """Derive inputs from a pattern: from matching examples and from its literal characters."""
    source = pattern.pattern
    text = source.decode("latin-1") if isinstance(source, bytes) else source
    tree = parser.parse(
        text, pattern.flags & ~re.UNICODE if isinstance(source, bytes) else pattern.flags
    )
    letters: set[str] = set()
    examples = [_example(tree, letters, branch) for branch in range(3)]
    prefixes = {each[:end] for each in examples for end in range(1, min(len(each), 40) + 1)}
    some = sorted(prefixes, key=lambda each: (len(each), each))
    if len(some) > 10:  # keep the shortest, the longest, and some in between
        some = [*some[:3], *some[3:-3][:: max(1, (len(some) - 6) // 4)], *some[-3:]]
    alphabet = sorted(letters | {"a", " "})[:9]
    pairs = [left + right for left, right in itertools.pairwise(alphabet)]
    yield from runs(some, [*alphabet, *pairs[:3]])


def _example(tree: Any, letters: set[str], branch: int) -> str:
    """Return a text that the pattern nearly matches; add its literal characters to `letters`."""
    parts = []
    for operation, argument in tree:
        parts.append(_part(operation, argument, letters, branch))
    return "".join(parts)


def _part(  # noqa: PLR0911 - one return for each operation
    operation: Any, argument: Any, letters: set[str], branch: int
) -> str:
    if operation is codes.LITERAL:
        letters.add(chr(argument))
        return chr(argument)
    if operation is codes.NOT_LITERAL:
        letters.add(chr(argument))
        return "a"
    if operation is codes.ANY:
        return "a"
    if operation is codes.IN:
        return _member(argument, letters)
    if operation is codes.BRANCH:
        return _example(argument[1][branch % len(argument[1])], letters, branch)
    if operation is codes.SUBPATTERN:
        return _example(argument[3], letters, branch)
    if operation is codes.ATOMIC_GROUP:
        return _example(argument, letters, branch)
    if operation in {codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT}:
        low, high, repeated = argument
        once = _example(repeated, letters, branch)
        return once * int(max(low, min(high, branch, 1)))
    if operation in {codes.ASSERT, codes.ASSERT_NOT}:
        example = _example(argument[1], letters, branch)
        return example if operation is codes.ASSERT and argument[0] > 0 and branch else ""
    return ""  # an anchor or a group reference


def _member(choices: Any, letters: set[str]) -> str:
    found: list[str] = []
    excluded: set[str] = set()
    negated = False
    for operation, argument in choices:
        if operation is codes.NEGATE:
            negated = True
        elif operation is codes.LITERAL:
            (excluded.add if negated else found.append)(chr(argument))
            letters.add(chr(argument))
        elif operation is codes.RANGE:
            letters.update(map(chr, argument))
            if negated:
                excluded.update(map(chr, range(argument[0], min(argument[1], 255) + 1)))
            else:
                found.append(chr(argument[0]))
        elif operation is codes.CATEGORY and not negated:
            found.append({"CATEGORY_DIGIT": "0", "CATEGORY_SPACE": " "}.get(str(argument), "a"))
            letters.add(found[-1])
    if not negated and found:
        return found[0]
    return next(each for each in "axz0 -é\x01" if each not in excluded)
