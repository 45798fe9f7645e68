"""Patterns of imported configurations: what they match, and how much work that is."""

import random
import re
from collections.abc import Callable
from functools import partial

import pytest

from app.services.bulk.globs import (
    MAX_ITEMS,
    MAX_PATTERN,
    MAX_TOTAL_ITEMS,
    Alternative,
    Matcher,
    Unsupported,
    below,
    expression,
    glob,
)
from tests.linear import grows_too_fast, run_of

ROUNDS = 1_500
GLOB_PARTS = [
    "a", "b", "a", ".", "/", "/", "*", "**", "**/", "?", "{a,b}", "{a*,}", "{,/b,{b,aa}}", "[ab]",
    "[!a]", "[a-c]",
]  # fmt: skip
EXPRESSION_PARTS = [
    "a", "b", "/", r"\.", ".", "a*", "b+", ".*", ".+", "a?", "[ab]", "[^a/]+", "[a-c]*", "(a|b)",
    "(|a.|b*)",
]  # fmt: skip
_MARKS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "{": "(?:", "}": ")", ",": "|"}


def translated(pattern: str) -> str:
    """Return a glob as a regular expression, for comparison."""
    marks = re.findall(r"\*\*/?|\[[^\]]*\]|.", pattern)
    sets = {each: each.replace("[!", "[^/") for each in marks if each[0] == "["}
    return "".join(_MARKS.get(each) or sets.get(each) or re.escape(each) for each in marks)


def chosen(parts: list[str], choice: random.Random, most: int) -> str:
    return "".join(choice.choices(parts, k=choice.randint(1, most)))


def path_of(choice: random.Random) -> str:
    names = [chosen(["a", "b", "."], choice, 3) for _ in range(choice.randint(1, 4))]
    return "/".join(names)


def test_globs_match_the_same_texts_as_regular_expressions() -> None:
    choice = random.Random(1)
    found = 0
    for _ in range(ROUNDS):
        pattern, text = chosen(GLOB_PARTS, choice, 5), path_of(choice)
        expected = re.fullmatch(translated(pattern), text) is not None
        assert Matcher(glob(pattern)).matches(text) is expected, (pattern, text)
        found += expected
    assert found > ROUNDS / 50


def test_patterns_of_names_match_at_any_depth_and_all_below() -> None:
    choice = random.Random(2)
    found = 0
    for _ in range(ROUNDS):
        pattern, path = chosen(GLOB_PARTS, choice, 4), path_of(choice)
        inner = pattern.removeprefix("./").strip("/")
        regular = f"(?:^|/)(?:{translated(inner)})(?:/|$)" if inner else "(?!)"
        expected = re.search(regular, path) is not None
        assert Matcher(below(pattern)).matches(f"/{path}/") is expected, (pattern, path)
        found += expected
    assert found > ROUNDS / 50


def test_expressions_find_the_same_texts_as_regular_expressions() -> None:
    choice = random.Random(3)
    found = 0
    for _ in range(ROUNDS):
        start, end = choice.choice(["", "^"]), choice.choice(["", "$"])
        pattern = start + chosen(EXPRESSION_PARTS, choice, 4) + end
        text = path_of(choice)
        expected = re.search(pattern, text) is not None
        assert Matcher(expression(pattern)).matches(text) is expected, (pattern, text)
        found += expected
    assert ROUNDS / 20 < found < ROUNDS * 19 / 20


def test_several_patterns_are_independent() -> None:
    choice = random.Random(4)
    for _ in range(ROUNDS // 4):
        patterns = [chosen(GLOB_PARTS, choice, 4) for _ in range(3)]
        text = path_of(choice)
        together = Matcher([each for pattern in patterns for each in glob(pattern)])
        expected = any(Matcher(glob(pattern)).matches(text) for pattern in patterns)
        assert together.matches(text) is expected, (patterns, text)


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        (r"\*\{a", {"*{a"}),
        ("{a,b", {"a", "b"}),
        ("a}b,c", {"a}b,c"}),
        ("[a", {"[a"}),
        ("[]a]", {"]", "a"}),
        ("[a-]", {"a", "-"}),
        ("a\\", {"a\\"}),
        ("", {""}),
    ],
)
def test_unusual_globs(pattern: str, texts: set[str]) -> None:
    matcher = Matcher(glob(pattern))
    others = {"", "a", "b", "]", "-", "*{a", "a}b,c", "[a", "a\\", "\\*\\{a"}
    assert {text for text in others | texts if matcher.matches(text)} == texts


@pytest.mark.parametrize("parse", [glob, below])
@pytest.mark.parametrize(
    "pattern",
    ["{a,aa}" * 20, "**/a/" * 30, "{a,{b,{c,d}}}" * 15, "a" * (MAX_PATTERN + 1), "[[:alpha:]]",
     "[\\]]", "[z-a]", "[a-é]", "[!]"],
)  # fmt: skip
def test_unsupported_globs(parse: Callable[[str], object], pattern: str) -> None:
    with pytest.raises(Unsupported):
        parse(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["(a|aa)+$", "(a*)*", "(?i)a", "(?=a)", r"\bdraft", r"\d", "a{2}", "a**", "a+?", "^a|b", "a|b$",
     "a^b", "a$b", "(a", "a)", "[a", r"[\d]", "[[:alpha:]]", "+a", "(a?)" * 40, "a" * 600, "a\\"],
)  # fmt: skip
def test_unsupported_expressions(pattern: str) -> None:
    with pytest.raises(Unsupported):
        expression(pattern)


# --- work

SLOW = ["a*a*a*a*a*b", "{a,aa}{a,aa}{a,aa}{a,aa}b", "**/**/a**/b", "**a**a**a**a**b", "?*?*?*b"]
SLOW_EXPRESSIONS = [
    "a*a*a*a*b$",
    "(a|aa)(a|aa)(a|aa)a*b",
    ".*.*.*.*b$",
    "a?a?a?a?a+a+b",
    "^.*a.*a+$",
]


@pytest.mark.parametrize(
    "alternatives",
    [*map(glob, SLOW), *map(below, SLOW), *map(expression, SLOW_EXPRESSIONS)],
)
def test_near_misses_take_linear_time(alternatives: list[Alternative]) -> None:
    matcher = Matcher(alternatives)
    for unit in ("a", "a/", "b", "ab", "/"):
        assert not grows_too_fast(matcher.matches, partial(run_of, "", unit, "\x01")), unit


@pytest.mark.parametrize("parse", [glob, below, expression])
def test_alternatives_are_bounded(parse: Callable[[str], list[Alternative]]) -> None:
    """The number of items is the work for each character."""
    choice = random.Random(5)
    marks = [*GLOB_PARTS, *EXPRESSION_PARTS, "{", ",", "}", "(", "|", ")", "{a,", "(a|"]
    supported = 0
    for length in (5, 20, 80, 200):
        for _ in range(200):
            try:
                found = parse(chosen(marks, choice, length)[:MAX_PATTERN])
            except Unsupported:
                continue
            supported += 1
            assert sum(len(items) + 1 for items in found) <= 5 * MAX_ITEMS
    assert supported > 100


def test_all_patterns_together_are_bounded() -> None:
    items = glob("a" * MAX_PATTERN)
    with pytest.raises(Unsupported):
        Matcher(items * (MAX_TOTAL_ITEMS // MAX_PATTERN + 1))
    assert Matcher(items * (MAX_TOTAL_ITEMS // MAX_PATTERN - 1)).matches("a" * MAX_PATTERN)
