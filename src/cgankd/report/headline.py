"""The main result as a sentence: it reports a gain only where the interval excludes zero."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from cgankd.report import table

DEMONSTRATION = "This recipe is a demonstration: short enough to try, too short to be evidence."


@dataclasses.dataclass(frozen=True)
class Headline:
    """``finding`` is the sentence's result, for the page's colour and for tests."""

    finding: Literal["gain", "no gain", "open"]
    sentence: str


def headline(results: Mapping[str, Any]) -> Headline:
    """Compare cGAN-KD with the control; without cGAN-KD, another row with generated images.

    The row is chosen by its name, never by its score, so the sentence can't report the best row by chance.
    """
    by_method = {row["method"]: row for row in results["rows"]}
    row = _subject(results, by_method)
    if row is None:
        return Headline(
            "open", "This run has no row that was trained on generated images, so there is nothing to compare."
        )
    name = table.words(row["method"])
    scored = f"{name} {table.score(results, row['mean'], row.get('std'))}"
    control = by_method.get(str(results.get("control")))
    difference = row.get("difference")
    if control is None or not difference:
        return Headline(
            "open",
            f"{scored}. The run has no control (the student trained as many steps without transfer), "
            "so whether this is a gain is unknown.",
        )
    against = table.score(results, control["mean"], control.get("std"))
    unit = table.difference_unit(results)
    change = table.number(difference["mean"], table.decimals(results), signed=True) + (f" {unit}" if unit else "")
    better = "" if results["higher_is_better"] else " (lower is better)"
    facts = f"{scored} against {against} for the student trained as many steps without transfer{better}: {change}"
    interval = table.interval(results, difference)
    verdict = table.verdict(results, row)
    if interval is None:
        return Headline("open", f"{facts}. One seed: no interval; a demonstration, not evidence.")
    if verdict == "better":
        result = Headline("gain", f"{facts}, 95% interval {interval}.")
    elif verdict == "worse":
        result = Headline("no gain", f"No gain but a loss: {facts}, 95% interval {interval}.")
    else:
        result = Headline("no gain", f"No gain shown: {facts}; the 95% interval {interval} includes zero.")
    if results.get("demonstration"):
        result = dataclasses.replace(result, sentence=f"{result.sentence} {DEMONSTRATION}")
    return result


def _subject(results: Mapping[str, Any], by_method: Mapping[str, Any]) -> Any:
    for method in ("cgan", "cgan_kd"):
        if method in by_method:
            return by_method[method]
    with_fakes = [row for row in results["rows"] if row.get("fake_images")]
    return with_fakes[-1] if with_fakes else None
