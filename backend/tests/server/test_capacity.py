"""Processor and memory limits from control groups v1 and v2."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.server.capacity import MEGABYTE, memory_limit, usable_processors, worker_count

Machine = Callable[..., Path]
V1 = "4:cpu,cpuacct:/\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Create a root folder with control groups: `machine("0::/a", {"a/cpu.max": "max 100000"})`."""

    def make(groups: str, files: dict[str, str], *, affinity: int = 8) -> Path:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
        for name, content in files.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)))
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("groups", "files", "affinity", "expected"),
    [
        ("", {}, 8, 8),
        ("0::/\n", {}, 3, 3),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8, 8),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 8, 2),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 8, 3),
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 8, 1),
        ("0::/\n", {"cpu.max": "800000 100000\n"}, 2, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 8, 3),
        ("0::/gone/from/here\n", {"cpu.max": "100000 100000\n"}, 8, 1),
        (V1, {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 8, 2),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8, 8),
        ("0::/\n", {"cpu.max": "nonsense"}, 4, 4),
    ],
)  # fmt: skip
def test_usable_processors_follow_affinity_and_cpu_quota(
    machine: Machine, groups: str, files: dict[str, str], affinity: int, expected: int
) -> None:
    assert usable_processors(machine(groups, files, affinity=affinity)) == expected


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, None),
        ("0::/\n", {"memory.max": "max\n", "memory.high": "max\n"}, None),
        ("0::/\n", {"memory.max": "536870912\n"}, 512 * MEGABYTE),
        ("0::/\n", {"memory.max": "536870912\n", "memory.high": "268435456\n"}, 256 * MEGABYTE),
        ("0::/a\n", {"a/memory.max": "max", "memory.max": "268435456\n"}, 256 * MEGABYTE),
        ("9:memory:/\n", {"memory/memory.limit_in_bytes": "268435456"}, 256 * MEGABYTE),
        ("9:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
    ],
)
def test_memory_limit_is_the_lowest_of_the_control_groups(
    machine: Machine, groups: str, files: dict[str, str], expected: int | None
) -> None:
    assert memory_limit(machine(groups, files)) == expected


@pytest.mark.parametrize(
    ("processors", "memory", "expected"),
    [(2, None, 2), (16, None, 4), (8, 1024, 4), (8, 512, 2), (8, 300, 1), (8, 100, 1), (1, 999, 1)],
)
def test_worker_count_is_limited_by_processors_and_memory(
    processors: int, memory: int | None, expected: int
) -> None:
    fit = worker_count(
        processors=processors,
        memory_bytes=None if memory is None else memory * MEGABYTE,
        max_workers=4,
        worker_bytes=150 * MEGABYTE,
        reserved_bytes=128 * MEGABYTE,
    )
    assert fit == expected


def test_at_least_one_processor_is_usable() -> None:
    assert usable_processors() >= 1
