"""The API agrees with its OpenAPI description, in thousands of cases that Schemathesis generates.

Only `make contract` runs these tests. SCHEMATHESIS_SEED and SCHEMATHESIS_EXAMPLES change the cases.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.core.config import BACKEND_DIR
from tests.processes import Api

pytestmark = pytest.mark.contract

SEED = os.environ.get("SCHEMATHESIS_SEED") or "1"
EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES") or "5"
"""Generated cases per operation, in addition to those that test each constraint of each field."""
MIN_CASES = {"anonymous": 800, "authenticated": 5000}
TIMEOUT_SECONDS = 1800
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


def optional_authentication(api: Api) -> Sequence[str]:
    """Return the operations that anonymous callers may use with other results.

    The run with authentication tests the others: without a token, all their responses are 401, or
    they do not read it.
    """
    document = api.client.get("/openapi.json").json()
    return [
        operation["operationId"]
        for operations in document["paths"].values()
        for operation in operations.values()
        if {} in operation.get("security", ())
    ]


@pytest.mark.parametrize("caller", MIN_CASES)
def test_responses_match_the_openapi_document(api: Api, tmp_path: Path, caller: str) -> None:
    command = Path(sys.executable).with_name("schemathesis")
    hooks = {
        "SCHEMATHESIS_HOOKS": "tests.contract.schemathesis_hooks",
        "PYTHONPATH": str(BACKEND_DIR),
    }
    if caller == "authenticated":
        hooks["SCHEMATHESIS_AUTHENTICATED"] = "1"
    operations = optional_authentication(api) if caller == "anonymous" else ()
    finished = subprocess.run(
        [
            command, "--config-file", CONFIGURATION,
            "run", f"{api.url}/openapi.json", "--checks", "all",
            "--phases", "examples,coverage,fuzzing,stateful",
            "--seed", SEED, "--max-examples", EXAMPLES, "--no-color", "--continue-on-failure",
            "--generation-database", "none",
            *(f"--include-operation-id={each}" for each in operations),
        ],
        cwd=tmp_path,  # it writes files to the current directory
        env={**os.environ, **hooks},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout[-20_000:] + finished.stderr[-2000:]
    print(finished.stdout[finished.stdout.index("= SUMMARY =") :])
    generated = re.search(r"(\d+) generated", finished.stdout)
    assert generated is not None
    assert int(generated[1]) >= MIN_CASES[caller]
    assert "unhandled exception" not in api.process.log
