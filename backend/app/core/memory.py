"""A memory budget that all threads and processes of a container share."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

SLOTS = 16
"""Parts of the budget. Each is a file that one thread can lock."""


class MemoryBudget:
    """Limits the total memory of concurrent work.

    Locks on files count the reserved memory. The operating system releases them even if a process
    is killed.
    """

    def __init__(self, directory: Path, *, total: int) -> None:
        """Share `total` bytes with all who use the same local directory."""
        self.total = total
        self._directory = directory

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes are free, and reserve them while the block runs.

        It blocks its thread. Raises ValueError if `size` exceeds the budget.
        """
        if size > self.total:
            raise ValueError(f"{size} bytes exceed the budget of {self.total} bytes")
        needed = max(1, math.ceil(size / self.total * SLOTS))
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as held:
            # One thread at a time collects slots. Otherwise two could wait for each other, and
            # small reservations could overtake a large one forever.
            with ExitStack() as turn:
                _lock(turn, self._directory / "turn")
                self._collect(held, needed)
            yield

    def _collect(self, held: ExitStack, needed: int) -> None:
        slots = [self._directory / f"slot-{number}" for number in range(SLOTS)]
        busy = []
        for slot in slots:
            if not needed:
                return
            if _lock(held, slot, wait=False):
                needed -= 1
            else:
                busy.append(slot)
        for slot in busy[:needed]:
            _lock(held, slot)


def _lock(stack: ExitStack, path: Path, *, wait: bool = True) -> bool:
    """Lock a file until the stack is closed; return whether it is locked."""
    import fcntl  # noqa: PLC0415 - not on Windows, where no budget is set

    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.close()
        return False
    stack.enter_context(file)
    return True
