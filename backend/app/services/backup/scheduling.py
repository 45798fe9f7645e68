"""Regular backups: `pressroom backup schedule` runs the other commands, each in its own process."""

import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from app.core import clock
from app.core.config import Settings
from app.core.errors import PressroomError
from app.services import job_runs
from app.services.backup import recording

PROGRAM: Sequence[str] = (sys.executable, "-m", "app.cli")
"""The `pressroom` command."""
RETRY = timedelta(minutes=15)
"""The time from a failed run to the next attempt."""
FAILED = Path(tempfile.gettempdir()) / "pressroom-backup-failed"
"""Exists while the last run of a command has failed: for the health check of the container."""
INCOMPLETE = 3
"""The exit status of a backup without the files of some images. It counts as made."""


class Task(NamedTuple):
    """Commands that are run together, one after the other, until one fails."""

    job: str
    """The recorded job whose last success counts."""
    every: timedelta
    commands: Sequence[Sequence[str]]


def tasks_of(settings: Settings) -> Sequence[Task]:
    """Return what is run regularly."""
    keep = ["--keep", str(settings.backup_keep), "--keep-days", str(settings.backup_keep_days)]
    return (
        Task(
            job_runs.BACKUP,
            timedelta(hours=settings.backup_hours),
            [["create"], ["prune", *keep]],
        ),
        Task(recording.VERIFICATION, timedelta(hours=settings.backup_verify_hours), [["verify"]]),
    )


class Schedule:
    """Runs tasks when they are due, until it is stopped."""

    def __init__(
        self, settings: Settings, *, write: Callable[[str], object], options: Sequence[str] = ()
    ) -> None:
        """`write` gets a line of JSON for each run; `options` are passed to each command."""
        self._settings = settings
        self._write = write
        self._options = options
        self._stopped = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._attempts: dict[str, datetime] = {}
        self._failed: set[str] = set()

    def run(self) -> None:
        """Run tasks until `stop` is called, for example by a signal."""
        FAILED.unlink(missing_ok=True)
        while not self._stopped.is_set():
            waits = [self._run_if_due(task) for task in tasks_of(self._settings)]
            self._stopped.wait(max(1.0, min(waits).total_seconds()))

    def stop(self, *_: object) -> None:
        """End the present run, and return from `run`."""
        self._stopped.set()
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # it gives up its lock

    def _run_if_due(self, task: Task) -> timedelta:
        """Run a task if it is due; return the time until it is due again."""
        wait = self._wait(task)
        if wait > timedelta() or self._stopped.is_set():
            return wait
        self._attempts[task.job] = clock.now()
        succeeded = all(self._succeeds(command) for command in task.commands)
        (self._failed.discard if succeeded else self._failed.add)(task.job)
        if self._failed:
            FAILED.touch()
        else:
            FAILED.unlink(missing_ok=True)
        return task.every if succeeded else RETRY

    def _wait(self, task: Task) -> timedelta:
        now, attempt = clock.now(), self._attempts.get(task.job)
        if attempt is not None and attempt <= now:  # otherwise the clock was set back
            every = RETRY if task.job in self._failed else task.every
            return attempt + every - now
        try:
            last = recording.last_success(self._settings, task.job)
        except PressroomError as error:
            self._report(["schedule"], {"ok": False, "error": str(error)}, status=1)
            return timedelta(minutes=1)
        return timedelta() if last is None or last > now else last + task.every - now

    def _succeeds(self, command: Sequence[str]) -> bool:
        if self._stopped.is_set():
            return False
        arguments = [*PROGRAM, "backup", *command, "--json", *self._options]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as self._process:  # noqa: S603 - our own program
            output, _ = self._process.communicate()
        status = self._process.returncode
        self._process = None
        try:
            values = json.loads(output.splitlines()[-1])  # warnings may precede it
        except (ValueError, IndexError):
            reason = f"it was killed by signal {-status}" if status < 0 else output.strip()
            values = {"ok": False, "error": f"The command failed: {reason}"}
        self._report(command, values, status=status)
        return status in {0, INCOMPLETE}

    def _report(self, command: Sequence[str], values: Mapping[str, Any], *, status: int) -> None:
        head = {
            "time": clock.now().isoformat(),
            "command": f"backup {command[0]}",
            "status": status,
        }
        self._write(json.dumps(head | dict(values)))
