"""One new file in cgankd/distill/methods is a method in commands, recipes and checks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cgankd

FILE = '''"""Scaled matching: the student's outputs are the teacher's, up to a factor."""

from cgankd.distill.base import Method, register


@register
class Scaled(Method):
    """weight mean (f_s - f_t)^2. Defaults: weight 1."""

    name = "scaled"
    tasks = ("classification", "regression")
    matches = "output"
    where = "outputs"
    distance = "squared"
    paper = "none"
    defaults = {"weight": 1.0}

    def loss(self, batch):
        return {"scaled": self.values["weight"] * (batch.outputs - batch.teacher_outputs).square().mean()}
'''


def test_one_new_file_is_a_method(tmp_path: Path) -> None:
    package = tmp_path / "cgankd"
    shutil.copytree(Path(cgankd.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "distill" / "methods" / "scaled.py").write_text(FILE)

    def cgankd_says(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cgankd", *words]
        there = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
        return subprocess.run(command, cwd=tmp_path, env=there, capture_output=True, text=True, check=False)

    assert "scaled" in cgankd_says("methods").stdout
    assert "student.method_settings.scaled: weight 1" in cgankd_says("methods", "scaled").stdout
    short = ["teacher.fit.steps=3", "student.fit.steps=3", "student.transfer_steps=3", "generator.steps=2"]
    made = ["ratio.steps=2", "synthesis.images=40", "metrics.generator=false", "compare.ablation=false", "seeds=[0]"]
    rows = "compare.methods=[nokd_longer,cgan,scaled,cgan+kd+scaled@fake]"
    done = cgankd_says("run", "digits", *short, *made, rows, "runtime.threads=1", "--out", "out", "--quiet")
    assert done.returncode == 0, done.stderr
    rows_said = [line.split()[0] for line in done.stdout.splitlines() if line.split()]
    assert {"scaled:", "cgan+kd+scaled@fake:"} <= set(rows_said)
    refused = cgankd_says("run", "digits", rows, "student.method_settings={scaled: {wieght: 2}}", "--out", "other")
    assert refused.returncode == 2
    assert "'wieght' is not known; allowed: weight" in refused.stderr
