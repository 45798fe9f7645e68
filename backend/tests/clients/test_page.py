"""The programs of docs/integrations/clients.md compile strictly, and run."""

import re
import sys
from pathlib import Path

import pytest

from app.core.config import PROJECT_DIR
from tests.clients.conftest import PYTHON
from tests.contract.conftest import run
from tests.processes import PASSWORD, Api

pytestmark = pytest.mark.clients

PAGE = PROJECT_DIR / "docs" / "integrations" / "clients.md"


def program(language: str) -> str:
    """Return the code blocks of the page in a language."""
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return "\n".join(fence.findall(PAGE.read_text()))


def latest(api: Api) -> str:
    """Return the cursor after the latest change."""
    cursor: str = api.client.get("/changes", params={"cursor": "latest"}).json()["next"]
    return cursor


def test_programs_of_the_page(typescript: Path, api: Api, tmp_path: Path) -> None:
    folder = typescript / "dist" / "page"  # in the package, whose name the program imports
    folder.mkdir(parents=True)
    source = folder / "page.ts"
    given = {"API": api.url, "PASSWORD": PASSWORD, "CURSOR": latest(api)}
    constants = "".join(f"const {name} = '{value}';\n" for name, value in given.items())
    source.write_text(constants + program("ts"))
    options = ["--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck"]
    run([typescript / "node_modules" / ".bin" / "tsc", *options, source], cwd=typescript)
    output = run(["node", source.with_suffix(".js")], cwd=typescript)
    assert "Notes" in output.splitlines()
    assert "created notes" in output
    assert re.search(r"^created notes\S* \S+$", output, re.MULTILINE)  # in the stream
    assert "412" in output

    path = tmp_path / "page.py"
    given["CURSOR"] = latest(api)
    constants = "".join(f"{name} = {value!r}\n" for name, value in given.items())
    path.write_text(constants + program("python"))
    environment = {"PYTHONPATH": str(PYTHON / "src"), "MYPYPATH": str(PYTHON / "src")}
    run([sys.executable, "-m", "mypy", "--strict", path], cwd=tmp_path, **environment)
    output = run([sys.executable, path], cwd=tmp_path, **environment)
    assert "More notes" in output
    assert "created more-notes" in output
    assert re.search(r"^created more-notes\S* \S+$", output, re.MULTILINE)
    assert "['Notes']" in output
