"""Regular expressions and parsers of the application take at most linear time.

`re` holds the GIL. One quadratic pattern therefore blocks the whole process, even in a thread.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.routing import Route, compile_path

from app.content.slugs import normalize_text, slugify
from app.core.conditional import Precondition
from app.core.config import Settings
from app.core.errors import InvalidInput, InvalidMedia, InvalidRequest, PressroomError
from app.main import create_app
from app.routers.media.files import _part
from app.schemas.types import Email
from app.services.bulk import front_matter, ghost_redirects, globs, visibility, wxr
from app.services.bulk.converting.addresses import find_addresses
from app.services.bulk.converting.documents import from_ghost_html, from_lexical
from app.services.bulk.converting.generators import from_site
from app.services.bulk.converting.posts import from_wordpress
from app.services.bulk.converting.results import Converted, InvalidDocument, TooComplex
from app.services.bulk.dates import DateError, read_date
from app.services.bulk.foreign import ReadOptions, RecordBuilder, title_of, without_html
from app.services.bulk.ndjson import parse_record
from app.services.bulk.permalinks import expand
from app.services.media import forms
from app.services.media.formats import detect_format
from tests.images import image_bytes
from tests.linear import grows_too_fast, inputs_for, run_of, runs
from tests.patterns import METHODS, PATTERNS, SOURCES, Found, modules

pytestmark = pytest.mark.no_cover  # tracing takes as long as the work that is measured


def test_collector_finds_patterns() -> None:
    """The other tests would pass without any patterns."""
    names = {each.name for each in PATTERNS}
    assert len(PATTERNS) > 80
    for expected in (
        "app.services.media.formats._MARKER",  # a module attribute
        "app.services.media.formats._FORMATS",  # in a tuple of named tuples
        "app.content.markdown._UNSPACED_SCRIPTS",
    ):
        assert expected in names
    assert any(":" in name for name in names)  # an inline pattern


@pytest.mark.parametrize(
    "quadratic",
    [
        r"\xff+([^\x00\xff])",
        r"<pre\b.*?</pre>",
        r"<[^>]*>",
        r"[ \t]*\n",
        r"\[caption\b[^\]]*\]",
        r"(a|aa)*b",
    ],
)
def test_quadratic_pattern_is_detected(quadratic: str) -> None:
    found = Found("", re.compile(quadratic, re.DOTALL), frozenset({"search"}))
    assert slow_inputs(found) != []


@pytest.mark.parametrize("found", PATTERNS, ids=lambda found: found.name)
def test_pattern_takes_linear_time(found: Found) -> None:
    assert slow_inputs(found) == []


def test_routes_take_linear_time() -> None:
    """One for each set of convertors, because the literal parts do not matter."""
    routes = [route for route in create_app().routes if isinstance(route, Route)]
    paths = {re.sub(r"(?<=/)[a-z.-]+", "a", route.path) for route in routes}
    assert len(paths) > 10
    for path in paths:
        assert slow_inputs(Found(path, compile_path(path)[0], frozenset({"match"}))) == []


def slow_inputs(found: Found) -> list[str]:
    is_bytes = isinstance(found.pattern.pattern, bytes)
    slow = []
    for name, make in inputs_for(found.pattern):
        for method in sorted(found.methods):
            if grows_too_fast(partial(apply, found.pattern, method, is_bytes), make):
                slow.append(f"{method}: {name}")
                return slow
    return slow


def apply(pattern: re.Pattern[Any], method: str, is_bytes: bool, text: str) -> None:
    subject: Any = text.encode("latin-1", "replace") if is_bytes else text
    if method in {"sub", "subn"}:
        getattr(pattern, method)(b"" if is_bytes else "", subject)
        return
    result = getattr(pattern, method)(subject)
    if method == "finditer":
        list(result)


class Made(NamedTuple):
    """A pattern that is made in a function, when a user's request may have chosen it."""

    module: str
    line: int
    code: str


CONSTANT_NAMES = {"pattern"}
"""Attributes of constants that may be part of a pattern: the text of another one."""
MADE_AT_RUN_TIME = {
    "re.compile(pattern, re.DOTALL)": "called with literals, for attributes of the module",
    "re.fullmatch(CODE_PATTERN.strip('^$'), code.get_secret_value())": "a constant",
    "re.compile(f'(?:{self.terminator_re.pattern}|[wW])(?:(?<![wW])|(?=[wW][wW]\\\\.))')": (
        "of markdown-it"
    ),
}
"""Patterns that are not constant, with the reason why they are safe."""


