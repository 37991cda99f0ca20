"""The report of a continual run, from results.json: a table in Markdown, and a figure of accuracy over tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cgankd.core.files import read_json, write_text
from cgankd.core.paths import RESULTS
from cgankd.metrics.statistics import few_seeds, spread
from cgankd.report import markdown, table
from cgankd.report.figures import LIGHT, canvas, legend, plain, save

STYLE = {
    "finetune": ("muted", "o"),
    "gkd": ("orange", "^"),
    "gkd+ta": ("blue", "D"),
    "tkd": ("brown", "<"),
    "tkd+ta": ("green", "v"),
    "joint": ("ink", "s"),
}
COLUMNS = {
    "final": "final accuracy",
    "incremental": "average incremental accuracy",
    "forgetting": "forgetting",
    "task_aware_accuracy": "final task-aware accuracy",
}

Results = Mapping[str, Any]


def render(out: Path) -> None:
    """Write ``out``/table.md, accuracy.png and accuracy.svg from ``out``/results.json."""
    results: dict[str, Any] = read_json(out / RESULTS)
    write_text(out / "table.md", as_markdown(results))
    save(curves(results), out / "accuracy")


def as_markdown(results: Results) -> str:
    """The table of methods, the paired differences of teacher adaptation, and what the numbers mean."""
    rows, gains = results["rows"], results["gains"]
    places = table.decimals({"unit": results["unit"], "rows": [row[name] for row in rows for name in COLUMNS]})
    units = [f"{title}, {results['unit'] if name != 'forgetting' else 'points'}" for name, title in COLUMNS.items()]
    lines = [["method", *units]]
    lines += [
        [f"{row['method']}: {row['words']}", *(table.mean_and_spread(row[name], places) for name in COLUMNS)]
        for row in rows
    ]
    parts = [
        "## "
        + markdown.literal(
            f"{results['recipe']}: {results['dataset']}, {results['tasks']} tasks, {results['network']}"
        ),
        markdown.grid(lines),
    ]
    if gains:
        parts.append("The gain of teacher adaptation, in points: difference paired by seed, with its 95% interval")
        header = ["difference", *COLUMNS.values()]
        lines = [
            [f"{gain['of']} − {gain['to']}", *(table.difference(gain[name], places) for name in COLUMNS)]
            for gain in gains
        ]
        parts.append(markdown.grid([header, *lines]))
    return "\n\n".join([*parts, markdown.bullets(notes(results))]) + "\n"


def notes(results: Results) -> list[str]:
    """What the numbers of the table mean, one sentence each."""
    seeds, exemplars = len(results["seeds"]), results["exemplars"]
    over = f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "Scores of one seed"
    return [
        "Measured on the test split. Predictions are among all classes so far; for task-aware accuracy, among the "
        "classes of the image's task.",
        "Final: after the last task. Average incremental: the mean of the accuracies after each task. Forgetting "
        "(lower is better): best earlier accuracy on a task minus the final one, averaged over all tasks but the last.",
        f"{over}; a seed changes the order of the classes, the initial weights and the batches.",
        f"{exemplars} images of each old class are kept."
        if exemplars
        else "No image of an old class is kept, except by joint.",
        *few_seeds(seeds),
        *results["notes"],
    ]


def curves(results: Results) -> Figure:
    """Accuracy on all classes so far, after each task; thin lines are seeds, thick lines their means."""
    figure, axes = canvas(3.0, x="tasks learnt", y=f"{results['metric']} on all classes so far, {results['unit']}")
    tasks = range(1, results["tasks"] + 1)
    for row in results["rows"]:
        name, marker = STYLE[row["method"]]
        if len(row["together"]) > 1:
            for seed in row["together"]:
                axes.plot(tasks, seed, color=LIGHT[name], linewidth=0.8, alpha=0.4)
        mean = [spread(values)["mean"] for values in zip(*row["together"], strict=True)]
        axes.plot(tasks, mean, marker=marker, color=LIGHT[name], linewidth=1.6, label=plain(row["method"]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 100)
    legend(axes, columns=4)
    return figure
