"""The road: data -> teacher, NOKD student -> generator -> density ratio -> synthesis -> students -> results.

The file to read first. road.py has a method for each station; results.py goes the road for every seed and row
(comparisons.py) of a recipe; core/store.py knows what is there already.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cgankd.config.recipe import Recipe
from cgankd.core.files import write_json, write_text
from cgankd.core.progress import SILENT, Progress
from cgankd.core.runtime import environment, make_fabric
from cgankd.core.store import RunFolder
from cgankd.data import sources
from cgankd.data.imageset import Splits
from cgankd.gan.generator import new_networks
from cgankd.labels import label_space
from cgankd.metrics import robustness
from cgankd.nets import pretrained, weights, zoo
from cgankd.pipeline import comparisons, preflight, results
from cgankd.pipeline.road import Road


def run(
    recipe: Recipe,
    out: Path,
    progress: Progress = SILENT,
    *,
    deadline: float = math.inf,
    artifacts: Path | None = None,
) -> dict[str, Any]:
    """Go the whole road for every seed of the recipe and write recipe.yaml and results.json to ``out``.

    What is finished there already is used again. ``artifacts`` is a folder that several runs share, so that what
    one has trained the others need not; none: ``out``. Raises UserError for what the user can mend, and OutOfTime
    where time.monotonic has passed ``deadline``: at the next checkpoint of a loop, or before the next stage.
    """
    started = time.monotonic()
    with opened(recipe, out, progress, deadline=deadline, artifacts=artifacts) as road:
        import_seconds = time.monotonic() - started
        write_text(out / "recipe.yaml", road.recipe.to_yaml())
        found = results.collect(road)
        found["seconds"] = {"import": import_seconds}
        for artifact in {artifact.key: artifact for artifact in road.folder.used}.values():
            stage = artifact.folder.name.rsplit("-", 1)[0]
            found["seconds"][stage] = found["seconds"].get(stage, 0.0) + artifact.seconds
        write_json(out / "results.json", found)
    return found


@contextlib.contextmanager
def opened(
    recipe: Recipe,
    out: Path,
    progress: Progress = SILENT,
    *,
    deadline: float = math.inf,
    artifacts: Path | None = None,
) -> Iterator[Road]:
    """The road of a recipe, its images read and its settings checked, while its folder is this process's alone."""
    recipe = settled(recipe)
    fabric = make_fabric(recipe.runtime.device, recipe.runtime.precision, recipe.runtime.threads)
    with progress.bar("import", 1) as bar:
        splits = sources.load(recipe.data, lambda done, total: bar.to(done / total))
    check(recipe, splits)
    folder = RunFolder(out, environment(fabric), deadline, artifacts)
    try:
        yield Road(recipe, splits, folder, fabric, progress)
    finally:
        folder.close()


def settled(recipe: Recipe) -> Recipe:
    """The recipe as its teacher can serve it; UserError for what is wrong whatever the images are."""
    comparisons.check_names(recipe)
    return preflight.settled(recipe)


def check(recipe: Recipe, splits: Splits) -> None:
    """Raise UserError for what can't be run on these images: it must not show after hours of training."""
    comparisons.check(recipe, splits, _check_networks(recipe, splits))
    if recipe.metrics.robustness.enabled:
        robustness.check(recipe.metrics.robustness, splits.task)


def _check_networks(recipe: Recipe, splits: Splits) -> dict[str, nn.Module]:
    """Each network, by name, made once, and the teachers filled: what can't be made must not show hours later."""
    teacher, ratio = recipe.teacher, recipe.ratio
    students = [
        recipe.student.network,
        *(comparisons.student_network(name, recipe.student) for name in recipe.rows),
    ]
    named: list[tuple[str, str | None, str | None]] = [(name, None, None) for name in dict.fromkeys(students)]
    named += [(one.network, one.weights, one.start) for _, one in teacher.all() if one.source is None]
    if ratio.features in {"classifier", "autoencoder"}:
        named.append((ratio.feature_network, None, None))
    train, made = splits.train, {}
    with torch.random.fork_rng([]):
        for name, path, start in named:
            network = zoo.create(name, train.channels, splits.task.num_outputs, train.size)
            if path is not None:
                weights.load_weights(network, path)
            if start is not None:
                pretrained.start_from(network, start)
            made[name] = network
        if recipe.generator.source is None:
            space = label_space(splits.task, splits.task.to_target(train.labels), recipe.generator)
            embedding = space.new_embedding(recipe.generator.label_dim)
            new_networks(recipe.generator, space, embedding, train.channels, train.size)
    return made
