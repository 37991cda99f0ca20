"""The cells of a table: the list of its runs, and running them in one folder with shared artifacts.

Each cell's results.json is in a folder of its own; teacher, generator, density ratio and generated images are in the
table's folder, where the next cell finds them.
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
from cgankd.core.files import file_name
from cgankd.core.hashing import content_key
from cgankd.core.paths import RECIPE, RESULTS
from cgankd.core.progress import Progress
from cgankd.core.run_folder import check_usable, earlier, lock, make_folder
from cgankd.core.run_plan import Station
from cgankd.core.store import remove_leftovers
from cgankd.data import sources
from cgankd.experiments.executors import HERE, Executor, Opened, all_done, opened
from cgankd.experiments.worker import write_task
from cgankd.pipeline import comparisons, preflight, run
from cgankd.pipeline.stations import stations

Results = dict[str, Any]
ALL = "all"  # instead of names of methods


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run. setting: its own overrides, as typed, which the other runs of its recipe and student don't have.

    left_out: the methods that ``all`` does not include in this recipe's cells, each with the reason.
    """

    recipe: Recipe
    setting: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def student(self) -> str:
        """The name of the student's network."""
        return self.recipe.student.network

    @property
    def name(self) -> str:
        """The cell's name in sentences."""
        return ", ".join(part for part in (self.recipe.name, self.student, self.setting) if part)

    @property
    def folder(self) -> str:
        """The folder of its results, below the table's folder; it does not depend on the other cells."""
        return f"cells/{file_name(self.name)[:60]}-{content_key(self.recipe.name, self.student, self.setting)[:6]}"


