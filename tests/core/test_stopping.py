"""SIGTERM stops loops as a time limit does, a second one ends the process; so does Ctrl-C where a loop can save."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgankd.core import stopping
from cgankd.core.checkpoint import Checkpoint
from cgankd.core.errors import OutOfTime
from cgankd.core.stopping import reason_to_stop, saving_on_ctrl_c, stopping_on_sigterm


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


@pytest.fixture
def interrupting() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupting")
def test_ctrl_c_lets_a_loop_save_and_a_second_one_does_not(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors")
    with saving_on_ctrl_c(lambda: True):
        assert not checkpoint.due()
        signal.raise_signal(signal.SIGINT)
        assert checkpoint.due()
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(3)
        assert capfd.readouterr().err == "\nsaving the state of this loop; Ctrl-C again stops at once\n"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert checkpoint.load() == (3, [])
    assert reason_to_stop(math.inf) is None
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("interrupting")
@pytest.mark.parametrize(("alone", "seconds"), [(True, 60.0), (False, 0.0)], ids=["no loop runs", "several processes"])
def test_ctrl_c_interrupts_at_once_where(alone: bool, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_looked", time.monotonic() - seconds)
    with saving_on_ctrl_c(lambda: alone), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


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
