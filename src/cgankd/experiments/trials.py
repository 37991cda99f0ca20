"""A run whose autopilot makes the trials of a round at once: workers put them into the run's folder, where the run
then finds them done."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgankd.config.recipe import Recipe
from cgankd.core.errors import UserError
from cgankd.core.files import file_name
from cgankd.core.progress import Progress
from cgankd.experiments.executors import Executor, all_done, opened
from cgankd.experiments.worker import write_task
from cgankd.pipeline import run

if TYPE_CHECKING:
    from cgankd.core.store import Call
    from cgankd.pipeline.autopilot import Prepare


def run_with(executor: Executor, recipe: Recipe, out: Path, progress: Progress, *, deadline: float) -> dict[str, Any]:
    """:func:`cgankd.pipeline.run.run` with trials where ``executor`` says. UserError where the recipe has none."""
    if not executor.elsewhere:
        return run.run(recipe, out, progress, deadline=deadline)
    if recipe.compare.methods != "auto":
        raise UserError(
            "--jobs and --executor make the autopilot's trials at once, but compare.methods is a list of rows, which "
            "has no trials; allowed: --jobs 1 with processes, or compare.methods=auto"
        )
    devices, nodes = recipe.runtime.devices, recipe.runtime.nodes
    if devices * nodes > 1:
        raise UserError(
            "--jobs and --executor train each trial in one process, but runtime.devices = "
            f"{devices} and runtime.nodes = {nodes}; allowed: 1 and 1"
        )
    trials = functools.partial(_prepared, executor)
    return run.run(recipe, out, progress, deadline=deadline, trials=trials)


def _prepared(executor: Executor, this_run: run.Run) -> Prepare:
    """What makes the trials of a round at once. UserError where the executor can't be used."""
    store, recipe = this_run.store, this_run.recipe
    ready = opened(executor, store.path, len(recipe.rows))

    def prepare(names: Sequence[str], steps: int) -> None:
        for name in names:  # here, because a worker has a share of the cores only, and the others would wait for it
            this_run.lesson(name, recipe.seeds[0], steps)
        left = [name for name in names if not _is_made(this_run, name, steps)]
        if len(left) < 2:
            return
        folders = [store.path / "trials" / f"{file_name(name)}-{steps}" for name in left]
        for folder, name in zip(folders, left, strict=True):
            write_task(folder, recipe, store.path, trial=(name, steps))
        store.share()
        titles = [f"trial of {name}, {steps} steps" for name in left]
        with store.progress.bar(f"trials of {steps} steps", len(left)) as bar:
            bar.unit = "trials"
            for number in all_done(folders, titles, ready, store.progress, bar, store.deadline):
                if not _is_made(this_run, left[number], steps):
                    raise UserError(
                        f"{titles[number]} has another key where it was made, because torch, the device or the "
                        "precision differ; needed: the same there and here"
                    )
                this_run.trial(left[number], recipe.seeds[0], steps)  # counts as done from now on

    return prepare


def _is_made(this_run: run.Run, name: str, steps: int) -> bool:
    """Whether the trial's artifact is there; nothing is computed."""
    calls: list[Call] = []
    walker = copy.copy(this_run)
    walker.store = this_run.store.noting(calls)
    walker.trial(name, this_run.recipe.seeds[0], steps)
    return calls[-1].seconds is not None
