"""The TypeScript clients that openapi-typescript and hey-api generate are usable.

The program of each resource (`clients/typescript/`) compiles strictly, and works with the server.
hey-api's clients validate every request and response. The test requires Node.js and npm's registry.
"""

import shutil
from pathlib import Path

import pytest

from tests.contract.conftest import CLIENTS, install, missing_programs, run
from tests.processes import Api

pytestmark = pytest.mark.contract


def test_programs_with_generated_typescript_clients(npm: str, api: Api, tmp_path: Path) -> None:
    assert missing_programs(api, CLIENTS / "typescript") == set(), "add a program for the tag"
    folder = shutil.copytree(CLIENTS, tmp_path / "clients")
    install([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)
    run(["node", "generate.mjs", api.url], cwd=folder)
    # The alias of TypeScript 7, whose compiler is several times as fast. The generators need 5.
    run(["node", "node_modules/typescript-7/bin/tsc", "--project", "."], cwd=folder)
    run(["node", "run.mjs", api.url], cwd=folder)
