"""The paper's ablation figures: what each step of cGAN-KD adds, the error against the number of images or labels."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cgankd._version import __version__
from cgankd.config import recipe
from cgankd.config.settings import CompareSettings
from cgankd.core.errors import UserError
from cgankd.core.files import write_json, write_text
from cgankd.core.paths import ABLATION
from cgankd.core.progress import SILENT, Progress
from cgankd.experiments.ablation_page import as_errors, remove, render
from cgankd.experiments.cells import Cell, Results, results_of
from cgankd.experiments.executors import HERE, Executor
from cgankd.pipeline import comparisons
from cgankd.pipeline.comparisons import CONTROL

ROWS = ("nokd", CONTROL, "cgan", "cgan_kd")
TRAIN_SIZE = "data.train_size="


def ablate(
    name: str,
    overrides: Sequence[str] = (),
    *,
    images: Sequence[str] = (),
    labels: Sequence[str] = (),
    out: Path,
    progress: Progress = SILENT,
    deadline: float = math.inf,
    executor: Executor = HERE,
) -> dict[str, Any]:
    """Run a recipe (a name or a YAML file) with its ablation rows, its row cgan for every M in ``images``, and its
    own rows for every number of labelled images in ``labels``.

    Runs over M share teacher, generator and density ratio. Each number of labels has its own generator and density
    ratio, and its own teacher unless that is trained on the whole pool. ``out`` gets ablation.html, the figures as PNG
    and SVG, and their numbers as CSV and JSON; all are written again after every run. M = 0 is the control; the
    recipe's own M and number of labels are also points. executor: where they run. Returns the content of ablation.json.
    Raises UserError for wrong input, before anything is trained, and OutOfTime after ``deadline``, like
    :func:`cgankd.pipeline.run`.
    """
    _check_numbers("--images", images, 0, "1000,3000,10000")
    _check_numbers("--labels", labels, 2, "50,100,200")
    overrides = ["student.refit=false", *overrides]  # no student of these runs ships
    compared = _compared(name, overrides) if labels else ()
    bars = Cell(recipe.load(name, [*overrides, _rows(*ROWS, *compared), "compare.ablation=true"]), "ablation")
    if bars.recipe.search is not None:
        raise UserError(f"{name}: search chooses M itself; ablate sets M, so search must be none")
    own = bars.recipe.synthesis.images
    curve: list[Cell] = []
    for count in images:
        if count == "0":  # the control, which is always a point
            continue
        setting = f"synthesis.images={count}"
        cell = Cell(
            recipe.load(name, [*overrides, setting, "compare.methods=[cgan]", "compare.ablation=false"]), setting
        )
        if cell.recipe.synthesis.images not in {own, *(other.recipe.synthesis.images for other in curve)}:
            curve.append(cell)
    curve.sort(key=lambda cell: cell.recipe.synthesis.images)
    sizes = _sizes(name, [*overrides, _rows(*compared)], labels, bars.recipe.data.train_size)
    cells = [bars, *curve, *sizes]
    content: dict[str, Any] = {}
    for results in results_of(cells, out, ABLATION, progress, deadline, executor):
        if results[0] is None:  # its settings have changed, or another one has ended before
            remove(out)
            continue
        content = summary(cells[: 1 + len(curve)], results[: 1 + len(curve)])
        if sizes:
            content |= over_labels(compared, results[:1] + results[1 + len(curve) :])
            content["warnings"] = _warnings(cells, results)
            content["missing"] = [cell.name for cell, finished in zip(cells, results, strict=True) if finished is None]
        write_json(out / ABLATION, content)
        write_text(out / "ablation.csv", comma_separated(content))
        render(out)
    return content


def summary(cells: Sequence[Cell], all_results: Sequence[Results | None]) -> dict[str, Any]:
    """The content of ablation.json, with scores as errors; the first cell has the ablation rows and is finished."""
    first = all_results[0]
    assert first is not None  # this cell runs first
    rows = {row["method"]: as_errors(first, row) for row in first["rows"]}
    points = [
        {"images": 0, **rows[CONTROL]},
        *(
            {"images": cell.recipe.synthesis.images, **as_errors(results, row)}
            for cell, results in zip(cells, all_results, strict=True)
            if results is not None
            for row in results["rows"]
            if row["method"] == "cgan"
        ),
    ]
    return {
        "cgankd": __version__,
        "recipes": [cells[0].recipe.name],
        "run": cells[0].folder,
        "metric": first["metric"],
        "unit": first["unit"],
        "higher_is_better": first["higher_is_better"],
        "seeds": first["seeds"],
        "control": CONTROL,
        "bars": [{"method": method, **row} for method, row in rows.items()],
        "images": [cell.recipe.synthesis.images for cell in cells[1:]],
        "curve": sorted(points, key=lambda point: int(point["images"])),
        "teacher": as_errors(first, first["teacher"])["mean"],
        "warnings": _warnings(cells, all_results),
        "missing": [cell.name for cell, results in zip(cells, all_results, strict=True) if results is None],
    }


def _check_numbers(option: str, words: Sequence[str], least: int, such: str) -> None:
    """UserError, in the words of the option, where one is not a whole number of at least ``least``."""
    for word in words:
        if not (word.isascii() and word.isdigit() and int(word) >= least):
            raise UserError(f"{option} {word!r} is not allowed; allowed: whole numbers from {least} on, such as {such}")


def _sizes(name: str, overrides: Sequence[str], labels: Sequence[str], own: int | None) -> list[Cell]:
    """The runs with other numbers of labels than the recipe's ``own``, each once, the smallest first."""
    cells: dict[int | None, Cell] = {}
    for count in labels:
        setting = f"{TRAIN_SIZE}{count}"
        changes = ["data.train_per_class=null", setting, "compare.ablation=false"]
        cell = Cell(recipe.load(name, [*overrides, *changes]), setting)
        cells.setdefault(cell.recipe.data.train_size, cell)
    return [
        cell for _, cell in sorted(cells.items(), key=lambda item: item[0] or 0) if cell.recipe.data.train_size != own
    ]