def made_at_run_time(name: str, source: str, known: Mapping[str, Any]) -> Iterator[Made]:
    """Find calls of `re` in functions whose pattern is not a constant of the module."""
    tree = ast.parse(source)
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        for node in ast.walk(function):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name("re"), attr=method), args=args):
                    is_pattern = method in {*METHODS, "compile", "template"}
                    if is_pattern and not (args and is_constant(args[0], function, known)):
                        yield Made(name, node.lineno, ast.unparse(node))


def is_constant(value: ast.expr, function: ast.AST, known: Mapping[str, Any]) -> bool:
    """Return whether an expression has literals and constants of the module only."""
    allowed = (
        ast.Constant, ast.JoinedStr, ast.FormattedValue, ast.Name, ast.Load, ast.Attribute,
        ast.BinOp, ast.Add,
    )  # fmt: skip
    own = {each.arg for each in ast.walk(function) if isinstance(each, ast.arg)} | {
        each.id
        for each in ast.walk(function)
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    }
    for node in ast.walk(value):
        if not isinstance(node, allowed):
            return False
        if isinstance(node, ast.Name) and (node.id in own or node.id not in known):
            return False
        if isinstance(node, ast.Attribute) and node.attr not in CONSTANT_NAMES:
            return False
    return True


def test_no_pattern_is_made_at_run_time() -> None:
    """A pattern from a request could take exponential time, and the other tests do not see it."""
    found: list[Made] = []
    for module in modules():
        assert module.__file__ is not None
        source = Path(module.__file__).read_text()
        if "re" in vars(module):
            found += made_at_run_time(module.__name__, source, vars(module))
    assert {each.code for each in found} == set(MADE_AT_RUN_TIME), found


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ("def f(text):\n    return re.compile(text)", True),
        ("def f(text):\n    return re.fullmatch(f'{text}a', 'a')", True),
        ("def f(text):\n    return [re.sub(each, '', 'a') for each in text]", True),
        ("def f(text):\n    return re.search(translate(text), 'a')", True),
        ("f = lambda text: re.compile(text.pattern)", True),
        ("def f():\n    text = input()\n    return re.compile(text)", True),
        ("def f(text):\n    return re.search(r'a', text)", False),
        ("def f(text):\n    return re.fullmatch(rf'{TOKENS.pattern}a', text)", False),
        ("def f(text):\n    return re.escape(text)", False),
    ],
)
def test_pattern_made_at_run_time_is_detected(source: str, is_found: bool) -> None:
    known = {"TOKENS": TOKENS, "translate": None}
    assert bool([*made_at_run_time("a", source, known)]) is is_found


def test_regular_expressions_are_used_by_the_name_of_their_module() -> None:
    """The tests above look for `re.` only. Other modules translate patterns, or match them."""
    imports = (
        r"^\s*(?:from (?:re|fnmatch|glob|regex|re2) |import (?:re as|fnmatch|glob|regex|re2)\b)"
    )
    assert re.findall(imports, SOURCES, re.MULTILINE) == []


def test_schema_patterns_use_an_engine_without_backtracking() -> None:
    """Pydantic's default engine is linear by design, in contrast to `python-re`."""
    models = [
        value
        for module in modules()
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseModel)
    ]
    assert len(models) > 50
    for model in models:
        if not issubclass(model, Settings):
            assert model.model_config.get("regex_engine", "rust-regex") == "rust-regex"
    assert "regex_engine" not in SOURCES


# --- parsers


TOKENS = [
    " ", "\t", "\n", "\r\n", "\x00", "a", "0", "-", "#", "*", "`", "~", "[", "]", "(", "<", ">",
    "&", '"', "'", ",", ".", "/", "\\", "=", ";", ":", "@", "é", "中", "\u200b", "́", "<p>",
    "<pre>", "</pre>", "<pre ", "<!--", "<!--wp:", "-->", "<a ", "<a href=", "<ol><li>", "<li>",
    "<b>", "</b>", "<br>", "<table><tr><td>", "<![CDATA[", "<?", "<!", "</", "&#32;", "&amp",
    "[caption ", "[/caption]", "![", "](", "\n\n", "\n- ", "\n> ", "\n    ", "\n---\n", "...\n",
    "# ", " #", 'W/"', 'W/"a", ', "- a\n", "a: b\n",
]  # fmt: skip
PREFIXES = {
    "email": ["a@"],
    "form": ['"'],
    "front matter": ["---\n", "# a", "---\na: b\n"],
    "glob": ["**/", "{", "{a,", "["],
    "expression": ["(", "(a|", "["],
    "permalink": ["/:title"],
    "html": ["<pre>", "<!--"],
    "precondition": ['"', 'W/"'],
    "range": ["bytes="],
}
"""Prefixes that a parser needs before it processes the rest, unless TOKENS has them."""
AFTER_THEM = [" ", "\n", "a", "0", "-", "#", "<", ">", '"', ",", "- a\n"]


