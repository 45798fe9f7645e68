"""The Python clients that openapi-python-client generates are usable.

The program of each resource (`clients/python/`) passes mypy in strict mode, and works with the
server. The test requires pip and its registry.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.config import BACKEND_DIR
from tests.contract.conftest import CLIENTS, install, missing_programs, run
from tests.processes import Api

pytestmark = pytest.mark.contract

DOCUMENTS = {"native": "/openapi.json", "conduit": "/api/openapi.json"}


@pytest.fixture(scope="module")
def pip() -> list[str]:
    """Return the command: scripts/venv creates environments without pip if Python has it."""
    base = str(Path(sys.base_prefix, "bin", "python3"))
    for python in (sys.executable, base):
        command = [python, "-m", "pip"]
        if (
            subprocess.run([*command, "--version"], capture_output=True, check=False).returncode
            == 0
        ):
            return command
    pytest.skip("pip is not installed")


def test_programs_with_generated_python_clients(pip: list[str], api: Api, tmp_path: Path) -> None:
    assert missing_programs(api, CLIENTS / "python") == set(), "add a program for the tag"
    folder = shutil.copytree(CLIENTS / "python", tmp_path / "clients")
    packages = tmp_path / "packages"
    install(
        [
            *pip, "install", "--disable-pip-version-check", "--no-input", "--no-compile",
            "--no-deps", "--target", packages, "--require-hashes",
            "--requirement", BACKEND_DIR / "requirements" / "clients.txt",
        ],
        cwd=tmp_path,
    )  # fmt: skip
    for name, path in DOCUMENTS.items():
        run(
            [
                sys.executable, "-m", "openapi_python_client", "generate", "--url", api.url + path,
                "--config", "config.yml", "--meta", "none", "--output-path", f"{name}_client",
            ],
            cwd=folder,
            PYTHONPATH=str(packages),
        )  # fmt: skip
    run([sys.executable, "-m", "mypy", "--strict", "programs.py"], cwd=folder)
    run([sys.executable, "programs.py", api.url], cwd=folder)
