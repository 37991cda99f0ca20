"""Killed at random, its files cut and its cache removed, a run ends with the numbers of one that nobody killed.

``make kill-test``: 50 kills of runs of both tasks, of runs in two processes and of tables with two workers. KILLS sets
their number, KILL_SEED what is drawn; the seed is printed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import BARS, SLOWER, TINY, environment, process, same, same_artifacts, script, write_bars

KILLS = int(os.environ.get("KILLS", "50"))
SEED = int(os.environ.get("KILL_SEED", "0"))
LONGEST = 0.35  # of a whole run's time, between the start of work and a kill, so that a run is killed several times
CUT, FORGET = 0.3, 0.15  # shares of the kills after which the newest file is cut, and the cache is removed
EARLY, START = 0.25, 0.2  # share of the kills soon after the start of the second process; their part of LONGEST
BOUND = 120.0  # seconds in which all processes of a run end after a kill; on an idle machine it takes a few
MARK = "CGANKD_KILL_TEST"  # variable that all processes of one command have

OFTEN = [*SLOWER, "runtime.checkpoint_seconds=0.2"]
RUN = ["run", "recipe.yaml", *OFTEN, "--no-report", "--no-export"]
UNLABELLED = ["data.unlabelled=more", "compare.methods=[nokd,kd,cgan_kd,pseudo+kd,cgan+pseudo+fm]"]
TABLE = ["table", "recipe.yaml", *OFTEN, "compare.methods=[kd,cgan_kd]", "--students", "cnn8,cnn16"]


def same_table(killed: Path, whole: Path) -> None:
    for name in ("table.json", "table.md", "table.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    same_artifacts(killed, whole)


@dataclasses.dataclass(frozen=True)
class Case:
    """What is killed. replaced: a process that is not the first one is replaced, and the command goes on."""

    recipe: str
    words: list[str]
    processes: int = 1
    replaced: bool = False
    same: Callable[[Path, Path], None] = same


CASES = {
    "classes": Case(TINY, [*RUN, "student.refit=true"]),
    "scalar": Case(BARS, [*RUN, *UNLABELLED]),
    "ranks": Case(TINY, [*RUN, "compare.methods=[kd,cgan_kd]", "--devices", "2"], processes=2),
    "workers": Case(TINY, [*TABLE, "--jobs", "2"], processes=2, replaced=True, same=same_table),
}


class Command:
    """The command at work in ``out``, with all its processes."""

    def __init__(self, case: Case, out: Path) -> None:
        self.case, self.out, self.mark = case, out, f"{MARK}={os.getpid()} {out}"
        self.words = [*case.words, "--out", out.name, "--quiet"]
        self.run = subprocess.Popen(
            [script(), *self.words],
            cwd=out.parent,
            env={**environment(), MARK: self.mark.partition("=")[2]},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def processes(self) -> list[int]:
        """All that are alive, but for programs that they call for a moment."""
        alive = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                own = self.mark in (place / "environ").read_bytes().decode(errors="replace").split("\0")
                if own and b"cgankd" in (place / "cmdline").read_bytes():
                    alive.append(int(place.name))
            except OSError:  # it has ended, or belongs to somebody else
                continue
        return sorted(alive)

    def begins(self, starts_others: bool) -> None:
        """Return when it has read its images and works, or when it has started another process."""
        while self.run.poll() is None and not (len(self.processes()) > 1 if starts_others else self.works()):
            time.sleep(0.1 if starts_others else 0.002)

    def works(self) -> bool:
        try:
            return bool(json.loads((self.out / "status.json").read_text())["pid"] == self.run.pid)
        except (OSError, ValueError, KeyError):
            return False

    def goes_on(self, seconds: float) -> bool:
        """Wait so long, or until it ends."""
        try:
            self.run.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def ended(self) -> list[str]:
        """Wait until no process is left, and return what they wrote to stderr."""
        last = time.monotonic() + BOUND
        while self.run.poll() is None or self.processes():
            if time.monotonic() > last:
                left = self.processes()
                for number in left:
                    os.kill(number, signal.SIGKILL)
                raise AssertionError(f"{left} of {self.run.pid} did not end")
            time.sleep(0.05)
        return self.run.communicate()[1].splitlines()


def killed(case: Case, out: Path, draw: random.Random, longest: float) -> list[str]:
    """Run the command and SIGKILL one of its processes, or several, one after the other, where they are replaced.

    Returns which ones, in words; none: it ended before, as it should.
    """
    command, victims = Command(case, out), list[str]()
    early = case.processes > 1 and draw.random() < EARLY
    command.begins(early or case.replaced)
    while command.goes_on(draw.uniform(0.0, longest * (START if early and not victims else 1.0))):
        number = draw.choice(command.processes() or [command.run.pid])
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue
        first = number == command.run.pid
        when = ", at the start" if early and not victims else ""
        victims.append(("the first process" if first else "another process") + when)
        if first or not case.replaced:
            break
    check_end(command, first_killed=bool(victims) and victims[-1].startswith("the first"), kills=len(victims))
    return victims


def check_end(command: Command, first_killed: bool, kills: int) -> None:
    """What the processes said that were not killed, and that none is left."""
    lines, code = command.ended(), command.run.returncode
    if command.case.replaced and kills > 2 and lines:  # three workers of one run were killed
        assert code in (1, -signal.SIGKILL)
        assert len(lines) == 1
        assert "its workers died; " in lines[0]
    elif command.case.replaced or command.case.processes == 1 or not kills:
        assert (code, lines) == (-signal.SIGKILL if first_killed else 0, [])
    elif code == 0 or (first_killed and (command.out / "results.json").exists()):  # the other one's work was done
        assert len(lines) < 2, lines
    else:
        assert code in ((-signal.SIGKILL,) if first_killed else (1, 75)), lines
        assert len(lines) == 1, lines
        assert lines[0].startswith("cgankd: ")
        assert "stopped, because" in lines[0]
        assert lines[0].endswith(f"; the same command goes on: cgankd {shlex.join(command.words)}")


def harm(out: Path, draw: random.Random) -> str:
    """What a crash of the machine, or a person, may do to the files of a dead run. Returns it in words."""
    chance = draw.random()
    files = [path for path in out.rglob("*") if path.is_file() and path.name != ".lock"]
    if chance < CUT and files:
        newest = max(files, key=lambda path: path.stat().st_mtime_ns)
        with newest.open("r+b") as file:
            file.truncate(draw.randrange(newest.stat().st_size + 1))
        return f"cut {newest.relative_to(out)}"
    if chance < CUT + FORGET:
        shutil.rmtree(out / "cache", ignore_errors=True)
        return "removed the cache"
    return "left the files as they were"


def stage_of(out: Path) -> str:
    try:
        return str(json.loads((out / "status.json").read_text()).get("stage"))
    except (OSError, ValueError):  # not yet there
        return "the start"


@pytest.mark.kill
@pytest.mark.parametrize("name", list(CASES))
def test_random_kills(tmp_path: Path, name: str) -> None:
    draw, case = random.Random(f"{SEED} {name}"), CASES[name]
    (tmp_path / "recipe.yaml").write_text(case.recipe)
    if name == "scalar":
        write_bars(tmp_path / "bars")
        write_bars(tmp_path / "more", count=60, seed=1)
    whole, done, runs = tmp_path / "whole", 0, 0
    began = time.monotonic()
    assert process(*case.words, "--out", "whole", "--quiet", cwd=tmp_path).code == 0
    longest = LONGEST * (time.monotonic() - began)
    while done < KILLS // len(CASES):
        out, runs = tmp_path / f"out-{runs}", runs + 1
        while victims := killed(case, out, draw, longest):
            done += len(victims)
            stage, words = stage_of(out), "; ".join(victims)
            print(f"seed {SEED}, {name}, run {runs}, kill {done} in {stage} ({words}): {harm(out, draw)}", flush=True)
        case.same(out, whole)
    print(f"seed {SEED}, {name}: {done} kills over {runs} runs, each with the numbers of the whole one", flush=True)
