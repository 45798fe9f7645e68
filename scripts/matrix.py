"""The validation matrix: a list of rows and two runners.

    matrix.py host        with .venv and an embedded PostgreSQL   (make check)
    matrix.py container   inside the backend's container          (make validate)

All rows run, also after a failure: the tests in the foreground, all other rows beside them, one
after the other. The results are printed as a table at the end. The exit status is 0 if no row
failed. Requires no packages: the container runner works with Python 3.9.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, NamedTuple, Optional

from containers import (
    ROOT,
    Project,
    compose_command,
    project_name,
    stop_on_terminate,
    why_no_docker,
)


class Row(NamedTuple):
    """One line of the matrix.

    `where`: backend, scratch (with its own database), nginx, docker.
    """

    name: str
    command: str
    where: str = "backend"


ROWS = (
    Row("Python tests", "pytest -x --cov"),
    Row("Types", "mypy app tests ../bench ../scripts"),
    Row("Lint", "ruff check . ../bench ../scripts"),
    Row("Format", "ruff format --check . ../bench ../scripts"),
    Row("Migration", "alembic upgrade head", "scratch"),
    Row("Drift", "alembic check", "scratch"),
    Row("Layers", "lint-imports"),
    Row("Dependencies", "deptry ."),
    Row("Edge", "nginx -t", "nginx"),
    Row("Edge", "docker compose config -q", "docker"),
    Row("Edge", "docker compose -f docker-compose.test.yml config -q", "docker"),
    Row(
        "Edge",
        "docker compose -f docker-compose.yml -f docker-compose.watch.yml config -q",
        "docker",
    ),
    Row(
        "Edge",
        "docker compose -f docker-compose.yml -f docker-compose.tls.yml config -q",
        "docker",
    ),
)

Output = Optional[IO[bytes]]
"""Where the output of a row goes; None for the terminal."""
Runner = Callable[[Row, Output], int]


class SkipRow(Exception):
    """A row cannot run here. The message contains the reason."""


@dataclass
class Outcome:
    """The result of a row."""

    row: Row
    result: str
    seconds: float = 0.0


@contextmanager
def host_runner() -> Iterator[Runner]:
    """Run rows in backend/ with .venv first on PATH and a temporary database server."""
    bin_directory = ROOT / ".venv" / "bin"
    environment = {
        **os.environ,
        "PATH": f"{bin_directory}{os.pathsep}{os.environ['PATH']}",
        "ENVIRONMENT": "test",  # as in the container, independent of `.env`
    }
    database_process = subprocess.Popen(
        [bin_directory / "python", ROOT / "scripts" / "scratch_database.py"],
        cwd=ROOT / "backend",
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A separate session, so that Ctrl-C does not interrupt its cleanup.
        start_new_session=True,
    )
    try:
        # Log lines may precede the JSON with the URLs.
        ready = next((line for line in database_process.stdout or () if '"scratch"' in line), None)
        if ready is None:
            raise RuntimeError("the database did not start: see the message above")
        urls = json.loads(ready)

        def run(row: Row, output: Output) -> int:
            url = urls["scratch" if row.where == "scratch" else "server"]
            return subprocess.run(
                shlex.split(row.command),
                cwd=ROOT / "backend",
                env={**environment, "DATABASE_URL": url},
                stdout=output,
                stderr=output,
                check=False,
            ).returncode

        yield run
    finally:
        if database_process.stdin is not None:
            database_process.stdin.close()
        database_process.wait(timeout=60)


@contextmanager
def container_runner() -> Iterator[Runner]:
    """Run rows inside the backend's container, with a temporary PostgreSQL."""
    project = Project(project_name("test"), "docker-compose.test.yml")

    def run(row: Row, output: Output) -> int:
        return project.run("exec", "-T", "backend", *shlex.split(row.command), output=output)

    with project.running():
        yield run


