"""The commands as a user types them, the two recipes of seconds that they get, and what a folder holds after."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import safe_open

from cgankd.cli import main
from cgankd.cli.screen import console
from cgankd.core.store import CHECKPOINT

CHECKPOINT_FILE = f"{CHECKPOINT}.safetensors"

# fp32: what is tested is the road, not the processor
TINY = """
extends: digits
seeds: [0]
data: {train_size: 100}
teacher: {network: cnn8, fit: {steps: 40}}
student: {fit: {steps: 10, augment: {views: 4}}, transfer_steps: 12}
generator: {channels: 8, latent: 16, label_dim: 16, steps: 12, batch_size: 16, ema_start: 5}
ratio: {hidden: [32, 32], steps: 12, batch_size: 64, fakes_per_image: 2}
synthesis: {images: 200, subsampling: {burn_in: 20}, filter: {calibration: 20}}
compare: {methods: [nokd, nokd_longer, kd, cgan, cgan_kd]}
metrics: {generator: {images: 100}}
runtime: {threads: 1, precision: fp32}
"""

BARS = """
seeds: [0]
data: {source: bars, unit: degrees, train_size: 80}
teacher: {network: cnn8, trained_on: pool, fit: {steps: 12, batch_size: 32}}
student: {network: cnn8, fit: {steps: 5, batch_size: 32}, transfer_steps: 8, real_share: 0.4}
generator:
  {channels: 8, latent: 16, label_dim: 16, steps: 10, batch_size: 16, ema_start: 5, scalar: {label_input: {steps: 5}}}
ratio: {hidden: [32, 32], steps: 10, batch_size: 64, fakes_per_image: 2}
synthesis: {images: 120, labels: {count: 30}, subsampling: {burn_in: 20}, filter: {calibration: 60}}
compare: {methods: [nokd, nokd_longer, kd, cgan, cgan_kd]}
metrics: {generator: {images: 100}}
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


def copied(*words: Any, cwd: Path) -> Said:
    """The same in a copy of this process, which need not spend seconds on torch."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:

        def command() -> None:
            os.chdir(cwd)
            sys.argv, sys.stdout, sys.stderr, console.width = [script(), *map(str, words)], out, err, 200
            main.main()

        copy = multiprocessing.get_context("fork").Process(target=command)
        copy.start()
        copy.join()
        for stream in (out, err):
            stream.seek(0)
        return Said(copy.exitcode, out.read(), err.read())


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def write_bars(folder: Path, count: int = 130, size: int = 16, seed: int = 0) -> None:
    """metadata.csv and ``count`` PNGs of a bright bar on noise, turned by 0 to 180 degrees, with decimals."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
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


# --- killing a run ------------------------------------------------------------------------------------------------

# Long enough for a kill to land inside, and a checkpoint after nearly every step.
SLOWER = [
    "teacher.fit.steps=60", "student.transfer_steps=60", "generator.steps=60", "ratio.steps=60",
    "synthesis.images=600", "synthesis.batch_size=20", "runtime.checkpoint_seconds=0.02",
]  # fmt: skip


def kill_in(stage: str, file: str, artifacts: int, words: list[str], cwd: Path, step: int = 0) -> None:
    """Start the command and SIGKILL it in the stage that follows the first ``artifacts``, once its file is there.

    Where the file is a checkpoint: once it holds more than ``step`` steps.
    """
    out = cwd / "out"

    def reached() -> Path | None:
        if len(list(out.glob("artifacts/*/artifact.json"))) < artifacts:
            return None
        found = next(iter(out.glob(f"work/{stage}-*/{file}")), None)
        return None if found is not None and file == CHECKPOINT_FILE and steps_done(found) <= step else found

    command = [script(), *words, "--out", "out", "--quiet"]
    with subprocess.Popen(command, cwd=cwd, env=environment(), stderr=subprocess.PIPE, text=True) as run:
        while (found := reached()) is None:
            assert run.poll() is None, f"ended before {stage}/{file} was there: {run.stderr.read()}"  # type: ignore
            time.sleep(0.002)
        run.kill()
    assert run.returncode == -9
    assert found.exists(), f"the kill came after {stage} was done"


def steps_done(checkpoint: Path) -> int:
    with safe_open(checkpoint, framework="pt") as file:
        return int(file.metadata()["step"])


def workers_of(out: Path) -> list[int]:
    """The processes that compute cells or trials of this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode().split("\0")
            if "cgankd.experiments.worker" in words and str(out) in words[-2]:
                found.append(int(path.parent.name))
    return found


def same(killed: Path, whole: Path) -> None:
    """Every number of the results, and every byte of what was trained and generated."""
    a, b = (json.loads((out / "results.json").read_text()) for out in (killed, whole))
    assert without_clocks(a) == without_clocks(b)
    same_artifacts(killed, whole)


def same_artifacts(killed: Path, whole: Path) -> None:
    """Every byte of what was trained and generated, and nothing half-written is left."""
    names = sorted(path.name for path in (whole / "artifacts").iterdir())
    assert sorted(path.name for path in (killed / "artifacts").iterdir()) == names
    for name in names:
        made = {path.name: path for path in (whole / "artifacts" / name).iterdir()}
        again = {path.name: path for path in (killed / "artifacts" / name).iterdir()}
        assert set(again) == set(made), name  # nothing half-written was handed on
        for file in set(made) - {"artifact.json"}:
            assert again[file].read_bytes() == made[file].read_bytes(), f"{name}/{file}"
    assert not list((killed / "work").iterdir())
