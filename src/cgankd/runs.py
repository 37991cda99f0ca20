"""Data sets, runs and their results from Python; a notebook shows them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from cgankd.config import recipe as recipes
from cgankd.core.errors import UserError
from cgankd.core.paths import expanded
from cgankd.core.progress import SILENT, Progress
from cgankd.core.runtime import plain_torch
from cgankd.core.terminal import plain_console
from cgankd.core.views import PlainLines
from cgankd.core.watching import Watched
from cgankd.data import sources
from cgankd.data.imageset import ImageSet, Splits
from cgankd.pipeline.run import run
from cgankd.report.shown import RunResults
from cgankd.shipping.finished import FinishedRun
from cgankd.shipping.images import processed


def show_progress(seconds: float = 5.0) -> Progress:
    """Print what works, how fast, and the time left, a line every ``seconds``: for ``Distiller(progress=...)`` and
    :func:`run_recipe`."""
    lines = PlainLines(plain_console())
    lines.every = seconds
    return Watched([lines])


@plain_torch()
def load_data(source: str | Path, **settings: Any) -> Splits:
    """A data set as a run reads it: ``train``, ``pool``, ``val`` and ``test``, each an ImageSet, and its ``task``.

    source: a name (``cgankd data`` lists them), a folder, a file, or the address of one. settings: those of ``data`` in
    a recipe, such as train_size=200, size=16. Raises UserError for what the user can mend.
    """
    source = str(source)
    chosen = recipes.from_tree({"data": {"source": source, **settings}}, [], where=f"load_data({source!r})").data
    splits = sources.load(chosen)
    names = splits.task.answer_names
    parts = {part: dataclasses.replace(getattr(splits, part), names=names) for part in ("train", "pool", "val", "test")}
    return dataclasses.replace(splits, **parts)


@plain_torch()
def run_recipe(
    recipe: str | Path, *overrides: str, out: Path | str | None = None, progress: Progress = SILENT
) -> RunResults:
    """Run a recipe as ``cgankd run`` does, without report and export, and return its results.

    recipe: a ready one by name, or a YAML file. overrides: such as "student.network=resnet8". out: the folder; None:
    runs/RECIPE. Finished parts are not computed again. Raises UserError for what the user can mend.
    """
    if other := [override for override in overrides if not isinstance(override, str)]:
        raise UserError(f"an override is {other[0]!r}; needed: text, as in run_recipe('digits', 'seeds=[0]')")
    settings = recipes.load(str(recipe), overrides)
    return RunResults(run(settings, expanded(out or Path("runs") / settings.name), progress))


def open_results(folder: Path | str) -> RunResults:
    """The results of a finished run. Raises UserError where the folder holds none."""
    return RunResults(FinishedRun.open(expanded(folder)).results)


def open_fakes(folder: Path | str, row: str | None = None) -> ImageSet:
    """The processed generated images of a finished run, as the student of ``row`` saw them; no data set is needed.

    row: None: cgan, or the first with generated images. Images are mapped into memory, not read. Raises UserError where
    the run has none.
    """
    return processed(expanded(folder), row)
