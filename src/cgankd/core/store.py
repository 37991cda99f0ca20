"""The store: results of stages, each computed once; what is done, what is stale, and how a killed run goes on.

A stage is a plain function of named arguments. :meth:`Store.call` hashes every argument, calls the function with these
very arguments, and keeps what it made as an artifact, the folder ``artifacts/STAGE-KEY``. What a stage was not given it
cannot read, so no key can leave anything out. A stage works in ``work/STAGE-KEY``, where a killed one finds its
checkpoint, and the folder is renamed into place when it is whole. What several stages compute alike lies in ``cache/``,
which may be deleted.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor

from cgankd._version import __version__
from cgankd.core.checkpoint import Checkpoint
from cgankd.core.errors import OutOfTime, UserError
from cgankd.core.files import file_name, load_tensors, read_json, save_tensors, sync, write_json
from cgankd.core.hashing import content_key, describe
from cgankd.core.progress import SILENT, Progress
from cgankd.core.run_folder import HeldFolder, make_folder
from cgankd.core.runtime import environment

P = ParamSpec("P")
Function = TypeVar("Function", bound=Callable[..., dict[str, Any]])

CHECKPOINT = "checkpoint"  # checkpoint.safetensors, and checkpoint-NAME.* of loops within a loop, and of passes


def stage(version: int = 1) -> Callable[[Function], Function]:
    """Marks a module's function ``(work, **arguments) -> summary`` as a stage.

    version: raised where the same arguments give other numbers, so that older results are stale.
    """

    def mark(function: Function) -> Function:
        function.stage_version = version  # type: ignore[attr-defined]
        return function

    return mark


@dataclasses.dataclass(frozen=True)
class Artifact:
    """What a stage made: a folder with artifact.json (its summary and how it was made) and tensors."""

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
class Work:
    """Where a stage computes and writes. Nothing here changes what comes out, so nothing here is in its key.

    folder: None where nothing is kept, as in a loop that is called by itself. cache: a folder for what several stages
    compute alike, or None. loop: names the checkpoint of a loop within a loop. deadline: time.monotonic's seconds
    after which loops save and stop.
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
        """A file of the artifact."""
        if self.folder is None:
            raise ValueError(f"there is no folder to keep {name} in")
        return self.folder / name

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write ``name``.safetensors, which :meth:`Artifact.tensors` reads."""
        save_tensors(self.path(f"{name}.safetensors"), tensors)

    def within(self, name: str, title: str | None = None) -> Work:
        """The same for a loop within this one, with a checkpoint of its own. title: None: the same."""
        name = file_name(name)
        loop = f"{self.loop}-{name}" if self.loop else name
        return dataclasses.replace(self, loop=loop, title=self.title if title is None else title)

    def checkpoint(self) -> Checkpoint:
        """Where the loop saves how far it is, and goes on from."""
        file = f"{CHECKPOINT}-{self.loop}.safetensors" if self.loop else f"{CHECKPOINT}.safetensors"
        path = None if self.folder is None else self.folder / file
        return Checkpoint(path, self.checkpoint_seconds, self.deadline)

    @contextmanager
    def random_state(self) -> Iterator[None]:
        """A block that seeds torch's global generators, and leaves them as they were."""
        devices = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            yield

    def cache_for(self, what: str, *parts: Any) -> Path | None:
        """A folder for what is computed from ``parts`` and nothing else; files in it may be deleted."""
        return None if self.cache is None else self.cache / f"{what}-{content_key(describe(parts))}"


