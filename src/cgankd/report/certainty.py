"""How well the test images tell the score of the student that ships: its interval over images, where it is wide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cgankd.core import run_text
from cgankd.metrics.statistics import Z_975, wilson
from cgankd.report import shipped

WIDE = 2.0  # points of accuracy, half of an interval
WIDE_ERROR = 0.1  # of the mean absolute error, its standard error


def footnotes(results: Mapping[str, Any], score: Callable[[Mapping[str, Any], float, None], str]) -> list[str]:
    """A sentence on the interval of the student that ships; [] where it is narrow or not known.

    score: :func:`.table.score`, which imports this module.
    """
    entry, images, best = shipped.shipped(results), (results.get("counts") or {}).get("test"), results.get("best") or {}
    if entry is None or not images:
        return []
    seeds, name, value = results["seeds"], str(entry["method"]), float(entry["mean"])
    if entry is results.get("refit"):
        name = shipped.all_labels(name)
    elif len(seeds) > 1:  # the row's score is a mean
        name, value = f"{name}, seed {best['seed']}", float(entry["values"][seeds.index(best["seed"])])
    if results["metric"] == "accuracy":
        low, high = (100 * end for end in wilson(value / 100, images))
        known = f"{low:.0f} and {high:.0f} %" if high - low > 2 * WIDE else ""
    else:
        error = best.get("test_standard_error") or 0.0
        ends = (score(results, end, None) for end in (max(0.0, value - Z_975 * error), value + Z_975 * error))
        known = " and ".join(ends) if error > WIDE_ERROR * value else ""
    measured = f"the test {run_text.metric_name(str(results['metric']))} of {name} ({score(results, value, None)})"
    told = f"With {images:,} test images, {measured} is only known to be between {known} (95% interval)."
    return [told] if known else []
