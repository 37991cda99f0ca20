"""The paper's tables: all rows of the comparison for students x settings, and what generated images add."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cgankd._version import __version__
from cgankd.core.files import write_json, write_text
from cgankd.core.paths import TABLE
from cgankd.core.progress import SILENT, Progress
from cgankd.experiments import dumbbells, gains, text
from cgankd.experiments.cells import Cell, Results, grid, results_of
from cgankd.experiments.executors import HERE, Executor
from cgankd.metrics.statistics import spread
from cgankd.pipeline.comparisons import CONTROL


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
    executor: Executor = HERE,
) -> dict[str, Any]:
    """Run every recipe x setting x student; write table.json, table.md, table.csv and figures to ``out``.

    students: names of networks. settings: groups of overrides, one block of columns each. methods: compared alone and
    with generated images, instead of the recipes' rows; ``all``: every method that all cells of a recipe can run. The
    files are written again after every cell, and list the missing cells; the same call continues where it stopped.
    executor: where cells run.
    Returns the content of table.json. Raises UserError for wrong input, before anything is trained, and OutOfTime after
    ``deadline``, like :func:`cgankd.pipeline.run`.
    """
    cells = grid(recipes, overrides, students, settings, methods)
    content: dict[str, Any] = {}
    for results in results_of(cells, out, TABLE, progress, deadline, executor):
        content = summary(cells, results)
        write_json(out / TABLE, content)
        write_text(out / "table.md", text.as_markdown(content))
        write_text(out / "table.csv", text.comma_separated(content))
        dumbbells.draw(content, out)
    return content


def summary(cells: Sequence[Cell], all_results: Sequence[Results | None]) -> dict[str, Any]:
    """The content of table.json for the finished cells; nothing in it depends on time."""
    tables = []
    recipes = list(dict.fromkeys(cell.recipe.name for cell in cells))
    for name in recipes:
        own = [(cell, results) for cell, results in zip(cells, all_results, strict=True) if cell.recipe.name == name]
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
                "columns": [[cell.setting, cell.student] for cell, _ in own],
                "methods": list(dict.fromkeys(row["method"] for _, r in finished for row in r["rows"])),
                "cells": [_cell(cell, results) for cell, results in finished],
            }
        )
    missing = [cell for cell, results in zip(cells, all_results, strict=True) if results is None]
    return {
        "cgankd": __version__,
        "recipes": recipes,
        "tables": tables,
        "counts": {"tasks": gains.by_task(tables), "methods": gains.by_method(tables)},
        "left_out": list(dict.fromkeys(f"{cell.recipe.name}: {why}" for cell in cells for why in cell.left_out)),
        "missing": [cell.name for cell in missing],
    }


def _cell(cell: Cell, results: Results) -> dict[str, Any]:
    keys = ("method", "parameters", "steps", "real_images", "fake_images", "values", "mean", "std")
    return {
        "student": cell.student,
        "setting": cell.setting,
        "folder": cell.folder,
        "seeds": results["seeds"],
        "vary": results["vary"],
        "rows": [{key: row[key] for key in keys} for row in results["rows"]],
        "gains": gains.gains(results),
        "teacher": _teacher(results["teacher"]),
        "warnings": results["warnings"],
    }


def _teacher(teacher: dict[str, Any]) -> dict[str, Any]:
    return {**{key: teacher[key] for key in ("network", "parameters", "trained_on")}, **spread(teacher["values"])}
