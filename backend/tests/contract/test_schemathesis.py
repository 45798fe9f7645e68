"""Schemathesis against the API's own description: all its checks, a fixed seed, a small budget.

`make contract` raises the budget by SCHEMATHESIS_EXAMPLES, adds the phase that tries each
constraint of each field, and takes other cases with SCHEMATHESIS_SEED.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.config import BACKEND_DIR
from tests.e2e.conftest import api_database, checkout
from tests.processes import Api, Checkout, serving

__all__ = ["api_database", "checkout"]

pytestmark = pytest.mark.e2e

SEED = os.environ.get("SCHEMATHESIS_SEED", "1815")
EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "5")
PHASES = os.environ.get("SCHEMATHESIS_PHASES", "examples,fuzzing,stateful")
CASES = int(os.environ.get("SCHEMATHESIS_CASES", "100"))
SECONDS = 900
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture(scope="module")
def api(checkout: Checkout, api_database: str) -> Iterator[Api]:
    with serving(checkout, DATABASE_URL=api_database, RAW_SQL_REFERENCE="true") as api:
        yield api


@pytest.mark.parametrize("caller", ["anonymous", "authenticated"])
def test_the_api_keeps_what_its_description_promises(api: Api, tmp_path: Path, caller: str) -> None:
    command = Path(sys.executable).with_name("schemathesis")
    hooks = {
        "SCHEMATHESIS_HOOKS": "tests.contract.schemathesis_hooks",
        "PYTHONPATH": str(BACKEND_DIR),
    }
    if caller == "authenticated":
        hooks["SCHEMATHESIS_AUTHENTICATED"] = "1"
    finished = subprocess.run(
        [
            command, "--config-file", CONFIGURATION,
            "run", f"{api.url}/openapi.json", "--checks", "all", "--phases", PHASES,
            "--seed", SEED, "--max-examples", EXAMPLES, "--no-color", "--continue-on-failure",
            "--generation-database", "none",
        ],
        cwd=tmp_path,  # it keeps what it learned beside itself
        env={**os.environ, **hooks},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout[-20_000:] + finished.stderr[-2000:]
    print(finished.stdout[finished.stdout.index("= SUMMARY =") :])
    generated = re.search(r"(\d+) generated", finished.stdout)
    assert generated is not None
    assert int(generated[1]) >= CASES
    assert "unhandled exception" not in api.process.log
