"""The validation matrix: a list of rows and two runners.

    matrix.py host        with .venv and an embedded PostgreSQL   (make check)
    matrix.py container   inside the backend's container          (make validate)

All rows run, also after a failure: the tests in the foreground, all other rows beside them, one
after the other. A row that Docker could not start is started again, once. The results are printed
as a table at the end. The exit status is 0 if no row failed. Requires no packages: the container
runner works with Python 3.9.
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
from shutil import which
from typing import IO, NamedTuple, Optional

from containers import (
    ROOT,
    Project,
    compose_command,
    project_name,
    run_command,
    stop_on_terminate,
    why_no_docker,
)


class Row(NamedTuple):
    """One line of the matrix.

    `where`: backend, scratch (with its own database), nginx, docker, checkout (the root folder),
    manifests (in backend, beside folders of the checkout).
    """

    name: str
    command: str
    where: str = "backend"


EDGE = frozenset(("nginx", "docker"))
"""Rows that need Docker, also on the host."""

ROWS = (
    Row("Python tests", "pytest -x --cov"),
    Row("Types", "mypy app tests ../bench ../scripts"),
    Row("Lint", "ruff check . ../bench ../clients ../scripts"),
    Row("Format", "ruff format --check . ../bench ../clients ../scripts"),
    Row("Migration", "alembic upgrade head", "scratch"),
    Row("Drift", "alembic check", "scratch"),
    Row("Layers", "lint-imports"),
    Row("Dependencies", "deptry ."),
    Row("Clients", "scripts/clients.py check", "checkout"),
    Row("Kubernetes", "python ../scripts/manifests.py check", "manifests"),
    Row("Edge", "nginx -t", "nginx"),
    Row("Edge", "docker compose config -q", "docker"),
    Row("Edge", "docker compose -f docker-compose.test.yml config -q", "docker"),
    *(
        Row(
            "Edge",
            f"docker compose -f docker-compose.yml -f docker-compose.{overlay}.yml config -q",
            "docker",
        )
        for overlay in ("backup", "journald", "observe", "secrets", "tls", "watch")
    ),
)

STARTED = "pressroom: this row has started"
"""Printed inside a container directly before a row's command."""
# Docker's name server may fail on a busy machine. The database's name is resolved once, and the
# row connects to the address: after it has started, a failure is its own.
START_IN_BACKEND = f"""
address=$(getent ahostsv4 db) || {{ echo 'the name `db` does not resolve'; exit 1; }}
export DATABASE_URL="${{DATABASE_URL%@*}}@${{address%% *}}:${{DATABASE_URL##*:}}"
echo '{STARTED}'
exec "$@"
"""
# Renders the configuration and runs `nginx -t`.
START_IN_NGINX = f"""
echo '{STARTED}'
exec sh /release/scripts/render.sh true
"""
SECOND_ATTEMPT = "second attempt: it did not start at first"

Output = Optional[IO[bytes]]
"""Where the output of a row goes; None for the terminal."""
Runner = Callable[[Row, Output], int]


class SkipRow(Exception):
    """A row cannot run here. The message contains the reason."""


class StartError(Exception):
    """Docker could not start a row. The message contains the reason."""


