"""One new file in cgankd/distill/methods is a method in commands, recipes and checks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


SCRIPT = """
import json, sys
from cgankd.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["cgankd", *words]
    try:
        main.main()
    except SystemExit as stop:
        print("EXIT", stop.code, flush=True)
"""


@pytest.mark.long
def test_one_new_file_is_a_method(tmp_path: Path) -> None:
    package = tmp_path / "cgankd"
    shutil.copytree(Path(cgankd.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "distill" / "methods" / "scaled.py").write_text(FILE)
    short = ["teacher.fit.steps=3", "student.fit.steps=3", "student.transfer_steps=3", "generator.steps=2"]
    made = ["ratio.steps=2", "synthesis.images=40", "metrics.generator=false", "compare.ablation=false", "seeds=[0]"]
    rows = "compare.methods=[nokd_longer,cgan,scaled,cgan+kd+scaled@fake]"
    commands = [
        ["methods"],
        ["methods", "scaled"],
        ["run", "digits", *short, *made, rows, "runtime.threads=1", "--out", "out", "--quiet"],
        ["run", "digits", rows, "student.method_settings={scaled: {wieght: 2}}", "--out", "other"],
    ]
    done = subprocess.run(  # one process for all, because starting takes seconds
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    )
    listed, details, run, _ = done.stdout.split("EXIT ")[:4]
    assert "scaled" in listed
    assert "student.method_settings.scaled: weight 1" in details
    table = [line.split()[0] for line in run.splitlines() if line.split()]
    assert {"scaled", "cgan+kd+scaled@fake"} <= set(table)
    assert [part[0] for part in done.stdout.split("EXIT ")[1:]] == ["0", "0", "0", "2"], done.stderr
    assert "'wieght' is not known; allowed: weight" in done.stderr
