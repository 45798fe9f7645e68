"""The memory budget that threads and processes share."""

import fcntl
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.core.config import BACKEND_DIR
from app.core.memory import MemoryBudget
from tests.processes import DEADLINE, wait_until


class Reservation(threading.Thread):
    """A thread that reserves memory until `release`."""

    def __init__(self, directory: Path, size: int) -> None:
        super().__init__(daemon=True)
        self._budget, self._size = MemoryBudget(directory, total=100), size
        self.is_held, self._released = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        with self._budget.reserve(self._size):
            self.is_held.set()
            self._released.wait(DEADLINE)

    def release(self) -> None:
        self._released.set()
        self.join(DEADLINE)


def is_waiting(directory: Path) -> bool:
    """Return whether a thread waits for memory."""
    with (directory / "turn").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_reservations_within_the_budget_run_together(tmp_path: Path) -> None:
    reservations = [Reservation(tmp_path, size) for size in (50, 25, 25)]
    for each in reservations:
        assert each.is_held.wait(DEADLINE)
    for each in reservations:
        each.release()


def test_reservation_waits_for_memory_and_is_not_overtaken(tmp_path: Path) -> None:
    first, second = Reservation(tmp_path, 40), Reservation(tmp_path, 40)
    assert first.is_held.wait(DEADLINE)
    assert second.is_held.wait(DEADLINE)
    large = Reservation(tmp_path, 80)
    wait_until(lambda: is_waiting(tmp_path), "the large reservation waits")
    small = Reservation(tmp_path, 1)
    first.release()
    wait_until(lambda: is_waiting(tmp_path), "the large reservation still waits")
    assert not large.is_held.is_set()
    assert not small.is_held.is_set()
    second.release()
    assert large.is_held.wait(DEADLINE)
    large.release()
    assert small.is_held.wait(DEADLINE)
    small.release()


def test_killed_process_releases_its_memory(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from app.core.memory import MemoryBudget\n"
        "with MemoryBudget(pathlib.Path(sys.argv[1]), total=100).reserve(100):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=BACKEND_DIR,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        waiting = Reservation(tmp_path, 100)
        wait_until(lambda: is_waiting(tmp_path), "it waits for the process")
        process.kill()
    assert waiting.is_held.wait(DEADLINE)
    waiting.release()


def test_more_than_the_budget_is_an_error(tmp_path: Path) -> None:
    with ExitStack() as stack, pytest.raises(ValueError, match="exceed the budget"):
        stack.enter_context(MemoryBudget(tmp_path, total=100).reserve(101))
