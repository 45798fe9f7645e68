"""An API for the tests of its OpenAPI documents.

pytest-xdist gives each of two processes two consecutive tests. In the order of the file names, both
have one of Schemathesis, which are the longest.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.conftest import api_database, checkout
from tests.processes import Api, Checkout, serving

__all__ = ["api_database", "checkout"]

CLIENTS = Path(__file__).with_name("clients")
TIMEOUT_SECONDS = 600
MIN_NODE = (20, 19)
"""The oldest version that the generators support."""
OFFLINE = (
    "EAI_AGAIN", "ENOTFOUND", "ENETUNREACH", "ECONNREFUSED", "ETIMEDOUT",  # of npm
    "NewConnectionError", "NameResolutionError", "ConnectTimeoutError",  # of pip
)  # fmt: skip


@pytest.fixture(scope="session")
def api(checkout: Checkout, api_database: str) -> Iterator[Api]:
    with serving(checkout, DATABASE_URL=api_database, RAW_SQL_REFERENCE="true") as api:
        yield api


@pytest.fixture(scope="session")
def npm() -> str:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("Node.js is not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if tuple(map(int, version.strip().removeprefix("v").split(".")[:2])) < MIN_NODE:
        pytest.skip(f"Node.js {version.strip()} is too old for the generators")
    return npm


def run(command: Sequence[str | Path], *, cwd: Path, **environment: str) -> str:
    """Run a command, and return its output. Fails with its output unless it succeeds."""
    finished = _finished(command, cwd, environment)
    assert finished.returncode == 0, finished.stdout[-20_000:]
    return finished.stdout


def install(command: Sequence[str | Path], *, cwd: Path) -> None:
    """Install packages; skip the test if the registry cannot be reached."""
    finished = _finished(command, cwd, {})
    if finished.returncode != 0 and any(name in finished.stdout for name in OFFLINE):
        pytest.skip(f"{Path(command[0]).name} cannot reach the registry of packages")
    assert finished.returncode == 0, finished.stdout[-20_000:]


def _finished(
    command: Sequence[str | Path], cwd: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def resources(api: Api, path: str) -> set[str]:
    """Return the tags of the operations in a document."""
    document = api.client.get(path).json()
    return {
        tag
        for operations in document["paths"].values()
        for operation in operations.values()
        for tag in operation["tags"]
    }


def missing_programs(api: Api, folder: Path) -> set[str]:
    """Return the tags of both documents for which the folder runs no program."""
    programs = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.*")}
    if (entry := folder / "main.ts").exists():
        imported = entry.read_text(encoding="utf-8")
        programs = {name for name in programs if f"'./{name}.js'" in imported}
    tags = resources(api, "/openapi.json") - {"raw SQL reference"}  # off by default
    native = {f"native/{tag.replace(' ', '_')}" for tag in tags}
    conduit = {f"conduit/{CONDUIT_PROGRAMS[tag]}" for tag in resources(api, "/api/openapi.json")}
    return (native | conduit) - programs


CONDUIT_PROGRAMS = {
    "Articles": "articles",
    "Comments": "comments",
    "Favorites": "favorites",
    "Profile": "profiles",
    "Tags": "tags",
    "User and Authentication": "users",
}