def quietly(run: Callable[[str], object], *refusals: type[Exception]) -> Callable[[str], object]:
    def attempt(text: str) -> object:
        try:
            return run(text)
        except refusals:
            return None

    return attempt


NOW = datetime(2026, 1, 1, tzinfo=UTC)


def fields(text: str) -> None:
    for start in ("", "---\n", "+++\n", "---\na: ", "{", "a: "):
        for end in ("", "\n---\n"):
            front_matter.split(f"{start}{text}{end}")
    list(visibility.restrictions({"status": text, text: text}, now=NOW, zone=UTC))


def permalink(text: str) -> None:
    expand(text, at=NOW, values={"title": text, "path": text})
    expand("/:title/:path" * 10, at=NOW, values={"title": text, "path": text})


def redirects(text: str) -> None:
    rules = json.dumps([{"from": f"/{text}", "to": f"/{text}/a"}] * 3)
    ghost_redirects.read("redirects.json", rules.encode(), {"a"})


def item(text: str) -> None:
    for start in ("", "<![CDATA["):
        wxr._parse("item", f"<item><title>{start}{text}]]></title></item>".encode(), "utf-8")


def draft(text: str) -> None:
    builder = RecordBuilder(1, ReadOptions(NOW))
    title_of(text)
    without_html(text)
    builder.add_old_address(text)
    builder.set_title(text)
    builder.set_slug(text)
    builder.set_excerpt(text)
    builder.set_cover(text)
    builder.set_tags([text])
    builder.set_language(text)


def lexical(text: str) -> Converted:
    words = {"type": "text", "text": text, "format": 1}
    code = {"type": "codeblock", "code": text, "language": "a"}
    return from_lexical(json.dumps({"root": {"children": [words, code]}}))


def lexical_lists(text: str) -> Converted:
    """Convert nested lists, one per character of `text`."""
    inner = {"type": "list", "children": []}
    item = {"children": [inner for _ in text]}
    return from_lexical(json.dumps({"root": {"children": [{"type": "list", "children": [item]}]}}))


def lexical_siblings(text: str) -> Converted:
    """Convert an item with as many lists and texts as `text` has characters."""
    children = [{"type": "list", "children": []}, {"type": "text", "text": "a"}] * len(text)
    items = {"type": "list", "children": [{"children": children}]}
    return from_lexical(json.dumps({"root": {"children": [items]}}))


def many_notes(text: str) -> None:
    """Set a content with as many different notes."""
    builder = RecordBuilder(1, ReadOptions(NOW))
    builder.set_content(Converted("", [f"note {number}" for number in range(len(text))]))


def form(text: str) -> None:
    header = text.encode().decode("latin-1")
    for content_type in (header, f"multipart/form-data; {header}"):
        quietly(forms._boundary, PressroomError)(content_type)
    parser = forms._FormParser(b"x", max_bytes=2**30)
    body = f'--x\r\nContent-Disposition: form-data; name="file"{text[:4000]}\r\n\r\n{text}\r\n--x'
    parser.feed(body.encode())


PARSERS: Mapping[str, Callable[[str], object]] = {
    "draft": draft,
    "email": quietly(TypeAdapter(Email).validate_python, ValidationError),
    "front matter": fields,
    "glob": quietly(globs.below, globs.Unsupported),
    "expression": quietly(globs.expression, globs.Unsupported),
    "permalink": permalink,
    "redirects": redirects,
    "form": quietly(form, InvalidRequest, InvalidInput),
    "addresses": quietly(find_addresses, TooComplex),
    "html": quietly(from_ghost_html, TooComplex),
    "lexical": quietly(lexical, InvalidDocument, TooComplex),
    "site": from_site,
    "mdx": partial(from_site, is_mdx=True),
    "wordpress": quietly(from_wordpress, TooComplex),
    "WXR item": item,
    "date": quietly(lambda text: read_date(text, UTC), DateError),
    "precondition": lambda text: Precondition.parse(text, text),
    "range": lambda text: _part(text, 100),
    "record": lambda text: parse_record(1, text.encode()),
    "slug": slugify,
    "normalize_text": normalize_text,
}


