"""What this process may use of the machine: cores and memory, also where a container or a batch queue limits them."""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def processor(root: Path = ROOT) -> str:
    """The processor's name, or its architecture where the system does not tell the name."""
    name = re.search(r"^model name\s*:\s*(.+)$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    return name[1].strip() if name else platform.processor() or platform.machine()


def cores() -> int:
    """Cores that the system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def core_limit(root: Path = ROOT) -> float | None:
    """Cores' worth of time that the control groups of this process allow; None: no limit."""
    limits = []
    for folder in _groups(root, "cpu"):
        quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
        if not quota:  # version 1
            quota, period = _text(folder / "cpu.cfs_quota_us").strip(), _text(folder / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(period):
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def memory(root: Path = ROOT) -> tuple[int | None, int | None]:
    """Bytes of memory that this process may use in all, and that are free now; None: the system does not tell."""
    sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE))
    total, free = (int(sizes[name]) * 1024 if name in sizes else None for name in ("MemTotal", "MemAvailable"))
    if total is None and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _groups(root, "memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            most = _text(folder / limit).strip()
            if most.isdigit() and int(most) < (total or math.inf):
                total = int(most)
                left = total - int(_text(folder / used).strip() or 0)
                free = left if free is None else min(free, left)
    return total, free


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control groups, innermost first, of either version."""
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        top = mount / controller if names else mount
        group = top / path.lstrip("/")
        while group.is_relative_to(top):  # a limit of a group above counts too
            yield group
            group = group.parent


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
