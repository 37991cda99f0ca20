"""Several processes of this machine, of which one ends before all have met: the others end with a sentence."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from unittest import mock

import pytest

from cgankd.core import ranks, starting
from cgankd.core.errors import OutOfTime, UserError
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


def test_a_process_that_ends_by_itself_is_not_ended_because_another_one_has() -> None:
    """All of them end at the time limit, with exit code 75. To Fabric's thread this looks like a failure."""
    end = threading.Event()
    observer = threading.Thread(target=end.wait, name="child-process-observer")  # stands for Fabric's
    observer.start()
    starting.ended_children_send(signal.SIGTERM)
    assert ranks.sentence_of(OutOfTime("the time limit is reached"), "stopped") == "stopped"
    assert observer._termination_signal == 0  # type: ignore[attr-defined]  # os.kill then sends nothing
    end.set()
    observer.join()


SCRIPT = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "mine", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_NNODES": "1"}
STEP = {
    "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2", "SLURM_NNODES": "2", "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0", "SLURM_NODEID": "1", "SLURM_NODELIST": "n[1-2]",
}  # fmt: skip
TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
PTY = {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}  # srun --pty bash


@pytest.mark.parametrize(
    ("variables", "kind", "devices"),
    [
        ({}, "LightningEnvironment", 2),
        (SCRIPT, "LightningEnvironment", 2),
        (SCRIPT | PTY, "LightningEnvironment", 2),
        (SCRIPT | STEP, "SLURMEnvironment", 1),
        (SCRIPT | STEP | TORCHRUN, "TorchElasticEnvironment", 1),
    ],
    ids=["a shell", "a script of Slurm", "a shell of srun", "srun", "torchrun"],
)
def test_who_starts_the_processes(variables: dict[str, str], kind: str, devices: int) -> None:
    """Fabric's own choice takes every command inside a job of Slurm for one that srun started."""
    with mock.patch.dict(os.environ, variables):
        found = starting.starter(devices, 2 // devices)
        assert type(found).__name__ == kind
        if kind == "SLURMEnvironment":
            assert (found.global_rank(), found.local_rank(), found.world_size()) == (1, 0, 2)
            found.validate_settings(devices, 2)  # raises nothing


def test_srun_in_a_session_of_salloc_is_seen() -> None:
    session = SCRIPT | STEP | {"SLURM_JOB_NAME": "interactive"}  # as salloc names it
    with mock.patch.dict(os.environ, session), mock.patch("shutil.which"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert starting.starter(1, 2).creates_processes_externally


@pytest.mark.parametrize(("devices", "nodes"), [(2, 1), (2, 2)])
def test_another_number_of_processes_than_srun_started_is_refused(devices: int, nodes: int) -> None:
    with mock.patch.dict(os.environ, SCRIPT | STEP), pytest.raises(UserError) as caught:
        starting.starter(devices, nodes)
    assert str(caught.value) == (
        f"runtime.devices = {devices} and runtime.nodes = {nodes}, but srun started 2 processes on 2 nodes; needed: "
        f"srun --nodes={nodes} --ntasks-per-node={devices}, or no srun"
    )
