"""A recipe run from Python, and the results of a finished run, which show themselves as a table."""

from __future__ import annotations

from pathlib import Path

from cgankd.config import recipe as recipes
from cgankd.core.paths import expanded
from cgankd.core.progress import SILENT, Progress
from cgankd.pipeline.run import run
from cgankd.report.shown import RunResults
from cgankd.shipping.finished import FinishedRun


def run_recipe(
    recipe: str | Path, *overrides: str, out: Path | str | None = None, progress: Progress = SILENT
) -> RunResults:
    """Run a recipe as ``cgankd run`` does, without report and export, and return its results.

    recipe: a ready one by name, or a YAML file. overrides: such as "student.network=resnet8". out: the folder; None:
    runs/RECIPE. Finished parts are not computed again. Raises UserError for what the user can mend.
    """
    settings = recipes.load(str(recipe), overrides)
    return RunResults(run(settings, expanded(out or Path("runs") / settings.name), progress))


def open_results(folder: Path | str) -> RunResults:
    """The results of a finished run. Raises UserError where the folder holds none."""
    return RunResults(FinishedRun.open(expanded(folder)).results)
