"""The store keeps the results of stages: each is computed once, and a killed run resumes where it stopped.

A stage is a plain function of named arguments. :meth:`Store.call` hashes every argument, calls the function with these
arguments, and keeps the results as an artifact, the folder ``artifacts/STAGE-KEY``. A stage can only read its
arguments, so its key covers everything that it depends on. A stage writes to ``work/STAGE-KEY``, where a killed stage
finds its checkpoint; the finished folder is then renamed. ``cache/`` holds what several stages share; it may be
deleted.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import math
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from cgankd._version import __version__
from cgankd.core import ranks, rng
from cgankd.core.checkpoint import Checkpoint
from cgankd.core.errors import UserError
from cgankd.core.files import file_name, load_tensors, read_json, save_tensors, sync, write_json
from cgankd.core.hashing import content_key, describe
from cgankd.core.lease import leased
from cgankd.core.paths import ARTIFACT
from cgankd.core.progress import SILENT, Progress
from cgankd.core.run_folder import HeldFolder, make_folder
from cgankd.core.run_plan import Station
from cgankd.core.runtime import Fabric, environment
from cgankd.core.stopping import stop_in_time

P = ParamSpec("P")
Function = TypeVar("Function", bound=Callable[..., dict[str, Any]])

CHECKPOINT = "checkpoint"  # checkpoint.safetensors; inner loops and passes have checkpoint-NAME.*


def stage(version: int = 1, together: bool = False) -> Callable[[Function], Function]:
    """Mark a module's function ``(work, **arguments) -> summary`` as a stage.

    version: raise it where the same arguments now give other numbers, so that older results become stale. together: in
    a run on several processes, all of them compute it, until :func:`cgankd.core.ranks.leave`; any other stage is
    computed by the first process alone.
    """

    def mark(function: Function) -> Function:
        function.stage_version, function.together = version, together  # type: ignore[attr-defined]
        return function

    return mark


@dataclasses.dataclass(frozen=True)
class Artifact:
    """The results of a stage: a folder with artifact.json (summary, arguments and environment) and tensors."""

    folder: Path
    key: str
    seconds: float
    summary: dict[str, Any]

    @property
    def content_key(self) -> str:
        return self.key

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of ``name``.safetensors, on the CPU."""
        return load_tensors(self.folder / f"{name}.safetensors")[0]


@dataclasses.dataclass(frozen=True)
class Stored:
    """What a stage has saved, as an argument of other stages; a class of its own for each kind opens it."""

    artifact: Artifact

    @property
    def content_key(self) -> str:
        return self.artifact.content_key


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of a stage that :meth:`Store.noting` noted. seconds: None where its artifact does not exist yet."""

    key: str
    title: str
    stage: str
    arguments: Mapping[str, Any]
    seconds: float | None


@dataclasses.dataclass(frozen=True)
class Work:
    """Where a stage computes and writes. Nothing here changes its results, so nothing here is part of its key.

    folder: None where nothing is kept, as in a loop outside a stage. cache: a folder for what several stages share, or
    None. loop: names the checkpoint of an inner loop. deadline: in time.monotonic's seconds; loops then save and stop.
    """

    fabric: Fabric
    progress: Progress = SILENT
    title: str = ""
    folder: Path | None = None
    cache: Path | None = None
    loop: str = ""
    checkpoint_seconds: float = math.inf
    deadline: float = math.inf

    def path(self, name: str) -> Path:
        """The path of a file in the artifact."""
        if self.folder is None:
            raise ValueError(f"there is no folder to keep {name} in")
        return self.folder / name

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write ``name``.safetensors, which :meth:`Artifact.tensors` reads; of several processes, the first writes."""
        ranks.first_of_team(lambda: save_tensors(self.path(f"{name}.safetensors"), tensors))

    def within(self, name: str, title: str | None = None) -> Work:
        """The same for an inner loop, with its own checkpoint. title: None keeps the title."""
        name = file_name(name)
        loop = f"{self.loop}-{name}" if self.loop else name
        return dataclasses.replace(self, loop=loop, title=self.title if title is None else title)

    def checkpoint(self) -> Checkpoint:
        """The checkpoint that the loop saves to and resumes from."""
        file = f"{CHECKPOINT}-{self.loop}.safetensors" if self.loop else f"{CHECKPOINT}.safetensors"
        path = None if self.folder is None else self.folder / file
        return Checkpoint(path, self.checkpoint_seconds, self.deadline)

    def cache_for(self, what: str, *parts: Any) -> Path | None:
        """A folder for results that depend on ``parts`` alone; files in it may be deleted."""
        return None if self.cache is None else self.cache / f"{what}-{content_key(describe(parts))}"


