"""The commands of the README's tour and of the API guide print what the pages show."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.core.config import PROJECT_DIR
from tests.databases import execute
from tests.processes import Api, Checkout, serving

pytestmark = [pytest.mark.e2e, pytest.mark.checkout]

README = "README.md"
API_GUIDE = "docs/api/index.md"
REALTIME = "docs/integrations/realtime.md"
HEADING = re.compile(r"^(#+) .*five-minute tour.*$", re.MULTILINE | re.IGNORECASE)
PAGE = re.compile(r"^\| \[[^]]+\]\(([\w-]+\.md)\) \|", re.MULTILINE)
"""A row of the table of contents of the API guide."""
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SEPARATOR = "----- the next step of the tour -----"
VOLATILE_FIELD = re.compile(r"(^|_)(id|at|token|in|time)$")
"""Fields whose values differ between runs: ids, times and tokens."""


@dataclass(frozen=True)
class Step:
    """A block of commands, and the block that shows their output, if there is one."""

    page: str
    commands: str
    kind: str = ""
    shown: str = ""


def read_tour(page: str) -> list[Step]:
    """Return the steps of the tour in the README, or of all pages of the API guide in order."""
    path = PROJECT_DIR / page
    if not path.is_file():
        pytest.skip(f"no {page} here: the container has the backend only")
    text = path.read_text()
    if page == README:
        return read_steps(page, section(text, HEADING))
    if page == REALTIME:
        return read_steps(page, text)
    names = PAGE.findall(text)
    assert set(names) == {other.name for other in path.parent.glob("*.md")} - {path.name}
    return read_steps(path.name, text) + [
        step for name in names for step in read_steps(name, (path.parent / name).read_text())
    ]


def section(text: str, heading: re.Pattern[str]) -> str:
    """Return the text from `heading` to the next heading of the same or a higher level."""
    found = heading.search(text)
    assert found, f"no heading matches {heading.pattern}"
    rest = text[found.end() :]
    # A shell comment looks like a heading: only lines outside of blocks end the section.
    blanked = FENCE.sub(lambda block: re.sub(r"[^\n]", " ", block.group()), rest)
    end = re.search(rf"^#{{1,{len(found.group(1))}}} ", blanked, re.MULTILINE)
    return rest[: end.start()] if end else rest


def read_steps(page: str, text: str) -> list[Step]:
    steps: list[Step] = []
    for kind, body in FENCE.findall(text):
        if kind == "bash":
            steps.append(Step(page, body))
        elif kind in {"json", "text"}:
            assert steps, f"{page} shows output before a command"
            steps[-1] = Step(page, steps[-1].commands, kind, body)
    return steps


def documents(text: str) -> list[Any]:
    """Return every JSON document in `text`, which may have other text around them."""
    found, decoder, position = [], json.JSONDecoder(), 0
    while match := re.compile(r"[\[{]").search(text, position):
        try:
            document, position = decoder.raw_decode(text, match.start())
            found.append(document)
        except ValueError:
            position = match.end()
    return found


def assert_matches(shown: Any, printed: Any, where: str) -> None:
    """Compare fields and values, except those that differ between runs; `…` matches anything."""
    if isinstance(shown, dict):
        assert isinstance(printed, dict), where
        assert shown.keys() == printed.keys(), where
        for name, value in shown.items():
            if VOLATILE_FIELD.search(name):
                assert type(printed[name]) is type(value), f"{where}.{name}"
            else:
                assert_matches(value, printed[name], f"{where}.{name}")
    elif isinstance(shown, list):
        assert isinstance(printed, list), where
        assert len(shown) == len(printed), where
        for number, (left, right) in enumerate(zip(shown, printed, strict=True)):
            assert_matches(left, right, f"{where}[{number}]")
    elif isinstance(shown, str) and isinstance(printed, str):
        matches = re.fullmatch(loosely(shown), printed, re.DOTALL)
        assert matches, f"{where}: {printed!r} is not {shown!r}"
    else:
        assert shown == printed, where


def loosely(line: str) -> str:
    """Return a pattern for `line` in which numbers may differ, and `…` and `...` match anything."""
    parts = re.split(r"(…|\.\.\.|\d+)", line.strip())
    patterns = {"…": ".*", "...": ".*"}
    return "".join(
        patterns.get(part) or (r"\d+" if part.isdigit() else re.escape(part)) for part in parts
    )


@pytest.fixture
def fresh_api(checkout: Checkout, own_database: str) -> Iterator[Api]:
    # As on a server with other users: the reader of the page is not user 1.
    execute(own_database, "SELECT setval(pg_get_serial_sequence('users', 'id'), 41)")
    with serving(checkout, DATABASE_URL=own_database) as api:
        yield api


@pytest.mark.parametrize("page", [README, API_GUIDE, REALTIME], ids=["README", "api", "realtime"])
def test_commands_of_a_page_print_what_it_shows(fresh_api: Api, page: str) -> None:
    for program in ("bash", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here")
    steps = read_tour(page)
    python = Path(sys.executable).parent  # it has the package `websockets`
    script = f"\necho; echo '{SEPARATOR}'\n".join(step.commands for step in steps)
    ended = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input=script,
        env={"PATH": f"{python}:{os.environ['PATH']}", "API": fresh_api.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"

    outputs = ended.stdout.split(SEPARATOR)
    for number, (step, output) in enumerate(zip(steps, outputs, strict=True), 1):
        where = f"step {number} ({step.page})"
        if step.kind == "json":
            shown, found = documents(step.shown), documents(output)
            assert shown, f"{where} shows no JSON: {step.shown}"
            assert len(found) >= len(shown), f"{where} printed: {output}"
            assert_matches(shown, found[-len(shown) :], where)
        if step.kind == "text":
            for line in filter(None, map(str.strip, step.shown.splitlines())):
                pattern = re.compile(loosely(line))
                assert any(pattern.search(printed) for printed in output.splitlines()), (
                    f"{where} does not print {line!r} but:\n{output}"
                )
