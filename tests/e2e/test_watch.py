"""A run is watched: on a terminal, in a log, by a program, and from another terminal; and it ends as it should."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import CHECKPOINT_FILE, Said, environment, script

ONE_ROW = [
    "run",
    "tiny.yaml",
    "compare.methods=[nokd]",
    "student.fit.steps=20",
    "--out",
    "out",
    "--no-report",
    "--no-export",
]
ENDLESS = ["run", "tiny.yaml", "compare.methods=[nokd]", "teacher.fit.steps=1000000", "runtime.checkpoint_seconds=0.05",
           "--out", "the run", "--track", "none"]  # fmt: skip


def test_json_lines_are_all_that_is_on_stdout(tiny: Path, typed: Callable[..., Said]) -> None:
    said = typed(*ONE_ROW, "--json")
    assert (said.code, said.err) == (0, "")
    records = [json.loads(line) for line in said.out.splitlines()]
    events = [record["event"] for record in records if record["event"] != "progress"]
    results = json.loads((tiny.parent / "out" / "results.json").read_text())
    assert results["warnings"]
    assert events == [
        "run_started", *["stage_started", "stage_ended"] * 5, "row_scored", "stage_started", "stage_ended",
        *["warning"] * len(results["warnings"]), "done",
    ]  # fmt: skip
    assert [(r["stage"], r["number"], r["of"]) for r in records if r["event"] == "stage_started"] == [
        ("data", 1, 6), ("teacher (seed 0)", 2, 6), ("teacher (seed 0), test split", 3, 6), ("nokd (seed 0)", 4, 6),
        ("nokd (seed 0), test split", 5, 6), ("worst test images", 6, 6),
    ]  # fmt: skip
    (scored,) = [record for record in records if record["event"] == "row_scored"]
    assert (scored["row"], scored["seed"], scored["test"]) == ("nokd", 0, results["rows"][0]["mean"])
    done = records[-1]
    assert (done["results"], done["report"], done["student"]) == ("out/results.json", None, None)


@pytest.mark.long
def test_profile_has_a_line_for_each_stage_that_was_computed(tiny: Path, typed: Callable[..., Said]) -> None:
    said = typed(*ONE_ROW, "--profile", "--quiet")
    assert (said.code, said.err) == (0, "")
    assert "share of the time" in said.out
    stages = json.loads((tiny.parent / "out" / "profile.json").read_text())
    assert [stage["stage"] for stage in stages] == [
        "data", "teacher (seed 0)", "teacher (seed 0), test split", "nokd (seed 0)",
        "nokd (seed 0), test split", "worst test images",
    ]  # fmt: skip
    assert all(stage["peak_memory"] > 50e6 for stage in stages)
    assert "all of them were done before" in typed(*ONE_ROW, "--profile").out


def test_a_program_learns_why_a_run_did_not_start(tiny: Path, typed: Callable[..., Said]) -> None:
    said = typed("run", "tiny.yaml", "data.source=nowhere", "--out", "out", "--json")
    (record,) = [json.loads(line) for line in said.out.splitlines()]
    assert (record["event"], record["code"]) == ("stopped", 2)
    assert said.sentence() == f"cgankd: {record['reason']}"
    assert not (tiny.parent / "out").exists()


def test_a_log_has_a_line_for_each_stage_and_score_and_quiet_has_none(tiny: Path, typed: Callable[..., Said]) -> None:
    said = typed(*ONE_ROW)
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0] == "6 stages; folder out"
    assert [line.partition(";")[0] for line in lines[1:] if line.startswith("[")] == [
        "[1/6] data", "[2/6] teacher (seed 0)", "[3/6] teacher (seed 0), test split", "[4/6] nokd (seed 0)",
        "[5/6] nokd (seed 0), test split", "[6/6] worst test images",
    ]  # fmt: skip
    assert len([line for line in lines if line.startswith("nokd (seed 0): validation ")]) == 1
    assert "nokd (seed 0): validation " not in typed(*ONE_ROW).out  # all is done, and the table has the score
    quiet = typed(*ONE_ROW, "--quiet")
    assert lines[-len(quiet.out.splitlines()) :] == quiet.out.splitlines()
    assert quiet.out.split()[0] == "tiny:"  # the table's title


@pytest.mark.long
def test_on_a_terminal_without_colours(tiny: Path) -> None:
    main, other = pty.openpty()
    env = {**environment(), "COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}
    words = [script(), *ONE_ROW, "--track", "none", "teacher.fit.steps=100"]
    with subprocess.Popen(words, cwd=tiny.parent, env=env, stdout=other, stderr=other) as run:
        os.close(other)
        shown = b""
        while True:
            try:
                block = os.read(main, 4096)
            except OSError:  # Linux says so when the last writer is gone
                break
            if not block:
                break
            shown += block
    os.close(main)
    assert run.returncode == 0, shown.decode()
    text = shown.decode()
    assert re.search(r"teacher \(seed 0\) .*/100", text)
    assert "whole run" in text
    assert "stage 2/6" in text
    assert not re.search(r"\x1b\[(?:\d+;)*[349]\d", text), "a colour, although NO_COLOR is set"
    plain = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", text).replace("\r", "\n")
    assert max(len(line.rstrip()) for line in plain.splitlines()) <= 80
    assert any(line.startswith("! This is a demonstration") for line in plain.splitlines())


# --- how a run ends -----------------------------------------------------------------------------------------------


def status(folder: Path) -> dict[str, Any]:
    path = folder / "status.json"
    return json.loads(path.read_text()) if path.is_file() else {"state": None}


def ended_by(number: int, cwd: Path) -> Said:
    """The endless command in a process of its own, which gets the signal once its teacher has saved its state."""
    out = cwd / "the run"
    run = subprocess.Popen(
        [script(), *ENDLESS], cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )  # fmt: skip
    while True:
        assert run.poll() is None, run.stderr.read()  # type: ignore[union-attr]
        now = status(out)
        saved = list(out.glob(f"work/train_network-*/{CHECKPOINT_FILE}"))
        if now.get("pid") == run.pid and now["state"] == "running" and now["stage"] == "teacher (seed 0)" and saved:
            break
        time.sleep(0.05)
    run.send_signal(number)
    shown, errors = run.communicate(timeout=60)
    return Said(run.returncode, shown, errors)


@pytest.mark.long
def test_a_run_that_is_stopped_says_how_to_go_on(tiny: Path, typed: Callable[..., Said]) -> None:
    out, command = tiny.parent / "the run", shlex.join(["cgankd", *ENDLESS])

    stopped = ended_by(signal.SIGINT, tiny.parent)
    assert stopped.code == 130
    saving, said = stopped.err.strip().splitlines()
    assert saving == "saving the state of this loop; Ctrl-C again stops at once"
    assert said == f"cgankd: stopped by Ctrl-C; the same command goes on: {command}"
    assert status(out)["state"] == "waiting"

    asked = ended_by(signal.SIGTERM, tiny.parent)
    assert asked.code == 75
    reason, again = "stopped, because it was asked to stop (SIGTERM)", f"the same command goes on: {command}"
    assert asked.err == f"cgankd: {reason}; {again}\n"
    said = typed("status", "the run")
    assert said.code == 0
    first, second = said.out.splitlines()
    assert re.fullmatch(rf"the run: {re.escape(reason)} \(\d+ (s|min) ago\); {re.escape(again)}", first)
    assert second.startswith("it was at: [2/6] teacher (seed 0) ")
    assert "/1000000 steps" in second

    killed = ended_by(signal.SIGKILL, tiny.parent)
    assert killed.code == -signal.SIGKILL
    assert "the same command goes on" in typed("status", "the run").out
    record = json.loads(typed("status", "the run", "--json").out)
    assert (record["state"], record["stage"], record["number"]) == ("killed", "teacher (seed 0)", 2)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "tiny.yaml", "--quiet", "--json"], "--quiet and --json exclude each other; allowed: one of them"),
        (["run", "tiny.yaml", "--track", "tensorbord"],
         "--track 'tensorbord' is not known; allowed: tensorboard, csv, wandb, mlflow, none (did you mean "
         "'tensorboard'?)"),
        (["status", "."], ". is not the folder of a run: it has no status.json and no results.json"),
        (["status", "nowhere"], "nowhere does not exist; needed: the --out folder of a run"),
    ],
)  # fmt: skip
def test_what_is_refused(tiny: Path, typed: Callable[..., Said], words: list[str], sentence: str) -> None:
    assert typed(*words).sentence() == f"cgankd: {sentence}"
    assert [path.name for path in tiny.parent.iterdir()] == ["tiny.yaml"]


def test_the_help_imports_neither_torch_nor_views(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['cgankd', '--help']\n"
        "from cgankd.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'rich.live', 'tensorboard', 'lightning_fabric') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
