"""Find and remove the files in a run's folder that are no longer needed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from cgankd.core.errors import UserError
from cgankd.core.files import read_json
from cgankd.core.paths import ARTIFACT, LOCK, RESULTS

USED = "used"  # in results.json: the names of all artifacts that the run used


@dataclasses.dataclass(frozen=True)
class Contents:
    """The sub-folders of a run's folder, by how they are used.

    used: artifacts of finished runs. newer: artifacts that no finished run uses, written after the last run finished;
    a stopped run continues with them. As long as a run of a table has not finished, all unused ones are newer, because
    it may have run beside those that have. stale: the other artifacts; their settings have changed since. stopped: work
    of stages that did not finish; the same command continues with it. cache: results that take little time to compute
    again.
    """

    used: Sequence[Path]
    newer: Sequence[Path]
    stale: Sequence[Path]
    stopped: Sequence[Path]
    cache: Sequence[Path]


def contents(folder: Path) -> Contents:
    """The sub-folders of ``folder``; UserError where it is not the folder of a run, a table or an ablation, or holds
    results that do not say which artifacts they use."""
    if not (folder / LOCK).is_file():
        raise UserError(f"{folder} is not a folder that cgankd wrote; give the --out folder of a run")
    cells = [cell / RESULTS for cell in _folders(folder / "cells")]
    # not those of other runs in folders below, which have artifacts of their own
    results = [path for path in (folder / RESULTS, *cells) if path.is_file()]
    names = {name for path in results for name in _used(path)}
    unfinished = any(path not in results for path in cells)
    last = 0.0 if unfinished else max((path.stat().st_mtime for path in results), default=0.0)
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
    """The total size of all files in the folders, in bytes."""
    total = 0
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # a run removes a file at this moment
                    total += (Path(place) / name).stat().st_size
    return total


def remove(folders: Sequence[Path]) -> None:
    """Remove the folders."""
    for folder in folders:
        (folder / ARTIFACT).unlink(missing_ok=True)  # first: a killed removal must not look like an artifact
        shutil.rmtree(folder)


def _used(results: Path) -> list[str]:
    record = read_json(results)
    if not isinstance(record, dict) or USED not in record:  # without it all artifacts would seem to be unused
        raise UserError(
            f"{results} does not say which artifacts the run uses ({USED!r}); needed: the results of this version, "
            "which the command of the run writes again"
        )
    return list(record[USED])


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
