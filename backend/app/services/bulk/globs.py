"""Patterns for paths from untrusted configurations, matched in linear time.

`re` backtracks: a short pattern can take exponential time while it holds the GIL. Here, each
alternative of a pattern is a sequence of sets of characters, and all alternatives are followed at
once: the bits of an integer are the positions that the text so far may have reached.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

MAX_PATTERN = 500
MAX_ITEMS = 4_000
"""Maximum items of all alternatives of a pattern, so that `{a,b}{a,b}…` stays small."""
MAX_TOTAL_ITEMS = 20_000
"""Maximum items that a text is compared with at once."""

_OPEN, _OR, _CLOSE = "open", "or", "close"
_SIGNS = {"{": _OPEN, ",": _OR, "}": _CLOSE, "(": _OPEN, "|": _OR, ")": _CLOSE}
_REPETITIONS = frozenset("*+?{")
_ESCAPABLE = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ")


class Unsupported(ValueError):
    """The pattern is not one of the supported forms, or has too many alternatives."""


class Item(NamedTuple):
    """A character of a set, or with `repeats` any number of them."""

    characters: frozenset[str]
    excludes: bool = False
    """Whether the set is that of all other characters."""
    repeats: bool = False


Alternative = tuple[Item, ...]

_ANY = Item(frozenset(), excludes=True)
_NOT_SLASH = Item(frozenset("/"), excludes=True)
_SLASH = Item(frozenset("/"))
_REST = _ANY._replace(repeats=True)


class Matcher:
    """Tells whether a whole text matches one of the alternatives."""

    def __init__(self, alternatives: Iterable[Alternative]) -> None:
        """Raises Unsupported if there are too many."""
        self._start = self._end = self._single = self._repeated = self._others = 0
        toggles: defaultdict[str, int] = defaultdict(int)
        bit = 1
        for index, items in enumerate(alternatives):
            self._start |= bit
            for item in items:
                if item.repeats:
                    self._repeated |= bit
                else:
                    self._single |= bit
                if item.excludes:
                    self._others |= bit
                for character in item.characters:
                    toggles[character] |= bit
                bit <<= 1
            self._end |= bit
            bit <<= 1
            if bit.bit_length() > MAX_TOTAL_ITEMS:
                raise Unsupported(f"the first {index + 1} patterns are too long together")
        self._accepting = {each: self._others ^ bits for each, bits in toggles.items()}
        """The items that accept a character, by those that are named in a pattern."""
        self._start = self._skip(self._start)

    def matches(self, text: str) -> bool:
        """Return whether the text matches as a whole."""
        reached = self._start
        for character in text:
            moving = reached & self._accepting.get(character, self._others)
            if not moving:
                return False
            reached = self._skip((moving & self._single) << 1 | moving & self._repeated)
        return reached & self._end != 0

    def _skip(self, reached: int) -> int:
        """Add the positions behind repeated items, which may match nothing.

        The addition carries a bit through all adjacent repeated items, as in Myers' algorithm.
        """
        carried = (reached & self._repeated) + self._repeated
        return reached | (carried ^ self._repeated)


def glob(pattern: str) -> list[Alternative]:
    """Return the alternatives of a glob: `*`, `**`, `**/`, `?`, `{a,b}`, `[a-z]` and backslashes.

    Only `**` and `**/` match slashes. Raises Unsupported.
    """
    _check_length(pattern)
    return _expand(_glob_tokens(pattern))


def below(pattern: str) -> list[Alternative]:
    """Return the alternatives for a path with components like the glob, and for all below it.

    This is how .gitignore means names. Texts must be paths between slashes, such as `/a/b.md/`.
    Raises Unsupported.
    """
    name = pattern.strip().removeprefix("./").strip("/")
    if not name:
        return []
    return [(_REST, _SLASH, *items, _SLASH, _REST) for items in glob(name)]


def expression(pattern: str) -> list[Alternative]:
    """Return the alternatives of a simple regular expression that is searched in a text.

    Characters, sets, `.`, `*`, `+`, `?`, groups without a repetition, and `^` and `$` at the ends
    are supported. Raises Unsupported.
    """
    _check_length(pattern)
    is_start = pattern.startswith("^")
    is_end = pattern.endswith("$") and not pattern.endswith("\\$")
    inner = pattern[is_start : len(pattern) - is_end]
    tokens = list(_expression_tokens(inner))
    if (is_start or is_end) and _has_outer_choice(tokens):
        raise Unsupported("an anchor in one of several alternatives")
    before = () if is_start else (_REST,)
    after = () if is_end else (_REST,)
    return [(*before, *items, *after) for items in _expand(tokens)]


def _check_length(pattern: str) -> None:
    if len(pattern) > MAX_PATTERN:
        raise Unsupported(f"the pattern is longer than {MAX_PATTERN} characters")


def _glob_tokens(pattern: str) -> Iterator[Item | str]:
    """Yield items, and the operators of alternatives."""
    depth = position = 0
    while position < len(pattern):
        mark = pattern[position]
        if mark == "*":
            tokens, position = _stars(pattern, position)
            yield from tokens
        elif mark == "{" or (depth and mark in ",}"):
            depth += (mark == "{") - (mark == "}")
            yield _SIGNS[mark]
            position += 1
        else:
            item, position = _glob_item(pattern, position)
            yield item


def _stars(pattern: str, position: int) -> tuple[Sequence[Item | str], int]:
    """Return the items of `*`, `**` or `**/`, and the position after it."""
    if not pattern.startswith("**", position):
        return (_NOT_SLASH._replace(repeats=True),), position + 1
    while pattern.startswith("**/**/", position):  # it is the same as `**/`
        position += 3
    if pattern.startswith("**/", position):
        return (_OPEN, _REST, _SLASH, _OR, _CLOSE), position + 3
    return (_REST,), position + 2


def _glob_item(pattern: str, position: int) -> tuple[Item, int]:
    """Return a character or set, and the position after it."""
    mark = pattern[position]
    if mark == "?":
        return _NOT_SLASH, position + 1
    if mark == "[" and (end := pattern.find("]", position + 2)) > 0:
        item = _set(pattern[position + 1 : end], negations="!^")
        slash = frozenset("/")
        characters = item.characters | slash if item.excludes else item.characters - slash
        return item._replace(characters=characters), end + 1
    position += mark == "\\" and position + 1 < len(pattern)
    return Item(frozenset(pattern[position])), position + 1


def _expression_tokens(pattern: str) -> Iterator[Item | str]:
    """Yield items, and the operators of alternatives."""
    depth = position = 0
    while position < len(pattern):
        mark = pattern[position]
        if mark in "(|)":
            depth += (mark == "(") - (mark == ")")
            position += 1
            if depth < 0 or (mark != "|" and pattern[position : position + 1] in _REPETITIONS):
                raise Unsupported("a special or repeated group")
            yield _SIGNS[mark]
            continue
        item, position = _expression_item(pattern, position)
        repetition = pattern[position : position + 1]
        if repetition not in _REPETITIONS:
            yield item
            continue
        position += 1
        if pattern[position : position + 1] in _REPETITIONS:
            raise Unsupported("a repetition of a repetition")
        yield from _repeated(item, repetition)
    if depth:
        raise Unsupported("a group without an end")


def _expression_item(pattern: str, position: int) -> tuple[Item, int]:
    """Return a character or set, and the position after it."""
    mark, following = pattern[position], pattern[position + 1 : position + 2]
    if mark == ".":
        return _ANY, position + 1
    if mark == "\\" and following in _ESCAPABLE:
        return Item(frozenset(following)), position + 2
    if mark == "[" and (end := pattern.find("]", position + 2)) > 0:
        return _set(pattern[position + 1 : end], negations="^"), end + 1
    if mark in "\\[]{}*+?^$":
        raise Unsupported(f"{mark} in this place")
    return Item(frozenset(mark)), position + 1


def _repeated(item: Item, repetition: str) -> Sequence[Item | str]:
    many = item._replace(repeats=True)
    if repetition == "*":
        return (many,)
    if repetition == "+":
        return (item, many)
    if repetition == "?":
        return (_OPEN, item, _OR, _CLOSE)
    raise Unsupported("a repetition with numbers")


def _set(content: str, *, negations: str) -> Item:
    """Return the item for the text between brackets. Ranges are in ASCII only."""
    excludes = content[:1] in {*negations}
    members = content[1:] if excludes else content
    if not members or {"[", "\\"} & {*members}:
        raise Unsupported("a set with escapes or names")
    found: set[str] = set()
    position = 0
    while position < len(members):
        first, rest = members[position], members[position + 1 : position + 3]
        if len(rest) == 2 and rest[0] == "-":
            if not (first <= rest[1] and rest[1].isascii()):
                raise Unsupported("a range that is not in ASCII")
            found.update(map(chr, range(ord(first), ord(rest[1]) + 1)))
            position += 3
        else:
            found.add(first)
            position += 1
    return Item(frozenset(found), excludes)


def _has_outer_choice(tokens: Sequence[Item | str]) -> bool:
    depth = 0
    for token in tokens:
        depth += (token == _OPEN) - (token == _CLOSE)
        if token == _OR and not depth:
            return True
    return False


def _expand(tokens: Iterable[Item | str]) -> list[Alternative]:
    """Return the sequences of items. Choices that are not closed end with the pattern."""
    finished: list[list[Alternative]] = [[]]
    current: list[list[Alternative]] = [[()]]
    for token in tokens:
        if isinstance(token, Item):
            current[-1] = [(*items, token) for items in current[-1]]
        elif token == _OPEN:
            finished.append([])
            current.append([()])
        elif token == _OR:
            finished[-1] += current[-1]
            current[-1] = [()]
        else:
            _close(finished, current)
        if _size(current[-1]) > MAX_ITEMS:
            raise Unsupported("too many alternatives")
    while len(current) > 1:
        _close(finished, current)
    found = finished[0] + current[0]
    if _size(found) > MAX_ITEMS:
        raise Unsupported("too many alternatives")
    return found


def _close(finished: list[list[Alternative]], current: list[list[Alternative]]) -> None:
    """Combine what stands before a choice with each of its alternatives."""
    choices = list(dict.fromkeys(finished.pop() + current.pop()))
    before = current[-1]
    if _size(before) * len(choices) + _size(choices) * len(before) > 2 * MAX_ITEMS:
        raise Unsupported("too many alternatives")
    current[-1] = [left + right for left in before for right in choices]


def _size(alternatives: Sequence[Alternative]) -> int:
    """Return the number of items and ends."""
    return sum(map(len, alternatives)) + len(alternatives)
