"""Killed at random, its files cut and its cache removed, a run ends with the numbers of one that nobody killed.

``make kill-test``: 50 kills over both tasks. KILLS sets their number, KILL_SEED what is drawn; the seed is printed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from commands import BARS, SLOWER, TINY, environment, process, same, script, write_bars

KILLS = int(os.environ.get("KILLS", "50"))
SEED = int(os.environ.get("KILL_SEED", "0"))
LONGEST = 0.35  # of a whole run's time, between the start of work and a kill, so that a run is killed several times
CUT, FORGET = 0.3, 0.15  # shares of the kills after which the newest file is cut, and the cache is removed

RECIPES = {"classes": TINY, "scalar": BARS}


def working(out: Path, pid: int) -> bool:
    """Whether the process has read its images and begun to work in the folder."""
    try:
        return bool(json.loads((out / "status.json").read_text())["pid"] == pid)
    except (OSError, ValueError, KeyError):
        return False


def killed(words: list[str], out: Path, after: float) -> bool:
    """Start the command, and SIGKILL it ``after`` seconds of work. False: it ended before, as it should."""
    command = [script(), *words, "--out", out.name, "--quiet"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=out.parent, env=environment(), text=True, **pipes) as run:
        while run.poll() is None and not working(out, run.pid):
            time.sleep(0.002)
        try:
            run.wait(after)
        except subprocess.TimeoutExpired:
            run.kill()
            return True
        assert run.returncode == 0, run.stderr.read() if run.stderr else ""
        return False


def harm(out: Path, draw: random.Random) -> str:
    """What a crash of the machine, or a person, may do to the files of a dead run. Returns it in words."""
    chance = draw.random()
    if chance < CUT:
        files = [path for path in out.rglob("*") if path.is_file() and path.name != ".lock"]
        newest = max(files, key=lambda path: path.stat().st_mtime_ns)
        with newest.open("r+b") as file:
            file.truncate(draw.randrange(newest.stat().st_size + 1))
        return f"cut {newest.relative_to(out)}"
    if chance < CUT + FORGET:
        shutil.rmtree(out / "cache", ignore_errors=True)
        return "removed the cache"
    return "left the files as they were"


@pytest.mark.kill
@pytest.mark.parametrize("task", list(RECIPES))
def test_random_kills(tmp_path: Path, task: str) -> None:
    draw = random.Random(f"{SEED} {task}")
    (tmp_path / "recipe.yaml").write_text(RECIPES[task])
    if task == "scalar":
        write_bars(tmp_path / "bars")
    words = ["run", "recipe.yaml", *SLOWER, "runtime.checkpoint_seconds=0.2", "--no-report", "--no-export"]
    whole, done, runs = tmp_path / "whole", 0, 0
    began = time.monotonic()
    assert process(*words, "--out", "whole", "--quiet", cwd=tmp_path).code == 0
    longest = LONGEST * (time.monotonic() - began)
    while done < KILLS // len(RECIPES):
        out, runs = tmp_path / f"out-{runs}", runs + 1
        while killed(words, out, draw.uniform(0.0, longest)):
            done += 1
            state = json.loads((out / "status.json").read_text()).get("stage")
            print(f"seed {SEED}, {task}, run {runs}, kill {done} in {state}: {harm(out, draw)}", flush=True)
        same(out, whole)
    print(f"seed {SEED}, {task}: {done} kills over {runs} runs, each with the numbers of the whole one", flush=True)
