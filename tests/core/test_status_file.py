"""The status file: what it tells of a process that runs, ended, was killed, or is on another machine."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cgankd.core import status_file
from cgankd.core.errors import UserError
from cgankd.core.run_plan import Station
from cgankd.core.status_file import StatusFile, as_lines, process_started, read_status, same_command
from cgankd.core.watching import Watched

KD = Station("key", "kd (seed 0)", "train_student", "fit", 1.0)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(sys, "argv", ["/bin/cgankd", "run", "my recipe.yaml", "--out", "x"])
    watched = Watched([StatusFile()])
    watched.opened(tmp_path)
    return watched


def change(folder: Path, **values: Any) -> None:
    path = folder / "status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def dead() -> dict[str, Any]:
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return {"pid": ended.pid}


def test_a_run_that_was_refused_leaves_no_file(watched: Watched, tmp_path: Path) -> None:
    watched.stop("data.source is wrong", 2, "cgankd run x")
    assert list(tmp_path.iterdir()) == []


def test_the_status_says_what_goes_on_before_the_run(watched: Watched, tmp_path: Path) -> None:
    assert as_lines(tmp_path, read_status(tmp_path))[1:] == ["before the run"]
    with watched.passing("reading images", 1) as bar:
        bar.to(0.25)
        watched.outputs[0].tick(watched)
        first, second = as_lines(tmp_path, read_status(tmp_path))
    assert first.startswith(f"{tmp_path}: running for 0 s (process {os.getpid()} on ")
    assert second == "before the run: reading images 25% done"
    with watched.passing("measuring a few steps", 0):
        record = read_status(tmp_path)
    assert record["preparing"] is True
    assert as_lines(tmp_path, record)[1] == "before the run: measuring a few steps"
    with watched.stage(KD):
        record = read_status(tmp_path)
    assert record["preparing"] is False
    assert as_lines(tmp_path, record)[1] == "[1] kd (seed 0)"


@pytest.mark.parametrize("earlier", [None, b'{"state": "done"}'])
def test_a_run_that_is_refused_after_its_preparation_changes_no_file(
    earlier: bytes | None, watched: Watched, tmp_path: Path
) -> None:
    path = tmp_path / "status.json"
    path.unlink()  # of the fixture
    if earlier is not None:
        path.write_bytes(earlier)
        os.utime(path, (1e9, 1e9))
    watched = Watched([StatusFile()])
    watched.opened(tmp_path)
    with watched.passing("reading images", 1):
        assert read_status(tmp_path)["state"] == "running"
    watched.closed()
    assert (path.read_bytes() if path.exists() else None) == earlier
    watched.stop("data.source is wrong", 2, "cgankd run x")
    assert earlier is None or path.stat().st_mtime == 1e9
    assert (path.read_bytes() if path.exists() else None) == earlier


def test_a_run_that_is_stopped_in_its_preparation_does_not_tell_of_an_earlier_one(
    watched: Watched, tmp_path: Path
) -> None:
    watched.finish(results="results.json")
    watched = Watched([StatusFile()])
    watched.opened(tmp_path)
    with contextlib.suppress(KeyboardInterrupt), watched.passing("reading images", 1):
        raise KeyboardInterrupt
    watched.closed()
    watched.stop("stopped by Ctrl-C", 130, "cgankd run x")
    assert as_lines(tmp_path, read_status(tmp_path)) == [
        f"{tmp_path}: stopped by Ctrl-C (0 s ago); the same command goes on: cgankd run x",
        "it was at: before the run: reading images 0% done",
    ]


def test_a_running_stage(watched: Watched, tmp_path: Path) -> None:
    watched.plan(lambda: [Station("data", "data", "describe_data", seconds=1.0), KD])
    with watched.stage(KD), watched.bar("kd (seed 0)", 10) as bar:
        bar.images = 64
        bar.to(5)
        watched.outputs[0].tick(watched)
        record = read_status(tmp_path)
    assert {name: record[name] for name in ("state", "host", "pid", "command", "stage", "number", "of", "done")} == {
        "state": "running", "host": socket.gethostname(), "pid": os.getpid(),
        "command": "cgankd run 'my recipe.yaml' --out x", "stage": "kd (seed 0)", "number": 2, "of": 2, "done": 5,
    }  # fmt: skip
    first, second = as_lines(tmp_path, record)
    assert first.startswith(f"{tmp_path}: running for 0 s (process {os.getpid()} on ")
    assert second == "[2/2] kd (seed 0) 5/10 steps"
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]  # no temporary file is left


def test_how_a_run_ended(watched: Watched, tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), watched.stage(KD), watched.bar("kd (seed 0)", 10) as bar:
        bar.to(7)
        raise KeyboardInterrupt
    command = "cgankd run 'my recipe.yaml' --out x"
    again = f"the same command goes on: {command}"
    watched.stop("stopped by Ctrl-C", 130, command)
    assert as_lines(tmp_path, read_status(tmp_path)) == [
        f"{tmp_path}: stopped by Ctrl-C (0 s ago); {again}", "it was at: [1] kd (seed 0) 7/10 steps",
    ]  # fmt: skip
    watched.stop("the loss is nan", 1, command)
    assert as_lines(tmp_path, read_status(tmp_path))[0] == f"{tmp_path}: failed 0 s ago: the loss is nan"
    results = tmp_path / "results.json"
    results.write_text("{}")
    watched.finish(results=str(results))
    assert as_lines(tmp_path, read_status(tmp_path)) == [f"{tmp_path}: done 0 s ago, after 0 s; results: {results}"]


def test_a_run_that_was_moved_names_its_results_where_they_are(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    with watched.stage(KD):
        pass
    watched.finish(results="elsewhere/results.json")
    assert read_status(tmp_path)["results"] == str(tmp_path / "results.json")


@pytest.mark.parametrize("name", ["results.json", "table.json"])
def test_results_that_were_deleted_are_missing(name: str, watched: Watched, tmp_path: Path) -> None:
    with watched.stage(KD):
        pass
    watched.finish(results=f"x/{name}")
    assert read_status(tmp_path)["results"] is None
    assert as_lines(tmp_path, read_status(tmp_path)) == [
        f"{tmp_path}: done 0 s ago, after 0 s; its results are missing; the same command writes them anew: "
        "cgankd run 'my recipe.yaml' --out x"
    ]


def test_images_that_were_exported_to_elsewhere_are_not_looked_for(watched: Watched, tmp_path: Path) -> None:
    with watched.stage(KD):
        pass
    watched.finish(results="to_label/images")  # relative to the folder in which the command was given
    assert read_status(tmp_path)["results"] == "to_label/images"


def test_a_finished_run_started_again_tells_what_its_stages_took(watched: Watched, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text('{"seconds": {"import": 5.0, "train_student": 115.0}}')
    with watched.stage(KD):
        pass
    watched.finish(results=str(results))
    assert as_lines(tmp_path, read_status(tmp_path)) == [
        f"{tmp_path}: done 0 s ago, after 0 s (the stages took 2 min in all); results: {results}"
    ]


def test_results_of_this_run_are_not_said_to_be_of_an_earlier_one(watched: Watched, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text("{}")
    with watched.stage(KD):
        for age, said in ((-5.0, False), (5.0, True)):
            os.utime(results, (watched.started - age,) * 2)
            assert any("earlier run" in line for line in as_lines(tmp_path, read_status(tmp_path))) is said


def test_a_killed_process_is_told_from_a_living_one(watched: Watched, tmp_path: Path) -> None:
    with watched.stage(KD):
        pass
    assert read_status(tmp_path)["state"] == "running"
    change(tmp_path, process_started="1")  # another process that got the same number later
    assert read_status(tmp_path)["state"] == "killed"
    change(tmp_path, process_started=process_started(os.getpid()), **dead())
    record = read_status(tmp_path)
    assert record["state"] == "killed"
    assert "ended without a word" in as_lines(tmp_path, record)[0]


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    while (started := process_started(child.pid)) is not None:
        assert started
        time.sleep(0.01)
    child.wait()


def test_on_another_host_only_the_age_of_the_file_is_known(watched: Watched, tmp_path: Path) -> None:
    with watched.stage(KD):
        pass
    change(tmp_path, host="elsewhere", **dead())
    assert read_status(tmp_path)["state"] == "running"
    change(tmp_path, updated=time.time() - status_file.SILENT_AFTER - 60)
    record = read_status(tmp_path)
    assert record["state"] == "silent"
    assert as_lines(tmp_path, record)[0] == f"{tmp_path}: no news from elsewhere since 11 min; it may have been killed"


def test_a_clock_that_jumps_changes_no_time(watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hour, clock = 3600.0, time.time
    monkeypatch.setattr(time, "time", lambda: clock() - hour)  # set back after the start
    with watched.stage(KD):
        pass
    watched.finish()
    monkeypatch.setattr(time, "time", lambda: clock() - 2 * hour)
    record = read_status(tmp_path)
    assert 0 <= record["seconds"] < 60
    assert as_lines(tmp_path, record)[0].startswith(f"{tmp_path}: done 0 s ago, after 0 s;")


def test_a_disk_that_is_full_does_not_end_the_run(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cgankd.core.files.write_json", full)
    with watched.stage(KD):
        pass


def test_folders_without_a_status(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; needed: the --out folder of a run"):
        read_status(tmp_path / "none")
    with pytest.raises(UserError, match=r"is not the folder of a run: it has no status.json and no results.json"):
        read_status(tmp_path)
    (tmp_path / ".lock").touch()  # HeldFolder leaves it in a folder that was there before
    with pytest.raises(UserError, match="is not the folder of a run"):
        read_status(tmp_path)
    (tmp_path / ".lock").write_text("run")
    assert as_lines(tmp_path, read_status(tmp_path))[0].startswith(
        f"{tmp_path}: begun 0 s ago and not finished; whether"
    )
    (tmp_path / "results.json").write_text("{}")
    assert as_lines(tmp_path, read_status(tmp_path)) == [f"{tmp_path}: done; results: {tmp_path / 'results.json'}"]
    (tmp_path / "status.json").write_text("[]")
    with pytest.raises(UserError, match="is not the status of a run"):
        read_status(tmp_path)


@pytest.mark.parametrize("launcher", ["python", "/other/bin/python", "torchrun .."])
def test_the_command_of_the_module_names_what_started_it(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/venv/bin/python")
    monkeypatch.setattr("sys.executable", "/venv/bin/python" if launcher == "python" else "/other/bin/python")
    monkeypatch.setattr("sys.argv", ["/venv/cgankd/__main__.py", "run", "digits"])
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if launcher == "torchrun ..":
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert same_command() == f"{launcher} -m cgankd run digits"
