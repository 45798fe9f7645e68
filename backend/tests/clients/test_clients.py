"""Both clients compile strictly, and pass their own tests against a running API."""

import sys
from pathlib import Path

import pytest

from tests.clients.conftest import PYTHON
from tests.contract.conftest import run
from tests.processes import Api

pytestmark = pytest.mark.clients


@pytest.mark.xdist_group("typescript")
def test_typescript_client(typescript: Path, api: Api) -> None:
    output = run(["node", "--test", "dist/tests/"], cwd=typescript, PRESSROOM_URL=api.url)
    assert "# fail 0" in output


def test_python_client(api: Api) -> None:
    run([sys.executable, "-m", "mypy"], cwd=PYTHON)
    run([sys.executable, "-m", "pytest", "-x", "-q"], cwd=PYTHON, PRESSROOM_URL=api.url)
