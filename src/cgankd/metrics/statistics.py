"""Mean and spread over seeds, paired differences, intervals: the only copy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from scipy import stats


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Values over the seeds, their mean and standard deviation (None of one)."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"values": list(values), "mean": statistics.fmean(values), "std": deviation}


def few_seeds(seeds: int) -> list[str]:
    """The sentence that a table of so few seeds needs, if any."""
    if seeds == 1:
        return ["One seed: no spread and no interval, so a difference may be chance."]
    return ["Fewer than three seeds: a spread or an interval over so few says little."] if seeds < 3 else []


def paired_difference(values: Sequence[float], control: Sequence[float]) -> dict[str, Any]:
    """values - control, seed by seed: the differences, their mean, and its 95% t interval (None with one seed).

    Rounded to ten decimals, so that what is level is 0, and no gain of 1e-15.

    >>> paired_difference([3.0, 5.0], [1.0, 2.0])["mean"]
    2.5
    """
    differences = [round(a - b, 10) for a, b in zip(values, control, strict=True)]
    mean, low, high = round(statistics.fmean(differences), 10), None, None
    if len(differences) > 1:
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        half = float(stats.t.ppf(0.975, len(differences) - 1)) * error
        low, high = mean - half, mean + half
    return {"values": differences, "mean": mean, "low": low, "high": high}


def count_signs(differences: Sequence[float]) -> dict[str, int]:
    """How many differences there are, and how many are above and below zero.

    Counts only: rows of one run share teacher, generator and first weights, so a sign test over them means nothing.

    >>> count_signs([0.3, 0.1, 0.0, -0.2])
    {'pairs': 4, 'better': 2, 'worse': 1}
    """
    better, worse = (sum(sign * value > 0 for value in differences) for sign in (1, -1))
    return {"pairs": len(differences), "better": better, "worse": worse}