@pytest.mark.parametrize("name", PARSERS)
def test_parser_takes_linear_time(name: str) -> None:
    """The floor is high: parsing nested HTML is quadratic up to a limit."""
    inputs = (*runs([], TOKENS), *runs(PREFIXES.get(name, []), AFTER_THEM))
    slow = [
        each for each, make in inputs if grows_too_fast(PARSERS[name], make, short=2_000, floor=0.4)
    ]
    assert slow == []


@pytest.mark.parametrize("read", [front_matter.split, front_matter._by_lines])
def test_lists_in_front_matter_take_linear_time(read: Callable[[str], object]) -> None:
    make = partial(run_of, "---\na: b\n", "- c\n", "")
    assert not grows_too_fast(read, make, short=60_000, floor=0.05)


@pytest.mark.parametrize("start", ["", "[", "a = {"])
def test_long_keys_in_toml_take_linear_time(start: str) -> None:
    read = quietly(front_matter.load_toml, front_matter.FrontMatterError)
    make = partial(run_of, start, "a.", "a = 1")
    assert not grows_too_fast(read, make, short=4_000, floor=0.05)
    assert front_matter.load_toml("a.b.c = 1.5") == {"a": {"b": {"c": "1.5"}}}


@pytest.mark.parametrize(
    "run",
    [
        quietly(lexical_lists, TooComplex),
        quietly(lexical_siblings, TooComplex),
        many_notes,
    ],
)
def test_many_parts_take_linear_time(run: Callable[[str], object]) -> None:
    assert not grows_too_fast(run, partial(str.ljust, ""), short=4_000, floor=0.1)


def test_captions_take_linear_time() -> None:
    run = quietly(from_ghost_html, TooComplex)
    make = partial(run_of, "<figure>", "<figcaption></figcaption>b<br>", "</figure>")
    assert not grows_too_fast(run, make, short=60_000, floor=0.4)


# --- images

STARTS = {
    "JPEG": b"\xff\xd8\xff",
    "JPEG's end": b"\xff\xd8\xff\xd9",
    "JPEG's scan": b"\xff\xd8\xff\xda\0\x08\x01\x01\0\0?\0",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "GIF": b"GIF89a\x01\0\x01\0\0\0\0",
    "GIF's extension": b"GIF89a\x01\0\x01\0\0\0\0!\xfe",
    "WebP": b"RIFF\xff\xff\xff\x00WEBPVP8 ",
    "AVIF": b"\0\0\0\x10ftypavif\0\0\0\0",
    "nothing": b"<",
    **{
        f"a whole {kind}": image_bytes(kind, size=(8, 8))
        for kind in ("JPEG", "PNG", "GIF", "WEBP", "AVIF")
    },
}
UNITS = [
    b"\xff", b"\x00", b"\x01", b"\xd8", b"\xd9", b"!", b",", b";", b"<", b"a", b"\xff\x00",
    b"\xff\x01", b"\xff\xd0", b"\xff\xd8", b"\xff\xe0\x00\x00", b"\xff\xe0\x00\x02",
    b"\xff\xda\x00\x02", b"\x00\x00\x00\x00IDAT\x00\x00\x00\x00", b"\x01a", b"!\xfe\x00",
    b"\x00\x00\x00\x08free", b"<svg:", b"SEF", b"ftyp",
]  # fmt: skip
ENDS = [b"", b"\0", b"X"]


@pytest.mark.parametrize("start", STARTS)
def test_image_detection_takes_linear_time(start: str, tmp_path: Path) -> None:
    path = tmp_path / "upload"

    def run(text: str) -> None:
        path.write_bytes(text.encode("latin-1"))
        with suppress(InvalidMedia):
            detect_format(path)

    for unit in UNITS:
        for end in ENDS:
            content = (STARTS[start], unit, end)
            before, each, after = (part.decode("latin-1") for part in content)
            make = partial(run_of, before, each, after)
            assert not grows_too_fast(run, make, short=50_000, floor=0.1), content
