"""A running API for the clients in clients/. Only `make clients` runs these tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.config import PROJECT_DIR
from tests.contract.conftest import install, npm, run
from tests.e2e.conftest import api_database, checkout
from tests.processes import Api, Checkout, serving

__all__ = ["api_database", "checkout", "npm"]

CLIENTS = PROJECT_DIR / "clients"
TYPESCRIPT = CLIENTS / "typescript"
PYTHON = CLIENTS / "python"


@pytest.fixture(scope="session")
def api(checkout: Checkout, api_database: str) -> Iterator[Api]:
    with serving(checkout, DATABASE_URL=api_database) as api:
        yield api


def install_packages(npm: str, folder: Path) -> None:
    """Install the locked packages of a folder, unless it has them."""
    lock, installed = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        install([npm, "ci", "--ignore-scripts"], cwd=folder)
        installed.touch()


@pytest.fixture(scope="session")
def typescript(npm: str) -> Path:
    """Compile the TypeScript client, and return its folder.

    Tests with this fixture have one group of pytest-xdist, so that one process compiles it.
    """
    install_packages(npm, TYPESCRIPT)
    shutil.rmtree(TYPESCRIPT / "dist", ignore_errors=True)
    run([TYPESCRIPT / "node_modules" / ".bin" / "tsc"], cwd=TYPESCRIPT)
    return TYPESCRIPT
