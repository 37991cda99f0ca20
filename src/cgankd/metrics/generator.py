"""The generator's scores: real images in the fakes' place give the floor that makes each number readable."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cgankd.config.settings import GeneratorMetricsSettings
from cgankd.metrics.fidelity import frechet_distance, kernel_distance, mean_pairwise_distance, precision_recall
from cgankd.tasks import Task

FEWEST = 10  # images on either side of a score
WHOLE = (("FID", "lower"), ("KID", "lower"), ("precision", "higher"), ("recall", "higher"))

# value and spread (None where there is none), images, why there is no value; of a mean over label windows also
# windows: how many have a value, of how many
Measured = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Observed:
    """Images as the networks see them.

    labels: [N], by which they are put into label windows. asked: [N], the label that the generator was asked for
    (a real image's own). outputs: the teacher's, [N, number of outputs], None where it has not answered.
    features: float32 [N, F] by the name of the network whose penultimate layer they are, ``teacher`` and nokd.
    """

    labels: Tensor
    asked: Tensor
    outputs: Tensor | None
    features: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.labels)


def score(
    reference: Observed,
    candidates: Mapping[str, Observed],
    held_out: Observed,
    task: Task,
    settings: GeneratorMetricsSettings,
    seed: int,
) -> dict[str, Any]:
    """Every score of every candidate against ``reference``, in each feature space.

    candidates: by name; among them ``real``: other real images, whose scores are the floor. held_out: real images
    that the teacher was not trained on, for the floor of the label score.

    Returns ``scores``: one mapping per score with its name (as "FID[teacher]"), better (higher or lower), dimension
    and reference (number of real images), and :data:`Measured` by candidate. And ``windows``: per feature space the
    Fréchet distance in every label window, by candidate, None where either side has fewer than ten images.
    """
    scores: list[dict[str, Any]] = []
    windows: list[dict[str, Any]] = []
    names, real_windows = task.windows(reference.labels, settings.windows, settings.window)
    inside = {
        name: task.windows(images.labels, settings.windows, settings.window)[1] for name, images in candidates.items()
    }
    for space in settings.features:
        real = reference.features[space]
        found = {name: _whole(real, images.features[space], seed) for name, images in candidates.items()}
        distances = {
            name: _per_window(real, real_windows, images.features[space], inside[name])
            for name, images in candidates.items()
        }
        variety = {
            name: _variety(real, real_windows, images.features[space], inside[name])
            for name, images in candidates.items()
        }
        counts = {name: len(images) for name, images in candidates.items()}
        rows = [
            *((name, better, {which: values[name] for which, values in found.items()}) for name, better in WHOLE),
            (task.window_score, "lower", _means(distances, counts)),
            ("diversity", "higher", _means(variety, counts)),
        ]
        basis = {"dimension": real.shape[1], "reference": len(real)}
        scores += [{"name": f"{name}[{space}]", "better": better, **basis, "of": of} for name, better, of in rows]
        windows.append({"name": f"{task.window_score}[{space}]", "windows": names, "of": distances})
    judged = {**candidates, "real": held_out}
    scores.append({
        "name": f"label score[teacher], {task.metric_unit}".rstrip(", "),
        "better": "higher" if task.higher_is_better else "lower", "dimension": None, "reference": None,
        "of": {name: _label_score(images, task) for name, images in judged.items()},
    })  # fmt: skip
    return {"scores": scores, "windows": windows}


def _measured(value: float | None, images: int, spread: float | None = None, why: str | None = None) -> Measured:
    return {"value": value, "spread": spread, "images": images, "why": why}


def _too_few(images: int) -> Measured:
    return _measured(None, images, why=f"{images} images; a score needs {FEWEST} on either side")


def _whole(real: Tensor, fake: Tensor, seed: int) -> dict[str, Measured]:
    """The scores of all images at once, whatever their labels."""
    count = len(fake)
    if min(len(real), count) < FEWEST:
        return {name: _too_few(min(len(real), count)) for name, _ in WHOLE}
    mean, spread = kernel_distance(real, fake, seed)
    precision, recall = precision_recall(real, fake)
    return {
        "FID": _measured(frechet_distance(real, fake), count),
        "KID": _measured(mean, count, spread),
        "precision": _measured(precision, count),
        "recall": _measured(recall, count),
    }


def _per_window(real: Tensor, real_inside: Tensor, fake: Tensor, inside: Tensor) -> list[float | None]:
    """The Fréchet distance in each window (Intra-FID of classes; SFID of scalars, Ding et al., ICLR 2021)."""
    found: list[float | None] = []
    for real_rows, rows in zip(real_inside, inside, strict=True):
        enough = min(int(real_rows.sum()), int(rows.sum())) >= FEWEST
        found.append(frechet_distance(real[real_rows], fake[rows]) if enough else None)
    return found


def _variety(real: Tensor, real_inside: Tensor, fake: Tensor, inside: Tensor) -> list[float | None]:
    """Mean distance between fakes of one window, as a share of that between real images; 1: as varied as those."""
    found: list[float | None] = []
    for real_rows, rows in zip(real_inside, inside, strict=True):
        enough = min(int(real_rows.sum()), int(rows.sum())) >= FEWEST
        whole = mean_pairwise_distance(real[real_rows]) if enough else 0.0
        found.append(mean_pairwise_distance(fake[rows]) / whole if whole > 0 else None)
    return found


def _means(values: Mapping[str, list[float | None]], images: Mapping[str, int]) -> dict[str, Measured]:
    """Mean and standard deviation over label windows, of each candidate.

    Only windows where all candidates have a value count (those apart that have none at all): a set that lacks the
    difficult labels must not look better for it.
    """
    present = [found for found in values.values() if any(value is not None for value in found)]
    common = [place for place, row in enumerate(zip(*present, strict=True)) if None not in row]
    means: dict[str, Measured] = {}
    for name, found in values.items():
        known = [value for place in common if (value := found[place]) is not None]
        if known:
            spread = statistics.stdev(known) if len(known) > 1 else None
            means[name] = _measured(statistics.fmean(known), images[name], spread)
            means[name]["windows"] = [len(known), len(found)]
        else:
            why = f"no label window has {FEWEST} images of every kind"
            means[name] = _measured(None, images[name], why=why)
    return means


def _label_score(images: Observed, task: Task) -> Measured:
    """How well the teacher finds the label that was asked for: the task's metric on generated images."""
    if len(images) < FEWEST:
        return _too_few(len(images))
    if images.outputs is None:
        return _measured(None, len(images), why="the teacher has not answered about them all")
    return _measured(float(task.score(images.outputs, images.asked).mean()), len(images))
