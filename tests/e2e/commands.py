"""The commands as a user types them, the two recipes of seconds that they get, and what a folder holds after."""

from __future__ import annotations

import csv
import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# fp32: what is tested is the road, not the processor
TINY = """
extends: digits
seeds: [0]
data: {train_size: 100}
teacher: {network: cnn8, fit: {steps: 40}}
student: {fit: {steps: 20}, transfer_steps: 25}
generator: {channels: 8, latent: 16, label_dim: 16, steps: 30, batch_size: 16, ema_start: 5}
ratio: {hidden: [32, 16], steps: 30, batch_size: 64, fakes_per_image: 2}
synthesis: {images: 200, calibration: 20, burn_in: 20}
runtime: {threads: 1, precision: fp32}
"""

BARS = """
seeds: [0]
data: {source: bars, unit: degrees, train_size: 80}
teacher: {network: cnn8, trained_on: pool, fit: {steps: 30, batch_size: 32}}
student: {network: cnn8, fit: {steps: 15, batch_size: 32}, transfer_steps: 20, real_share: 0.4}
generator: {channels: 8, latent: 16, label_dim: 16, steps: 20, batch_size: 16, ema_start: 5, embedding_steps: 15}
ratio: {hidden: [32, 16], steps: 20, batch_size: 64, fakes_per_image: 2}
synthesis: {images: 120, even_labels: 30, calibration: 60, burn_in: 20}
runtime: {threads: 1, precision: fp32}
"""


@dataclasses.dataclass(frozen=True)
class Said:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    def sentence(self) -> str:
        """The one line on stderr of a command that was given something it can't use."""
        assert self.code == 2, f"exit code {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err + self.out
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("cgankd: ")
        return lines[0]


def script() -> str:
    """The installed console script, beside the interpreter that runs the tests."""
    return str(Path(sys.executable).with_name("cgankd"))


def process(*words: Any, cwd: Path, **more: Any) -> Said:
    """The command in a process of its own."""
    done = subprocess.run(
        [script(), *map(str, words)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        **more,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def write_bars(folder: Path, count: int = 130) -> None:
    """metadata.csv and ``count`` PNGs of a bright bar on noise, turned by 0 to 180 degrees, with decimals."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    with (folder / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "label"])
        for number in range(count):
            angle = round(rng.uniform(0.0, 180.0), 2)
            turn = np.deg2rad(angle)
            bar = 200 * np.exp(-(((x * np.sin(turn) - y * np.cos(turn)) / 0.25) ** 2))
            pixels = (bar + rng.uniform(0, 50, bar.shape)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:03}.png")
            table.writerow([f"{number:03}.png", angle])


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below ``folder`` but the lock: time of its last change, and content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def artifacts(folder: Path, *stages: str) -> dict[str, tuple[int, ...]]:
    """Folder -> times of last change of all files in it, for the finished artifacts of these stages (none: all)."""
    return {
        path.name: tuple(file.stat().st_mtime_ns for file in sorted(path.iterdir()))
        for path in sorted((folder / "artifacts").iterdir())
        if not stages or path.name.rsplit("-", 1)[0] in stages
    }


def without_clocks(found: dict[str, Any]) -> dict[str, Any]:
    """results.json but for what a clock said."""
    return {name: value for name, value in found.items() if name not in {"seconds", "latency_ms"}}
