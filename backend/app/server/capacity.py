"""Processor and memory limits of this process, read from its control groups."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

MEGABYTE = 1024 * 1024


def usable_processors(root: Path = Path("/")) -> int:
    """Return the number of processors available to this process, at least one.

    The CPU affinity mask (a container's cpuset) and the CPU quota (`cpu.max`) both limit it.
    """
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this operating system
        usable = os.cpu_count() or 1
    quotas = [quota for folder in _groups(root, "cpu") if (quota := _quota(folder))]
    return max(1, min([usable, *map(math.ceil, quotas)]))


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return the memory limit of this control group in bytes, or None without a limit."""
    limits = []
    for folder in _groups(root, "memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            text = _read(folder / name)
            # Control groups v1 report "no limit" as a number close to 2**63.
            if text.isdigit() and int(text) < 2**62:
                limits.append(int(text))
    return min(limits, default=None)


def worker_count(
    *,
    processors: int,
    memory_bytes: int | None,
    max_workers: int,
    worker_bytes: int,
    reserved_bytes: int,
) -> int:
    """Return one worker per processor, at least 1 and at most `max_workers`.

    All workers and `reserved_bytes` together fit into `memory_bytes`; None means no limit.
    """
    fitting = (
        max_workers if memory_bytes is None else (memory_bytes - reserved_bytes) // worker_bytes
    )
    return max(1, min(processors, max_workers, fitting))


def _quota(folder: Path) -> float | None:
    """Return the CPU quota in processors, or None without a limit."""
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    if not quota:  # control groups v1
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    if quota.isdigit() and period.isdigit() and int(quota) and int(period):
        return int(quota) / int(period)
    return None


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and of its ancestors."""
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
