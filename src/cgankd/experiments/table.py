"""The paper's tables: students x settings, every row of the comparison in each, and what generated images add."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cgankd._version import __version__
from cgankd.core.files import write_json, write_text
from cgankd.core.progress import SILENT, Progress
from cgankd.experiments import dumbbells, gains, text
from cgankd.experiments.cells import Cell, Results, grid, results_of
from cgankd.metrics.statistics import spread
from cgankd.pipeline.comparisons import CONTROL

NAME = "table.json"


def make_table(
    recipes: Sequence[str],
    overrides: Sequence[str] = (),
    *,
    students: Sequence[str] = (),
    settings: Sequence[str] = (),
    methods: Sequence[str] = (),
    out: Path,
    progress: Progress = SILENT,
    deadline: float = math.inf,
) -> dict[str, Any]:
    """Run every recipe x setting x student; write table.json, table.md, table.csv and pictures to ``out``.

    students: networks by name. settings: groups of overrides, one column block each. methods: to be compared alone
    and with generated images, in place of the recipes' rows; ``all``: every one that all cells of a recipe can run.
    The files are written anew after every cell, and name the cells that are missing; the same call goes on where it
    was. Returns what table.json holds. Raises UserError for what the user can mend, before anything is trained, and
    OutOfTime after ``deadline`` as :func:`cgankd.pipeline.run` does.
    """
    cells = grid(recipes, overrides, students, settings, methods)
    made: dict[str, Any] = {}
    for found in results_of(cells, out, NAME, progress, deadline):
        made = summary(cells, found)
        write_json(out / NAME, made)
        write_text(out / "table.md", text.as_markdown(made))
        write_text(out / "table.csv", text.comma_separated(made))
        dumbbells.draw(made, out)
    return made


def summary(cells: Sequence[Cell], found: Sequence[Results | None]) -> dict[str, Any]:
    """What table.json holds, of the cells that are finished; nothing in it depends on a clock."""
    tables = []
    recipes = list(dict.fromkeys(cell.recipe.name for cell in cells))
    for name in recipes:
        own = [(cell, results) for cell, results in zip(cells, found, strict=True) if cell.recipe.name == name]
        finished = [(cell, results) for cell, results in own if results is not None]
        if not finished:
            continue
        head = finished[0][1]
        tables.append(
            {
                **{key: head[key] for key in ("recipe", "description", "dataset", "task", "metric", "unit")},
                "higher_is_better": head["higher_is_better"],
                "control": CONTROL,
                "students": list(dict.fromkeys(cell.student for cell, _ in own)),
                "settings": list(dict.fromkeys(cell.setting for cell, _ in own)),
                "methods": list(dict.fromkeys(row["method"] for _, r in finished for row in r["rows"])),
                "cells": [_cell(cell, results) for cell, results in finished],
            }
        )
    missing = [cell for cell, results in zip(cells, found, strict=True) if results is None]
    return {
        "cgankd": __version__,
        "recipes": recipes,
        "tables": tables,
        "counts": {"tasks": gains.by_task(tables), "methods": gains.by_method(tables)},
        "left_out": list(dict.fromkeys(f"{cell.recipe.name}: {why}" for cell in cells for why in cell.left_out)),
        "missing": [cell.name for cell in missing],
    }


def _cell(cell: Cell, found: Results) -> dict[str, Any]:
    shown = ("method", "parameters", "steps", "real_images", "fake_images", "values", "mean", "std")
    return {
        "student": cell.student,
        "setting": cell.setting,
        "folder": cell.folder,
        "seeds": found["seeds"],
        "vary": found["vary"],
        "rows": [{key: row[key] for key in shown} for row in found["rows"]],
        "gains": gains.gains(found),
        "teacher": _teacher(found["teacher"]),
        "warnings": found["warnings"],
    }


def _teacher(found: dict[str, Any]) -> dict[str, Any]:
    return {**{key: found[key] for key in ("network", "parameters", "trained_on")}, **spread(found["values"])}
