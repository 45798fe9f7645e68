"""Schemathesis against the API's own description: all its checks, a fixed seed, a small budget.

SCHEMATHESIS_EXAMPLES raises the budget, and SCHEMATHESIS_SEED tries other cases: `make contract`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.config import BACKEND_DIR
from tests.e2e.conftest import api_database, checkout
from tests.e2e.processes import Api, Checkout, serving

__all__ = ["api_database", "checkout"]

pytestmark = pytest.mark.e2e

SEED = os.environ.get("SCHEMATHESIS_SEED", "1815")
EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "4")
SECONDS = 900


@pytest.fixture(scope="module")
def api(checkout: Checkout, api_database: str) -> Iterator[Api]:
    with serving(checkout, DATABASE_URL=api_database, RAW_SQL_REFERENCE="true") as api:
        yield api


@pytest.mark.parametrize(
    ("caller", "phases"),
    [
        # The coverage phase tries each constraint of each field; without a user it sees only 401.
        ("anonymous", "examples,fuzzing,stateful"),
        ("authenticated", "examples,coverage,fuzzing,stateful"),
    ],
)
def test_the_api_keeps_what_its_description_promises(
    api: Api, tmp_path: Path, caller: str, phases: str
) -> None:
    command = Path(sys.executable).with_name("schemathesis")
    hooks = {"SCHEMATHESIS_HOOKS": "tests.contract.schemathesis_hooks", "PYTHONPATH": "."}
    if caller == "authenticated":
        hooks["SCHEMATHESIS_AUTHENTICATED"] = "1"
    finished = subprocess.run(
        [
            command, "run", f"{api.url}/openapi.json", "--checks", "all", "--phases", phases,
            "--seed", SEED, "--max-examples", EXAMPLES, "--no-color", "--continue-on-failure",
            "--generation-database", "none",
        ],
        cwd=BACKEND_DIR,
        env={**os.environ, **hooks, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout[-20_000:] + finished.stderr[-2000:]
    assert " passed" in finished.stdout
    assert "unhandled exception" not in api.process.log
