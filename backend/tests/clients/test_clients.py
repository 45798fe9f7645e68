"""Both clients compile strictly, and pass their own tests against a running API.

Those of the TypeScript client run in Node.js and in Deno.
"""

import sys
from pathlib import Path

import pytest

from tests.clients.conftest import PYTHON, install_packages
from tests.contract.conftest import run
from tests.processes import Api

pytestmark = pytest.mark.clients

DENO = Path(__file__).with_name("deno")


@pytest.mark.xdist_group("typescript")
def test_typescript_client(typescript: Path, api: Api) -> None:
    output = run(["node", "--test", "dist/tests/"], cwd=typescript, PRESSROOM_URL=api.url)
    assert "# fail 0" in output


@pytest.mark.xdist_group("typescript")
def test_typescript_client_in_deno(npm: str, typescript: Path, api: Api) -> None:
    install_packages(npm, DENO)
    deno = DENO / "node_modules" / ".bin" / "deno"
    options = ("--no-config", "--no-check", "--allow-net", "--allow-env")
    output = run([deno, "test", *options, "dist/tests/"], cwd=typescript, PRESSROOM_URL=api.url)
    assert "0 failed" in output


def test_python_client(api: Api) -> None:
    run([sys.executable, "-m", "mypy"], cwd=PYTHON)
    run([sys.executable, "-m", "pytest", "-x", "-q"], cwd=PYTHON, PRESSROOM_URL=api.url)
