"""Every stage gives the same bytes again: in another process, folder, order, locale and time zone."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cgankd
import every_stage
from every_stage import RUNS, run_all, write_inputs

CLOCKS = {"seconds", "latency_ms"}
ELSEWHERE = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1", "LANG": "tr_TR.UTF-8"}


def stages(of_text: bool) -> set[str]:
    """The functions that are marked as stages anywhere in the package: those of language models, or all others."""
    found, package = set(), Path(cgankd.__file__).parent
    for path in package.rglob("*.py"):
        if path.is_relative_to(package / "lm") is of_text:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef) and any("stage(" in ast.unparse(m) for m in node.decorator_list):
                    found.add(node.name)
    return found


def without_clocks(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_clocks(item) for name, item in value.items() if name not in CLOCKS}
    return [without_clocks(item) for item in value] if isinstance(value, list) else value


def contents(folder: Path) -> dict[str, Any]:
    """All files by their path: their bytes, but of JSON the values without those of a clock, in their order."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"):
        content = path.read_bytes()
        if path.suffix == ".json":
            content = json.dumps(without_clocks(json.loads(content))).encode()
        found[str(path.relative_to(folder))] = content
    return found


def in_another_process(folder: Path, number: int, names: list[str]) -> None:
    """The runs, where all is different that no result may depend on."""
    environment = {**os.environ, **ELSEWHERE, "PYTHONHASHSEED": str(number)}
    command = [sys.executable, every_stage.__file__, str(folder), str(number), *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


def again(folder: Path, names: list[str], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Run all of these twice and compare every file; returns their stages."""
    write_inputs(folder)
    here, there = folder / "here", folder / "there, in a longer name"
    here.mkdir()
    monkeypatch.chdir(here)
    run_all(here, 1, names)
    in_another_process(there, 2, names[::-1])
    first, second = contents(here), contents(there)
    assert set(first) == set(second)
    assert [name for name in first if first[name] != second[name]] == []
    return {Path(name).parts[2].rpartition("-")[0] for name in first if "/artifacts/" in name}


@pytest.mark.long
def test_every_stage_gives_the_same_bytes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert again(tmp_path, [name for name in RUNS if name != "language"], monkeypatch) == stages(of_text=False)


@pytest.mark.long
def test_every_stage_of_language_models_gives_the_same_bytes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    assert again(tmp_path, ["language"], monkeypatch) == stages(of_text=True)
