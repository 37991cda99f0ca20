"""SIGTERM stops loops as a time limit does, and a second one ends the process; Ctrl-C ends waits of torch at once."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cgankd.core.checkpoint import Checkpoint
from cgankd.core.errors import OutOfTime
from cgankd.core.stopping import reason_to_stop, stopping_on_sigterm


def test_the_time_limit() -> None:
    assert reason_to_stop(math.inf) is None
    assert reason_to_stop(time.monotonic() + 60) is None
    assert reason_to_stop(time.monotonic()) == "the time limit is reached"


def test_sigterm_makes_a_checkpoint_due_which_then_stops(tmp_path: Path) -> None:
    before, checkpoint = signal.getsignal(signal.SIGTERM), Checkpoint(tmp_path / "checkpoint.safetensors")
    with stopping_on_sigterm():
        assert not checkpoint.due()
        os.kill(os.getpid(), signal.SIGTERM)
        assert checkpoint.due()
        with pytest.raises(OutOfTime, match=r"it was asked to stop \(SIGTERM\)"):
            checkpoint.save(3)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # the next one ends the process
    assert checkpoint.load() == (3, [])
    assert reason_to_stop(math.inf) is None
    assert signal.getsignal(signal.SIGTERM) == before


def test_further_signals_mean_the_same_and_unknown_ones_nothing() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)]
    with stopping_on_sigterm("SIGUSR2", "SIGNOTHERE"):
        os.kill(os.getpid(), signal.SIGUSR2)
        assert reason_to_stop(math.inf) == "it was asked to stop (SIGUSR2)"
    assert [signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)] == before


def test_a_thread_sets_no_handler() -> None:
    handlers = []

    def block() -> None:
        with stopping_on_sigterm():
            handlers.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert handlers == [before]


def test_ctrl_c_ends_a_wait_at_once_and_is_an_exception_after_it() -> None:
    def ended(*lines: str) -> int:
        first = ["import os, signal", "from cgankd.core.stopping import ending_on_ctrl_c"]
        first.append("signal.signal(signal.SIGINT, signal.default_int_handler)")  # in the background it is ignored
        code = "\n".join([*first, *lines])
        return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False).returncode

    caught = ["try:", "    os.kill(os.getpid(), 2)", "except KeyboardInterrupt:", "    os._exit(3)"]
    assert ended("with ending_on_ctrl_c():", *(f"    {line}" for line in caught)) == -signal.SIGINT
    assert ended("with ending_on_ctrl_c():", "    pass", *caught) == 3
