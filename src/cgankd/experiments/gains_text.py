"""What generated images add, as people read it: a line per method and cell, sign tests, and where nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cgankd.report import markdown
from cgankd.report import table as style

FEWEST_PAIRS = 6  # five pairs that all agree still have p = 0.0625

Made = Mapping[str, Any]

DEPENDENT = (
    "A pair is one method in one cell, by its means over the seeds: one vote. Methods of a cell share the teacher, "
    "the generated images and their first weights, so votes are not independent and p is optimistic. Seeds share "
    "these too, and are counted but not tested."
)


def gains_table(made: Made, places: int) -> str:
    """One table's gains by method, with columns for student and setting where there are several.

    places: decimals.
    """
    pairs = [(gain, cell) for cell in made["cells"] for gain in cell["gains"]]
    several = [which for which in ("student", "setting") if len(made[f"{which}s"]) > 1]
    unit = style.difference_unit(made)
    columns = ["X", *several, "X alone", "cGAN-KD + X", f"difference{f', {unit}' if unit else ''} [95% interval]"]
    lines = [[*columns, "better in"]]
    for gain, cell in sorted(pairs, key=lambda pair: (pair[0]["of"] != "cgan", style.compared(pair[0]["of"]))):
        means = {row["method"]: row for row in cell["rows"]}
        lines.append(
            [
                style.compared(gain["of"]),
                *(cell[which] or "–" for which in several),
                *(style.mean_and_spread(means[gain[which]], places) for which in ("to", "of")),
                style.difference(gain, places),
                f"{gain['better']} of {_seeds(len(gain['values']))}",
            ]
        )
    return markdown.grid(lines)


def tests(found: Made) -> list[str]:
    """Sentences on the sign tests of table.json: per task, and per method where there are pairs enough."""
    said = [_of_task(test) for test in found["tasks"] if test["pairs"]]
    if not said:
        return ["No method was compared alone and with generated images."]
    said += [sign_test_sentence(test) for test in found["methods"] if test["pairs"] >= FEWEST_PAIRS]
    few = [test for test in found["methods"] if 1 < test["pairs"] < FEWEST_PAIRS]  # a single pair is a line above
    if few:
        counts = [f"{test['of']} {test['better']} of {test['pairs']}" for test in few]
        said.append(f"Fewer than {FEWEST_PAIRS} pairs of a method prove nothing; better in: {', '.join(counts)}.")
    return [*said, DEPENDENT]


def sign_test_sentence(test: Made) -> str:
    """What a sign test says, and what it can't: fewer than six pairs never reach p < 0.05."""
    return f"{test['of']} against {test['to']}: {_verdict(test)}"


def unhelped(tables: Sequence[Made], places: Sequence[int]) -> list[str]:
    """The pairs whose mean is no better with generated images, the worst of each table first."""
    said = []
    for made, decimals in zip(tables, places, strict=True):
        unit = style.difference_unit(made)
        pairs = [(gain, cell) for cell in made["cells"] for gain in cell["gains"]]
        gained = [style.improvement(made, gain["mean"]) for gain, _ in pairs]
        for place in sorted((at for at, value in enumerate(gained) if value <= 0), key=gained.__getitem__):
            gain, cell = pairs[place]
            where = ", ".join(part for part in (made["recipe"], cell["student"], cell["setting"]) if part)
            better = f"better in {gain['better']} of {_seeds(len(gain['values']))}"
            gained_by = style.difference(gain, decimals, unit)
            said.append(f"{where}: {style.compared(gain['of'])}, {gained_by}, {better}")
    return said


def _of_task(test: Made) -> str:
    seeds = test["seeds"]
    return (
        f"{test['task']} ({', '.join(test['recipes'])}), cGAN-KD + X against X: {_verdict(test)} "
        f"By seed: {seeds['better']} of {seeds['pairs']} better, {seeds['worse']} worse."
    )


def _verdict(test: Made) -> str:
    if not test["pairs"]:
        return "no pairs."
    counted = test["better"] + test["worse"]
    ties = f", {test['pairs'] - counted} equal" if counted < test["pairs"] else ""
    p = "" if test["p"] is None else f", p = {test['p']:.2g} (two-sided)"
    pairs = "1 pair" if test["pairs"] == 1 else f"{test['pairs']} pairs"
    said = f"{pairs}, {test['better']} better, {test['worse']} worse{ties}{p}"
    return f"{said}; so few pairs prove nothing." if counted < FEWEST_PAIRS else f"{said}."


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
