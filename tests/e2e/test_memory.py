"""The memory of synthesis and training is flat in the number of generated images."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory.py"


@pytest.mark.long
def test_ten_times_as_many_images_take_no_more_memory() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is measured on Linux alone")
    words = [sys.executable, str(BENCHMARK), "10000", "100000"]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"^memory_images N=([\d,]+) peak=(\d+) MB anonymous=(\d+) MB goal=1500", printed, re.MULTILINE)
    (few, _, least), (many, peak, most) = lines
    assert (few, many) == ("10,000", "100,000")
    assert int(most) - int(least) < 40  # 307 MB of pixels more
    assert int(peak) < 1000
