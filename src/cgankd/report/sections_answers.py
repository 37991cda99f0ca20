"""The page's section on the answers of the best student and the control to all test images.

For classes a confusion matrix, the largest confusions and the accuracy of each class; for a scalar the predictions
against the true labels.
"""

from __future__ import annotations

import numpy as np
import torch

from cgankd.metrics.statistics import balanced_accuracy
from cgankd.report import answers, shipped, table
from cgankd.report.blocks import Block, Grid, Note, Section, drawn
from cgankd.report.run import Array, Run
from cgankd.report.sections_examples import BEST_STUDENT, shown_networks, which_is_best

ANSWERS = "answers.safetensors"
LISTED = 10  # confusions
LOWEST = 5  # classes that are named


def answered(run: Run) -> Section | None:
    """The section; None where the run keeps no answers, as runs of older versions."""
    artifact = run.artifact("worst")
    labels = artifact.tensor(ANSWERS, "labels") if artifact else None
    if artifact is None or labels is None or not len(labels):
        return None
    networks: dict[str, Array] = {}
    for name, words in sorted(shown_networks(run, artifact).items(), key=lambda pair: pair[1] != BEST_STUDENT):
        predictions = artifact.tensor(ANSWERS, f"{name}_predictions")
        if predictions is not None and len(predictions) == len(labels):
            networks[words] = predictions
    if not networks:
        return None
    true = torch.from_numpy(labels)
    counts = {who: run.task.confusion(true, torch.from_numpy(given)) for who, given in networks.items()}
    matrices = {who: table_of.numpy() for who, table_of in counts.items() if table_of is not None}
    table_says = _where_the_table_differs(run, len(networks))
    which = which_is_best(run, artifact)
    intro = Note(f"The answers to all {table.count(len(labels))} test images. {which}{table_says}")
    if matrices:
        return Section("Confusion matrix", "confusion", [intro, *_classes(run, matrices)])
    return Section("Predicted and true labels", "predicted", [intro, *_scalars(run, labels, networks)])


def _where_the_table_differs(run: Run, networks: int) -> str:
    """A sentence on the scores of one seed, where the table has means over several; "" for one seed."""
    seeds, again = len(run.results.get("seeds") or []), run.results.get("refit") or {}
    if seeds < 2:
        return ""
    means = f"a mean over {seeds} seeds"
    if not again.get("ships"):
        return f" The answers are of one seed; each score in the table above is {means}."
    control = f"; the control's score there is {means}" if networks > 1 else ""
    return f' The best student is line "{shipped.all_labels(again["method"])}" of the table above{control}.'


def _classes(run: Run, matrices: dict[str, Array]) -> list[Block]:
    """The blocks for classes. matrices: network -> its confusion matrix, the best student's first."""
    names, best = list(run.task.answer_names), next(iter(matrices.values()))
    blocks: list[Block] = []
    shown = answers.classes_shown(best)
    if shown:
        strongest = max(answers.strongest_mistake(counts, shown) for counts in matrices.values())
        for place, (who, counts) in enumerate(matrices.items()):
            figure = answers.matrix(counts, names, shown, strongest, who)
            blocks += drawn(figure, f"confusion-{place}", _reading_of_matrix(len(names), len(shown), strongest, who))
    lines = [
        [
            names[true],
            names[taken],
            *(_of(int(counts[true, taken]), counts[true].sum()) for counts in matrices.values()),
        ]
        for true, taken, _ in answers.confusions(best, LISTED)
    ]
    if lines:
        title = "The most frequent confusions of the best student"
        blocks.append(Grid(["true class", "taken for", *matrices], lines, title, left=2))
    else:
        blocks.append(Note("The best student is right about every test image."))
    return [*blocks, *_accuracies(names, matrices)]


def _reading_of_matrix(classes: int, shown: int, strongest: float, who: str) -> str:
    limit = (
        f" Of {table.count(classes)} classes, the {shown} with the largest confusions of the best student are shown, "
        "so a row may add up to less than 100."
        if shown < classes
        else ""
    )
    numbers = "Each number is" if shown <= answers.MOST_NUMBERS else "The colour shows"
    mistakes = f", orange is wrong (strongest colour: {strongest:.3g}\u00a0%)" if strongest else ""
    return (
        f"Answers of {who}. {numbers} the percentage of the images of a true class (row) that were predicted as a "
        f"class (column). Blue is right{mistakes}.{limit}"
    )


