"""Statistics over seeds, for all tables: mean and standard deviation, paired differences, intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

Z_975 = 1.959964  # of the normal distribution, which has 95 % between minus and plus this
UNEVEN = 1.5  # the largest test class beside the smallest, from which the balanced accuracy is another question


def spread(values: Sequence[float]) -> dict[str, Any]:
    """The values, their mean (None without values) and standard deviation (None with fewer than two).

    >>> spread([1.0, 3.0])
    {'values': [1.0, 3.0], 'mean': 2.0, 'std': 1.4142135623730951}
    """
    mean = statistics.fmean(values) if values else None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"values": list(values), "mean": mean, "std": deviation}


def balanced_accuracy(accuracies: Sequence[float | None], images: Sequence[int]) -> float | None:
    """The mean of the classes' accuracies, in which each class counts alike however many test images it has.

    None where it says nothing new, because all classes have about as many images. A class without images is left out.

    >>> balanced_accuracy([90.0, 70.0, None], [24, 12, 0]), balanced_accuracy([90.0, 70.0], [10, 9])
    (80.0, None)
    """
    tested = {place: count for place, count in enumerate(images) if count}
    if not tested or max(tested.values()) < UNEVEN * min(tested.values()):
        return None
    return statistics.fmean(accuracy for place in tested if (accuracy := accuracies[place]) is not None)


def place_of_best(
    values: Sequence[float], higher_is_better: bool, losses: Sequence[float | None] = (), images: int | None = None
) -> int:
    """The place of the best value; of equal ones that of the lowest loss, and then the first.

    losses: of the same students on the same images; empty, or None in it: not known, and so not used. Few validation
    images make many students equal: with 20 of them accuracies are 5 % apart. The loss still tells them apart. images:
    the number of these images; accuracies in % within a standard error of the best one then count as equal to it,
    because there the loss says more (docs/research-notes.md).

    >>> place_of_best([3.0, 5.0, 5.0], True), place_of_best([3.0, 5.0], False)
    (1, 0)
    >>> place_of_best([3.0, 5.0, 5.0], True, [0.1, 0.3, 0.2]), place_of_best([3.0, 5.0, 5.0], True, [0.1, 0.3, None])
    (2, 1)
    >>> place_of_best([90.0, 88.0, 70.0], True, [0.3, 0.2, 0.1], images=100)
    1
    """
    known = [loss for loss in losses if loss is not None]
    if len(known) < len(values):
        known = [0.0] * len(values)
    sign = -1.0 if higher_is_better else 1.0
    best = min(sign * value for value in values)
    measured = higher_is_better and any(known)
    within = standard_error("accuracy", -best, images) if measured and images else 0.0
    near = [place for place, value in enumerate(values) if sign * value <= best + within]
    return min(near, key=lambda place: (known[place], sign * values[place]))


def standard_error(metric: str, score: float, images: int) -> float:
    """How far a score on so many images lies from that on very many, in the score's unit: one standard deviation.

    accuracy: in points, with two right and two wrong answers added (Agresti and Coull), so that 0 % and 100 % are not
    taken as certain. mae: as of a normal error, whose absolute value has a standard deviation of .76 times its mean.

    >>> round(standard_error("accuracy", 100.0, 50), 1), standard_error("mae", 4.0, 100)
    (2.7, 0.304)
    """
    if metric != "accuracy":
        return 0.76 * score / math.sqrt(images)
    share = (score / 100 * images + 2) / (images + 4)
    return 100 * math.sqrt(share * (1 - share) / images)


def wilson(share: float, images: int) -> tuple[float, float]:
    """The 95% interval of a share that was seen on so many images (Wilson, 1927), also of 0 and 1.

    >>> [round(end, 3) for end in wilson(1.0, 50)]
    [0.929, 1.0]
    """
    square = Z_975**2 / images
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(square * share * (1 - share) + square**2 / 4) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """The mean; None where there are no values, or one is not known.

    >>> mean_of_known([1.0, 2.0]), mean_of_known([1.0, None]), mean_of_known([])
    (1.5, None, None)
    """
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def few_seeds(seeds: int, demonstration: bool = False) -> list[str]:
    """The warning that a table over this number of seeds needs, if any; of a demonstration, that it proves nothing."""
    if demonstration:
        return ["This is a demonstration: its trainings are too short to prove anything."]
    if seeds == 1:
        return ["One seed: no spread and no interval, so a difference may be chance."]
    return ["Fewer than three seeds: a spread or an interval over so few says little."] if seeds < 3 else []


def paired_difference(values: Sequence[float], control: Sequence[float]) -> dict[str, Any]:
    """values - control, seed by seed: the differences, their mean, and its 95% t interval.

    The interval is None with one seed, and where all differences are equal: with few test images this happens by
    chance, and a spread of 0 would make any difference certain.

    Rounded to ten decimals, so that equal scores give 0 rather than 1e-15; scores below 1 to ten of their digits.

    >>> paired_difference([3.0, 5.0], [1.0, 2.0])["mean"], paired_difference([3e-11], [1e-11])["mean"]
    (2.5, 2e-11)
    >>> paired_difference([2.0, 3.0], [1.0, 2.0])
    {'values': [1.0, 1.0], 'mean': 1.0, 'low': None, 'high': None}
    """
    largest = max(map(abs, [*values, *control]))
    places = 10 - math.floor(math.log10(largest)) if 0 < largest < 1 else 10
    differences = [round(a - b, places) for a, b in zip(values, control, strict=True)]
    mean, low, high = round(statistics.fmean(differences), places), None, None
    if len(set(differences)) > 1:
        from scipy import special  # takes half a second to import, and scipy.stats a second

        error = statistics.stdev(differences) / math.sqrt(len(differences))
        half = float(special.stdtrit(len(differences) - 1, 0.975)) * error
        low, high = mean - half, mean + half
    return {"values": differences, "mean": mean, "low": low, "high": high}


def count_signs(differences: Sequence[float]) -> dict[str, int]:
    """How many differences there are, and how many are above and below zero.

    Only counts, because rows of one run share teacher, generator and initial weights, so a sign test is not valid.

    >>> count_signs([0.3, 0.1, 0.0, -0.2])
    {'pairs': 4, 'better': 2, 'worse': 1}
    """
    better, worse = (sum(sign * value > 0 for value in differences) for sign in (1, -1))
    return {"pairs": len(differences), "better": better, "worse": worse}