def split_overrides(group: str) -> list[str]:
    """The overrides in one group, separated by spaces or commas, which may also be inside their lists.

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
    """Every recipe (a name or a YAML file) x setting x student; without students or settings, the recipe's own.

    methods: compared alone and with generated images, instead of the recipes' rows; none: the recipes' rows. ``all``
    means every method that all of a recipe's cells can run. Ablation rows are left out unless an override adds them.
    Raises UserError for two equal cells, and for a row in the place of a method.
    """
    for method in methods:
        base = method.split("~")[0]
        if base.startswith(comparisons.FAKES) or (base in comparisons.ROWS and base not in distill.METHODS):
            raise UserError(
                f"--methods {method}: a row, not a distillation method; allowed: all, or methods such as dkd,kd+crd "
                f"(cgankd methods lists them); rows are for compare.methods=[{comparisons.CONTROL},{method},...]"
            )
    cells = []
    for name in recipes:
        own = []
        for setting in settings or [""]:
            for student in students or [""]:
                network = [f"student.network={student}"] if student else []
                words = [
                    "compare.ablation=false",
                    "student.refit=false",
                    *overrides,
                    *network,
                    *split_overrides(setting),
                ]
                own.append(Cell(recipe.load(name, words), " ".join(split_overrides(setting))))
        served, left_out = _serving([cell.recipe for cell in own]) if ALL in methods else ([], {})
        if methods:
            names = [method for name in methods for method in (served if name == ALL else [name])]
            compared = comparisons.both_ways(dict.fromkeys(names))
            own = [dataclasses.replace(cell, recipe=_comparing(cell.recipe, compared)) for cell in own]
        cells += [
            dataclasses.replace(cell, left_out=tuple(f"{method}: {why}" for method, why in left_out.items()))
            for cell in own
        ]
    for place, cell in enumerate(cells):
        if cell.folder in {other.folder for other in cells[:place]}:
            raise UserError(f"the cell ({cell.name}) is given twice; allowed: distinct recipes, students and settings")
    return cells


def _comparing(settings: Recipe, methods: Sequence[str]) -> Recipe:
    """The recipe with these methods as its rows."""
    compare = settings.compare.model_dump() | {"methods": tuple(methods)}
    return settings.model_copy(update={"compare": type(settings.compare).model_validate(compare)})


def _serving(recipes: Sequence[Recipe]) -> tuple[list[str], dict[str, str]]:
    """The methods, with their published settings, that all recipes can run; and for the others the reason why not."""
    served: dict[str, None] = {}
    refused: dict[str, str] = {}
    for settings in recipes:
        splits = sources.load(settings.data)
        for method in map(distill.as_published, distill.serving(splits.task)):
            served[method] = None
            try:
                preflight.check(preflight.resolve(_comparing(settings, [method])), splits)
            except UserError as error:
                refused.setdefault(method, str(error))
    return [method for method in served if method not in refused], refused


def results_of(
    cells: Sequence[Cell],
    out: Path,
    file: str,
    progress: Progress,
    deadline: float = math.inf,
    executor: Executor = HERE,
) -> Iterator[list[Results | None]]:
    """Run the cells; after each one, yield the results of all cells in order (None: not finished).

    Where ``file`` is there and the settings of a cell have changed, a list comes before the first run too, so that a
    caller that is stopped then does not leave files of the earlier settings.

    Cells that ``out`` already contains run again without training; their results are in the first list. ``file``: the
    file that the caller writes to ``out``. Raises UserError before anything is trained or written where a cell can't
    be run, or ``out`` belongs to another recipe; errors while a cell runs name the cell. executor: where cells run that
    are not finished, or whose images or files have changed since; the others go on where one of several fails.
    """
    cells = [dataclasses.replace(cell, recipe=preflight.resolve(cell.recipe)) for cell in cells]
    _refuse_other_recipes(cells, out, file)
    check_usable(out, "run")
    _check(cells)
    ready = opened(executor, out, len(cells)) if executor.elsewhere else None
    make_folder(out)
    descriptor = lock(out / ".cells.lock")  # not .lock, which each cell's own run takes
    try:
        remove_leftovers(out)
        results = [_finished(cell, out / cell.folder) for cell in cells]
        if ready is not None:  # else every cell runs again, which finds what is there
            results = [r if r is not None and _is_made(c, out) else None for c, r in zip(cells, results, strict=True)]
        for cell, finished in zip(cells, results, strict=True):
            if finished is None:  # the file has other settings, and must not stay if this run is killed
                (out / cell.folder / RESULTS).unlink(missing_ok=True)
        changed = None in results and (out / file).is_file()
        if changed or (ready is not None and any(results)):  # here, finished cells run again and are yielded then
            yield list(results)
        if ready is None:
            yield from _here(cells, results, out, progress, deadline)
        else:
            yield from _elsewhere(cells, results, out, progress, deadline, ready)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _here(
    cells: Sequence[Cell], results: list[Results | None], out: Path, progress: Progress, deadline: float
) -> Iterator[list[Results | None]]:
    """One after the other, in this process."""
    for place, cell in enumerate(cells):
        progress.part(place + 1, len(cells), cell.name)
        try:
            results[place] = run.run(cell.recipe, out / cell.folder, progress, deadline=deadline, artifacts=out)
        except UserError as error:
            raise UserError(f"{cell.name}: {error}") from error
        except TrainingError as error:
            raise TrainingError(f"{cell.name}: {error}") from error
        yield list(results)


def _elsewhere(
    cells: Sequence[Cell],
    results: list[Results | None],
    out: Path,
    progress: Progress,
    deadline: float,
    executor: Opened,
) -> Iterator[list[Results | None]]:
    """Several at once, in other processes. Raises the first error after all other cells have ended."""
    places = [place for place, finished in enumerate(results) if finished is None]
    folders = [out / cells[place].folder for place in places]
    for folder, place in zip(folders, places, strict=True):
        write_task(folder, cells[place].recipe, out)
    names = [cells[place].name for place in places]
    progress.opened(out)
    with progress.stage(Station("cells", "cells", "cells")), progress.bar("cells", len(folders)) as bar:
        bar.unit = "runs"
        for number in all_done(folders, names, executor, progress, bar, deadline):
            results[places[number]] = _finished(cells[places[number]], folders[number])
            yield list(results)


def _finished(cell: Cell, folder: Path) -> Results | None:
    """The results of an earlier process for exactly this recipe; None where there are none."""
    recipe_file = folder / RECIPE
    results: Results | None = earlier(folder / RESULTS)
    if results is None or not recipe_file.is_file():
        return None
    return results if recipe_file.read_text(encoding="utf-8") == cell.recipe.to_yaml() else None


def _is_made(cell: Cell, out: Path) -> bool:
    """Whether all artifacts are there that the cell's run needs, with its images and files as they are now."""
    try:
        with run.opened(cell.recipe, out / cell.folder, artifacts=out) as this_run:
            return all(station.seconds is not None for station in stations(this_run))
    except UserError:  # such as for a device that only the workers have; a worker says what is wrong
        return False


def _refuse_other_recipes(cells: Sequence[Cell], out: Path, file: str) -> None:
    """UserError where ``out`` contains results of other recipes."""
    names = {cell.recipe.name for cell in cells}
    for path, key in ((out / file, "recipes"), (out / RESULTS, "recipe")):
        if (content := earlier(path)) is None:
            continue
        known = content.get(key) if isinstance(content, dict) else None
        if not isinstance(known, (str, list)):
            raise UserError(f"{path} is not a file of cgankd; choose another --out")
        others = {known} - names if isinstance(known, str) else set(known) - names
        if others:
            raise UserError(
                f"--out {out} holds results of {', '.join(sorted(others))}, not only of {', '.join(sorted(names))}; "
                "choose another folder"
            )


def _check(cells: Sequence[Cell]) -> None:
    """Read each data set and build each network once, so that errors don't appear after hours of training."""
    metrics: dict[str, tuple[str, str]] = {}
    for data in dict.fromkeys(cell.recipe.data for cell in cells):
        splits = sources.load(data)
        measured = (splits.task.metric, splits.task.metric_unit)
        for cell in cells:
            if cell.recipe.data != data:
                continue
            if metrics.setdefault(cell.recipe.name, measured) != measured:
                raise UserError(
                    f"{cell.name}: its metric is {' '.join(measured)}, but that of other cells of its table is "
                    f"{' '.join(metrics[cell.recipe.name])}; give each data set a recipe of its own"
                )
            preflight.check(cell.recipe, splits)
