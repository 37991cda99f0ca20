"""Where the cells of a table, or the autopilot's trials, are computed: processes of this machine, Slurm jobs (submitit)
or a Ray cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cgankd.core import extras
from cgankd.core.errors import TrainingError, UserError
from cgankd.core.machine import cores
from cgankd.core.numbers import counted
from cgankd.core.progress import Bar, Progress
from cgankd.core.stopping import stop_in_time
from cgankd.experiments.worker import LOG, OUTCOME, Outcome, read_outcome, work

KINDS = ("processes", "slurm", "ray")
LOOK_AGAIN = 0.2  # seconds between two looks at the workers
ASK_SLURM = 10.0  # seconds between two questions for its queue
CLUSTERS = ("slurm", "local", None)  # None: what there is; jobs of submitit's "debug" would not run by themselves
LOSSES = 2  # how often a worker is replaced that dies without a word
STOPS = 100  # how often one is replaced that saved its state and stopped, such as at the time limit of its queue


@dataclasses.dataclass(frozen=True)
class Executor:
    """kind: one of ``KINDS``. jobs: cells or trials at once; None: all, and one for processes. resources: passed on as
    they are, to submitit's AutoExecutor.update_parameters, or to ray.remote (``address`` to ray.init)."""

    kind: str = "processes"
    jobs: int | None = None
    resources: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"--executor {self.kind}: allowed are {', '.join(KINDS)}")
        if self.resources and self.kind == "processes":
            raise UserError("--resources is for --executor slurm or ray; processes take what this machine has")
        if self.elsewhere and os.name == "nt":
            raise UserError("--jobs needs a system with file locks; allowed on Windows: --jobs 1")

    @property
    def elsewhere(self) -> bool:
        """Whether cells are computed in other processes than this one."""
        return self.kind != "processes" or (self.jobs or 1) > 1


HERE = Executor()


class Worker(Protocol):
    """A cell that is computed somewhere."""

    def is_done(self) -> bool:
        """Whether it has ended, in whatever way."""

    def stop(self) -> None:
        """Ask it to save and stop."""


Start = Callable[[Path, int], Worker]  # folder of the cell, number of its place among those that run at once


@dataclasses.dataclass(frozen=True)
class Opened:
    """An executor that is ready to start workers, ``jobs`` at once."""

    start: Start
    jobs: int


def opened(executor: Executor, out: Path, cells: int) -> Opened:
    """The executor, ready; UserError where it can't be used, and nothing is left behind. out: for files of its own."""
    jobs = executor.jobs or (1 if executor.kind == "processes" else cells)
    return Opened(_STARTS[executor.kind](executor, out), jobs)


def all_done(
    folders: Sequence[Path], names: Sequence[str], executor: Opened, progress: Progress, bar: Bar, deadline: float
) -> Iterator[int]:
    """Work on all cells, and yield the number of each that is done. See :func:`run_all`.

    Raises the first UserError or TrainingError of a cell after all others have ended.
    """
    errors: list[UserError | TrainingError] = []
    for number, outcome in run_all(folders, names, executor, progress, bar, deadline):
        progress.say(f"{names[number]}: {outcome.state}")
        if outcome.state == "done":
            yield number
            continue
        sentence = f"{names[number]}: {outcome.sentence}"
        errors.append(UserError(sentence) if outcome.user else TrainingError(sentence))
    if errors:
        others = counted(len(errors) - 1, f"more {bar.unit.removesuffix('s')}", f"more {bar.unit}")
        more = f" (and {others} failed)" if len(errors) > 1 else ""
        raise type(errors[0])(f"{errors[0]}{more}")


def run_all(
    folders: Sequence[Path], names: Sequence[str], executor: Opened, progress: Progress, bar: Bar, deadline: float
) -> Iterator[tuple[int, Outcome]]:
    """Work on all cells, and yield the number of each that is done or has failed.

    A worker that dies is replaced, and goes on from its last checkpoint. Raises OutOfTime where this process has to
    stop; the workers have then saved their state. bar: counts the cells that have ended.
    """
    waiting, running = list(range(len(folders))), dict[int, tuple[Worker, int]]()
    left = {number: {"lost": LOSSES, "stopped": STOPS} for number in waiting}
    ended = 0
    try:
        while waiting or running:
            while waiting and len(running) < executor.jobs:
                number, slot = waiting.pop(0), _free([slot for _, slot in running.values()])
                (folders[number] / OUTCOME).unlink(missing_ok=True)  # of an earlier worker
                running[number] = executor.start(folders[number], slot), slot
            for number in [number for number, (worker, _) in running.items() if worker.is_done()]:
                del running[number]
                outcome = read_outcome(folders[number])
                kind = "lost" if outcome is None else outcome.state
                if kind in ("lost", "stopped") and left[number][kind]:
                    left[number][kind] -= 1
                    progress.say(f"{names[number]}: its worker {_ended(kind)}; another one goes on")
                    waiting.insert(0, number)
                    continue
                ended += 1
                yield number, outcome or Outcome("failed", f"its workers died; {folders[number] / LOG} may say why")
            bar.to(ended, f"{len(running)} at once")
            if waiting or running:
                stop_in_time(deadline)
            time.sleep(LOOK_AGAIN)
    finally:
        _stop([worker for worker, _ in running.values()])


def _ended(kind: str) -> str:
    return "died" if kind == "lost" else "was stopped"


def _free(taken: Sequence[int]) -> int:
    """The smallest number that is not taken."""
    return next(number for number in range(len(taken) + 1) if number not in taken)