def _compared(name: str, overrides: Sequence[str]) -> tuple[str, ...]:
    """The rows that are compared over numbers of labels: the recipe's, with the control; with ``auto`` the defaults."""
    own = recipe.load(name, [*overrides, "compare.ablation=false"]).compare.methods
    methods = CompareSettings().named if own == "auto" else own
    return tuple(dict.fromkeys([CONTROL, *(method for method in methods if comparisons.row(method).longer)]))


def _rows(*names: str) -> str:
    return f"compare.methods=[{','.join(dict.fromkeys(names))}]"


def over_labels(compared: Sequence[str], all_results: Sequence[Results | None]) -> dict[str, Any]:
    """The entry ``labels`` of ablation.json: the errors of each row and number of labels, of the finished runs.

    Of two runs with the same number of labels (the recipe's own may be all images, or so many of each class) it has the
    first.
    """
    points: list[dict[str, Any]] = []
    for results in all_results:
        if results is None:
            continue
        rows = {row["method"]: row for row in results["rows"]}
        labelled = rows[CONTROL]["real_images"]
        if any(point["labels"] == labelled for point in points):
            continue
        for method in compared:
            points.append({"method": method, "labels": labelled, **as_errors(results, rows[method])})
        if results["teacher"]["values"]:
            points.append({"method": "teacher", "labels": labelled, **as_errors(results, results["teacher"])})
    return {"labels": sorted(points, key=lambda point: int(point["labels"]))}


def comma_separated(content: Mapping[str, Any]) -> str:
    """The points of all figures as CSV, one line each, at full precision; ``values`` are separated by spaces."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["figure", "method", "images", "unit", "values", "mean", "std", "labels"])
    for figure in ("bars", "curve", "labels"):
        for point in content.get(figure, ()):
            values = " ".join(repr(value) for value in point["values"])
            at = [point.get("method", "cgan" if point.get("images") else CONTROL), point.get("images")]
            writer.writerow([figure, *at, content["unit"], values, point["mean"], point["std"], point.get("labels")])
    return stream.getvalue()


def _setting_in_words(cell: Cell) -> str:
    if cell.setting.startswith(TRAIN_SIZE):
        return f"{cell.recipe.data.train_size} labels"
    return f"M = {cell.recipe.synthesis.images}"


def _warnings(cells: Sequence[Cell], all_results: Sequence[Results | None]) -> list[str]:
    """The warnings of the other runs, each once, without those of the first run, which the page shows anyway."""
    own = (all_results[0] or {"warnings": []})["warnings"]
    runs: dict[str, list[str]] = {}
    for cell, results in zip(cells[1:], all_results[1:], strict=True):
        for warning in (results or {"warnings": []})["warnings"]:
            if warning not in own:
                runs.setdefault(warning, []).append(_setting_in_words(cell))
    return [f"{', '.join(of)}: {warning}" for warning, of in runs.items()]
