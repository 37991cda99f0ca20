"""cgankd run --jobs: trials of the autopilot in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Said, environment, same, script, workers_of

AUTO = [
    "compare.methods=auto",
    "teacher.fit.steps=1",
    "metrics.generator=false",
    "data.val_size=60",
    "synthesis.subsampling=none",
]


@pytest.mark.long
def test_a_run_with_two_jobs_ends_as_one_with_one_and_a_killed_worker_is_replaced(
    tmp_path: Path, tiny: Path, typed: Callable[..., Said]
) -> None:
    words = ["run", tiny.name, *AUTO, "--no-report", "--no-export"]
    command = [script(), *words, "--jobs", "2", "--out", "two"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True) as run:
        while not (workers := workers_of(tmp_path / "two")):
            assert run.poll() is None
            time.sleep(0.05)
        os.kill(workers[0], signal.SIGKILL)
        lines = run.communicate(timeout=300)[0].splitlines()
    assert run.returncode == 0
    assert sum(line.endswith("its worker died; another one goes on") for line in lines) == 1
    assert typed(*words, "--out", "one", "--quiet").code == 0
    same(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--jobs", "2"], "make the autopilot's trials at once, but compare.methods is a list of rows"),
        (["--jobs", "0", *AUTO], "Invalid value for '--jobs'"),
        (["--executor", "cloud", *AUTO], "--executor cloud: allowed are processes, slurm, ray"),
        (["--resources", "gpu", *AUTO], "--resources: 'gpu' is not of the form KEY=VALUE"),
        (["--jobs", "2", "--devices", "2", *AUTO], "train each trial in one process, but runtime.devices = 2"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_writes_nothing(
    tiny: Path, typed: Callable[..., Said], words: list[str], sentence: str
) -> None:
    assert sentence in typed("run", "tiny.yaml", *words, "--out", "out", "--quiet").sentence()
    assert [path.name for path in tiny.parent.iterdir()] == ["tiny.yaml"]