class _TemporaryFolder:
    """A folder that is removed with the object; Python's TemporaryDirectory warns where it goes without a call."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="cgankd-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class Store:
    """The artifacts in one folder, which one process has locked. Of several processes of a run, it is the first.

    path: the folder of the run. artifacts: the folder of the artifacts, where several runs share them; None: ``path``.
    command: the command that owns the folder, because another command would overwrite its files. further: versions of
    further libraries that results depend on. take_over, option: see :class:`HeldFolder`. No stage begins after
    ``deadline``: OutOfTime is raised instead.
    """

    def __init__(
        self,
        path: Path,
        fabric: Fabric,
        progress: Progress = SILENT,
        *,
        artifacts: Path | None = None,
        command: str = "run",
        deadline: float = math.inf,
        checkpoint_seconds: float = 60.0,
        further: Mapping[str, str] | None = None,
        take_over: bool = False,
        option: str = "--out",
    ) -> None:
        self.path, self.fabric, self.progress, self.title, self.remark = path, fabric, progress, "", ""
        self.deadline, self.checkpoint_seconds = deadline, checkpoint_seconds
        self.environment = {"cgankd": __version__, **environment(fabric), **(further or {})}
        self.used: list[Artifact] = []
        self._temporary: _TemporaryFolder | None = None
        self.artifacts, self._shared = artifacts or path, artifacts is not None
        self._held: HeldFolder | None = None
        self._calls: list[Call] | None = None
        ranks.first(lambda: self._hold(command, take_over, option))

    def _hold(self, command: str, take_over: bool, option: str) -> None:
        if self._shared:
            make_folder(self.path, option)
        self._held = HeldFolder(self.artifacts, command, take_over, self._shared, option)
        self.progress.opened(self.artifacts)
        if not self._shared:
            remove_leftovers(self.artifacts)

    @classmethod
    def temporary(cls, fabric: Fabric, progress: Progress = SILENT) -> Store:
        """A store in a temporary folder, which is removed with the object. UserError where several processes run."""
        if ranks.count() > 1:  # the first would remove the folder while others read in it
            raise UserError(f"{ranks.count()} processes need a folder that all of them see; with Distiller: out=FOLDER")
        folder = _TemporaryFolder()
        store = cls(folder.path, fabric, progress)
        store._temporary = folder
        return store

    def share(self) -> None:
        """From now on other processes may add artifacts too, as workers of this one do."""
        self._shared = True
        if self._held is not None:
            self._held.share()

    def close(self) -> None:
        """Unlock the folder; a new folder in which nothing was written is removed."""
        self.progress.closed()
        if self._held is not None:  # None in all processes but the first
            self._held.close()

    def titled(self, title: str) -> Store:
        """The same store; its next stages show ``title`` while they run."""
        store = copy.copy(self)
        store.title = title + self.remark
        return store

    def remarking(self, remark: str) -> Store:
        """The same store, which adds ``remark`` to all further titles."""
        store = copy.copy(self)
        store.remark = remark
        return store

    def noting(self, calls: list[Call]) -> Store:
        """The same store; its calls compute nothing, report nothing, and are only added to ``calls``.

        So a run can be walked through before it starts. Where there is no artifact yet, a call returns one without a
        summary, whose key is right, because keys do not depend on results.
        """
        store = copy.copy(self)
        store._calls, store.progress = calls, SILENT
        return store

    def call(
        self, function: Callable[Concatenate[Work, P], dict[str, Any]], /, *args: P.args, **arguments: P.kwargs
    ) -> Artifact:
        """The artifact of ``function(work, **arguments)``, computed only where it does not exist yet.

        Raises TypeError for a function that reads more than its arguments (a closure), or an argument without a key.
        """
        version = getattr(function, "stage_version", None)
        # "<" is in the names of lambdas (<lambda>), which all have the same name, and of inner functions (<locals>)
        if version is None or args or not inspect.isfunction(function) or "<" in function.__qualname__:
            raise TypeError(f"{function} must be a module's function marked with @stage, called with named arguments")
        name = function.__name__
        description = {"stage": name, "version": version, "arguments": describe(arguments)}
        key = content_key(description, self.environment)
        done = self.artifacts / "artifacts" / f"{name}-{key}"
        title = self.title or name.replace("_", " ")
        if self._calls is not None:
            artifact = _open(done, key)
            self._calls.append(Call(key, title, name, arguments, None if artifact is None else artifact.seconds))
            return artifact or Artifact(done, key, 0.0, {})
        key_of_first, artifact = ranks.first(lambda: (key, self._ready(done, key)))
        ranks.check_same(f"key of {name}", key, key_of_first)
        if artifact is None:
            with self._leased(done, key, title):
                artifact = _open(done, key) if self._shared else None  # another process may have made it meanwhile
                if artifact is None:
                    compute = functools.partial(function, **arguments)
                    build = functools.partial(self._build, done, key, title, description, compute)
                    # torch's random state stays the caller's, so that it does not tell a rerun, which computes nothing
                    with rng.restored(), self.progress.stage(Station(key, title, name)):
                        if getattr(function, "together", False):
                            artifact = ranks.together(build, lambda: compute(Work(self.fabric)))
                        else:
                            artifact = ranks.first(build)
        self.progress.found(key, artifact.seconds)
        self.used.append(artifact)
        return artifact

    def _ready(self, done: Path, key: str) -> Artifact | None:
        """The finished artifact; None where it has to be computed. Raises OutOfTime where there is no time for it."""
        artifact = _open(done, key)
        if artifact is None:
            stop_in_time(self.deadline)
        return artifact

    def _leased(self, done: Path, key: str, title: str) -> contextlib.AbstractContextManager[None]:
        """In this block no other run computes this artifact; where artifacts are shared, others may be at it."""
        if not self._shared or os.name == "nt":  # on Windows artifacts are not shared among processes
            return contextlib.nullcontext()

        def wait(seconds: float) -> None:
            if not seconds:
                self.progress.say(f"{title}: another process computes it; waiting")
            stop_in_time(self.deadline)

        return leased(self.artifacts / "leases" / done.name, wait, lambda: _open(done, key) is not None)

    def used_names(self) -> list[str]:
        """The folder names of the artifacts that were used; the results list them, so that cleaning keeps them."""
        return sorted({artifact.folder.name for artifact in self.used})

    def seconds(self) -> dict[str, float]:
        """The seconds that the artifacts in use took to compute, by stage."""
        total: dict[str, float] = {}
        for artifact in {artifact.key: artifact for artifact in self.used}.values():
            stage_name = artifact.folder.name.rpartition("-")[0]
            total[stage_name] = total.get(stage_name, 0.0) + artifact.seconds
        return total

    def _build(
        self, done: Path, key: str, title: str, description: dict[str, Any], compute: Callable[[Work], dict[str, Any]]
    ) -> Artifact:
        folder = self.artifacts / "work" / done.name
        folder.mkdir(parents=True, exist_ok=True)
        cache = self.artifacts / "cache" / content_key(self.environment)
        work = Work(
            self.fabric, self.progress, title, folder, cache,
            checkpoint_seconds=self.checkpoint_seconds, deadline=self.deadline,
        )  # fmt: skip
        clock = folder / "seconds.json"  # time spent before a kill counts too
        before = float(read_json(clock)) if clock.is_file() else 0.0
        started = time.monotonic()
        try:
            summary = compute(work)
            ranks.leave()  # if the stage did not
        finally:
            write_json(clock, before + time.monotonic() - started)
        seconds = before + time.monotonic() - started
        clock.unlink()
        # checkpoints, and files of a process that was killed while writing
        for leftover in [*folder.glob(f"{CHECKPOINT}*"), *folder.glob(".*.tmp"), *folder.glob("*.compact")]:
            leftover.unlink()
        made_with = {**self.environment, "threads": torch.get_num_threads(), "processes": ranks.count()}
        write_json(
            folder / ARTIFACT,
            {**description, "key": key, "made_with": made_with, "seconds": seconds, "summary": summary,
             "files": {file.name: file.stat().st_size for file in sorted(folder.iterdir())}},
        )  # fmt: skip
        shutil.rmtree(done, ignore_errors=True)
        done.parent.mkdir(exist_ok=True)
        folder.replace(done)
        sync(done.parent)
        artifact = _open(done, key)  # read as every later run reads it
        assert artifact is not None
        return artifact


def remove_leftovers(artifacts: Path) -> None:
    """Remove what processes that were killed have left in the cache; no other process may use the folder now."""
    for leftover in (artifacts / "cache").rglob(".*.tmp"):
        leftover.unlink()


def open_artifact(folder: Path) -> Artifact:
    """The finished artifact at ``folder``, whatever its key; UserError where there is none."""
    path = folder / ARTIFACT
    record = read_json(path) if path.is_file() else None
    artifact = _open(folder, record.get("key", "")) if isinstance(record, dict) else None
    if artifact is None:
        raise UserError(f"{folder} is missing or damaged; the same command makes it anew")
    return artifact


def _open(folder: Path, key: str) -> Artifact | None:
    """The finished artifact in ``folder``; None where there is none, or one of its files is missing or incomplete."""
    description = folder / ARTIFACT
    if not description.is_file():
        return None
    try:
        record = read_json(description)
        complete = all((folder / name).stat().st_size == size for name, size in record["files"].items())
        artifact = Artifact(folder, record["key"], float(record["seconds"]), dict(record["summary"]))
    except (UserError, KeyError, TypeError, AttributeError, ValueError, OSError):
        return None
    return artifact if complete and artifact.key == key else None
