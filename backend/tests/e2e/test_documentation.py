"""Promise: /docs and /redoc work in a browser that reaches nothing but the server, under a policy
that nothing on the pages breaks."""

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.processes import HOST, Api

pytestmark = pytest.mark.e2e

NAMES = ("chromium", "chromium-browser", "google-chrome")
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
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no browser: none of " + ", ".join(NAMES) + " is in PATH")
    return found


def visit(browser: str, url: str, profile: Path) -> tuple[str, list[str]]:
    """The document as the page's scripts left it, and what its console says."""
    command = [browser, *FLAGS, f"--user-data-dir={profile}", url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return ended.stdout, [line for line in ended.stderr.splitlines() if "CONSOLE" in line]


def test_both_pages_render_without_internet(browser: str, api: Api, tmp_path: Path) -> None:
    operations = [
        operation
        for path in api.client.get("/openapi.json").json()["paths"].values()
        for operation in path.values()
    ]
    assert len(operations) > 15
    with ThreadPoolExecutor(2) as threads:
        docs = threads.submit(visit, browser, f"{api.url}/docs", tmp_path / "docs")
        redoc = threads.submit(visit, browser, f"{api.url}/redoc", tmp_path / "redoc")

    for dom, console in (docs.result(), redoc.result()):
        assert [line for line in console if "logo-mini" not in line] == []
        assert {host for host in ELSEWHERE.findall(dom) if not host.startswith(HOST)} == set()
    for operation in operations:
        assert operation["operationId"] in docs.result()[0]
        assert operation["summary"] in redoc.result()[0]
