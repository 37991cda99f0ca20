"""The page's section about attacked images: what is left of each row's score, and of the teacher's."""

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
Row = tuple[str, Mapping[str, Any]]  # in words; its scores, clean and under each attack


def robustness(run: Run) -> Section:
    """Clean against attacked, for each row and the teacher, with the spread over seeds."""
    results, attacks = run.results, table.attacks(run.results)
    settings = results["robustness"]
    named: list[tuple[str, Mapping[str, Any]]] = [(table.words(row["method"]), row) for row in results["rows"]]
    named.append(("the teacher", results.get("teacher") or {}))
    rows: list[Row] = [(words, source["robustness"]) for words, source in named if source.get("robustness")]
    said = " ".join(SAYS[attack].format(steps=settings.get("steps")) for attack in attacks if attack in SAYS)
    blocks: list[Block] = [
        Note(
            f"{table.count(settings['images'])} test images, the same for all, whose pixels (of 0 to 1) were each "
            f"moved by up to {settings['eps']:.3g} so as to mislead the very network that is scored. {said} Of "
            "each image the worse score counts, moved or not. Nothing was chosen by these numbers."
        )
    ]
    worse = "left" if results["higher_is_better"] else "right"
    caption = (
        f"Attacks drive each score to the {worse}; the nearer they stay to the circle, the more robust the "
        "network. Small dots are seeds, bars one standard deviation each way."
    )
    blocks += drawn(_scores(results, rows, ["clean", *attacks]), "robustness", caption)
    lines = [[words, *(_score(results, found.get(name)) for name in ["clean", *attacks])] for words, found in rows]
    header = [table.metric_name(results), "as they are", *(f"under {_name(attack)}" for attack in attacks)]
    blocks.append(Grid(header, lines, "Scores on the same images, as they are and attacked", wide=False))
    return Section("Robustness", "robustness", blocks)


def _scores(results: Mapping[str, Any], rows: Sequence[Row], names: Sequence[str]) -> Figure | None:
    """One line per row; on it a mark for each of ``names``, with its seeds and its deviation."""
    if not rows:
        return None
    figure, axes = canvas(0.8 + 0.46 * len(rows), x=table.metric_name(results), grid="x")
    for place, (words, found) in enumerate(rows):
        for name in names:
            scores = found.get(name)
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
                label="_" if place else "as they are" if name == "clean" else f"under {_name(name)}",
            )  # fmt: skip
        axes.text(0.0, -place + 0.32, plain(words), transform=axes.get_yaxis_transform(), fontsize=TEXT, va="center")
    axes.set_ylim(-len(rows) + 0.55, 0.7)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)
    legend(axes, columns=3)
    return figure


def _score(results: Mapping[str, Any], found: Mapping[str, Any] | None) -> str:
    return table.score(results, (found or {}).get("mean"), (found or {}).get("std")).replace(" ", "\u00a0")


def _name(attack: str) -> str:
    return table.ATTACKS.get(attack, attack)
