"""Cleaning a run's folder: what finished runs use stays, everything else is deleted when the user agrees."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Said

from cgankd.core import cleaning
from cgankd.core.run_folder import HeldFolder

Typed = Callable[..., Said]
WORDS = ("run", "tiny.yaml", "--quiet", "--no-report", "--no-export", "--out", "out", "compare.ablation=true")


def artifacts(folder: Path) -> set[str]:
    return {path.name for path in (folder / "artifacts").iterdir()}


@pytest.fixture
def out(finished: tuple[Path, Said], tiny: Path) -> Path:
    """A copy of the finished folder, beside where commands are typed."""
    return Path(shutil.copytree(finished[0], tiny.parent / "out"))


@pytest.mark.long
def test_what_a_finished_run_rests_on_stays(out: Path, typed: Typed) -> None:
    before, results = artifacts(out), json.loads((out / "results.json").read_text())
    assert set(results["used"]) == before
    assert (out / "cache").is_dir()
    said = typed("clean", "out", "--yes")
    assert said.code == 0, said.err
    assert artifacts(out) == before
    assert not any((out / "cache").iterdir())
    assert typed(*WORDS).code == 0
    after = json.loads((out / "results.json").read_text())
    assert after["rows"] == results["rows"]


def test_stale_artifacts_are_deleted_and_new_ones_of_a_stopped_run_are_not(out: Path, typed: Typed) -> None:
    old = artifacts(out)
    assert typed(*WORDS, "teacher.fit.steps=3", "compare.methods=[nokd]", "metrics.generator=false").code == 0
    used = set(json.loads((out / "results.json").read_text())["used"])
    new = out / "artifacts" / "train_student-0000"  # as of a run that was stopped later
    time.sleep(0.05)
    new.mkdir()
    said = typed("clean", "out", "--dry-run")
    assert said.code == 0
    assert artifacts(out) == old | used | {new.name}
    assert typed("clean", "out", "--yes").code == 0
    assert old - used
    assert artifacts(out) == used | {new.name}


def test_a_run_in_a_folder_below_says_nothing_of_an_unfinished_one(out: Path) -> None:
    """Its end came after the artifacts of the unfinished one, which are still needed."""
    (out / "results.json").rename(out / "later")
    (out / "inner").mkdir()
    (out / "later").rename(out / "inner" / "results.json")
    found = cleaning.contents(out)
    assert not found.stale
    assert {path.name for path in found.newer} == artifacts(out)


def test_stopped_stages_are_deleted_only_on_request(out: Path, typed: Typed) -> None:
    work = out / "work" / "train_generator-0000"
    work.mkdir(parents=True)
    (work / "checkpoint.safetensors").write_bytes(bytes(1_000_000))
    assert typed("clean", "out", "--yes").code == 0
    assert work.is_dir()
    said = typed("clean", "out", "--yes", "--stopped")
    assert "deleted 1.0 MB" in said.out
    assert not work.exists()


def test_a_folder_in_use_is_left_alone(out: Path, typed: Typed) -> None:
    held = HeldFolder(out, "run")
    said = typed("clean", "out", "--yes")
    held.close()
    assert said.code == 2
    assert "DIR out is in use by another run" in said.err  # clean has no --out
    assert (out / "cache").is_dir()


def test_a_dry_run_needs_no_lock(tmp_path: Path, typed: Typed) -> None:
    (tmp_path / "cache" / "x").mkdir(parents=True)
    (tmp_path / ".lock").touch()
    (tmp_path / "results.json").write_text(json.dumps({"used": []}))
    held = HeldFolder(tmp_path, "run")  # stands for a read-only folder too, whose lock can't be opened
    said = typed("clean", str(tmp_path), "--dry-run")
    held.close()
    assert said.code == 0, said.err
    assert "nothing was deleted (--dry-run)" in said.out


@pytest.mark.parametrize("results", [{"rows": []}, []])
def test_results_that_do_not_name_their_artifacts_lose_none(results: object, tmp_path: Path, typed: Typed) -> None:
    artifact = tmp_path / "artifacts" / "train_student-0"
    artifact.mkdir(parents=True)
    (tmp_path / ".lock").touch()
    (tmp_path / "results.json").write_text(json.dumps(results))
    said = typed("clean", str(tmp_path), "--yes")
    assert said.code == 2
    assert "results.json does not say which artifacts the run uses ('used')" in said.err
    assert artifact.is_dir()


def test_nothing_is_deleted_without_confirmation(out: Path, typed: Typed) -> None:
    said = typed("clean", "out")
    assert said.code == 2
    assert "needed: --yes, or --dry-run" in said.err
    assert any((out / "cache").iterdir())


@pytest.mark.parametrize(
    ("name", "why"), [("nowhere", "nowhere does not exist; needed"), ("photos", "is not a folder that cgankd wrote")]
)
def test_a_folder_of_something_else_is_refused(name: str, why: str, tiny: Path, typed: Typed) -> None:
    photos = tiny.parent / "photos"
    (photos / "cache" / "x").mkdir(parents=True)
    said = typed("clean", name, "--yes")
    assert said.code == 2
    assert why in said.err
    assert (photos / "cache" / "x").is_dir()


def test_what_a_run_of_a_table_has_made_stays_while_another_one_ended_meanwhile(tmp_path: Path) -> None:
    for name in ("cells/a", "cells/b", "artifacts/train_student-a", "artifacts/train_student-b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".lock").touch()
    (tmp_path / "cells" / "a" / "results.json").write_text(json.dumps({"used": ["train_student-a"]}))
    ended = time.time() + 60
    os.utime(tmp_path / "cells" / "a" / "results.json", (ended, ended))  # both ran at once, and b was stopped
    found = cleaning.contents(tmp_path)
    assert ([path.name for path in found.newer], found.stale) == (["train_student-b"], [])
    (tmp_path / "cells" / "b" / "results.json").write_text(json.dumps({"used": []}))
    found = cleaning.contents(tmp_path)
    assert (found.newer, [path.name for path in found.stale]) == ([], ["train_student-b"])


def test_a_killed_removal_leaves_no_artifact_that_looks_whole(tmp_path: Path) -> None:
    folder = tmp_path / "train_student-1"
    folder.mkdir()
    (folder / "artifact.json").write_text("{}")
    (folder / "a.bin").write_bytes(bytes(10))
    assert cleaning.size([folder]) == 12
    cleaning.remove([folder])
    assert not folder.exists()
