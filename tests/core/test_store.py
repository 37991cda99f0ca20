"""A run's folder: what makes a key, what makes an artifact stale, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cgankd.core.errors import UserError
from cgankd.core.files import save_tensors
from cgankd.core.hashing import content_key, file_key
from cgankd.core.store import CHECKPOINT, Artifact, RunFolder

ENVIRONMENT = {"torch": "2", "threads": 1}


class Builder:
    """Counts how often it is asked, and leaves a tensor file and a summary."""

    def __init__(self, summary: dict[str, Any] | None = None) -> None:
        self.times = 0
        self.summary = summary or {"loss": 0.1}

    def __call__(self, work: Path) -> dict[str, Any]:
        self.times += 1
        save_tensors(work / "weights.safetensors", {"a": torch.arange(1000)})
        return self.summary


def open_folder(path: Path, **environment: Any) -> RunFolder:
    return RunFolder(path, {**ENVIRONMENT, **environment})


def stage(path: Path, build: Any, environment: dict[str, Any] | None = None, **changes: Any) -> Artifact:
    folder = open_folder(path, **(environment or {}))
    try:
        given = {"stage": "teacher", "settings": {"steps": 3}, "inputs": {"train": "k"}, "version": 1, **changes}
        return folder.stage(build=build, **given)
    finally:
        folder.close()


def test_what_is_there_is_not_built_again(tmp_path: Path) -> None:
    build = Builder()
    first, second = stage(tmp_path, build), stage(tmp_path, build)
    assert build.times == 1
    assert first.folder == second.folder == tmp_path / "artifacts" / f"teacher-{first.key}"
    assert torch.equal(second.tensors("weights")["a"], torch.arange(1000))
    assert second.seconds == first.seconds
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize(
    "changes",
    [{"settings": {"steps": 4}}, {"settings": {"steps": 3, "more": None}}, {"inputs": {"train": "other"}},
     {"inputs": {"train": "k", "val": "k"}}, {"inputs": {}}, {"version": 2}, {"stage": "student"},
     {"environment": {"threads": 2}}, {"environment": {"precision": "bf16-mixed"}}],
)  # fmt: skip
def test_a_change_makes_another_key(tmp_path: Path, changes: dict[str, Any]) -> None:
    build = Builder()
    first, second = stage(tmp_path, build), stage(tmp_path, build, **changes)
    assert first.key != second.key
    assert build.times == 2
    stage(tmp_path, build)
    assert build.times == 2  # and the old one is still there


def test_keys_do_not_depend_on_the_order_of_settings_or_on_the_process() -> None:
    assert content_key({"a": 1, "b": [1, 2]}) == content_key({"b": (1, 2), "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 1.5})
    assert content_key(["a", "b"]) != content_key(["ab"])
    code = "from cgankd.core.store import content_key; print(content_key({'a': 1, 'b': [0.1, 'ü', None]}))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {content_key({"b": [0.1, "ü", None], "a": 1})}


def test_a_file_key_is_its_content(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"x" * 3_000_000)
    b.write_bytes(b"x" * 3_000_000)
    assert file_key(a) == file_key(b)
    b.write_bytes(b"x" * 2_999_999 + b"y")
    assert file_key(a) != file_key(b)


@pytest.mark.parametrize("damage", ["truncated", "missing", "grown", "description", "no description", "other key"])
def test_a_damaged_artifact_is_built_again(tmp_path: Path, damage: str) -> None:
    build = Builder()
    artifact = stage(tmp_path, build)
    weights, description = artifact.folder / "weights.safetensors", artifact.folder / "artifact.json"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "missing":
        weights.unlink()
    elif damage == "grown":
        weights.write_bytes(weights.read_bytes() + b"x")
    elif damage == "description":
        description.write_text(description.read_text()[:-20])
    elif damage == "no description":
        description.unlink()
    else:
        found = json.loads(description.read_text())
        description.write_text(json.dumps({**found, "key": "0" * 16}))
    again = stage(tmp_path, build)
    assert build.times == 2
    assert again.key == artifact.key
    assert torch.equal(again.tensors("weights")["a"], torch.arange(1000))
    stage(tmp_path, build)
    assert build.times == 2


def test_an_error_leaves_no_artifact_and_keeps_the_work(tmp_path: Path) -> None:
    def fail(work: Path) -> dict[str, Any]:
        (work / CHECKPOINT).write_bytes(b"half way")
        (work / "checkpoint-1.safetensors").write_bytes(b"of a loop within")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        stage(tmp_path, fail)
    assert not (tmp_path / "artifacts").exists()

    def resume(work: Path) -> dict[str, Any]:
        assert (work / CHECKPOINT).read_bytes() == b"half way"
        return {}

    artifact = stage(tmp_path, resume)
    assert sorted(file.name for file in artifact.folder.iterdir()) == ["artifact.json"]  # no checkpoint, no clock


def test_time_before_an_interruption_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("cgankd.core.store.time.monotonic", lambda: clock[0])

    def after(seconds: float, error: type[BaseException] | None) -> Any:
        def build(work: Path) -> dict[str, Any]:
            clock[0] += seconds
            if error:
                raise error
            return {}

        return build

    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path, after(7.0, KeyboardInterrupt))
    assert stage(tmp_path, after(5.0, None)).seconds == pytest.approx(12.0)
    assert stage(tmp_path, after(1.0, None)).seconds == pytest.approx(12.0)


KILLED = """
import os, sys
from pathlib import Path
from cgankd.core.store import CHECKPOINT, RunFolder
from cgankd.core.files import replacing

