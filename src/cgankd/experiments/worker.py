"""One cell of a table, or one trial of the autopilot, in another process, on this or another host:
``python -m cgankd.experiments.worker PARENT FOLDER``.

The cell's folder holds task.yaml (its recipe) and task.json when the work begins, log.txt meanwhile, and outcome.json
when the work has ended in any way but the death of the process.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from cgankd.config import recipe as recipes
from cgankd.config.recipe import Recipe
from cgankd.core.errors import OutOfTime, TrainingError, UserError
from cgankd.core.files import read_json, write_json, write_text
from cgankd.core.progress import Progress
from cgankd.core.stopping import stopping_on_sigterm
from cgankd.core.terminal import plain_console
from cgankd.core.views import PlainLines
from cgankd.core.watching import Watched

TASK, RECIPE, OUTCOME, LOG = "task.json", "task.yaml", "outcome.json", "log.txt"
TIME_LIMIT = "SIGUSR2"  # submitit sends it before Slurm ends a job at its time limit or for another one
CANCELLED = "SIGINT"  # how Ray cancels a task
PARENT_SECONDS = 1.0  # between two looks whether the process that started this one is still there


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the work on a cell ended. stopped: its state is saved. failed: ``sentence`` says why; user: by the input."""

    state: Literal["done", "stopped", "failed"]
    sentence: str = ""
    user: bool = False


def write_task(folder: Path, recipe: Recipe, artifacts: Path, trial: tuple[str, int] | None = None) -> None:
    """Write what a worker reads; paths in the recipe hold from the current folder on.

    trial: row and steps of a trial of the autopilot; None: the whole run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / RECIPE, recipe.to_yaml())
    paths = {"current_folder": str(Path.cwd()), "artifacts": str(artifacts.absolute())}
    write_json(folder / TASK, {**paths, "trial": trial})


def read_outcome(folder: Path) -> Outcome | None:
    """How the work on the cell ended; None where its process ended without a word."""
    file = folder / OUTCOME
    return Outcome(**read_json(file)) if file.is_file() else None


def work(folder: str, parent: int | None = None) -> None:
    """Run the cell of ``folder`` (an absolute path). SIGTERM makes it save and stop, as do ``TIME_LIMIT``
    and ``CANCELLED``.

    parent: the process that waits for this one; where it dies, this one saves and stops too.
    """
    place = Path(folder)
    task = read_json(place / TASK)
    os.chdir(task["current_folder"])
    if "" not in sys.path:
        sys.path.insert(0, "")  # networks given as module:function may be in the current folder
    with (place / LOG).open("a", encoding="utf-8") as log, stopping_on_sigterm(TIME_LIMIT, CANCELLED):
        if parent is not None:
            threading.Thread(target=_follow, args=(parent,), daemon=True).start()
        outcome = _run(place, task, plain_console(file=log, width=120))
        print(f"{outcome.state} {outcome.sentence}".strip(), file=log)
    write_json(place / OUTCOME, dataclasses.asdict(outcome))


def _run(folder: Path, task: Mapping[str, Any], console: Console) -> Outcome:
    try:
        with Watched([PlainLines(console)]) as progress:
            _compute(folder, task, progress)
    except OutOfTime as error:
        return Outcome("stopped", str(error))
    except UserError as error:
        return Outcome("failed", str(error), user=True)
    except TrainingError as error:
        return Outcome("failed", str(error))
    except Exception as error:
        console.print(traceback.format_exc(), markup=False, highlight=False)
        return Outcome("failed", f"{type(error).__name__}: {error} ({folder / LOG} has the details)")
    return Outcome("done")


def _compute(folder: Path, task: Mapping[str, Any], progress: Progress) -> None:
    from cgankd.pipeline.run import opened, run  # imports torch

    recipe, artifacts = recipes.load(str(folder / RECIPE)), Path(task["artifacts"])
    if task["trial"] is None:
        run(recipe, folder, progress, artifacts=artifacts)
        return
    name, steps = task["trial"]
    with opened(recipe, folder, progress, artifacts=artifacts) as this_run:
        this_run.trial(name, recipe.seeds[0], steps)


def _follow(parent: int) -> None:
    """Ask this process to stop once it has another parent, because the one that started it has died."""
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    work(sys.argv[2], int(sys.argv[1]))  # not os.getppid(): the parent may have died before this line
