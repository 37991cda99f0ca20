"""What of a run's folder nothing needs any more: which files these are, how large, and removing them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from cgankd.core.errors import UserError
from cgankd.core.files import read_json

RESULTS = "results.json"
USED = "used"  # in results.json: the names of all artifacts that the run used


@dataclasses.dataclass(frozen=True)
class Contents:
    """The folders below a run's folder, by what they are good for.

    used: artifacts of finished runs. newer: artifacts that no finished run used, made after the last one finished: a
    stopped run goes on with them. stale: the other artifacts, of settings that were changed since. stopped: work of
    stages that did not end; the same command goes on with it. cache: what can be computed again in little time.
    """

    used: Sequence[Path]
    newer: Sequence[Path]
    stale: Sequence[Path]
    stopped: Sequence[Path]
    cache: Sequence[Path]


def contents(folder: Path) -> Contents:
    """Look through ``folder``; UserError where it is not the folder of a run, a table or an ablation."""
    if not (folder / ".lock").is_file():
        raise UserError(f"{folder} is not a folder that cgankd wrote; give the --out folder of a run")
    results = list(folder.rglob(RESULTS))
    names = {name for path in results for name in read_json(path).get(USED, [])}
    last = max((path.stat().st_mtime for path in results), default=0.0)
    artifacts = _folders(folder / "artifacts")
    unused = [path for path in artifacts if path.name not in names]
    return Contents(
        used=[path for path in artifacts if path.name in names],
        newer=[path for path in unused if path.stat().st_mtime > last],
        stale=[path for path in unused if path.stat().st_mtime <= last],
        stopped=_folders(folder / "work"),
        cache=_folders(folder / "cache"),
    )


def size(folders: Sequence[Path]) -> int:
    """Bytes of all files in them."""
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def remove(folders: Sequence[Path]) -> None:
    """Remove them, each whole: a killed removal leaves no artifact that looks finished."""
    for folder in folders:
        (folder / "artifact.json").unlink(missing_ok=True)  # without it no artifact counts
        shutil.rmtree(folder)


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