def without_checkout(row: Row) -> Row:
    """Return the row without folders outside backend/, which the image does not contain."""
    words = [word for word in shlex.split(row.command) if not word.startswith("../")]
    return row._replace(command=shlex.join(words))


def run_edge(row: Row, output: Output) -> int:
    """Run a row for nginx or the compose files, independent of the runner."""
    if problem := why_no_docker():
        raise SkipRow(problem)
    if row.where == "docker":
        command = [*(compose_command() or ()), *shlex.split(row.command)[2:]]
        return subprocess.run(
            command, cwd=ROOT, check=False, stdout=output, stderr=output
        ).returncode
    project = Project(project_name("edge"), "docker-compose.yml")
    try:
        # The entry point renders the configuration and runs `nginx -t`.
        run = ("run", "--build", "--rm", "--no-deps", "-T", "nginx-config", "true")
        return project.run(*run, output=output)
    finally:
        project.run("down", "--volumes", output=output)


def run_row(row: Row, runner: Runner, output: Output = None) -> Outcome:
    """Run a row and return its result."""
    started = time.monotonic()
    try:
        status = (run_edge if row.where in {"nginx", "docker"} else runner)(row, output)
    except SkipRow as reason:
        return Outcome(row, f"skipped: {reason}")
    result = "ok" if status == 0 else f"FAILED ({status})"
    return Outcome(row, result, time.monotonic() - started)


def run_beside(row: Row, runner: Runner) -> Outcome:
    """Run a row in the background, and print its output when it ends."""
    with tempfile.TemporaryFile() as output:
        outcome = run_row(row, runner, output)
        output.seek(0)
        text = output.read().decode(errors="replace").rstrip()
    title = f"=== {row.name}: {row.command}: {outcome.result}"
    print(f"\n{title}\n{text}" if text else f"\n{title}", flush=True)
    return outcome


def run_rows(rows: Sequence[Row], runner: Runner) -> list[Outcome]:
    """Run all rows. After Ctrl-C, the unfinished rows count as not run."""
    first, *others = rows
    finished: list[Outcome] = []
    with ThreadPoolExecutor(1) as pool:
        beside: list[Future[Outcome]] = [pool.submit(run_beside, row, runner) for row in others]
        try:
            print(f"=== {first.name}: {first.command}", flush=True)
            finished.append(run_row(first, runner))
            finished.extend(future.result() for future in beside)
        except KeyboardInterrupt:
            for future in beside:
                future.cancel()
    not_run = rows[len(finished) :]
    return finished + [Outcome(row, "not run: interrupted") for row in not_run]


def print_table(outcomes: Sequence[Outcome]) -> None:
    """Print the results as an aligned table."""
    lines = [["row", "command", "result", "seconds"]]
    lines += [[o.row.name, o.row.command, o.result, f"{o.seconds:.1f}"] for o in outcomes]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    lines.insert(1, ["-" * width for width in widths])
    print()
    for line in lines:
        print("  ".join(cell.ljust(widths[column]) for column, cell in enumerate(line)).rstrip())
    failed = sum(not o.result.startswith(("ok", "skipped")) for o in outcomes)
    print(
        f"\n{'all rows passed' if not failed else f'{failed} of {len(outcomes)} rows did not pass'}"
    )


def main(arguments: Sequence[str]) -> int:
    """Return the exit status."""
    runners = {"host": host_runner, "container": container_runner}
    if len(arguments) != 1 or arguments[0] not in runners:
        print(__doc__, file=sys.stderr)
        return 2
    if arguments[0] == "container" and (problem := why_no_docker()):
        print(f"`make validate` requires containers: {problem}. `make check` runs without them.")
        return 2
    rows = ROWS if arguments[0] == "host" else tuple(map(without_checkout, ROWS))
    stop_on_terminate()
    try:
        with runners[arguments[0]]() as runner:
            outcomes = run_rows(rows, runner)
    except RuntimeError as error:
        print(f"the matrix could not start: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print_table(outcomes)
    return 0 if all(o.result.startswith(("ok", "skipped")) for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
