"""The main result in sentences: what generated images add, or, where a run has none, which student ships.

The rows are chosen on the validation split.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cgankd.core import run_text
from cgankd.metrics.statistics import mean_of_known, paired_difference, place_of_best
from cgankd.report import shipped, table

EXPORTED = ("student.onnx", "student.safetensors")  # what cgankd run writes, the usual one first
DEMONSTRATION = "This recipe is a demonstration: short enough to try, too short to be evidence."
Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Headline:
    """``finding`` is the sentence's result, for the page's colour and for tests."""

    finding: Literal["gain", "no gain", "open"]
    sentence: str


def headline(results: Mapping[str, Any], folder: Path | None = None) -> Headline:
    """Compare the best row with generated images with the best row without.

    A run without generated images has the student that ships as its result. folder: of the run, to name the student's
    file; None: the file is not named.

    Both are chosen on the validation split, so the test split measures the difference without having chosen the rows.
    Rows without a validation score are not compared, and are named. Where no row has one, cGAN-KD is compared with the
    control.
    """
    found = _found(results, folder)
    sentences = [found.sentence, _on_all_labels(results), _images(results)]
    return dataclasses.replace(found, sentence=" ".join(filter(None, sentences)))


def _found(results: Mapping[str, Any], folder: Path | None) -> Headline:
    """The main result before the chosen student is trained again."""
    if results.get("autopilot"):
        return _piloted(results)
    if not table.generates(results) and (row := shipped.chosen(results)) is not None:
        return _shipped(results, row, folder)
    sides = [[row for row in results["rows"] if bool(row.get("fake_images")) is fake] for fake in (True, False)]
    ships = shipped.chosen(results)
    chosen = [ships if ships is not None and ships in rows else _best(results, rows) for rows in sides]
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
    "student trained alone, with equal steps."
)


def _validation(row: Row) -> float | None:
    mean = (row.get("val") or {}).get("mean")
    return None if mean is None else float(mean)


def _best(results: Mapping[str, Any], rows: Sequence[Row]) -> Row | None:
    """The row that validation chooses, as :func:`cgankd.metrics.statistics.place_of_best`; None where no row has a
    score."""
    scored = [(row, score) for row in rows if (score := _validation(row)) is not None]
    if not scored:
        return None
    losses = [mean_of_known(row["val"].get("losses", [])) for row, _ in scored]
    images = (results.get("counts") or {}).get("val")
    return scored[place_of_best([score for _, score in scored], results["higher_is_better"], losses, images)][0]


def _by_name(results: Mapping[str, Any]) -> list[Row | None]:
    rows = {row["method"]: row for row in results["rows"]}
    return [rows.get("cgan") or rows.get("cgan_kd"), rows.get(str(results.get("control")))]


def _on_all_labels(results: Mapping[str, Any]) -> str:
    """The student that was trained again; "" where there is none, or it does not ship."""
    again = results.get("refit")
    if not again or not again["ships"]:
        return ""
    images, scored = table.count(shipped.labelled(again)), table.score(results, again["mean"], None)
    return (
        f"What ships is row {again['method']} trained again, with the validation images among its {images} labelled "
        f"ones: {scored} on the test split."
    )


def _images(results: Mapping[str, Any]) -> str:
    """The training images of the student that ships, where rows of the run have images without labels; else ""."""
    ships = shipped.shipped(results)
    if ships is None or not any(row.get("pseudo_labelled") for row in results["rows"]):
        return ""
    return f"The student that ships learnt from {shipped.trained_on(ships)}."


def _missing(with_fakes: Row | None, without: Row | None) -> str:
    if with_fakes is None and without is None:
        return "There is nothing to compare."
    kind = "on generated images" if with_fakes is None else "without generated images"
    return f"This run has no row to compare that was trained {kind}, so what generated images add is not known."


def _measured(results: Mapping[str, Any]) -> tuple[str, str]:
    """The metric's name, and words to put after its values where lower ones are better."""
    return run_text.metric_name(str(results["metric"])), "" if results["higher_is_better"] else " (lower is better)"


def _piloted(results: Mapping[str, Any]) -> Headline:
    """The row that the autopilot chose, beside the control: the only rows whose test scores are read."""
    rows = {row["method"]: row for row in results["rows"]}
    chosen, control = rows[results["autopilot"]["chosen"]], rows[results["control"]]
    scores = [table.score(results, row["mean"], row.get("std")) for row in (chosen, control)]
    measured, better = _measured(results)
    best, notes = shipped.chosen(results), ""
    if best is not None and best is not chosen:  # the control
        vals = [table.score(results, _validation(row), None) for row in (best, chosen)]
        if _validation(best) == _validation(chosen):
            why = f"both have {vals[0]}, the latter with a lower loss"
        elif table.improvement(results, float(_validation(best) or 0.0) - float(_validation(chosen) or 0.0)) > 0:
            why = f"the latter is better ({vals[0]} against {vals[1]})"
        else:
            why = f"the latter has {vals[0]} against {vals[1]}, which may be chance, and a lower loss"
        notes = f" On the validation split {why}, so it ships."
    notes += f" {DEMONSTRATION}" if results.get("demonstration") else ""
    return Headline(
        "open",
        f"The row chosen by validation ({table.words(str(chosen['method']))}): the student's {measured} on the test "
        f"split is {scores[0]}; that of the student alone, with equal steps, is {scores[1]}{better}.{notes}",
    )


