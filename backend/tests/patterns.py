"""The regular expressions of the application, and the methods that are called on them.

Finding them takes long. The processes of the tests share the result.
"""

import ast
import importlib
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import app

METHODS = frozenset({"findall", "finditer", "fullmatch", "match", "search", "split", "sub", "subn"})
SEARCH_ON = frozenset({"findall", "finditer", "split", "sub", "subn"})
"""Methods that continue to the end of the text after each match."""
OPERATORS = {"app.core.config"}
"""Modules whose patterns are only applied to settings."""


class Found(NamedTuple):
    """A pattern of the application, and the methods that are called on it."""

    name: str
    pattern: re.Pattern[Any]
    methods: frozenset[str]


def modules() -> list[ModuleType]:
    names = [each.name for each in pkgutil.walk_packages(app.__path__, "app.")]
    skipped = {"app.cli.__main__", *OPERATORS}
    return [importlib.import_module(name) for name in names if name not in skipped]


def nested(value: object, depth: int = 0) -> Iterator[re.Pattern[Any]]:
    """Find the patterns in a value, including nested containers."""
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, Mapping) and depth < 5:
        for each in (*value.keys(), *value.values()):
            yield from nested(each, depth + 1)
    elif isinstance(value, list | tuple | set | frozenset) and depth < 5:
        for each in value:
            yield from nested(each, depth + 1)


def attributes(module: ModuleType) -> Iterator[Found]:
    """Find the patterns in attributes of a module and its classes, with the methods called."""
    classes = [each for each in vars(module).values() if isinstance(each, type)]
    holders = [module, *(each for each in classes if each.__module__ == module.__name__)]
    for holder in holders:
        for name, value in vars(holder).items():
            for pattern in nested(value):
                yield Found(f"{module.__name__}.{name}", pattern, used(name, value))


def used(name: str, value: object) -> frozenset[str]:
    """Return the methods that are called on a pattern of this name, or all if none is found."""
    found = CALLED[name]
    is_alone = isinstance(value, re.Pattern) and found
    return most_expensive(found if is_alone else {"fullmatch", "sub"})


def most_expensive(methods: set[str]) -> frozenset[str]:
    """Remove methods whose work another one includes: `sub` includes `search` and `match`."""
    if methods & SEARCH_ON:  # they search in the same way, and differ in what they return
        return frozenset({max(methods & SEARCH_ON), *(methods & {"fullmatch"})})
    return frozenset(methods - {"match"} or methods)


def inline(module: ModuleType) -> Iterator[Found]:
    """Find inline patterns such as `re.sub(r"...", ...)`."""
    assert module.__file__ is not None
    source = Path(module.__file__).read_text()
    if not re.search(r"\bre\.", source):
        return  # parsing takes long
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name("re"), attr=method), args=[first, *_]):
                if method not in METHODS:
                    continue
                code = compile(ast.Expression(first), module.__file__, "eval")
                pattern = re.compile(eval(code, vars(module)))
                yield Found(f"{module.__name__}:{node.lineno}", pattern, frozenset({method}))


def collected() -> list[Found]:
    found = [each for module in modules() for each in (*attributes(module), *inline(module))]
    return list({(each.pattern, each.methods): each for each in found}.values())


SOURCES = "\n".join(path.read_text() for path in Path(app.__path__[0]).rglob("*.py"))
CALLED: Mapping[str, set[str]] = defaultdict(set)
for called, method in re.findall(rf"\b(\w+)\.({'|'.join(METHODS)})\(", SOURCES):
    CALLED[called].add(method)
PATTERNS = collected()
