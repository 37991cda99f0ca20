"""``cgankd continual``: trains each method and seed of a recipe on all tasks, and compares the methods."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cgankd._version import __version__
from cgankd.config import yaml_config
from cgankd.continual import report
from cgankd.continual.measures import average_incremental, forgetting
from cgankd.continual.old_model import check_adaptable, grow
from cgankd.continual.settings import Continual
from cgankd.continual.stages import LEARNERS, class_names, learn
from cgankd.continual.stream import Stream
from cgankd.core.errors import UserError
from cgankd.core.files import write_json, write_text
from cgankd.core.paths import RECIPE, RESULTS
from cgankd.core.progress import SILENT, Progress
from cgankd.core.runtime import CPU, make_fabric
from cgankd.core.store import Artifact, Store
from cgankd.data import sources
from cgankd.data.imageset import Splits
from cgankd.data.rejected import write_rejected
from cgankd.metrics.statistics import paired_difference, spread
from cgankd.nets import trial
from cgankd.nets.build import Architecture, fresh_network
from cgankd.nets.inference import to_input
from cgankd.tasks import outputs as output_kinds


def run(settings: Continual, out: Path, progress: Progress = SILENT, *, deadline: float = math.inf) -> dict[str, Any]:
    """Learn all tasks with every method and seed; write recipe.yaml, results.json, table.md and the curves to ``out``.

    Finished artifacts there are used again, so an interrupted run can be resumed, with the same results. Returns the
    contents of results.json. Raises UserError for what the user can fix, before any training, and OutOfTime where
    time.monotonic has passed ``deadline``, at the next checkpoint.
    """
    started = time.monotonic()
    fabric = make_fabric(settings.runtime.device, settings.runtime.precision, settings.runtime.threads)
    with progress.bar("reading images", 1) as bar:
        splits = sources.load(settings.data, lambda done, total: bar.to(done / total), progress)
    import_seconds = time.monotonic() - started
    check(settings, splits)
    store = Store(
        out,
        fabric,
        progress,
        command="continual",
        deadline=deadline,
        checkpoint_seconds=settings.runtime.checkpoint_seconds,
    )
    try:
        write_text(out / RECIPE, yaml_config.to_yaml(settings))
        write_rejected(splits.rejected, out)
        record = collect(store, settings, splits)
        record["seconds"] = {"import": import_seconds, "tasks": sum(store.seconds().values())}
        record["used"] = store.used_names()
        write_json(out / RESULTS, record)
        report.render(out)
    finally:
        store.close()
    return record


def check(settings: Continual, splits: Splits) -> None:
    """UserError where the settings do not fit the images or the network."""
    task = splits.task
    if splits.further is not None:
        raise UserError(
            f"data.unlabelled = {settings.data.unlabelled!r} is for cgankd run, because in continual tasks every image "
            "has a label; leave it out"
        )
    if task.continuous:
        raise UserError(
            f"data.source = {settings.data.source!r} has scalar labels ({task.name}), but continual tasks consist of "
            "classes; allowed: a data set of classes"
        )
    if settings.fit.adversarial is not None and any(LEARNERS[method].distils for method in settings.methods):
        raise UserError(
            "fit.adversarial is set, but the old model's outputs are for clean images; allowed with it: methods "
            f"without distillation ({', '.join(name for name, learner in LEARNERS.items() if not learner.distils)})"
        )
    stream = Stream.of(task.num_outputs, settings.tasks, settings.seeds[0])
    names = task.bins(stream.order)[0]
    for split in ("train", "val", "test"):
        counts = torch.bincount(getattr(splits, split).labels, minlength=task.num_outputs)
        if not counts.all():
            missing = names[int((counts == 0).nonzero()[0])]
            raise UserError(f"{splits.name}: class {missing!r} has no {split} image; needed: one or more of each class")
    network = Architecture(settings.network)
    small, large = (fresh_network(network, splits.train, tasks * stream.width, settings.seeds[0]) for tasks in (1, 2))
    images = to_input(splits.train.images[: min(2, settings.fit.batch_size)], CPU)
    who = f"network {settings.network!r}"
    for candidate, tasks in ((small, 1), (large, 2)):
        outputs = trial.check_answers(who, candidate, images, tasks * stream.width)
        trial.check_finite(who, outputs)
        output_kinds.check_unchanged(
            output_kinds.resolve(
                output_kinds.AUTO, outputs, splits.train.labels[: len(images)], task, who, "outputs", trained=False
            ),
            who,
        )
        trial.check_learns(who, candidate, images, tasks * stream.width)
    grow(large, small.state_dict())
    if any(LEARNERS[method].adapts for method in settings.methods):
        check_adaptable(small, settings.network)


def collect(store: Store, settings: Continual, splits: Splits) -> dict[str, Any]:
    """Run all seeds, methods and tasks; the contents of results.json without the seconds."""
    chains: dict[str, list[list[Artifact]]] = {method: [] for method in settings.methods}
    for seed in settings.seeds:
        for method, per_seed in chains.items():
            per_seed.append([learn(store, settings, splits, method, seed, task) for task in range(settings.tasks)])
    rows = [_row(method, per_seed, settings) for method, per_seed in chains.items()]
    last = next(iter(chains.values()))[0][-1]
    streams = [Stream.of(splits.task.num_outputs, settings.tasks, seed) for seed in settings.seeds]
    return {
        "cgankd": __version__,
        "recipe": settings.name,
        "description": settings.description,
        "dataset": splits.name,
        "metric": splits.task.metric,
        "unit": splits.task.metric_unit,
        "network": settings.network,
        "parameters": last.summary["parameters"],
        "seeds": list(settings.seeds),
        "tasks": settings.tasks,
        "exemplars": settings.exemplars,
        "order": [list(class_names(splits, stream)) for stream in streams],
        "rows": rows,
        "gains": _gains(rows),
        "notes": list(splits.notes),
    }


def _row(method: str, chains: Sequence[Sequence[Artifact]], settings: Continual) -> dict[str, Any]:
    """The row of a method. chains: for each seed, the artifact of each task."""
    together = [[artifact.summary["test"]["together"] for artifact in chain] for chain in chains]
    per_task = [[artifact.summary["test"]["per_task"] for artifact in chain] for chain in chains]
    values = {
        "final": [curve[-1] for curve in together],
        "incremental": [average_incremental(curve) for curve in together],
        "forgetting": [forgetting(matrix) for matrix in per_task],
        "task_aware_accuracy": [chain[-1].summary["test"]["task_aware_accuracy"] for chain in chains],
    }
    return {
        "method": method,
        "words": (settings.exemplars and LEARNERS[method].with_exemplars) or LEARNERS[method].description,
        **{name: spread(scores) for name, scores in values.items()},
        "val": spread([chain[-1].summary["val"]["together"] for chain in chains]),
        "together": together,
        "per_task": per_task,
    }


def _gains(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The gain of teacher adaptation for each kind of distillation, paired by seed."""
    by_name = {row["method"]: row for row in rows}
    pairs = [(name, name.removesuffix("+ta")) for name in by_name if LEARNERS[name].adapts]
    return [
        {
            "of": of,
            "to": to,
            **{
                name: paired_difference(by_name[of][name]["values"], by_name[to][name]["values"])
                for name in report.COLUMNS
            },
        }
        for of, to in pairs
        if to in by_name
    ]