def _stop(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.stop()
    while not all(worker.is_done() for worker in workers):
        time.sleep(LOOK_AGAIN)


# --- processes ------------------------------------------------------------------------------------------------------


class _Process:
    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        words = [sys.executable, "-m", work.__module__, str(os.getpid()), str(folder.absolute())]
        with (folder / LOG).open("ab") as log:
            self.process = subprocess.Popen(
                words, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,  # so that Ctrl-C does not end it before it has saved its state
            )  # fmt: skip

    def is_done(self) -> bool:
        return self.process.poll() is not None

    def stop(self) -> None:
        self.process.terminate()


def _processes(executor: Executor, out: Path) -> Start:
    jobs = executor.jobs or 1
    threads = str(max(1, cores() // jobs))
    devices = _cuda_devices()

    def start(folder: Path, slot: int) -> Worker:
        environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
        if devices:
            environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
        return _Process(folder, environment)

    return start


def _cuda_devices() -> list[str]:
    """The CUDA devices that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named or [str(number) for number in range(torch.cuda.device_count())]


# --- Slurm and Ray --------------------------------------------------------------------------------------------------


class _Queue:
    """The user's jobs that Slurm still has. submitit asks its accounting (sacct) up to ten minutes later, and many
    clusters have none; then a job that was cancelled or killed would be waited for without end."""

    def __init__(self) -> None:
        self.asked, self.looks = -math.inf, list[tuple[float, set[str]]]()

    def lacks(self, job: str, since: float) -> bool:
        """Whether the last two looks, all after ``since``, did not find the job. One could come too early for what the
        job wrote to a shared disk."""
        now = time.monotonic()
        if now - self.asked > ASK_SLURM:
            self.asked = now
            command = ["squeue", "--noheader", "--format=%i", f"--user={os.getuid()}", "--all"]  # hidden partitions too
            unfiltered = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
            with contextlib.suppress(OSError):
                found = subprocess.run(command, env=unfiltered, capture_output=True, text=True, check=False)
                if found.returncode == 0:  # else its server does not answer
                    self.looks = [*self.looks[-1:], (now, set(found.stdout.split()))]
        return len(self.looks) > 1 and all(when > since and job not in jobs for when, jobs in self.looks)


class _SlurmJob:
    def __init__(self, job: Any, queue: _Queue) -> None:
        self.job, self.queue, self.submitted = job, queue, time.monotonic()

    def is_done(self) -> bool:
        # job.done() would ask sacct, and print what it says
        return bool(self.job.paths.result_pickle.exists()) or self.queue.lacks(self.job.job_id, self.submitted)

    def stop(self) -> None:
        self.job.cancel(check=False)  # Slurm sends SIGTERM, and kills half a minute later


class _LocalJob:
    """A process that submitit starts in place of a job of Slurm."""

    def __init__(self, job: Any) -> None:
        self.job = job

    def is_done(self) -> bool:
        return bool(self.job.done())

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # cancel() would kill after a second
            os.kill(int(self.job.job_id), signal.SIGTERM)  # the job's parent, which passes it on


def _slurm(executor: Executor, out: Path) -> Start:
    submitit = extras.opened("submitit", "--executor slurm", "slurm")
    resources = dict(executor.resources)
    cluster = resources.pop("cluster", "slurm")
    if cluster not in CLUSTERS:
        raise UserError(f"--executor slurm: cluster={cluster} is not allowed; allowed: slurm, local")
    try:
        jobs = submitit.AutoExecutor(folder=out / "slurm", cluster=cluster)
        jobs.update_parameters(**{"name": "cgankd", **resources})
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
        for folder in (out / "slurm", out):
            with contextlib.suppress(OSError):  # it is not there, or holds something
                folder.rmdir()
        raise _refused(error) from None
    queue = _Queue()

    def start(folder: Path, slot: int) -> Worker:
        try:
            job = jobs.submit(work, str(folder.absolute()))
        except RuntimeError as error:  # sbatch takes no such job
            raise _refused(error) from None
        return _LocalJob(job) if jobs.cluster == "local" else _SlurmJob(job, queue)

    return start


def _refused(error: Exception) -> UserError:
    return UserError(f"--executor slurm: {str(error).partition(chr(10))[0].rstrip('.')}")


class _RayTask:
    def __init__(self, ray: Any, task: Any) -> None:
        self.ray, self.task = ray, task

    def is_done(self) -> bool:
        return bool(self.ray.wait([self.task], timeout=0)[0])

    def stop(self) -> None:
        self.ray.cancel(self.task)  # SIGINT for the task


def _ray(executor: Executor, out: Path) -> Start:
    ray = extras.opened("ray", "--executor ray", "ray")
    resources = dict(executor.resources)
    address = resources.pop("address", None)
    if address:
        _check_address(address)
    try:
        with _own_sigterm():
            ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level="error")
        task = ray.remote(**{"max_retries": 0, **resources})(work)
    except Exception as error:  # a plain Exception where a node of its own does not start in time
        raise UserError(f"--executor ray: {str(error).partition(chr(10))[0].rstrip('.')}") from None
    return lambda folder, slot: _RayTask(ray, task.remote(str(folder.absolute())))


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, which Ray replaces with one that exits without a word."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _check_address(address: str) -> None:
    """UserError where nobody answers there, because Ray tries for minutes. address: HOST:PORT, or ray://HOST:PORT."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"--executor ray: no cluster answers at address={address} ({error}); needed: the HOST:PORT that ray start "
            "prints"
        ) from None


_STARTS: Mapping[str, Callable[[Executor, Path], Start]] = {"processes": _processes, "slurm": _slurm, "ray": _ray}
