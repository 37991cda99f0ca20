"""Where loops run that tests call by themselves: with a checkpoint of the test's own, stopped at every save, or in
several processes."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import socket
import sys
import tempfile
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


def torch_has_parts() -> bool:
    """Whether this torch can hold networks in parts as nets/parts.py asks for."""
    from torch.distributed.fsdp import FSDPModule

    return hasattr(FSDPModule, "set_reduce_scatter_unused_params")


def in_processes(count: int, run: Callable[..., None], folder: Path, words: Sequence[str], code: int = 0) -> str:
    """``run(folder, count, word, ...)`` in ``count`` copies of this process, as if torchrun had started them.

    Nothing spends seconds on torch. Returns what they say on stderr; ``code`` is the exit code of the first.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:

        def process(number: int) -> None:
            os.environ.update(given, LOCAL_RANK=str(number))
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))  # errors, too
            run(str(folder), str(count), *words)

        copies = [multiprocessing.get_context("fork").Process(target=process, args=[place]) for place in range(count)]
        for copy in copies:
            copy.start()
        for copy in copies:
            copy.join(300)
            copy.kill()
        for stream in (out, err):
            stream.seek(0)
        said = err.read()
        assert copies[0].exitcode == code, said
        assert out.read() == ""
    return said
