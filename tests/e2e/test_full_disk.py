"""Out of space, or read-only: a sentence, exit code 2, nothing half-written; the same command continues later."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import TINY, Said, artifacts, files, process

KIB = 1024
WORDS = ["run", "tiny.yaml", "--quiet", "--no-report", "--no-export", "compare.methods=[nokd,cgan]"]


def whole(out: Path) -> None:
    """Every artifact is finished, every file as long as it says, and nothing temporary is left."""
    for folder in out.glob("artifacts/*"):
        made = json.loads((folder / "artifact.json").read_text())
        assert {path.name: path.stat().st_size for path in folder.iterdir() if path.name != "artifact.json"} == made[
            "files"
        ]
    assert not list(out.rglob("*.tmp"))


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[None]:
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def fill(path: Path, leave: int) -> None:
    """Take all room of the file system but ``leave`` KiB."""
    free = shutil.disk_usage(path.parent).free // KIB
    path.write_bytes(b"x" * KIB * (free - leave))


@pytest.mark.long
def test_files_may_not_grow(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30 * KIB, resource.RLIM_INFINITY))  # no network fits

    sentence = process(*WORDS, "--out", "out", cwd=tmp_path, preexec_fn=limited).sentence()
    assert "File too large" in sentence
    assert "the same command goes on: cgankd run tiny.yaml" in sentence
    whole(tmp_path / "out")
    assert not list((tmp_path / "out").glob("artifacts/train_network-*"))


@pytest.mark.long
def test_the_disk_is_full(tmp_path: Path, typed: Callable[..., Said]) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    disk = tmp_path / "disk"
    words = [*WORDS, "synthesis.images=4000", "--out", "disk/out"]  # 1 MiB of images
    with small_disk(disk, 8 * KIB):
        assert typed(*WORDS, "--out", "disk/out").code == 0  # teacher, generator and ratio are there
        fill(disk / "filler", leave=400)
        before = artifacts(disk / "out")
        sentence = process(*words, cwd=tmp_path).sentence()
        assert "No space left on device" in sentence
        assert "the same command goes on: cgankd run tiny.yaml" in sentence
        assert artifacts(disk / "out") == before
        whole(disk / "out")
        (disk / "filler").unlink()
        said = typed(*words)
        assert said.code == 0, said.err
        whole(disk / "out")
        rows = json.loads((disk / "out" / "results.json").read_text())["rows"]
        assert rows[1]["fake_images"] == 4000


@pytest.mark.long
def test_a_folder_that_can_only_be_read(tmp_path: Path, typed: Callable[..., Said]) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    disk = tmp_path / "disk"
    words = ["run", "tiny.yaml", "--quiet", "--no-report", "--no-export", "--track", "none", "--out", "disk/out"]

    def remount(way: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{way}", str(disk)], check=True)

    with small_disk(disk, 8 * KIB):
        assert typed(*words, "compare.methods=[nokd]").code == 0
        remount("ro")
        before = files(disk)
        for more in (["compare.methods=[nokd]"], ["compare.methods=[nokd,nokd_longer]"]):  # finished, and to go on
            sentence = typed(*words, *more).sentence()
            assert "--out disk/out: the file system is read-only; needed: a folder that can be written to" in sentence
        sentence = typed(*words[:-1], "disk/new").sentence()
        assert "--out disk/new can't be created: the file system is read-only" in sentence
        assert files(disk) == before
        remount("rw")
        assert files(disk) == before
        said = typed(*words, "compare.methods=[nokd,nokd_longer]")
        assert said.code == 0, said.err
        whole(disk / "out")
        rows = json.loads((disk / "out" / "results.json").read_text())["rows"]
        assert [row["method"] for row in rows] == ["nokd", "nokd_longer"]
        kept = {name: state for name, state in before.items() if "/artifacts/train_student" in name}
        assert kept
        assert kept.items() <= files(disk).items()
