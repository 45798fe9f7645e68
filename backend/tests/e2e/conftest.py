"""Fixtures: a checkout, databases, and an API that most tests share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.config import BACKEND_DIR
from tests.databases import application_url, migrated_database
from tests.processes import GUNICORN, Api, Checkout, serving

PARTS = ("app", "alembic", "alembic.ini", "gunicorn.conf.py")


def copy_backend(directory: Path) -> None:
    """Copy what a server needs to a new directory."""
    directory.mkdir()
    for part in PARTS:
        source = BACKEND_DIR / part
        if source.is_dir():
            shutil.copytree(source, directory / part)
        else:
            shutil.copy2(source, directory / part)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    directory = tmp_path_factory.mktemp("checkout") / "backend"
    copy_backend(directory)
    return Checkout(directory=directory, logs=tmp_path_factory.mktemp("logs"))


@pytest.fixture
def own_database() -> Iterator[str]:
    """Create a migrated database for one test."""
    with migrated_database() as url:
        yield url


@pytest.fixture(scope="module")
def module_database() -> Iterator[str]:
    """A migrated database that the tests of a module share."""
    with migrated_database() as url:
        yield url


@pytest.fixture(scope="session")
def api_database() -> Iterator[str]:
    """Create the migrated database of the shared API."""
    with migrated_database() as url:
        yield url


@pytest.fixture(scope="session")
def api(checkout: Checkout, api_database: str) -> Iterator[Api]:
    """Start the shared API, with the role that runs it in production.

    Tests add their own rows, and undo all other changes.
    """
    with serving(checkout, DATABASE_URL=application_url(api_database)) as api:
        yield api


@pytest.fixture(scope="session")
def gunicorn_api(checkout: Checkout, api_database: str) -> Iterator[Api]:
    """Start a shared API under gunicorn, as in production."""
    with serving(checkout, GUNICORN, DATABASE_URL=application_url(api_database)) as api:
        yield api
