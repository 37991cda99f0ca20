"""What control groups allow a process: read from files as a system or a container has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgankd.core import machine

MEMINFO = "MemTotal:       16384000 kB\nMemFree:         1000000 kB\nMemAvailable:    8192000 kB\n"
KB = 1024


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        (  # the group above allows less than the process's own
            {
                "proc/self/cgroup": "0::/slurm/job\n",
                "sys/fs/cgroup/slurm/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/slurm/job/cpu.max": "400000 100000\n",
            },
            2.0,
        ),
        (  # version 1
            {
                "proc/self/cgroup": "5:memory:/box\n4:cpu,cpuacct:/box\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
    ],
)
def test_the_limit_of_cores_is_that_of_the_tightest_control_group(
    tmp_path: Path, files: dict[str, str], limit: float | None
) -> None:
    assert machine.core_limit(write(tmp_path, files)) == limit


def test_memory_is_the_systems_or_less_where_a_control_group_allows_less(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": MEMINFO})
    assert machine.memory(tmp_path) == (16384000 * KB, 8192000 * KB)
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/job\n",
            "sys/fs/cgroup/job/memory.max": str(4096000 * KB),
            "sys/fs/cgroup/job/memory.current": str(1024000 * KB),
        },
    )
    assert machine.memory(tmp_path) == (4096000 * KB, 3072000 * KB)


def test_the_processor_has_the_name_that_the_system_tells(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": "processor\t: 0\nmodel name\t: Fast Chip 9000\n"})
    assert machine.processor(tmp_path) == "Fast Chip 9000"
