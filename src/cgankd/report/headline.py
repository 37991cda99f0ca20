"""The main result in sentences: what generated images add, by rows that were chosen on the validation split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cgankd.metrics.statistics import paired_difference, place_of_best
from cgankd.report import table

DEMONSTRATION = "This recipe is a demonstration: short enough to try, too short to be evidence."
Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Headline:
    """``finding`` is the sentence's result, for the page's colour and for tests."""

    finding: Literal["gain", "no gain", "open"]
    sentence: str


def headline(results: Mapping[str, Any]) -> Headline:
    """Compare the best row with generated images with the best row without.

    Both are chosen on the validation split, so the test split measures the difference without having chosen the rows.
    Rows without a validation score are not compared, and are named. Where no row has one, cGAN-KD is compared with the
    control.
    """
    if results.get("autopilot"):
        return _piloted(results)
    sides = [[row for row in results["rows"] if bool(row.get("fake_images")) is fake] for fake in (True, False)]
    chosen = [_best(results, rows) for rows in sides]
    unscored = [str(row["method"]) for rows in sides for row in rows if _validation(row) is None]
    notes = [f"Without a validation score, so not compared: {', '.join(unscored)}."] if unscored else []
    if not any(chosen):
        chosen, notes = _by_name(results), [_NO_VALIDATION]
    with_fakes, without = chosen
    if with_fakes is None or without is None:
        return Headline("open", " ".join([_missing(with_fakes, without), *notes]))
    result = _compared(results, with_fakes, without)
    if results.get("demonstration"):
        notes.append(DEMONSTRATION)
    return dataclasses.replace(result, sentence=" ".join([result.sentence, *notes]))


_NO_VALIDATION = (
    "The results have no validation scores, so the best rows can't be chosen fairly; compared are cGAN-KD and the "
    "student trained alone for as many steps."
)


def _validation(row: Row) -> float | None:
    mean = (row.get("val") or {}).get("mean")
    return None if mean is None else float(mean)


def _best(results: Mapping[str, Any], rows: Sequence[Row]) -> Row | None:
    """The row with the best mean validation score; None where no row has one."""
    scored = [(row, score) for row in rows if (score := _validation(row)) is not None]
    if not scored:
        return None
    return scored[place_of_best([score for _, score in scored], results["higher_is_better"])][0]


def _by_name(results: Mapping[str, Any]) -> list[Row | None]:
    rows = {row["method"]: row for row in results["rows"]}
    return [rows.get("cgan") or rows.get("cgan_kd"), rows.get(str(results.get("control")))]


def _missing(with_fakes: Row | None, without: Row | None) -> str:
    if with_fakes is None and without is None:
        return "There is nothing to compare."
    kind = "on generated images" if with_fakes is None else "without generated images"
    return f"This run has no row to compare that was trained {kind}, so what generated images add is not known."


def _piloted(results: Mapping[str, Any]) -> Headline:
    """The row that the autopilot chose, beside the control: the only rows whose test scores are read."""
    rows = {row["method"]: row for row in results["rows"]}
    chosen, control = rows[results["autopilot"]["chosen"]], rows[results["control"]]
    scores = [table.score(results, row["mean"], row.get("std")) for row in (chosen, control)]
    better = "" if results["higher_is_better"] else " (lower is better)"
    measured = table.metric_name(results).split(",")[0]
    notes = f" {DEMONSTRATION}" if results.get("demonstration") else ""
    return Headline(
        "open",
        f"The row chosen by validation ({table.words(str(chosen['method']))}): the student's {measured} on the test "
        f"split is {scores[0]}; that of the student alone, trained for as many steps, is {scores[1]}{better}.{notes}",
    )


def _compared(results: Mapping[str, Any], with_fakes: Row, without: Row) -> Headline:
    scores = [table.score(results, row["mean"], row.get("std")) for row in (with_fakes, without)]
    names = [table.words(str(row["method"])).replace(" (control)", "") for row in (with_fakes, without)]
    better = "" if results["higher_is_better"] else " (lower is better)"
    measured = table.metric_name(results).split(",")[0]
    chosen = "the rows that are best on the validation split" if _validation(with_fakes) is not None else "two rows"
    facts = (
        f"Of {chosen}: with generated images ({names[0]}) the student's {measured} on the test split is {scores[0]}; "
        f"without ({names[1]}) it is {scores[1]}{better}. "
    )
    change = paired_difference(with_fakes["values"], without["values"])
    places = table.decimals({**results, "rows": [{"mean": without["mean"], "std": None, "difference": change}]})
    places = max(places, table.decimals(results))
    unit = table.difference_unit(results)
    facts += f"The difference is {table.number(change['mean'], places)}{' ' if unit else ''}{unit}"
    if change["low"] is None:
        return Headline("open", f"{facts}. With one seed there is no interval, so the difference may be chance.")
    low, high = (table.number(change[end], places) for end in ("low", "high"))
    facts += f", 95% interval {low} to {high}"
    if change["low"] <= 0 <= change["high"]:
        return Headline("no gain", f"{facts}, so it may be chance.")
    if (change["low"] > 0) == bool(results["higher_is_better"]):
        return Headline("gain", f"{facts}, so generated images help here.")
    return Headline("no gain", f"{facts}, so generated images make the student worse here.")
