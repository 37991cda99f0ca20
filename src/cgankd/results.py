"""From finished artifacts to results.json: rows over seeds, paired differences, what the synthesis did."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from scipy import stats

CONTROL = "nokd_longer"  # NOKD trained for as many steps: what a gain is measured against


def row(method: str, per_seed: Sequence[dict[str, Any]], details: dict[str, Any]) -> dict[str, Any]:
    """One row of the table. per_seed: the summaries of the fitted students, one per seed."""
    values = [summary["test"] for summary in per_seed]
    bins = zip(*(summary["test_per_bin"] for summary in per_seed), strict=True)
    return {
        "method": method,
        "network": per_seed[0]["network"],
        "parameters": per_seed[0]["parameters"],
        **details,
        "values": values,
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "per_bin": [None if None in scores else statistics.fmean(scores) for scores in bins],
        "difference": None,
    }


def compare(rows: list[dict[str, Any]]) -> None:
    """Give every row trained as long as the control its paired difference to it, in place."""
    control = next((r for r in rows if r["method"] == CONTROL), None)
    if control is None:
        return
    for other in rows:
        if other is not control and other["steps"] == control["steps"]:
            other["difference"] = {"to": CONTROL, **paired_difference(other["values"], control["values"])}


def paired_difference(values: Sequence[float], control: Sequence[float]) -> dict[str, Any]:
    """values - control, seed by seed: the differences, their mean, and its 95% t interval (None with one seed).

    >>> paired_difference([3.0, 5.0], [1.0, 2.0])["mean"]
    2.5
    """
    differences = [a - b for a, b in zip(values, control, strict=True)]
    mean, low, high = statistics.fmean(differences), None, None
    if len(differences) > 1:
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        half = float(stats.t.ppf(0.975, len(differences) - 1)) * error
        low, high = mean - half, mean + half
    return {"values": differences, "mean": mean, "low": low, "high": high}


def warnings(found: dict[str, Any]) -> list[str]:
    """Sentences about what a reader should know before believing the table."""
    said = []
    better = 1.0 if found["higher_is_better"] else -1.0
    if found["demonstration"]:
        said.append("This is a demonstration: training was cut short to show the road, and proves nothing.")
    elif len(found["seeds"]) < 3:
        said.append(f"{len(found['seeds'])} seed(s): a spread or an interval over so few says little.")
    control = next((r for r in found["rows"] if r["method"] == CONTROL), None)
    teacher = statistics.fmean(found["teacher"]["values"])
    if control and better * (teacher - control["mean"]) <= 0:
        said.append(
            f"The teacher ({teacher:.4g} {found['unit']}) is no better than the student trained alone for as many "
            f"steps ({control['mean']:.4g} {found['unit']}): it has nothing to transfer."
        )
    made = found.get("synthesis")
    if made and made["kept"] < made["requested"]:
        said.append(
            f"{made['requested'] - made['kept']} of {made['requested']} images are missing: their labels reached "
            "synthesis.max_draws draws per image."
        )
    return said