def _compared(results: Mapping[str, Any], with_fakes: Row, without: Row) -> Headline:
    scores = [table.score(results, row["mean"], row.get("std")) for row in (with_fakes, without)]
    names = [table.plain_words(str(row["method"])) for row in (with_fakes, without)]
    measured, better = _measured(results)
    chosen = "the best rows by validation" if _validation(with_fakes) is not None else "two rows"
    facts = (
        f"Of {chosen}: with generated images ({names[0]}) the student's {measured} on the test split is {scores[0]}; "
        f"without ({names[1]}) it is {scores[1]}{better}. "
    )
    change, difference = _difference(results, with_fakes, without)
    facts += difference
    if change["low"] is None:
        why = "With one seed" if len(change["values"]) == 1 else "Where it is the same for all seeds,"
        return Headline("open", f"{facts}. {why} there is no interval, so the difference may be chance.")
    if change["low"] <= 0 <= change["high"]:
        return Headline("no gain", f"{facts}, so it may be chance.")
    if (change["low"] > 0) == bool(results["higher_is_better"]):
        return Headline("gain", f"{facts}, so generated images help here.")
    return Headline("no gain", f"{facts}, so generated images make the student worse here.")


def _difference(results: Mapping[str, Any], row: Row, other: Row) -> tuple[dict[str, Any], str]:
    """The paired difference of two rows, and ``The difference is 1.9 points, 95% interval 0.8 to 2.9``."""
    change = paired_difference(row["values"], other["values"])
    places = table.decimals({**results, "rows": [{"mean": other["mean"], "std": None, "difference": change}]})
    places = max(places, table.decimals(results))
    unit = table.difference_unit(results)
    sentence = f"The difference is {table.number(change['mean'], places)}{' ' if unit else ''}{unit}"
    if change["low"] is not None:
        low, high = (table.number(change[end], places) for end in ("low", "high"))
        sentence += f", 95% interval {low} to {high}"
    return change, sentence


def _shipped(results: Mapping[str, Any], row: Row, folder: Path | None) -> Headline:
    """The student that ships: beside the control and the teacher, its size and its file."""
    control = next((other for other in results["rows"] if other["method"] == results.get("control")), None)
    teacher = results.get("teacher") or {}
    others = [] if control in (None, row) else [("the control's", control["mean"], control.get("std"))]
    if teacher.get("test") is not None:
        others.append(("the teacher's", teacher["test"], None))
    measured, better = _measured(results)
    seeds = f" (mean of {len(row['values'])} seeds)" if len(row["values"]) > 1 else ""
    beside = " and ".join(f"{whose} is {table.score(results, mean, std)}" for whose, mean, std in others)
    name = table.plain_words(str(row["method"]))
    which = "the control, because validation finds no other row better" if row is control else "chosen by validation"
    sentences = [
        f"Your student is row {row['method']} ({name}), {which}.",
        f"Its {measured} on the test split{seeds} is {table.score(results, row['mean'], row.get('std'))}"
        f"{'; ' if beside else ''}{beside}{better}.",
    ]
    finding: Literal["gain", "no gain", "open"] = "open"
    if control not in (None, row):
        change, difference = _difference(results, row, control)
        if change["low"] is not None:
            clear = not change["low"] <= 0 <= change["high"]
            finding = "gain" if clear and table.improvement(results, change["mean"]) > 0 else "no gain"
            chance = "" if clear else ", so it may be chance"
            sentences.append(f"{difference.replace('difference', 'difference to the control')}{chance}.")
    sentences += [_size(row, teacher), _file(folder), DEMONSTRATION if results.get("demonstration") else ""]
    return Headline(finding, " ".join(sentence for sentence in sentences if sentence))


def _size(row: Row, teacher: Row) -> str:
    """The numbers of parameters; empty where the student's is not known."""
    own, of_teacher = row.get("parameters"), teacher.get("parameters")
    if not own:
        return ""
    if not of_teacher or of_teacher <= own:
        return f"It has {table.count(own)} parameters."
    return f"It has {table.count(own)} parameters; the teacher has {of_teacher / own:.1f} times as many."


def _file(folder: Path | None) -> str:
    if folder is None:
        return ""
    for path in (folder / name for name in EXPORTED):
        if path.is_file():
            return f"Its file is {path.name} in the run's folder ({max(1, round(path.stat().st_size / 1000)):,} kB)."
    return "cgankd export writes it to a file."
