"""Several processes of this machine, of which one ends before all have met: the others end with a sentence."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from unittest import mock

import pytest

from cgankd.core import starting
from cgankd.core.runtime import make_fabric

OF_THE_FIRST = {"LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
DEAD = str(2**22 + 1)  # no process has such a number


@pytest.mark.parametrize(("number", "variables"), [(1, {}), (2, {**OF_THE_FIRST, starting.FIRST: DEAD})])
def test_a_process_does_not_wait_for_one_that_has_died(number: int, variables: dict[str, str], tmp_path: Path) -> None:
    """In a copy of this process. The first one starts a program that dies at once; the second one's first is dead."""
    (tmp_path / "program.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    said = tmp_path / "said"

    def meet() -> None:
        with said.open("w") as sys.stderr, mock.patch.dict(os.environ, variables):
            sys.argv, sys.modules["__main__"].__spec__ = [str(tmp_path / "program.py")], None
            make_fabric("cpu", "fp32", 1, devices=2)

    copy = multiprocessing.get_context("fork").Process(target=meet)
    copy.start()
    copy.join()
    assert copy.exitcode == 1
    assert said.read_text().splitlines() == [
        f"cgankd: process {number} of 2 stopped, because another one has ended or can't be reached (it ended before "
        f"all of them had met); the same command goes on: program.py"
    ]
