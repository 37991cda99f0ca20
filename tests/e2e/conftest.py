"""The command inside this process for the many small cases, and one finished run for all."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import TINY, Said, copied

from cgankd.cli import main
from cgankd.cli.screen import console
from cgankd.core.lease import leased


@pytest.fixture
def typed(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Said]:
    """typed("run", "tiny.yaml", ..) -> the same inside this process, in ``tmp_path``: no seconds for torch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 200)

    def run(*words: Any) -> Said:
        monkeypatch.setattr(sys, "argv", ["cgankd", *map(str, words)])
        monkeypatch.setattr(sys, "path", [place for place in sys.path if place])  # main itself adds the current folder
        capfd.readouterr()
        try:
            main.main()
        except SystemExit as stop:
            code, trace = stop.code, ""
        except BaseException:
            code, trace = 1, traceback.format_exc()
        found = capfd.readouterr()
        return Said(int(code or 0), found.out, found.err + trace)

    return run


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A recipe of seconds, classification."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """The folder of a finished run of the tiny recipe, not to be written to, and what the command said.

    pytest's processes share it: the first one makes it.
    """
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "finished"
    with leased(folder.with_suffix(".lock"), lambda seconds: None, lambda: False):
        if not (folder / "said.json").is_file():
            folder.mkdir()
            (folder / "tiny.yaml").write_text(TINY)
            said = copied("run", "tiny.yaml", "--out", "out", "compare.ablation=true", cwd=folder)
            assert said.code == 0, said.err
            (folder / "said.json").write_text(json.dumps(dataclasses.asdict(said)))
    return folder / "out", Said(**json.loads((folder / "said.json").read_text()))


@pytest.fixture
def again(finished: tuple[Path, Said], tiny: Path, typed: Callable[..., Said]) -> Callable[..., Path]:
    """again("seeds=[0,1]") -> the folder after running the recipe, changed, in a copy of the finished folder."""
    out = tiny.parent / "out"
    shutil.copytree(finished[0], out)

    def run(*changes: str) -> Path:
        words = [*changes, "--out", out, "--quiet", "--no-report", "--no-export"]
        said = typed("run", tiny, "compare.ablation=true", *words)
        assert said.code == 0, said.err
        return out

    return run
