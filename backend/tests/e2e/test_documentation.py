"""/docs and /redoc work in a browser without internet access, and respect their content security
policy."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.browsers import require_browser
from tests.processes import HOST, Api

pytestmark = pytest.mark.e2e

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HOST}",
    "--virtual-time-budget=10000",
    "--enable-logging=stderr",
    "--dump-dom",
)
ELSEWHERE = re.compile(
    r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=\"(?:https?:)?//([^/\"]+)"
)


@pytest.fixture(scope="module")
def browser() -> str:
    return require_browser()


def visit(browser: str, url: str, profile: Path) -> tuple[str, list[str]]:
    """Return the rendered document and the console messages."""
    command = [browser, *FLAGS, f"--user-data-dir={profile}", url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return ended.stdout, [line for line in ended.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def pages(
    browser: str, api: Api, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, list[str]]]:
    """Visit both pages concurrently. Return their documents and console messages."""
    profiles = tmp_path_factory.mktemp("profiles")
    with ThreadPoolExecutor(2) as threads:
        visits = {
            name: threads.submit(visit, browser, f"{api.url}/{name}", profiles / name)
            for name in ("docs", "redoc")
        }
    return {name: visited.result() for name, visited in visits.items()}


@pytest.mark.parametrize(("name", "field"), [("docs", "operationId"), ("redoc", "summary")])
def test_page_renders_without_internet(
    pages: dict[str, tuple[str, list[str]]], api: Api, name: str, field: str
) -> None:
    dom, console = pages[name]
    operations = [
        operation
        for path in api.client.get("/openapi.json").json()["paths"].values()
        for operation in path.values()
    ]
    assert len(operations) > 15
    for operation in operations:
        assert operation[field] in dom
    assert {host for host in ELSEWHERE.findall(dom) if not host.startswith(HOST)} == set()
    # Redoc's examples of a list with two kinds of items are those of the first kind.
    assert [line for line in console if "OpenAPI Sampler: found allOf" not in line] == []
