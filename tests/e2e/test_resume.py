"""Killed in any stage, the same command goes on, and ends with the numbers of a run that nobody killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import BARS, TINY, Said, environment, script, without_clocks, write_bars
from safetensors import safe_open

# Long enough for a kill to land inside, and a checkpoint after nearly every step.
SLOWER = ["teacher.fit.steps=60", "student.transfer_steps=60", "generator.steps=60", "runtime.checkpoint_seconds=0.02"]


def unfinished(out: Path, stage: str, file: str, artifacts: int) -> Path | None:
    """The file of a stage at work, once it is there and ``artifacts`` are finished."""
    if len(list(out.glob("artifacts/*/artifact.json"))) < artifacts:
        return None
    return next(iter(out.glob(f"work/{stage}-*/{file}")), None)


def kill_in(stage: str, file: str, artifacts: int, words: list[str], cwd: Path) -> Path:
    """Start the command, SIGKILL it in ``stage`` once its ``file`` is there, and return that file."""
    out = cwd / "out"
    command = [script(), *words, "--out", "out", "--quiet"]
    with subprocess.Popen(command, cwd=cwd, env=environment(), stderr=subprocess.PIPE, text=True) as run:
        while (found := unfinished(out, stage, file, artifacts)) is None:
            assert run.poll() is None, f"ended before {stage}/{file} was there: {run.stderr.read()}"  # type: ignore
            time.sleep(0.001)
        run.kill()
    assert run.returncode == -9
    assert not (out / "results.json").exists()
    assert found.is_file(), f"the kill came after {stage} was done"
    return found


def steps_done(checkpoint: Path) -> int:
    with safe_open(checkpoint, framework="pt") as file:
        return int(file.metadata()["step"])


def same(killed: Path, whole: Path) -> None:
    """Every number of the results, and every byte of what was trained and generated."""
    a, b = (json.loads((out / "results.json").read_text()) for out in (killed, whole))
    assert without_clocks(a) == without_clocks(b)
    names = sorted(path.name for path in (whole / "artifacts").iterdir())
    assert sorted(path.name for path in (killed / "artifacts").iterdir()) == names
    for name in names:
        made = {path.name: path for path in (whole / "artifacts" / name).iterdir()}
        again = {path.name: path for path in (killed / "artifacts" / name).iterdir()}
        assert set(again) == set(made), name  # nothing half-written was handed on
        for file in set(made) - {"artifact.json"}:
            assert again[file].read_bytes() == made[file].read_bytes(), f"{name}/{file}"
    assert not list((killed / "work").iterdir())


@pytest.mark.xdist_group("resume classification")
def test_a_run_killed_in_every_stage_ends_with_the_same_numbers(tmp_path: Path, typed: Callable[..., Said]) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    words = ["run", "tiny.yaml", *SLOWER]
    checkpoints = [
        kill_in("teacher", "checkpoint.safetensors", 1, words, tmp_path),  # after the data
        kill_in("student", "checkpoint.safetensors", 4, words, tmp_path),  # kd: after teacher, nokd, nokd_longer
        kill_in("generator", "checkpoint.safetensors", 5, words, tmp_path),
    ]
    assert all(0 < steps_done(path) < 60 for path in checkpoints[-1:])
    kill_in("ratio", "", 6, words, tmp_path)
    kill_in("synthesis", "images.u8", 7, words, tmp_path)
    kill_in("student", "checkpoint.safetensors", 9, words, tmp_path)  # cgan_kd
    assert typed(*words, "--out", "out", "--quiet").code == 0
    assert typed(*words, "--out", "whole", "--quiet").code == 0
    same(tmp_path / "out", tmp_path / "whole")


@pytest.mark.xdist_group("regression")
def test_a_regression_killed_in_its_label_embedding_and_its_generator(
    tmp_path: Path, typed: Callable[..., Said]
) -> None:
    write_bars(tmp_path / "bars")
    (tmp_path / "bars.yaml").write_text(BARS)
    words = ["run", "bars.yaml", *SLOWER, "compare.methods=[cgan]"]
    kill_in("generator", "", 2, words, tmp_path)  # while the embedding is trained, before any checkpoint
    assert 0 < steps_done(kill_in("generator", "checkpoint.safetensors", 2, words, tmp_path)) < 60
    assert typed(*words, "--out", "out", "--quiet").code == 0
    shutil.rmtree(tmp_path / "out" / "work")  # only what is empty
    (tmp_path / "out" / "work").mkdir()
    assert typed(*words, "--out", "whole", "--quiet").code == 0
    same(tmp_path / "out", tmp_path / "whole")
