"""Fixtures of the tests of deploy/swarm: `make swarm-test` runs them, `make test` does not.

All use one stack, one after the other: each one waits until the stack is complete again. A test
with the mark `core` also runs in `.ci/run`.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.edge.conftest import mark
from tests.edge.stack import register
from tests.processes import HIGH_LIMITS
from tests.swarm.cluster import PURPOSE, Cluster

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark(items, HERE, variable="SWARM_TESTS", command="make swarm-test")


FIGURES: list[tuple[str, str]] = []
"""What each test measured, for docs/scaling.md."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("figures")
        for row in FIGURES:
            terminalreporter.line(f"| {' | '.join(row)} |")


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return a function that adds a figure to the summary at the end."""

    def add(figure: str) -> None:
        FIGURES.append((request.node.name, figure))

    return add


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The running stack. With STACK_NAME, it has this name, and is kept."""
    settings = tmp_path_factory.mktemp("swarm") / "backend.env"
    settings.write_text(f"LIMITS={HIGH_LIMITS}\nBCRYPT_COST=4\n")
    cluster = Cluster.create(PURPOSE, BACKEND_ENV_FILE=str(settings))
    try:
        cluster.swarm.up()
        yield cluster
    finally:
        if not os.environ.get("STACK_NAME"):
            cluster.swarm.down()


@pytest.fixture(scope="session")
def author(cluster: Cluster) -> dict[str, str]:
    with httpx.Client(base_url=cluster.urls[0], timeout=40) as client:
        return register(client)
