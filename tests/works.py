"""Where loops run that tests call by themselves: with a checkpoint of the test's own, stopped at every save, or in
several processes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from lightning_fabric import Fabric

from cgankd.core.checkpoint import Checkpoint
from cgankd.core.errors import OutOfTime
from cgankd.core.store import Work

T = TypeVar("T")


class _Watched(Work):
    own: Checkpoint

    def checkpoint(self) -> Checkpoint:
        return self.own

    def within(self, name: str, title: str | None = None) -> Work:
        return Work(self.fabric).within(name, title)


def with_checkpoint(work: Work, checkpoint: Checkpoint | None) -> Work:
    """The same, but its loop saves and resumes by ``checkpoint``; loops within it have none."""
    if checkpoint is None:
        return work
    watched = _Watched(**{field.name: getattr(work, field.name) for field in dataclasses.fields(work)})
    object.__setattr__(watched, "own", checkpoint)
    return watched


def stopped_at_every_save(fabric: Fabric, folder: Path, loop: Callable[[Work], T], most: int = 200) -> tuple[T, int]:
    """What ``loop`` gives where its time is up at each save, and it is called again until it ends; the calls.

    Each call stands for a new process: ``loop`` must make anew whatever it changes. Torch's global random numbers
    are elsewhere at each call.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for call in range(1, most + 1):
        torch.manual_seed(1000 + call)
        try:
            return loop(Work(fabric, folder=folder, checkpoint_seconds=0.0, deadline=time.monotonic())), call
        except OutOfTime:
            continue
    raise AssertionError(f"the loop doesn't end within {most} calls")


def in_processes(count: int, script: str, folder: Path, words: Sequence[str], code: int = 0) -> str:
    """Run ``script FOLDER COUNT WORD ...``, which starts ``count`` processes; what they say on stderr."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, script, str(folder), str(count), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    return done.stderr