@dataclass
class Outcome:
    """The result of a row."""

    row: Row
    result: str
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Return whether the row did not fail."""
        return self.result.startswith(("ok", "skipped"))


@contextmanager
def host_runner() -> Iterator[tuple[Runner, list[Outcome]]]:
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
            if row.where == "checkout":
                return run_in_checkout(row, output)
            if row.where in EDGE:
                if problem := why_no_docker():
                    raise SkipRow(problem)
                return run_edge(row, output)
            if row.where == "manifests" and not (which("kustomize") or which("kubectl")):
                raise SkipRow("neither kustomize nor kubectl is installed")
            url = urls["scratch" if row.where == "scratch" else "server"]
            return run_command(
                shlex.split(row.command),
                cwd=ROOT / "backend",
                env={**environment, "DATABASE_URL": url},
                stdout=output,
                stderr=output,
            )

        yield run, []
    finally:
        if database_process.stdin is not None:
            database_process.stdin.close()
        database_process.wait(timeout=60)


@contextmanager
def container_runner() -> Iterator[tuple[Runner, list[Outcome]]]:
    """Run rows inside the backend's container, with a temporary PostgreSQL.

    Also yields the outcome of the start of the containers.
    """
    project = Project(project_name("test"), "docker-compose.test.yml")
    in_backend = ("exec", "-T", "backend", "sh", "-c", START_IN_BACKEND, "sh")

    def run(row: Row, output: Output) -> int:
        if row.where == "checkout":
            return run_in_checkout(row, output)
        if row.where in EDGE:
            if problem := why_no_docker():
                raise StartError(problem)
            return run_edge(row, output)
        try:
            return run_when_started(project, *in_backend, *shlex.split(row.command), output=output)
        except StartError:
            # For the second attempt: start what has stopped.
            project.run("up", "--no-build", "--no-recreate", "--detach", "--wait", output=output)
            raise

    started = time.monotonic()
    with project.running(attempts=2) as attempt:
        result = "ok" if attempt == 1 else f"ok ({SECOND_ATTEMPT})"
        row = Row("Containers", "docker compose up --build")
        yield run, [Outcome(row, result, time.monotonic() - started)]


def run_when_started(project: Project, *arguments: str, output: Output) -> int:
    """Run a subcommand that prints STARTED before its own work. Return its exit status.

    Raises StartError if it ends before that. Nothing of the row has run then.
    """
    target = output or sys.stdout.buffer
    started = False
    last = ""

    def write(line: bytes) -> None:
        nonlocal started, last
        if line.strip() == STARTED.encode():
            started = True
            return
        last = line.decode(errors="replace").strip() or last
        target.write(line)
        target.flush()

    status = project.run_streamed(*arguments, write=write)
    if not started:
        raise StartError(last or f"exit status {status}")
    return status


def without_checkout(row: Row) -> Row:
    """Return the row without folders outside backend/, which the image does not contain.

    docker-compose.test.yml mounts those of the manifests.
    """
    if row.where == "manifests":
        return row
    words = [word for word in shlex.split(row.command) if not word.startswith("../")]
    return row._replace(command=shlex.join(words))


def run_in_checkout(row: Row, output: Output) -> int:
    """Run a row whose files are not in the image: a script of Python without packages."""
    command = [sys.executable, *shlex.split(row.command)]
    return run_command(command, cwd=ROOT, stdout=output, stderr=output)


def run_edge(row: Row, output: Output) -> int:
    """Run a row for nginx or the compose files, independent of the runner."""
    if row.where == "docker":
        command = [*(compose_command() or ()), *shlex.split(row.command)[2:]]
        return run_command(command, cwd=ROOT, stdout=output, stderr=output)
    project = Project(project_name("edge"), "docker-compose.yml")
    try:
        options = ("--build", "--rm", "--no-deps", "-T", "--entrypoint", "sh")
        arguments = ("-c", START_IN_NGINX)
        return run_when_started(project, "run", *options, "nginx-config", *arguments, output=output)
    finally:
        project.run("down", "--volumes", output=output)


def run_row(row: Row, runner: Runner, output: Output = None) -> Outcome:
    """Run a row, again if it could not start, and return its result."""
    started = time.monotonic()
    note = ""
    try:
        try:
            status = runner(row, output)
        except StartError as reason:
            print(f"\n=== {row.name}: {row.command}: did not start: {reason}", flush=True)
            note = f" ({SECOND_ATTEMPT})"
            status = runner(row, output)
    except SkipRow as reason:
        return Outcome(row, f"skipped: {reason}")
    except StartError as reason:
        return Outcome(row, f"DID NOT START, twice: {reason}", time.monotonic() - started)
    result = "ok" if status == 0 else f"FAILED ({status})"
    return Outcome(row, result + note, time.monotonic() - started)


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
    failed = sum(not o.passed for o in outcomes)
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
        with runners[arguments[0]]() as (runner, started):
            outcomes = [*started, *run_rows(rows, runner)]
    except RuntimeError as error:
        print(f"the matrix could not start: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print_table(outcomes)
    return 0 if all(o.passed for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
