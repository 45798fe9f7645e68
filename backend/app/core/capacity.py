"""How much of the machine this process may use: processors and memory, by control groups."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

MEGABYTE = 1024 * 1024


def usable_processors(root: Path = Path("/")) -> int:
    """How many processors' worth of time this process may take, at least one.

    What it may run on (a container's cpuset), and what it is allowed of their time (`cpu.max`); the
    machine's size does not count.
    """
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this operating system
        usable = os.cpu_count() or 1
    quotas = [quota for folder in _groups(root, "cpu") if (quota := _quota(folder))]
    return max(1, min([usable, *map(math.ceil, quotas)]))


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes that this process and those beside it may take together; None without a limit."""
    limits = []
    for folder in _groups(root, "memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            text = _read(folder / name)
            # Version 1 says "none" with the largest number of pages that there is.
            if text.isdigit() and int(text) < 2**62:
                limits.append(int(text))
    return min(limits, default=None)


def workers_that_fit(
    *, processors: int, memory: int | None, most: int, worker: int, reserve: int
) -> int:
    """As many as there are processors, `most` at most, and at least one.

    No more than fit into `memory` bytes with `worker` bytes each and `reserve` for all together.
    """
    fit = most if memory is None else (memory - reserve) // worker
    return max(1, min(processors, most, fit))


def _quota(folder: Path) -> float | None:
    """Processors' worth of time; None without a limit."""
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    if not quota:  # version 1
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    if quota.isdigit() and period.isdigit() and int(quota) and int(period):
        return int(quota) / int(period)
    return None


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control group and of those that it is in."""
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = mount / controller if controllers else mount
        folder = base / path.lstrip("/")
        while folder != base and base in folder.parents:
            yield folder
            folder = folder.parent
        yield base


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
