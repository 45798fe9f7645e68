"""Fixtures of the tests of releases: `make releases` runs them, `make test` does not.

Each file is one kind of event in production: test_upgrades.py, test_outages.py, … A
test with the mark `core` also runs in `.ci/run`.

Three tests run at the same time, as a part of the load of the others.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge.conftest import mark, pytest_runtest_makereport
from tests.edge.stack import register
from tests.processes import free_port
from tests.releases.release import Release, copy_of_this_checkout

__all__ = ["pytest_runtest_makereport"]

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark(items, HERE, variable="RELEASES_TESTS", command="make releases")


@pytest.fixture(scope="session")
def this(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """This release, in a copy of the checkout."""
    folder = tmp_path_factory.mktemp("releases") / "this"
    return copy_of_this_checkout(Release(free_port(), directory=folder))


@pytest.fixture(scope="module")
def running(this: Release) -> Iterator[Release]:
    """Run this release with an empty database."""
    with this.project.running():
        yield this


@pytest.fixture(scope="module")
def author(running: Release) -> dict[str, str]:
    with running.client() as client:
        return register(client)
