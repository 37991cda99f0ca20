"""The page's sections on what was chosen by the validation split: the autopilot's row, the search's settings."""

from __future__ import annotations

from cgankd.report import table
from cgankd.report.blocks import Grid, Note, Section
from cgankd.report.run import Run


def piloted(run: Run) -> Section:
    """The candidates that the autopilot tried, and the row that it chose."""
    flight, results = run.results["autopilot"], run.results
    lines = [
        [
            trial["row"],
            table.count(trial["steps"]),
            table.score(results, trial["val"], None),
            "chosen" if trial["row"] == flight["chosen"] else "",
        ]
        for trial in flight["trials"]
    ]
    header = ["row", "steps", f"validation {table.metric_with_unit(results)}", ""]
    notes = [Note(" ".join(flight["reasons"]))]
    return Section("Autopilot", "autopilot", [*notes, Grid(header, lines, "Trials, one seed", wide=False)])


def searched(run: Run) -> Section:
    """The values that the search on the validation split tried, and those that it chose."""
    search, results = run.results["search"], run.results
    names = {
        "start": "start",
        "rho": "filter's quantile",
        "labels": "label law",
        "images": "images kept",
    }
    chosen = search["chosen"]
    unique = [trial["score"] for trial in search["trials"]].count(search["score"]) == 1
    rows = [
        [
            names.get(trial["setting"], trial["setting"]),
            "the recipe's" if trial["value"] is None else f"{trial['value']}",
            table.score(results, trial["score"], None),
            "best" if trial["score"] == search["score"] and (trial["setting"] != "start" or unique) else "",
        ]
        for trial in search["trials"]
    ]
    rows.append(["no generated images", "", table.score(results, search["control"], None), "the control"])
    values = ", ".join(f"{names[name]} {value}" for name, value in chosen.items())
    caption = (
        f"Score on the validation split of a student trained with each value, one seed. Chosen: {values}. "
        + ("Better" if search["helps"] else "Not better")
        + " than no generated images on this split."
    )
    header = ["setting", "value", f"validation {table.metric_with_unit(results)}", ""]
    return Section("Search", "search", [Note(caption), Grid(header, rows, "What was tried", wide=False)])
