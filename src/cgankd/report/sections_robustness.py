"""The page's section on attacked images: the scores of each row and of the teacher under attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from cgankd.report import table
from cgankd.report.blocks import Block, Grid, Note, Section, drawn
from cgankd.report.figures import LIGHT, TEXT, canvas, legend, plain
from cgankd.report.run import Run

MARKS = {"clean": ("ink", "o"), "pgd": ("blue", "D"), "autoattack": ("red", "X")}
SAYS = {
    "pgd": "PGD: a random start, then {steps} steps along the sign of the gradient.",
    "autoattack": "AutoAttack: four attacks that need no settings, one of them without gradients.",
}
Row = tuple[str, Mapping[str, Any]]  # name; scores, clean and under each attack


def robustness(run: Run) -> Section:
    """Scores on clean and attacked images, for each row and the teacher, with the spread over seeds."""
    results, attacks = run.results, table.attacks(run.results)
    settings = results["robustness"]
    named: list[tuple[str, Mapping[str, Any]]] = [(table.words(row["method"]), row) for row in results["rows"]]
    named.append(("the teacher", results.get("teacher") or {}))
    rows: list[Row] = [(name, source["robustness"]) for name, source in named if source.get("robustness")]
    explained = " ".join(SAYS[attack].format(steps=settings.get("steps")) for attack in attacks if attack in SAYS)
    blocks: list[Block] = [
        Note(
            f"{table.count(settings['images'])} test images, the same for all networks. Each pixel (0 to 1) was "
            f"changed by up to {settings['eps']:.3g} to mislead the network that is scored. {explained} For each image "
            "the worse score counts, changed or not. Nothing was chosen by these numbers."
        )
    ]
    worse = "left" if results["higher_is_better"] else "right"
    caption = (
        f"Attacks move each score to the {worse}; the closer the marks stay to the circle, the more robust the "
        "network. Small dots are seeds, bars one standard deviation to each side."
    )
    blocks += drawn(_scores(results, rows, ["clean", *attacks]), "robustness", caption)
    lines = [[name, *(_score(results, scores.get(kind)) for kind in ["clean", *attacks])] for name, scores in rows]
    header = [table.metric_with_unit(results), "clean", *(f"under {_name(attack)}" for attack in attacks)]
    blocks.append(Grid(header, lines, "Scores on the same images, clean and attacked", wide=False))
    return Section("Robustness", "robustness", blocks)


def _scores(results: Mapping[str, Any], rows: Sequence[Row], names: Sequence[str]) -> Figure | None:
    """One line per row, with a mark for each of ``names``, its seeds and its standard deviation."""
    if not rows:
        return None
    figure, axes = canvas(0.8 + 0.46 * len(rows), x=table.metric_with_unit(results), grid="x")
    for place, (row, scores_of) in enumerate(rows):
        for name in names:
            scores = scores_of.get(name)
            if not scores:
                continue
            colour, marker = LIGHT[MARKS.get(name, ("purple", "d"))[0]], MARKS.get(name, ("purple", "d"))[1]
            if scores.get("std"):
                ends = [scores["mean"] - scores["std"], scores["mean"] + scores["std"]]
                axes.plot(ends, [-place, -place], color=colour, linewidth=2.2, alpha=0.55)
            axes.plot(scores["values"], [-place] * len(scores["values"]), "o", color=colour, markersize=3.5, alpha=0.6)
            axes.plot(
                [scores["mean"]], [-place], marker, color=colour, markersize=7, linestyle="",
                markeredgecolor=LIGHT["paper"], markeredgewidth=0.5,
                label="_" if place else "clean" if name == "clean" else f"under {_name(name)}",
            )  # fmt: skip
        axes.text(0.0, -place + 0.32, plain(row), transform=axes.get_yaxis_transform(), fontsize=TEXT, va="center")
    axes.set_ylim(-len(rows) + 0.55, 0.7)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)
    legend(axes, columns=3)
    return figure


def _score(results: Mapping[str, Any], scores: Mapping[str, Any] | None) -> str:
    return table.score(results, (scores or {}).get("mean"), (scores or {}).get("std")).replace(" ", "\u00a0")


def _name(attack: str) -> str:
    return table.ATTACKS.get(attack, attack)
