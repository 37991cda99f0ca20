"""The start of a run's processes: who starts them; and where one of this machine ends before all have met, the others
end too.

torch would wait for it for half an hour, and Fabric would kill the first process without a word.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cgankd.core.errors import UserError

if TYPE_CHECKING:
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

FIRST = "CGANKD_FIRST_PROCESS"  # variable for the processes that Fabric starts: the number of the one that starts them
LOOK_AGAIN = 0.2  # seconds


def starter(devices: int, nodes: int) -> ClusterEnvironment:
    """What starts ``devices`` processes on each of ``nodes`` machines: torchrun, srun of Slurm, or this program.

    Fabric itself takes any command inside a job of Slurm for one that srun started, and warns wherever srun is
    installed. Raises UserError where srun started another number of processes.
    """
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.lsf import LSFEnvironment
    from lightning_fabric.plugins.environments.mpi import MPIEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    for kind in (TorchElasticEnvironment, LSFEnvironment, MPIEnvironment):
        if kind.detect():
            return kind()
    tasks, machines = (int(os.environ.get(f"SLURM_STEP_NUM_{what}", 1)) for what in ("TASKS", "NODES"))
    if tasks == 1:  # in the script of a job, which srun did not start, neither is set
        return LightningEnvironment()
    if (tasks, machines) != (devices * nodes, nodes):
        raise UserError(
            f"runtime.devices = {devices} and runtime.nodes = {nodes}, but srun started {tasks} processes on "
            f"{machines} nodes; needed: srun --nodes={nodes} --ntasks-per-node={devices}, or no srun"
        )
    os.environ["SLURM_NTASKS_PER_NODE"] = str(devices)  # which Fabric demands, although srun does without it
    with warnings.catch_warnings():  # in a session of salloc it says that srun is not used
        warnings.filterwarnings("ignore", "The `srun` command")
        return SLURMEnvironment()


class Start:
    """How this process meets the others. starts: it starts those of this machine itself."""

    def __init__(self, starts: bool) -> None:
        if starts:
            os.environ[FIRST] = str(os.getpid())
        self._first = int(os.environ.get(FIRST, 0))

    def lost(self) -> bool:
        """Whether the first process, or one that it started, has ended. False too where this can't be known."""
        if self._first != os.getpid():
            return self._first not in (0, os.getppid())
        return (observer := _observer()) is not None and any(other.poll() for other in observer._child_processes)

    @contextmanager
    def watched(self, end: Callable[[], None]) -> Iterator[None]:
        """In this block a second thread calls ``end()``, which must end this process, where another one is lost.

        Only a thread can do it, because the wait for the others runs no line of Python.
        """
        met = threading.Event()

        def watch() -> None:
            while not met.wait(LOOK_AGAIN):
                ended_children_send(None)
                if self.lost():
                    time.sleep(LOOK_AGAIN)  # for the main thread, where it has noticed this too
                    if not met.is_set():
                        end()

        threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            met.set()


def ended_children_send(number: signal.Signals | None) -> None:
    """What this process gets within 5 seconds after one that it started ended early; None: nothing.

    Fabric's own choice is SIGKILL, after which it can't say why it ends.
    """
    if observer := _observer():
        observer._termination_signal = number or 0


def _observer() -> Any:
    """Fabric's thread that looks after the processes that it started; None in these processes."""
    return next((thread for thread in threading.enumerate() if thread.name == "child-process-observer"), None)