def _accuracies(names: list[str], matrices: dict[str, Array]) -> list[Block]:
    """The classes with the lowest accuracies in a sentence, and all in a table, the lowest first."""
    best = next(iter(matrices.values()))
    totals = best.sum(axis=1)
    accuracy = np.where(totals > 0, answers.shares(best).diagonal(), np.inf)  # classes without test images come last
    order = [int(place) for place in np.argsort(accuracy, kind="stable")]
    tested = [place for place in order if totals[place]]
    count = min(LOWEST, len(tested) // 2)
    while 0 < count < len(tested) and accuracy[tested[count]] == accuracy[tested[count - 1]]:
        count += 1  # those with the same accuracy as the last one
    lowest = tested[:count] if count < len(tested) else []
    named = ", ".join(
        f"{names[place]} ({accuracy[place]:.1f}\u00a0% of {table.count(totals[place])})" for place in lowest[:LOWEST]
    )
    unnamed = f" and {table.count(count - LOWEST)} more with the last accuracy" if len(lowest) > LOWEST else ""
    rights = [answers.shares(counts).diagonal() for counts in matrices.values()]
    lines = []
    for place in order:
        right = [table.number(shares[place], 1) for shares in rights]
        others = np.where(np.arange(len(names)) == place, 0, best[place])
        often = f"{names[int(others.argmax())]} ({table.count(others.max())})" if others.any() else "–"
        lines.append(
            [names[place], table.count(totals[place]), *(right if totals[place] else ["–"] * len(right)), often]
        )
    header = ["class", "test images", *(f"accuracy, %: {who}" for who in matrices), "most often taken for"]
    title = "Accuracy of each class, the lowest of the best student first"
    what = "accuracy" if len(lowest) == 1 else "accuracies"
    sentence = [Note(f"Lowest {what} of the best student by class: {named}{unnamed}.")] if named else []
    return [*_balanced(matrices, totals), *sentence, Grid(header, lines, title, folded=True)]


def _balanced(matrices: dict[str, Array], totals: Array) -> list[Block]:
    """The balanced accuracies, where classes differ much in size."""
    sizes = totals.tolist()
    means = {
        who: balanced_accuracy(answers.shares(counts).diagonal().tolist(), sizes) for who, counts in matrices.items()
    }
    listed = ", ".join(f"{mean:.1f}\u00a0% ({who})" for who, mean in means.items() if mean is not None)
    told = f"Balanced accuracy, in which each class counts alike however many test images it has: {listed}."
    return [Note(told)] if listed else []


def _of(count: int, total: int) -> str:
    share = f"{100 * count / total:.1f}\u00a0%" if total else "–"
    return f"{table.count(count)} of {table.count(total)} ({share})"


def _scalars(run: Run, labels: Array, networks: dict[str, Array]) -> list[Block]:
    """The blocks for a scalar: predictions against true labels, and what the errors are like."""
    true = labels.astype(np.float64)
    errors = {
        who: run.task.difference(torch.from_numpy(given), torch.from_numpy(labels)).numpy()
        for who, given in networks.items()
    }
    known = {who: np.isfinite(error) for who, error in errors.items()}
    ends = answers.limits([true, *((true + error)[known[who]] for who, error in errors.items())])
    around = (
        " The label wraps, so each prediction is drawn on the shorter way round from the true label, and may lie "
        "outside the label's range."
        if run.task.deployed_facts.get("wraps")
        else ""
    )
    blocks: list[Block] = []
    for place, (who, error) in enumerate(errors.items()):
        at = true[known[who]]
        figure = answers.density(at, at + error[known[who]], ends, who, run.task.metric_unit)
        caption = (
            f"Answers of {who}: the stronger the colour, the more test images. On the dashed line the prediction is "
            f"right; above it, it is too high.{around}"
        )
        blocks += drawn(figure, f"predicted-{place}", caption)
    return [*blocks, _errors(run, errors)]


def _errors(run: Run, errors: dict[str, Array]) -> Grid:
    """The errors of each network [N], prediction minus true label in the label's unit, as one line each."""
    places = table.decimals(run.results)
    lines = []
    for who, error in errors.items():
        size = np.abs(error)
        numbers = [size.mean(), np.median(size), np.quantile(size, 0.9), size.max()]
        texts = [table.number(float(value), places) for value in numbers]
        lines.append([who, *texts, table.number(float(error.mean()), places, signed=True)])
    header = ["errors of", "mean size (MAE)", "median size", "90 % are below", "largest", "mean with sign"]
    unit = f", {run.task.metric_unit}" if run.task.metric_unit else ""
    return Grid(header, lines, f"Prediction minus true label{unit}")
