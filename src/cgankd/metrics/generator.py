"""The generator's scores; each is also computed for real images in place of fakes, as a reference for the number."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cgankd.config.settings import GeneratorMetricsSettings
from cgankd.metrics.fidelity import frechet_distance, kernel_distance, mean_pairwise_distance, precision_recall
from cgankd.metrics.statistics import spread
from cgankd.tasks import Task

FEWEST = 10  # images on either side of a score
WHOLE = (("FID", "lower"), ("KID", "lower"), ("precision", "higher"), ("recall", "higher"))

# value and spread (None where there is none), images, why (there is no value); for a mean over label windows also
# windows: [number with a value, number]
Measured = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Observed:
    """Labels of images, and what networks compute from the images.

    labels: [N], which put the images into label windows. asked: [N], the label that the generator was given (for a real
    image its own). outputs: of the teacher, [N, number of outputs]; None where they are not known. features: float32
    [N, F] of penultimate layers, by network: ``teacher`` or ``nokd``.
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

    candidates: by name. Among them is ``real``, other real images, whose scores are the best to expect. held_out: real
    images that the teacher was not trained on, which replace these for the label score.

    Returns ``scores``: for each score its name (as "FID[teacher]"), better (higher or lower), dimension, reference
    (number of real images) and, by candidate, :data:`Measured`. And ``windows``: per feature space the Fréchet distance
    in every label window by candidate, None where either side has fewer than ten images.
    """
    scores: list[dict[str, Any]] = []
    windows: list[dict[str, Any]] = []
    names, real_windows = task.windows(reference.labels, settings.windows, settings.window)
    inside = {
        name: task.windows(images.labels, settings.windows, settings.window)[1] for name, images in candidates.items()
    }
    for space in settings.features:
        real = reference.features[space]
        whole = {name: _whole(real, images.features[space], seed) for name, images in candidates.items()}
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
            *((name, better, {which: values[name] for which, values in whole.items()}) for name, better in WHOLE),
            (task.window_score, "lower", _means(distances, counts, task)),
            ("diversity", "higher", _means(variety, counts, task)),
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


def _measured(value: float | None, images: int, std: float | None = None, why: str | None = None) -> Measured:
    return {"value": value, "spread": std, "images": images, "why": why}


def _too_few(images: int) -> Measured:
    return _measured(None, images, why=f"{images} images; a score needs {FEWEST} on either side")


def _whole(real: Tensor, fake: Tensor, seed: int) -> dict[str, Measured]:
    """The scores of all images together, without their labels."""
    count = len(fake)
    if min(len(real), count) < FEWEST:
        return {name: _too_few(min(len(real), count)) for name, _ in WHOLE}
    mean, std = kernel_distance(real, fake, seed)
    precision, recall = precision_recall(real, fake)
    return {
        "FID": _measured(frechet_distance(real, fake), count),
        "KID": _measured(mean, count, std),
        "precision": _measured(precision, count),
        "recall": _measured(recall, count),
    }


def _per_window(real: Tensor, real_inside: Tensor, fake: Tensor, inside: Tensor) -> list[float | None]:
    """The Fréchet distance in each window (Intra-FID for classes; SFID for scalars, Ding et al., ICLR 2021)."""
    distances: list[float | None] = []
    for real_rows, rows in zip(real_inside, inside, strict=True):
        enough = min(int(real_rows.sum()), int(rows.sum())) >= FEWEST
        distances.append(frechet_distance(real[real_rows], fake[rows]) if enough else None)
    return distances


def _variety(real: Tensor, real_inside: Tensor, fake: Tensor, inside: Tensor) -> list[float | None]:
    """The mean pairwise distance of fakes over that of real images, in each window; 1: as diverse as real images."""
    ratios: list[float | None] = []
    for real_rows, rows in zip(real_inside, inside, strict=True):
        enough = min(int(real_rows.sum()), int(rows.sum())) >= FEWEST
        of_real = mean_pairwise_distance(real[real_rows]) if enough else 0.0
        ratios.append(mean_pairwise_distance(fake[rows]) / of_real if of_real > 0 else None)
    return ratios


def _means(values: Mapping[str, list[float | None]], images: Mapping[str, int], task: Task) -> dict[str, Measured]:
    """Mean and standard deviation over classes or label windows, of each candidate.

    Only those where all candidates have a value count, because a set without the difficult labels must not look
    better. Candidates without any value are ignored.
    """
    present = [window for window in values.values() if any(value is not None for value in window)]
    common = [place for place, row in enumerate(zip(*present, strict=True)) if None not in row]
    means: dict[str, Measured] = {}
    for name, window in values.items():
        known = [value for place in common if (value := window[place]) is not None]
        if known:
            over_windows = spread(known)
            means[name] = _measured(over_windows["mean"], images[name], over_windows["std"])
            means[name]["windows"] = [len(known), len(window)]
        else:
            why = f"no {task.window_names[0]} has {FEWEST} images of every kind"
            means[name] = _measured(None, images[name], why=why)
    return means


def _label_score(images: Observed, task: Task) -> Measured:
    """The task's metric of the teacher on generated images, whose true label is the one given to the generator."""
    if len(images) < FEWEST:
        return _too_few(len(images))
    if images.outputs is None:
        return _measured(None, len(images), why="the teacher has no outputs for some of them")
    return _measured(float(task.score(images.outputs, images.asked).mean()), len(images))
