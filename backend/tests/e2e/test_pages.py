"""Promise: the README's tour and the API's page, run as they are written, show what they show."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.core.config import PROJECT_DIR
from tests.databases import execute
from tests.processes import Api, Checkout, serving

pytestmark = pytest.mark.e2e

HEADING = re.compile(r"^(#+) .*five-minute tour.*$", re.MULTILINE | re.IGNORECASE)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BETWEEN = "----- the next step of the tour -----"
DIFFERS = re.compile(r"(^|_)(id|at|token|in|time)$")
"""Fields whose values are another run's: ids, times and tokens."""


@dataclass(frozen=True)
class Step:
    """A block of commands, and the block that shows what one sees, where there is one."""

    commands: str
    kind: str = ""
    shown: str = ""


def read_tour(path: Path, heading: re.Pattern[str] | None) -> list[Step]:
    """The steps below `heading`, or of the whole page."""
    if not path.is_file():
        pytest.skip(f"no {path.name} here: the container has the backend only")
    text = path.read_text()
    found = heading.search(text) if heading else re.search(r"^(#) ", text)
    assert found, f"{path.name} has no such heading"
    rest = text[found.end() :]
    # A line of a shell comment looks like a heading: only what stands outside of blocks ends it.
    blanked = FENCE.sub(lambda block: re.sub(r"[^\n]", " ", block.group()), rest)
    end = re.search(rf"^#{{1,{len(found.group(1))}}} ", blanked, re.MULTILINE)
    steps: list[Step] = []
    for kind, body in FENCE.findall(rest[: end.start()] if end else rest):
        if kind == "bash":
            steps.append(Step(body))
        elif kind in {"json", "text"}:
            steps[-1] = Step(steps[-1].commands, kind, body)
    assert steps, "the tour has no bash block"
    return steps


def documents(text: str) -> list[Any]:
    """Every JSON document in `text`, which may have other words around them."""
    found, decoder, position = [], json.JSONDecoder(), 0
    while match := re.compile(r"[\[{]").search(text, position):
        try:
            document, position = decoder.raw_decode(text, match.start())
            found.append(document)
        except ValueError:
            position = match.end()
    return found


def assert_alike(shown: Any, seen: Any, where: str) -> None:
    """Same fields, same values, but for those that differ from run to run; `…` is anything."""
    if isinstance(shown, dict):
        assert isinstance(seen, dict), where
        assert shown.keys() == seen.keys(), where
        for name, value in shown.items():
            if DIFFERS.search(name):
                assert type(seen[name]) is type(value), f"{where}.{name}"
            else:
                assert_alike(value, seen[name], f"{where}.{name}")
    elif isinstance(shown, list):
        assert isinstance(seen, list), where
        assert len(shown) == len(seen), where
        for number, (left, right) in enumerate(zip(shown, seen, strict=True)):
            assert_alike(left, right, f"{where}[{number}]")
    elif isinstance(shown, str) and isinstance(seen, str):
        assert re.fullmatch(loosely(shown), seen, re.DOTALL), f"{where}: {seen!r} is not {shown!r}"
    else:
        assert shown == seen, where


def loosely(line: str) -> str:
    """A pattern for `line`: numbers may differ, `…` and `...` stand for anything."""
    parts = re.split(r"(…|\.\.\.|\d+)", line.strip())
    patterns = {"…": ".*", "...": ".*"}
    return "".join(
        patterns.get(part) or (r"\d+" if part.isdigit() else re.escape(part)) for part in parts
    )


@pytest.fixture
def fresh_api(checkout: Checkout, own_database: str) -> Iterator[Api]:
    # As on a server that somebody has used: whoever reads the page is not user 1.
    execute(own_database, "SELECT setval(pg_get_serial_sequence('users', 'id'), 41)")
    with serving(checkout, DATABASE_URL=own_database) as api:
        yield api


@pytest.mark.parametrize(
    ("page", "heading"), [("README.md", HEADING), ("docs/api.md", None)], ids=["README", "api"]
)
def test_the_tour_shows_what_it_says(
    fresh_api: Api, page: str, heading: re.Pattern[str] | None
) -> None:
    steps = read_tour(PROJECT_DIR / page, heading)
    for program in ("bash", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here")
    script = f"\necho; echo '{BETWEEN}'\n".join(step.commands for step in steps)
    ended = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input=script,
        env={"PATH": os.environ["PATH"], "API": fresh_api.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"

    for number, (step, seen) in enumerate(zip(steps, ended.stdout.split(BETWEEN), strict=True), 1):
        if step.kind == "json":
            shown, found = documents(step.shown), documents(seen)
            assert shown, f"step {number} of the tour shows no JSON: {step.shown}"
            assert len(found) >= len(shown), f"step {number} of the tour printed: {seen}"
            assert_alike(shown, found[-len(shown) :], f"step {number}")
        if step.kind == "text":
            for line in filter(None, map(str.strip, step.shown.splitlines())):
                pattern = re.compile(loosely(line))
                assert any(pattern.search(printed) for printed in seen.splitlines()), (
                    f"step {number} of the tour does not print {line!r} but:\n{seen}"
                )
