"""The cells of a table: which runs there are, and going through them in one folder whose artifacts they share.

Each cell's results.json lies in a folder of its own; teacher, generator, density ratio and synthetic images lie in
the table's, where the next cell finds them.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cgankd import distill
from cgankd.config import recipe
from cgankd.config.recipe import Recipe
from cgankd.core.errors import TrainingError, UserError
from cgankd.core.files import file_name, read_json
from cgankd.core.hashing import content_key
from cgankd.core.progress import Progress
from cgankd.core.run_folder import lock, make_folder
from cgankd.data import sources
from cgankd.pipeline import comparisons, preflight, run

Results = dict[str, Any]
ALL = "all"  # in place of methods' names


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run. ``setting``: the overrides that tell it from the other runs of its recipe and student, as typed.

    left_out: what ``all`` methods does not stand for in this recipe's cells, each with why.
    """

    recipe: Recipe
    setting: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def student(self) -> str:
        """The student's network by name."""
        return self.recipe.student.network

    @property
    def name(self) -> str:
        """What a sentence calls the cell."""
        return ", ".join(part for part in (self.recipe.name, self.student, self.setting) if part)

    @property
    def folder(self) -> str:
        """Where its results lie, below the table's folder, whichever cells stand beside it."""
        return f"cells/{file_name(self.name)[:60]}-{content_key(self.recipe.name, self.student, self.setting)[:6]}"


def split_overrides(group: str) -> list[str]:
    """The overrides in one group; blanks or commas stand between them, and may stand inside their lists.

    >>> split_overrides("data.train_size=400 seeds=[0, 1]")
    ['data.train_size=400', 'seeds=[0, 1]']
    >>> split_overrides("data.train_size=400, seeds=[0,1]")
    ['data.train_size=400', 'seeds=[0,1]']
    """
    return [part for part in re.split(r"[,\s]+(?=[A-Za-z_][\w.]*=)", group.strip()) if part]


def grid(
    recipes: Sequence[str],
    overrides: Sequence[str],
    students: Sequence[str],
    settings: Sequence[str],
    methods: Sequence[str] = (),
) -> list[Cell]:
    """Every recipe (a name or a YAML file) x setting x student; no student or setting means the recipe's own.

    methods: compared alone and with generated images, in place of the recipes' rows; none: these. Ablation rows are
    left out unless an override asks for them. ``all`` stands for those that all of a recipe's cells can run. Raises
    UserError for a cell that stands twice.
    """
    cells = []
    for name in recipes:
        own = []
        for setting in settings or [""]:
            for student in students or [""]:
                network = [f"student.network={student}"] if student else []
                words = ["compare.ablation=false", *overrides, *network, *split_overrides(setting)]
                own.append(Cell(recipe.load(name, words), " ".join(split_overrides(setting))))
        served, left_out = _serving([cell.recipe for cell in own]) if ALL in methods else ([], {})
        if methods:
            wanted = [method for word in methods for method in (served if word == ALL else [word])]
            compared = comparisons.both_ways(dict.fromkeys(wanted))
            own = [dataclasses.replace(cell, recipe=_comparing(cell.recipe, compared)) for cell in own]
        cells += [
            dataclasses.replace(cell, left_out=tuple(f"{one}: {why}" for one, why in left_out.items())) for cell in own
        ]
    for place, cell in enumerate(cells):
        if cell.folder in {other.folder for other in cells[:place]}:
            raise UserError(f"the cell ({cell.name}) stands twice; allowed: recipes, students and settings that differ")
    return cells


def _comparing(one: Recipe, methods: Sequence[str]) -> Recipe:
    compare = one.compare.model_dump() | {"methods": tuple(methods)}
    return one.model_copy(update={"compare": type(one.compare).model_validate(compare)})


def _serving(recipes: Sequence[Recipe]) -> tuple[list[str], dict[str, str]]:
    """The methods, as they are published, that each of the recipes can run; and of the others why they can't."""
    served: dict[str, None] = {}
    refused: dict[str, str] = {}
    for one in recipes:
        splits = sources.load(one.data)
        for method in map(distill.as_published, distill.serving(splits.task)):
            served[method] = None
            try:
                preflight.check(preflight.resolve(_comparing(one, [method])), splits)
            except UserError as error:
                refused.setdefault(method, str(error))
    return [method for method in served if method not in refused], refused


def results_of(
    cells: Sequence[Cell], out: Path, file: str, progress: Progress, deadline: float = math.inf
) -> Iterator[list[Results | None]]:
    """Go through the cells; after each one, the results of all (None: not there yet), in the cells' order.

    What ``out`` holds already is gone through as well, which takes no training, but stands in the first list.
    ``file`` is what the caller writes to ``out``. Raises UserError before anything is trained or written where a
    cell can't be run, or ``out`` belongs to another recipe; errors while a cell is run name it.
    """
    cells = [dataclasses.replace(cell, recipe=preflight.resolve(cell.recipe)) for cell in cells]
    _refuse_anothers(cells, out, file)
    _check(cells)
    make_folder(out)
    descriptor = lock(out / ".cells.lock")  # not .lock, which each cell's own run takes
    try:
        found = [_finished(cell, out / cell.folder) for cell in cells]
        for place, cell in enumerate(cells):
            progress.say(f"run {place + 1} of {len(cells)}: {cell.name}")
            folder = out / cell.folder
            if found[place] is None:  # of other settings: must not pass for these if this run is killed
                (folder / "results.json").unlink(missing_ok=True)
            try:
                found[place] = run.run(cell.recipe, folder, progress, deadline=deadline, artifacts=out)
            except (UserError, TrainingError) as error:
                raise type(error)(f"{cell.name}: {error}") from error
            yield list(found)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _finished(cell: Cell, folder: Path) -> Results | None:
    """What an earlier process found for exactly this recipe."""
    written, results = folder / "recipe.yaml", folder / "results.json"
    if not (written.is_file() and results.is_file()):
        return None
    if written.read_text(encoding="utf-8") != cell.recipe.to_yaml():
        return None
    found: Results = read_json(results)
    return found


def _refuse_anothers(cells: Sequence[Cell], out: Path, file: str) -> None:
    names = {cell.recipe.name for cell in cells}
    for path, key in ((out / file, "recipes"), (out / "results.json", "recipe")):
        if not path.is_file():
            continue
        found = read_json(path)
        there = found.get(key) if isinstance(found, dict) else None
        if not isinstance(there, (str, list)):
            raise UserError(f"{path} is not a file of cgankd; choose another --out")
        others = {there} - names if isinstance(there, str) else set(there) - names
        if others:
            raise UserError(
                f"--out {out} holds {', '.join(sorted(others))}, not {', '.join(sorted(names))} alone; "
                "choose another folder"
            )


def _check(cells: Sequence[Cell]) -> None:
    """Read each data set and make each network once: what can't be used must not show after hours of training."""
    metrics: dict[str, tuple[str, str]] = {}
    for data in dict.fromkeys(cell.recipe.data for cell in cells):
        splits = sources.load(data)
        measured = (splits.task.metric, splits.task.metric_unit)
        for cell in cells:
            if cell.recipe.data != data:
                continue
            if metrics.setdefault(cell.recipe.name, measured) != measured:
                raise UserError(
                    f"{cell.name}: measured in {' '.join(measured)}, other cells of its table in "
                    f"{' '.join(metrics[cell.recipe.name])}; give each data set a recipe of its own"
                )
            preflight.check(cell.recipe, splits)
