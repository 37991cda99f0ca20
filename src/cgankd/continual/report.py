"""A continual run as a person reads it, from results.json: a table in Markdown, accuracy over tasks as a figure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cgankd.core.files import read_json, write_text
from cgankd.metrics.statistics import few_seeds
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
    "told": "final accuracy, told the task",
}

Made = Mapping[str, Any]


def render(out: Path) -> None:
    """Write ``out``/table.md, accuracy.png and accuracy.svg from ``out``/results.json."""
    made: dict[str, Any] = read_json(out / "results.json")
    write_text(out / "table.md", as_markdown(made))
    save(curves(made), out / "accuracy")


def as_markdown(made: Made) -> str:
    """The table of methods, the paired differences of teacher adaptation, and what the numbers mean."""
    rows, gains = made["rows"], made["gains"]
    places = table.decimals({"unit": made["unit"], "rows": [row[name] for row in rows for name in COLUMNS]})
    units = [f"{words}, {made['unit'] if name != 'forgetting' else 'points'}" for name, words in COLUMNS.items()]
    lines = [["method", *units]]
    lines += [
        [f"{row['method']}: {row['words']}", *(table.mean_and_spread(row[name], places) for name in COLUMNS)]
        for row in rows
    ]
    parts = [
        "## " + markdown.literal(f"{made['recipe']}: {made['dataset']}, {made['tasks']} tasks, {made['network']}"),
        markdown.grid(lines),
    ]
    if gains:
        parts.append("What teacher adaptation adds, in points: difference paired by seed, with its 95% interval")
        header = ["difference", *COLUMNS.values()]
        lines = [
            [f"{gain['of']} − {gain['to']}", *(table.difference(gain[name], places) for name in COLUMNS)]
            for gain in gains
        ]
        parts.append(markdown.grid([header, *lines]))
    return "\n\n".join([*parts, markdown.bullets(notes(made))]) + "\n"


def notes(made: Made) -> list[str]:
    """What the table's numbers mean and do not cover, one sentence each."""
    seeds, kept = len(made["seeds"]), made["exemplars"]
    over = f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "Scores of one seed"
    return [
        "Measured on the test split, among all classes so far; told the task: among that task's classes alone.",
        "Final: after the last task. Average incremental: the mean of the accuracies after each task. Forgetting "
        "(lower is better): best earlier accuracy on a task minus the final one, over all tasks but the last.",
        f"{over}; a seed changes the order of the classes, the first weights and the batches.",
        f"{kept} images of each old class are kept." if kept else "No image of an old class is kept, save by joint.",
        *few_seeds(seeds),
        *made["notes"],
    ]


def curves(made: Made) -> Figure:
    """Accuracy on all classes so far, after each task; thin lines are seeds, thick ones their mean."""
    figure, axes = canvas(3.0, x="tasks learnt", y=f"{made['metric']} on all classes so far, {made['unit']}")
    tasks = range(1, made["tasks"] + 1)
    for row in made["rows"]:
        name, marker = STYLE[row["method"]]
        if len(row["together"]) > 1:
            for seed in row["together"]:
                axes.plot(tasks, seed, color=LIGHT[name], linewidth=0.8, alpha=0.4)
        mean = [statistics.fmean(values) for values in zip(*row["together"], strict=True)]
        axes.plot(tasks, mean, marker=marker, color=LIGHT[name], linewidth=1.6, label=plain(row["method"]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 100)
    legend(axes, columns=4)
    return figure
