"""The memory of a run is flat in the number of images, generated and real."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.long
def test_ten_times_as_many_images_take_no_more_memory() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is measured on Linux alone")
    words = [sys.executable, str(BENCHMARKS / "memory.py"), "10000", "100000"]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"^memory_images N=([\d,]+) peak=(\d+) MB anonymous=(\d+) MB goal=1500", printed, re.MULTILINE)
    (few, _, least), (many, peak, most) = lines
    assert (few, many) == ("10,000", "100,000")
    assert int(most) - int(least) < 40  # 307 MB of pixels more
    assert int(peak) < 1000


@pytest.mark.long
def test_ten_times_as_many_real_images_take_no_more_memory() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is measured on Linux alone")
    most = dict[str, dict[str, int]]()
    for count in ("60", "600"):
        words = [sys.executable, str(BENCHMARKS / "real_images.py"), count, "224", "0"]  # 0: all sets are large
        printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        lines = re.findall(r"^real_images N=[\d,]+ (\w+) start: .* anonymous=(\d+) MB", printed, re.MULTILINE)
        most[count] = {start: int(anonymous) for start, anonymous in lines}
    for start in ("first", "second"):
        assert most["600"][start] - most["60"][start] < 40  # 81 MB of pixels more
