"""Fixtures of the nginx tests. `make edge` runs them, `make test` does not.

Attacks, which measure how long other users wait, and tests with a browser run first, one at a time.
Three processes then share the other files. Each process has a stack of its own.
"""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import httpx
import pytest

from app.core.config import PROJECT_DIR
from tests.edge.stack import Stack
from tests.processes import free_port

HERE = Path(__file__).parent
SLOWEST = (
    "test_requests.py",
    "test_lifecycle.py",
    "test_pages.py",
    "test_upgrades.py",  # `.ci/run` adds a test of releases
    "test_outage.py",
    "test_pgbouncer.py",
    "test_web_pages.py",
    "test_full_disk.py",
)
"""Files that run first, so that the three processes end at about the same time."""


def skip_reason(variable: str, command: str) -> str | None:
    """Return why the tests of `command` cannot run, or None. The command sets `variable`."""
    if not (PROJECT_DIR / "scripts" / "containers.py").exists():
        return "the image has only the backend"
    if not os.environ.get(variable):
        return f"`{command}` runs it, because it starts containers"
    from containers import why_no_docker

    problem: str | None = why_no_docker()
    return problem


def mark(items: list[pytest.Item], folder: Path, *, variable: str, command: str) -> None:
    """Mark the tests of a folder, which start containers; skip them with the `skip_reason`."""
    reason = skip_reason(variable, command)
    for item in items:
        if item.path.is_relative_to(folder):
            item.add_marker(pytest.mark.e2e)
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark(items, HERE, variable="EDGE_TESTS", command="make edge")
    if os.environ.get("EDGE_TESTS"):
        places = {name: place for place, name in enumerate(SLOWEST)}
        items.sort(key=lambda item: places.get(item.path.name, len(SLOWEST)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the end of the containers' logs to the report of a failed test."""
    report = yield
    stacks = [each for each in getattr(item, "funcargs", {}).values() if isinstance(each, Stack)]
    if report.failed and stacks:
        logs = stacks[0].project.run_captured("logs", "--tail", "40").stdout
        report.sections.append(("Logs of the containers", logs))
    return report


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    stack = Stack(free_port())
    with stack.project.running():
        stack.wait_for_change_feed()
        yield stack


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client() as client:
        yield client
