"""A run's folder: what is done, what is stale, and how a killed run goes on.

Every stage's result is a folder ``artifacts/STAGE-KEY``. The key is a hash of the stage's settings, its inputs'
keys, its code version and the environment, so a changed setting makes exactly what depends on it anew. A stage
works in ``work/STAGE-KEY`` (a killed one finds its checkpoint there) and is renamed into place when it is whole.
What several stages compute alike lies in ``cache/``, and may be deleted.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cgankd._version import __version__
from cgankd.core.errors import OutOfTime, UserError
from cgankd.core.files import load_tensors, read_json, sync, write_json
from cgankd.core.hashing import content_key

CHECKPOINT = "checkpoint.safetensors"


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A stage's finished result: a folder with artifact.json and the tensors it names."""

    folder: Path
    key: str
    seconds: float
    summary: dict[str, Any]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of ``name``.safetensors."""
        return load_tensors(self.folder / f"{name}.safetensors")[0]


class RunFolder:
    """The folder of one run; one process at a time may hold its artifacts.

    ``command`` is whose folder it is: another command's is refused, whose files this one would write over. No stage
    begins after ``deadline`` (in time.monotonic's seconds): OutOfTime is raised instead. ``store`` is the
    folder that holds the artifacts, where several runs share them; none: ``path`` itself.
    """

    def __init__(
        self,
        path: Path,
        environment: Mapping[str, Any],
        deadline: float = math.inf,
        store: Path | None = None,
        command: str = "run",
    ) -> None:
        self.path, self.store, self.deadline = path, store or path, deadline
        self.environment = {"cgankd": __version__, **environment}
        self.used: list[Artifact] = []
        self._new = not path.exists()
        make_folder(path)
        make_folder(self.store)
        self._lock = lock(self.store / ".lock", command)
        for left in (self.store / "cache").glob("*/.*.tmp"):  # of a process that was killed while it wrote
            left.unlink()

    def close(self) -> None:
        """Let another process have the folder; a new one in which nothing was made is taken away."""
        if self._lock is None:
            return
        if self.path.is_dir() and [file.name for file in self.path.iterdir()] == [".lock"]:
            os.truncate(self._lock, 0)  # nothing was made, so it is no command's yet
            if self._new:
                shutil.rmtree(self.path)
        os.close(self._lock)
        self._lock = None

    def stage(
        self,
        stage: str,
        settings: Any,
        inputs: Mapping[str, str],
        build: Callable[[Path], dict[str, Any]],
        version: int = 1,
    ) -> Artifact:
        """The stage's artifact, built by ``build(folder) -> summary`` unless it is there already.

        ``settings`` is JSON-able; ``inputs`` names the keys of what goes in; ``version`` counts code changes.
        """
        description = {"stage": stage, "version": version, "settings": settings, "inputs": dict(inputs)}
        key = content_key(description, self.environment)
        done = self.store / "artifacts" / f"{stage}-{key}"
        artifact = _open(done, key)
        if artifact is None:
            if time.monotonic() >= self.deadline:
                raise OutOfTime
            artifact = self._build(done, key, description, build)
        self.used.append(artifact)
        return artifact

    def cache(self, what: str, inputs: Mapping[str, str]) -> Path:
        """A folder for what several stages compute from the same ``inputs``; files in it may be deleted."""
        return self.store / "cache" / f"{what}-{content_key(dict(inputs), self.environment)}"

    def _build(
        self, done: Path, key: str, description: dict[str, Any], build: Callable[[Path], dict[str, Any]]
    ) -> Artifact:
        work = self.store / "work" / done.name
        work.mkdir(parents=True, exist_ok=True)
        clock = work / "seconds.json"  # time spent before a kill counts too
        before = float(read_json(clock)) if clock.is_file() else 0.0
        started = time.monotonic()
        try:
            summary = build(work)
        finally:
            write_json(clock, before + time.monotonic() - started)
        seconds = before + time.monotonic() - started
        clock.unlink()
        checkpoints = work.glob(f"{Path(CHECKPOINT).stem}*{Path(CHECKPOINT).suffix}")  # and of loops within a loop
        # the others are of a process that was killed while it wrote
        for left in [*checkpoints, *work.glob(".*.tmp"), *work.glob("*.compact")]:
            left.unlink()
        sizes = {file.name: file.stat().st_size for file in sorted(work.iterdir())}
        environment = self.environment
        write_json(
            work / "artifact.json",
            {**description, "key": key, "environment": environment, "files": sizes, "seconds": seconds,
             "summary": summary},
        )  # fmt: skip
        shutil.rmtree(done, ignore_errors=True)
        done.parent.mkdir(exist_ok=True)
        work.replace(done)
        sync(done.parent)
        artifact = _open(done, key)  # as every later run will read it
        assert artifact is not None
        return artifact


def _open(folder: Path, key: str) -> Artifact | None:
    """The finished artifact at ``folder``; None where there is none or a file of it is missing or cut."""
    description = folder / "artifact.json"
    if not description.is_file():
        return None
    try:
        found = read_json(description)
        whole = all((folder / name).stat().st_size == size for name, size in found["files"].items())
    except (UserError, KeyError, TypeError, FileNotFoundError):
        return None
    return Artifact(folder, key, found["seconds"], found["summary"]) if whole and found["key"] == key else None


def make_folder(path: Path, option: str = "--out") -> None:
    """Make the folder that a user named; UserError where it can't be one, or can't be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{option} {path} is a file; a folder is needed") from None
    except PermissionError:
        raise UserError(f"{option} {path} can't be made: no permission to write there") from None
    if not os.access(path, os.W_OK):
        raise UserError(f"{option} {path}: no permission to write there")


def lock(path: Path, command: str = "") -> int | None:
    """Hold the file until its descriptor is closed; UserError where another process holds it.

    command: whose folder it is from now on; UserError where it is another command's.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no flock; two runs in one folder are then the user's to avoid
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(
            f"--out {path.parent} is in use by another run; wait for it or choose another folder"
        ) from None
    owner = os.read(descriptor, 100).decode()
    if command and owner not in {"", command}:
        os.close(descriptor)
        raise UserError(
            f"--out {path.parent} is a folder of cgankd {owner}, whose files would be written over; needed: a new "
            f"folder, or one of cgankd {command}"
        )
    if not owner:
        os.write(descriptor, command.encode())
    return descriptor