def build(work):
    (work / "images.u8").write_bytes(b"1" * 999)
    (work / CHECKPOINT).write_bytes(b"half way")
    with replacing(work / CHECKPOINT) as temporary:  # killed while it saves the next checkpoint
        temporary.write_bytes(b"half of a checkpoint")
        os._exit(9)

RunFolder(Path(sys.argv[1]), {"torch": "2", "threads": 1}).stage("teacher", {"steps": 3}, {"train": "k"}, build)
"""


def test_a_killed_build_leaves_no_artifact_and_its_checkpoint(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert killed.returncode == 9
    assert not (tmp_path / "artifacts").exists()
    seen = []

    def resume(work: Path) -> dict[str, Any]:
        seen.append((work / CHECKPOINT).read_bytes())
        (work / "images.u8").write_bytes(b"2" * 10)
        return {}

    artifact = stage(tmp_path, resume)  # the killed process's lock is gone with it
    assert seen == [b"half way"]
    # what the kill left half-written is not handed on as part of the result
    assert sorted(file.name for file in artifact.folder.iterdir()) == ["artifact.json", "images.u8"]


HOLDING = """
import sys
from pathlib import Path
from cgankd.core.store import RunFolder

folder = RunFolder(Path(sys.argv[1]), {})
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="in use by another run"):
            open_folder(tmp_path)
        holder.communicate("")
    open_folder(tmp_path).close()


def test_a_new_folder_in_which_nothing_was_made_is_taken_away(tmp_path: Path) -> None:
    open_folder(tmp_path / "new").close()
    assert not (tmp_path / "new").exists()
    stage(tmp_path / "used", Builder())
    assert (tmp_path / "used").is_dir()
    (tmp_path / "mine").mkdir()
    open_folder(tmp_path / "mine").close()
    assert (tmp_path / "mine").is_dir()


def test_closing_twice_is_harmless_and_opening_twice_is_refused(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    with pytest.raises(UserError, match="in use"):
        open_folder(tmp_path)
    folder.close()
    folder.close()
    open_folder(tmp_path).close()


def test_the_summary_is_the_same_built_and_read_back(tmp_path: Path) -> None:
    summary = {
        "loss": 0.1 + 0.2, "none": None, "list": [1, [2.5, "ü"]], "yes": True, "nested": {"a": 1e-300},
        "pair": (1, 2), "by_number": {3: "c"},
    }  # fmt: skip
    built, read = stage(tmp_path, Builder(summary)), stage(tmp_path, Builder())
    assert read.summary["loss"] == 0.1 + 0.2
    assert read.summary["list"] == [1, [2.5, "ü"]]
    assert built.summary == read.summary
    assert built == read


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_summary_that_json_cannot_hold_leaves_no_artifact(tmp_path: Path, bad: float) -> None:
    with pytest.raises(ValueError):
        stage(tmp_path, Builder({"loss": bad}))
    assert not (tmp_path / "artifacts").exists()


def test_every_artifact_that_was_used_is_listed(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    a = folder.stage("a", {}, {}, Builder())
    b = folder.stage("b", {}, {"a": a.key}, Builder())
    folder.stage("a", {}, {}, Builder())
    assert [artifact.key for artifact in folder.used] == [a.key, b.key, a.key]
    folder.close()


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="is a file; a folder is needed"):
            open_folder(path)


def test_another_commands_folder_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    stage(tmp_path, Builder())
    for command, owner in (("continual", "run"), ("lm", "run")):
        with pytest.raises(UserError, match=f"is a folder of cgankd {owner}, .* or one of cgankd {command}"):
            RunFolder(tmp_path, ENVIRONMENT, command=command)
    open_folder(tmp_path).close()  # its own goes on
    RunFolder(tmp_path / "new", ENVIRONMENT, command="lm").close()
    assert not (tmp_path / "new").exists()


def test_a_folder_of_before_commands_were_written_down_is_taken(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    RunFolder(tmp_path, ENVIRONMENT, command="lm").close()
    open_folder(tmp_path).close()  # in which nothing was made, so nobody's
    (tmp_path / "recipe.yaml").touch()
    RunFolder(tmp_path, ENVIRONMENT, command="lm").close()
    with pytest.raises(UserError, match="is a folder of cgankd lm"):
        open_folder(tmp_path)
