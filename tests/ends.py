"""What tests run in several processes, and how their cases end.

A case may have an end after a slash: ``killed`` kills the last process, ``refused`` raises UserError in it, ``stopped``
sends SIGTERM to the first process.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning_fabric import Fabric

from cgankd.cli.ending import ending
from cgankd.core import ranks
from cgankd.core.errors import LostProcess, OutOfTime, UserError
from cgankd.core.runtime import make_fabric
from cgankd.core.stopping import stopping_on_sigterm
from cgankd.core.store import Artifact, Store
from works import in_processes


def nothing() -> None:
    pass


def killed() -> None:
    if not ranks.is_first():
        os.kill(os.getpid(), signal.SIGKILL)


def refused() -> None:
    if ranks.count() == 1 or not ranks.is_first():
        raise UserError("the pixels are gone")


def stopped() -> None:
    if ranks.is_first():
        os.kill(os.getpid(), signal.SIGTERM)


ENDS = {"": nothing, "killed": killed, "refused": refused, "stopped": stopped}


def open_store(folder: Path, fabric: Fabric) -> Store:
    return Store(folder, fabric, checkpoint_seconds=0.0)


def main(made: Callable[[Store, str], Artifact], folder: str, devices: str, *cases: str) -> None:
    """Each case ends as a command would; the next one follows, unless a process is lost."""
    fabric = make_fabric("cpu", "fp32", 1, int(devices))
    store, code = open_store(Path(folder), fabric), 0
    for case in cases:
        try:
            with stopping_on_sigterm():
                made(store, case)
        except (UserError, OutOfTime, LostProcess) as error:
            end = ending(error)
            code = end.code
            if sentence := ranks.sentence_of(error, end.sentence):
                print(code, sentence, file=sys.stderr, flush=True)
            if isinstance(error, LostProcess):
                break
    store.close()
    sys.exit(code)


def one_and_two_go_on(
    made: Callable[[Store, str], Artifact], saved: Callable[[Path], int], folder: Path, fabric: Fabric
) -> None:
    """One process ends, then two do in each way and in their third part, and one finishes the case ``classes``.

    ``saved`` says how many parts the checkpoint has, which each goes on from.
    """
    end = "classes/refused"
    store = open_store(folder, fabric)
    with pytest.raises(UserError):
        made(store, end)
    store.close()
    assert saved(folder) == 2

    run = functools.partial(main, made)
    said = in_processes(2, run, folder, [end, "classes/stopped", "classes/killed"], code=1).splitlines()
    expected = [
        "2 the pixels are gone",
        "75 stopped, because it was asked to stop (SIGTERM);",
        "1 process 1 of 2 stopped, because another one has ended or can't be reached (",
    ]
    assert len(said) == len(expected)  # the first process speaks for both
    assert all(line.startswith(words) for line, words in zip(said, expected, strict=True)), said
    assert saved(folder) == 2 + 2 + 3 + 2

    store = open_store(folder, fabric)
    made(store, "classes")
    store.close()
