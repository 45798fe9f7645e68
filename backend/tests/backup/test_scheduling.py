"""When `pressroom backup schedule` runs commands. A program stands in for them: no pg_dump here."""

import json
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.core import clock
from app.core.config import get_settings
from app.services import job_runs
from app.services.backup import scheduling
from app.services.backup.scheduling import RETRY, Schedule
from tests.databases import execute
from tests.processes import wait_until

pytestmark = pytest.mark.usefixtures("restored_environment")

START = datetime(2026, 11, 30, 4, tzinfo=UTC)
SUCCEEDED = """
    INSERT INTO job_runs (job, started_at, finished_at, rows, host)
    VALUES ('{job}', '{at}', '{at}', 0, '')
"""


class Commands:
    """The program that is run instead of `pressroom backup`."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "program"
        self.log = folder / "log"
        self.log.touch()
        self.answer("""echo '{"ok": true}'""")

    def answer(self, script: str) -> None:
        """Run this script of `sh` from now on. $2 is the command, such as `create`."""
        self.program.write_text(f'echo "$2" >>{self.log}\n{script}\n')

    @property
    def ran(self) -> list[str]:
        return self.log.read_text().split()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Return a function that moves the clock from START."""

    def move(by: timedelta) -> None:
        monkeypatch.setattr(clock, "now", lambda: START + by)

    move(timedelta())
    return move


@pytest.fixture
def commands(own_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    commands = Commands(tmp_path)
    monkeypatch.setattr(scheduling, "PROGRAM", ("sh", str(commands.program)))
    monkeypatch.setattr(scheduling, "FAILED", tmp_path / "failed")
    monkeypatch.setenv("DATABASE_URL", own_database)
    get_settings.cache_clear()
    return commands


@pytest.fixture
def lines() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def schedule(commands: Commands, lines: list[dict[str, Any]]) -> Schedule:
    return Schedule(get_settings(), write=lambda line: lines.append(json.loads(line)))


def waits(schedule: Schedule) -> list[timedelta]:
    return [schedule._run_if_due(task) for task in scheduling.tasks_of(get_settings())]


def test_new_installation_makes_a_backup_at_once_and_then_daily(
    schedule: Schedule, commands: Commands, now: Callable[[timedelta], None]
) -> None:
    assert waits(schedule) == [timedelta(hours=24), timedelta(hours=168)]
    assert commands.ran == ["create", "prune", "verify"]
    now(timedelta(hours=23))
    assert waits(schedule)[0] == timedelta(hours=1)
    now(timedelta(hours=24))
    assert waits(schedule)[0] == timedelta(hours=24)
    assert commands.ran[3:] == ["create", "prune"]


def test_restart_continues_with_what_the_database_records(
    schedule: Schedule, commands: Commands, now: Callable[[timedelta], None], own_database: str
) -> None:
    for job in (job_runs.BACKUP, "backup verification"):
        execute(own_database, SUCCEEDED.format(job=job, at=START - timedelta(hours=20)))
    assert waits(schedule)[0] == timedelta(hours=4)
    assert commands.ran == []


def test_clock_that_was_set_back_does_not_delay_a_backup(
    schedule: Schedule, commands: Commands, now: Callable[[timedelta], None]
) -> None:
    waits(schedule)
    now(timedelta(days=-365))
    assert waits(schedule)[0] == timedelta(hours=24)
    assert commands.ran[3:] == ["create", "prune", "verify"]


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("""echo '{"ok": false, "error": "No space"}'; exit 1""", "No space"),
        ("echo Traceback; exit 1", "The command failed: Traceback"),
        ("exit 1", "The command failed: "),
        ("kill -9 $$", "The command failed: it was killed by signal 9"),
    ],
)
def test_failure_is_one_sentence_and_the_next_command_is_left_out(
    schedule: Schedule, commands: Commands, lines: list[dict[str, Any]], script: str, error: str
) -> None:
    commands.answer(script)
    assert waits(schedule) == [RETRY, RETRY]
    assert commands.ran == ["create", "verify"]  # no prune
    assert [line["error"] for line in lines] == [error, error]
    assert all(line["status"] != 0 for line in lines)


def test_failure_is_repeated_and_shown_until_all_succeed(
    schedule: Schedule, commands: Commands, now: Callable[[timedelta], None]
) -> None:
    commands.answer("""[ "$2" = prune ] && exit 1; echo '{}'""")
    assert waits(schedule) == [RETRY, timedelta(hours=168)]
    assert scheduling.FAILED.exists()
    now(RETRY - timedelta(seconds=1))
    assert waits(schedule)[0] == timedelta(seconds=1)
    commands.answer("echo '{}'")
    now(RETRY)
    assert waits(schedule)[0] == timedelta(hours=24)
    assert not scheduling.FAILED.exists()


@pytest.mark.usefixtures("now")
def test_backup_without_files_of_some_images_counts_as_made(
    schedule: Schedule, commands: Commands
) -> None:
    commands.answer("""echo '{"ok": true}'; [ "$2" = create ] && exit 3; exit 0""")
    assert waits(schedule)[0] == timedelta(hours=24)
    assert commands.ran == ["create", "prune", "verify"]
    assert not scheduling.FAILED.exists()


def test_nothing_runs_without_a_database(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, lines: list[dict[str, Any]]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    get_settings.cache_clear()
    schedule = Schedule(get_settings(), write=lambda line: lines.append(json.loads(line)))
    assert waits(schedule) == [timedelta(minutes=1)] * 2
    assert commands.ran == []
    assert [line["status"] for line in lines] == [1, 1]


# A handler of its own: SIGINT is ignored in the background of some shells.
WAITS = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
with pathlib.Path(sys.argv[1]).open("a") as log:
    log.write("waits")
time.sleep(60)
"""


def test_stop_interrupts_the_command_and_starts_no_other(
    schedule: Schedule, commands: Commands, lines: list[dict[str, Any]]
) -> None:
    commands.answer(f"exec {sys.executable} -c '{WAITS}' {commands.log}")
    thread = threading.Thread(target=schedule.run)
    thread.start()
    try:
        wait_until(lambda: commands.ran == ["create", "waits"], "the command runs")
    finally:
        schedule.stop()
        thread.join(timeout=70)
    assert commands.ran == ["create", "waits"]
    assert [line["status"] for line in lines] == [130]