class Store:
    """The artifacts of one folder, which one process holds.

    path: the folder of the run. artifacts: the folder that holds the artifacts, where several runs share them; None:
    ``path``. command: whose folder it is, because another command's files would be written over. further: versions of
    further libraries that results depend on. take_over: see :class:`HeldFolder`. No stage begins after ``deadline``:
    OutOfTime is raised instead.
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
    ) -> None:
        self.path, self.fabric, self.progress, self.title = path, fabric, progress, ""
        self.deadline, self.checkpoint_seconds = deadline, checkpoint_seconds
        self.environment = {"cgankd": __version__, **environment(fabric), **(further or {})}
        self.used: list[Artifact] = []
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.artifacts = artifacts or path
        if artifacts is not None:
            make_folder(path)
        self._held = HeldFolder(self.artifacts, command, take_over)
        for left in (self.artifacts / "cache").rglob(".*.tmp"):  # of a process that was killed while it wrote
            left.unlink()

    @classmethod
    def temporary(cls, fabric: Fabric, progress: Progress = SILENT) -> Store:
        """A store in a temporary folder, removed with the object."""
        folder = tempfile.TemporaryDirectory(prefix="cgankd-", ignore_cleanup_errors=True)
        store = cls(Path(folder.name), fabric, progress)
        store._temporary = folder
        return store

    def close(self) -> None:
        """Let another process have the folder; a new one in which nothing was made is removed."""
        self._held.close()

    def titled(self, title: str) -> Store:
        """The same store, whose next stages call themselves ``title`` while they run."""
        other = copy.copy(self)
        other.title = title
        return other

    def call(
        self, function: Callable[Concatenate[Work, P], dict[str, Any]], /, *args: P.args, **arguments: P.kwargs
    ) -> Artifact:
        """The artifact of ``function(work, **arguments)``, computed unless it is there already.

        Raises TypeError for a function that reads more than its arguments (a closure), or an argument without a key.
        """
        version = getattr(function, "stage_version", None)
        # "<": of <lambda>, which has no name to tell it from others, and of <locals>
        if version is None or args or not inspect.isfunction(function) or "<" in function.__qualname__:
            raise TypeError(f"{function} must be a module's function marked with @stage, called with named arguments")
        name = function.__name__
        description = {"stage": name, "version": version, "arguments": describe(arguments)}
        key = content_key(description, self.environment)
        done = self.artifacts / "artifacts" / f"{name}-{key}"
        artifact = _open(done, key)
        if artifact is None:
            if time.monotonic() >= self.deadline:
                raise OutOfTime
            artifact = self._build(done, key, description, lambda work: function(work, *args, **arguments))
        self.used.append(artifact)
        return artifact

    def used_names(self) -> list[str]:
        """The folders of the artifacts that were used. They stand in the results, so that cleaning leaves them."""
        return sorted({artifact.folder.name for artifact in self.used})

    def seconds(self) -> dict[str, float]:
        """How long the artifacts that were used took, by stage."""
        total: dict[str, float] = {}
        for artifact in {artifact.key: artifact for artifact in self.used}.values():
            stage_name = artifact.folder.name.rpartition("-")[0]
            total[stage_name] = total.get(stage_name, 0.0) + artifact.seconds
        return total

    def _build(
        self, done: Path, key: str, description: dict[str, Any], build: Callable[[Work], dict[str, Any]]
    ) -> Artifact:
        folder = self.artifacts / "work" / done.name
        folder.mkdir(parents=True, exist_ok=True)
        cache = self.artifacts / "cache" / content_key(self.environment)
        work = Work(
            self.fabric, self.progress, self.title or done.name.rpartition("-")[0].replace("_", " "), folder, cache,
            checkpoint_seconds=self.checkpoint_seconds, deadline=self.deadline,
        )  # fmt: skip
        clock = folder / "seconds.json"  # time spent before a kill counts too
        before = float(read_json(clock)) if clock.is_file() else 0.0
        started = time.monotonic()
        try:
            summary = build(work)
        finally:
            write_json(clock, before + time.monotonic() - started)
        seconds = before + time.monotonic() - started
        clock.unlink()
        # checkpoints, and files of a process that was killed while it wrote
        for left in [*folder.glob(f"{CHECKPOINT}*"), *folder.glob(".*.tmp"), *folder.glob("*.compact")]:
            left.unlink()
        made_with = {**self.environment, "threads": torch.get_num_threads()}
        write_json(
            folder / "artifact.json",
            {**description, "key": key, "made_with": made_with, "seconds": seconds, "summary": summary,
             "files": {file.name: file.stat().st_size for file in sorted(folder.iterdir())}},
        )  # fmt: skip
        shutil.rmtree(done, ignore_errors=True)
        done.parent.mkdir(exist_ok=True)
        folder.replace(done)
        sync(done.parent)
        artifact = _open(done, key)  # as every later run will read it
        assert artifact is not None
        return artifact


def _open(folder: Path, key: str) -> Artifact | None:
    """The finished artifact at ``folder``; None where there is none, or a file of it is missing or cut short."""
    description = folder / "artifact.json"
    if not description.is_file():
        return None
    try:
        record = read_json(description)
        whole = all((folder / name).stat().st_size == size for name, size in record["files"].items())
    except (UserError, KeyError, TypeError, FileNotFoundError, json.JSONDecodeError):
        return None
    return Artifact(folder, key, record["seconds"], record["summary"]) if whole and record["key"] == key else None
