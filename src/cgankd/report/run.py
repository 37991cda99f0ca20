"""Read a run's folder for the report: results.json, recipe.yaml and the artifacts.

Only results.json is required. A missing or damaged artifact counts as absent, so that an incomplete run still has a
page.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from cgankd import tasks
from cgankd.core.errors import UserError, first_of
from cgankd.core.paths import ARTIFACT, RECIPE, RESULTS
from cgankd.core.run_folder import read_results

NEEDED = ("metric", "higher_is_better", "task_settings", "rows")
NEEDED_IN_ROWS = ("method", "mean", "values")
Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One stage's folder."""

    folder: Path
    summary: dict[str, Any]

    def length(self, file: str, name: str) -> int:
        """The number of rows of a tensor; 0 where it is absent."""
        rows = self._slice(file, name)
        return 0 if rows is None else int(rows.get_shape()[0])

    def tensor(self, file: str, name: str, at: Sequence[int] | None = None) -> Array | None:
        """A tensor, or only its rows ``at``, so that large files are not read completely; None where it is absent."""
        rows = self._slice(file, name)
        if rows is None:
            return None
        shape = rows.get_shape()
        if shape[0] == 0 or (at is not None and not at):
            return np.empty((0, *shape[1:]))  # safetensors refuses an empty slice
        if at is None:
            return np.asarray(rows[:])
        return np.concatenate([np.asarray(rows[index : index + 1]) for index in at])

    def _slice(self, file: str, name: str) -> Any:
        try:
            with safe_open(self.folder / file, framework="np") as store:
                return store.get_slice(name) if name in store.keys() else None  # noqa: SIM118
        except (OSError, SafetensorError):
            return None


@dataclasses.dataclass(frozen=True)
class Run:
    """The content of a run's folder."""

    folder: Path
    results: dict[str, Any]
    recipe: str
    task: tasks.Task

    @property
    def bins(self) -> list[str]:
        """The names of the classes or label bins; none where no score was taken in each."""
        return [str(name) for name in self.results.get("bins") or []]

    @functools.cached_property
    def incomplete(self) -> str:
        """A sentence that names artifacts of the results that are missing or damaged; "" where all are there."""
        missing = [path for path in _leaves(self.results.get("artifacts")) if self._open(path) is None]
        if not missing:
            return ""
        return (
            f"This page lacks what is in missing or damaged artifacts: {first_of(missing, 3)}. The command of the run "
            "makes them again."
        )

    def artifact(self, *keys: str) -> Artifact | None:
        """The (first) artifact under results["artifacts"][keys...]; None where there is none."""
        artifacts = self.artifacts(*keys)
        return artifacts[0] if artifacts else None

    def artifacts(self, *keys: str) -> list[Artifact]:
        """All artifacts under the keys, one per seed where they are lists."""
        node: Any = self.results.get("artifacts")
        for key in keys:
            node = node.get(key) if isinstance(node, dict) else None
        paths = node if isinstance(node, list) else [node]
        artifacts = [self._open(path) for path in paths if isinstance(path, str)]
        return [artifact for artifact in artifacts if artifact is not None]

    def _open(self, path: str) -> Artifact | None:
        folder = self.folder / path
        try:
            content = json.loads((folder / ARTIFACT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        summary = content.get("summary") if isinstance(content, dict) else None
        return Artifact(folder, summary if isinstance(summary, dict) else {})


def _leaves(node: Any) -> Iterator[str]:
    """All texts in nested lists and dicts."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, list | dict):
        for item in node.values() if isinstance(node, dict) else node:
            yield from _leaves(item)


def read(folder: Path) -> Run:
    """Read a run's folder. Raises UserError where it is not the folder of a finished run."""
    results, path = read_results(folder, NEEDED), folder / RESULTS
    _check_rows(path, results["rows"])
    try:
        recipe = (folder / RECIPE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        recipe = ""
    try:
        task = tasks.from_json(results["task_settings"])
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: 'task_settings' does not describe a task") from None
    return Run(folder, results, recipe, task)


def _check_rows(path: Path, rows: Any) -> None:
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: 'rows' must be a list of at least one row")
    for place, row in enumerate(rows):
        absent = [key for key in NEEDED_IN_ROWS if not isinstance(row, dict) or key not in row]
        if absent:
            raise UserError(f"{path}: row {place} lacks {', '.join(absent)}")
