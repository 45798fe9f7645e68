"""`pressroom backup schedule`, its records in the database, and the metrics of archives."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
from sqlalchemy import text

from app.core.config import BACKEND_DIR, get_settings
from app.db.session import Database
from app.services import job_runs
from app.services.backup import recording, scheduling
from app.services.gauges import ContentCounts, read_gauges
from tests.backup.conftest import Site
from tests.commands import fetch, run
from tests.databases import execute
from tests.processes import Checkout, Fork, wait_until

pytestmark = [pytest.mark.usefixtures("restored_environment"), pytest.mark.checkout]

RUNS = "SELECT job, rows, error FROM job_runs ORDER BY id"


class ForkedCommand:
    """Stands in for subprocess.Popen: the command runs in a fork, without new imports."""

    returncode = 0

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        _, option, module, *rest = arguments
        assert option == "-m"
        checkout = Checkout(BACKEND_DIR, logs=folder)
        self._fork = Fork(module, *rest, checkout=checkout, settings=dict(os.environ))

    def communicate(self) -> tuple[str, None]:
        self.returncode = self._fork.wait()
        return self._fork.log, None

    def send_signal(self, number: signal.Signals) -> None:
        self._fork.send(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._fork.kill()


@pytest.fixture
def forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that lets schedules fork from then on."""

    def popen(arguments: Sequence[str], **_: object) -> ForkedCommand:
        return ForkedCommand(arguments, tmp_path)

    fake = SimpleNamespace(Popen=popen, PIPE=subprocess.PIPE)
    return lambda: monkeypatch.setattr(scheduling, "subprocess", fake)


@contextmanager
def scheduled() -> Iterator[list[dict[str, Any]]]:
    """Run the schedule in a thread; yield its lines."""
    lines: list[dict[str, Any]] = []
    schedule = scheduling.Schedule(
        get_settings(), write=lambda line: lines.append(json.loads(line))
    )
    thread = threading.Thread(target=schedule.run)
    thread.start()
    try:
        yield lines
    finally:
        schedule.stop()
        thread.join()


def test_runs_are_recorded(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    made = site.create(capsys)
    assert run("backup", "verify") == 0
    (site.target / "lock").touch()
    assert run("backup", "create") == 1
    created, verified, failed = fetch(site.url, RUNS)
    size = made["database"]["bytes"] + made["media_bytes"]
    assert tuple(created) == (job_runs.BACKUP, size, None)
    assert tuple(verified) == (recording.VERIFICATION, 0, None)
    assert "Another backup is being made" in failed["error"]


def test_database_of_an_earlier_release(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """A backup before an upgrade must succeed: the table of runs may not exist yet."""
    execute(site.url, "ALTER TABLE job_runs RENAME TO later")
    try:
        assert site.create(capsys)["ok"]
    finally:
        execute(site.url, "ALTER TABLE later RENAME TO job_runs")


def test_schedule_makes_prunes_and_verifies(site: Site, forked: Callable[[], None]) -> None:
    forked()
    with scheduled() as lines:
        wait_until(lambda: len(lines) == 3, "three runs")
    assert [line["command"] for line in lines] == ["backup create", "backup prune", "backup verify"]
    assert all(line["ok"] and line["status"] == 0 for line in lines)
    assert not scheduling.FAILED.exists()
    with scheduled() as lines:  # a restart does not repeat them
        schedule = scheduling.Schedule(get_settings(), write=print)
        waits = [schedule._run_if_due(task) for task in scheduling.tasks_of(get_settings())]
    assert lines == []
    assert timedelta(hours=23) < waits[0] < timedelta(hours=24) < waits[1]


def test_failed_run_is_reported_and_repeated(
    site: Site, forked: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """The first run is a new process, as in production."""
    site.target.mkdir()
    (site.target / "lock").touch()
    schedule = scheduling.Schedule(get_settings(), write=print)
    task = scheduling.tasks_of(get_settings())[0]
    try:
        assert schedule._run_if_due(task) == scheduling.RETRY
        line = json.loads(capsys.readouterr().out)
        assert (line["command"], line["status"], line["ok"]) == ("backup create", 1, False)
        assert "Another backup is being made" in line["error"]
        assert scheduling.FAILED.exists()
        assert timedelta() < schedule._run_if_due(task) <= scheduling.RETRY
        (site.target / "lock").unlink()
        forked()
        schedule._attempts[task.job] -= scheduling.RETRY
        assert schedule._run_if_due(task) == task.every
        assert not scheduling.FAILED.exists()
    finally:
        scheduling.FAILED.unlink(missing_ok=True)


def test_prune_has_the_settings(site: Site) -> None:
    site.set(BACKUP_KEEP="3", BACKUP_KEEP_DAYS="0")
    commands = scheduling.tasks_of(get_settings())[0].commands
    assert commands[1] == ["prune", "--keep", "3", "--keep-days", "0"]


async def gauges_of(database: Database) -> dict[str, float]:
    return {each.name: each.value for each in (await read_gauges(database, ContentCounts())).gauges}


async def test_age_of_the_wal_archive(database: Database) -> None:
    """Only with a slot of Barman. Nobody receives from it here."""
    age, held = "pressroom_wal_archive_age_seconds", "pressroom_wal_held_bytes"
    assert not {age, held} & (await gauges_of(database)).keys()
    async with database.autocommit() as connection:
        await connection.execute(text("SELECT pg_create_physical_replication_slot('barman', true)"))
    try:
        first = await gauges_of(database)
        assert first[age] > 0
        async with database.autocommit() as connection:
            await connection.execute(text("SELECT pg_switch_wal()"))
        second = await gauges_of(database)
        assert second[age] > first[age]
        assert second[held] > first[held]
    finally:
        async with database.autocommit() as connection:
            await connection.execute(text("SELECT pg_drop_replication_slot('barman')"))
