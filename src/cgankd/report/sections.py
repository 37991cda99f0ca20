"""The page's sections on the stages, in their order: data, generator, subsampling, filter, training.

Each function takes the run and returns a section; a missing stage gives a sentence that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cgankd.core import run_text
from cgankd.data.showing import evenly
from cgankd.report import curves, figures, table
from cgankd.report.blocks import Block, Grid, Note, Section, Strips, Tiles, drawn
from cgankd.report.curves import Curve, history
from cgankd.report.figures import LIGHT, style
from cgankd.report.grids import StripRow, Tile, picture, strip
from cgankd.report.label_curve import NO_BREAK
from cgankd.report.run import Array, Artifact, Run
from cgankd.report.sections_examples import along

PREVIEW, SAMPLES = "preview.safetensors", "samples.safetensors"
STRIP, MOST_STRIPS, TILES = 6, 10, 12  # images in a strip, strips, images in half the width of the page


def data(run: Run) -> Section:
    """The number of images, the distribution of their labels, and examples."""
    artifact = run.artifact("data")
    if artifact is None:
        return Section("Data", "data", [Note("The folder has no data artifact, so there are no images to show.")])
    summary = artifact.summary
    names = [str(name) for name in summary.get("bins") or run.bins]
    counts = summary.get("counts") or {}
    size = "×".join(str(side) for side in reversed(summary.get("size") or []))  # width×height
    colour = {1: "grey", 3: "colour"}.get(summary.get("channels", 0), "")
    per_split = ", ".join(f"{split} {table.count(total)}" for split, total in counts.items())
    shape = ", ".join(part for part in (f"{size} pixels" if size else "", colour) if part)
    blocks: list[Block] = [Note(f"{summary.get('name', 'Data')}: {shape}. Images: {per_split}.")]
    notes = [*(summary.get("notes") or []), *(run.results.get("notes") or [])]
    blocks += [Note(note) for note in dict.fromkeys(str(note) for note in notes)]
    limit = f" Of {len(names)} labels, {figures.MOST_BINS} are shown." if len(names) > figures.MOST_BINS else ""
    blocks += drawn(
        curves.histogram(names, summary.get("histogram") or {}),
        "labels",
        f"The distribution of labels in each split; marks far apart on one line mean that the splits differ.{limit}",
    )
    groups = _by_bin(artifact, names)
    few = [groups[place] for place in evenly(len(groups), MOST_STRIPS)]
    rows = [StripRow(name, (strip(images, 2 * STRIP),)) for name, images in few]
    if rows and run.artifact("generator") is None:
        of = "each label" if len(few) == len(groups) else f"{len(few)} of the {len(groups)} labels"
        blocks.append(Strips(("real",), rows, f"Real training images, a few of {of}."))
    elif rows:
        each = max(1, 4 * TILES // len(groups))
        examples = np.concatenate([images[:each] for _, images in groups])
        tiles = [Tile(picture(examples[i : i + 1]), "") for i in evenly(len(examples), 4 * TILES)]
        blocks.append(Tiles("Samples", tiles, "Real training images in the order of their labels."))
    return Section("Data", "data", blocks)


def generator(run: Run) -> Section:
    """Real and generated images side by side, and the GAN's training curves."""
    artifact = run.artifact("generator")
    if artifact is None:
        return Section("Generator", "generator", [Note("This run trained no generator.")])
    blocks: list[Block] = []
    seeds = run.results.get("seeds") or []
    if run.results.get("vary") == "everything" and len(seeds) > 1:
        blocks.append(
            Note(
                "Each seed has generated images of its own. This page shows those of the first, seed "
                f"{seeds[0]}, and the table counts these."
            )
        )
    on_fakes = (run.results.get("generator") or {}).get("teacher_metric_on_fakes")
    on_real = next(iter((run.results.get("teacher") or {}).get("values") or []), None)  # the first seed's, as the fakes
    if on_fakes is not None and on_real is not None:
        scores = [table.score(run.results, value, None) for value in (on_fakes, on_real)]
        blocks.append(
            Note(
                f"On raw generated images the teacher's {run_text.metric_name(run.results['metric'])} against the "
                f"requested label is {scores[0]}; on real test images it is {scores[1]}. "
                "The closer the two, the better the generated images match their labels."
            )
        )
    source = run.artifact("data")
    real_images = dict(_by_bin(source, run.bins)) if source else {}
    fakes = dict(_by_bin(artifact, run.bins))
    both = [name for name in run.bins if name in fakes]
    rows = [
        StripRow(name, tuple(strip(images[name], STRIP) if name in images else None for images in (real_images, fakes)))
        for name in (both[place] for place in evenly(len(both), MOST_STRIPS))
    ]
    if rows:
        caption = "Each row should show the same label on both sides, with as much variety on the right as on the left."
        blocks.append(Strips(("real", "generated"), rows, caption))
    blocks += along(run)
    entries = artifact.summary.get("history") or []
    logits = [
        Curve("real images", LIGHT["orange"], *history(entries, "real_logit")),
        Curve("generated images", LIGHT["blue"], *history(entries, "fake_logit"), dashed=True),
    ]
    caption = "Hinge losses need not fall. A discriminator loss that stays at zero means that the generator has failed."
    blocks += drawn(curves.gan_losses(entries), "gan-loss", caption)
    caption = "The discriminator's output: lines within a few units of each other mean that the two are in balance."
    blocks += drawn(curves.curves(logits, "discriminator's output"), "gan-logit", caption)
    return Section("Generator", "generator", blocks)


def subsampling(run: Run) -> Section:
    """The results of rejection by the density ratio."""
    summary, artifact = _synthesis(run)
    title, anchor = "Subsampling", "subsampling"
    blocks: list[Block] = []
    ratio = run.results.get("ratio") or {}
    if ratio.get("mean_on_fakes") is not None and ratio.get("mean_on_real") is not None:
        blocks.append(
            Note(
                f"The mean density ratio is {ratio['mean_on_fakes']:.2f} over generated images (it should be near 1) "
                f"and {ratio['mean_on_real']:.2f} over real images (it should be higher)."
            )
        )
    if ratio.get("auc") is not None:
        error = ratio.get("calibration_error")
        calibrated = "" if error is None else f"In a typical bin it is wrong by a factor of {np.exp(error):.2f}. "
        blocks.append(
            Note(
                f"On held-out images it is higher for the real image in {100 * ratio['auc']:.0f} % of pairs of a real "
                f"and a generated image (50 %: it can't distinguish them). {calibrated}The effective sample size of "
                f"generated images, weighted by it, is {100 * ratio['effective_sample_share']:.0f} % of their number."
            )
        )
    if fell_back := (run.results.get("synthesis") or {}).get("fell_back"):
        blocks.append(Note("Images were therefore not subsampled: " + " ".join(fell_back)))
    if summary.get("kept") is not None:
        blocks.append(Note(_from_generated_to_kept(summary)))
    figure = curves.acceptance(summary.get("per_label") or [])
    if figure:
        limit = f" Only the {figures.MOST_BINS} lowest are shown." if figure[1] else ""
        caption = f"A much lower bar means that the generator is worse at this label.{limit}"
        blocks += drawn(figure[0], "acceptance", caption)
    ratios = run.artifact("ratio")
    if ratios:
        line = Curve("loss", LIGHT["blue"], *history(ratios.summary.get("history") or [], "loss"))
        caption = "Training of the density ratio; the loss should fall and then stay level."
        blocks += drawn(curves.curves([line], "loss of the density ratio"), "ratio-loss", caption)
    if artifact and (total := artifact.length(SAMPLES, "rejected_images")):
        at = evenly(total, 2 * TILES)
        values = artifact.tensor(SAMPLES, "rejected_ratios", at)
        labels = _labels(run, artifact, "rejected_labels", at)
        texts = [f"{name}" + ("" if values is None else f" · {values[i]:.2f}") for i, name in enumerate(labels)]
        caption = "Requested label and density ratio; most of these should look less real than the kept images below."
        blocks.append(Tiles("Rejected", _tiles(artifact, "rejected_images", at, texts), caption, wide=True))
    blocks += _other_syntheses(run)
    if not blocks:
        blocks = [Note("This run did not subsample its generated images.")]
    return Section(title, anchor, blocks)


def filtering(run: Run) -> Section:
    """The teacher's error, its cut-offs, and the images that were kept and dropped."""
    summary, artifact = _synthesis(run)
    title, anchor = "Filter", "filter"
    if artifact is None:
        return Section(title, anchor, [Note("This run has no processed images, so there is no filter to show.")])
    task, x = run.task, run.task.error_name
    cuts = [task.error_scale * cut for cut in summary.get("thresholds") or [] if cut is not None]
    blocks: list[Block] = []
    if summary.get("filter_quantile") is not None and cuts:
        processed = run.results.get("synthesis") or {}
        part = "label bin" if processed.get("filter_by") == "bin" else task.label_noun
        each = "over all labels" if len(cuts) == 1 else f"for each {part} separately"
        teachers = summary.get("teachers", 1)
        error = "error" if teachers == 1 else f"error, the mean of {teachers} teachers',"
        becomes = {
            "hard": " Their label is then replaced by the teacher's prediction.",
            "soft": " Their label is then replaced by the teacher's probabilities.",
        }.get(str(processed.get("replace")), "")
        blocks.append(
            Note(
                f"Kept: images whose {error} is below the {summary['filter_quantile']:g}-quantile, taken {each}."
                + becomes
            )
        )
    if not cuts:
        blocks.append(Note("There is no cut-off: this run did not filter its images."))
    measured = artifact.tensor(SAMPLES, "calibration_errors")
    if measured is None or not measured.size:
        parts = [artifact.tensor(SAMPLES, name) for name in ("kept_errors", "dropped_errors")]
        measured = np.concatenate([part for part in parts if part is not None] or [np.empty(0)])
    line = (
        "the line"
        if len(cuts) < 2
        else f"the cut-off of their {task.label_noun} (band: all cut-offs, line: their median)"
    )
    caption = f"The teacher's error against the requested label; images to the right of {line} were dropped."
    histogram = curves.errors(measured.astype(float) * task.error_scale, cuts, x, log=not task.continuous)
    blocks += drawn(histogram, "errors", caption)
    if figure := curves.cutoffs(list(task.answer_names), cuts, x):
        limit = f" Only the {figures.MOST_BINS} highest are shown." if figure[1] else ""
        caption = f"The cut-off of each class; a high one means that the generator is worse at this class.{limit}"
        blocks += drawn(figure[0], "cutoffs", caption)
    pairs = [_pairs(run, artifact, name) for name in ("kept", "dropped")]
    if task.continuous and pairs[0][0].size:
        caption = "Dropped images are far from the diagonal: their content does not match the requested label."
        if task.deployed_facts.get("wraps"):
            caption += " The label wraps, so predictions are drawn on the shorter way round, also outside its range."
        blocks += drawn(curves.agreement(pairs[0], pairs[1], task.metric_unit), "pairs", caption)
    return Section(title, anchor, [*blocks, *_kept_and_dropped(run, artifact)])


def _kept_and_dropped(run: Run, artifact: Artifact) -> list[Block]:
    """Examples of kept and of dropped images, with requested label and prediction."""
    blocks: list[Block] = []
    for name, caption in (
        ("kept", "Requested label → the teacher's prediction; the two should agree with the image."),
        ("dropped", "Requested label → the teacher's prediction; a good image here was dropped by mistake."),
    ):
        total = artifact.length(SAMPLES, f"{name}_images")
        at = evenly(total, TILES)
        if not at:
            blocks.append(Note(f"No {name} images are stored."))
            continue
        requested, predicted = (_labels(run, artifact, f"{name}_{kind}", at) for kind in ("labels", "predictions"))
        # Non-breaking spaces, so that a line can only break before the arrow.
        pairs = zip(requested, predicted, strict=False)
        texts = [f"{a} →\u00a0{b.replace(' ', chr(160))}" for a, b in pairs] or [""] * len(at)
        blocks.append(Tiles(name.capitalize(), _tiles(artifact, f"{name}_images", at, texts), caption))
    return blocks


def learning(run: Run) -> Section:
    """Training loss and validation score of every network."""
    losses: list[Curve] = []
    scores: list[Curve] = []
    for method in (row["method"] for row in run.results["rows"] if not table.is_ablation(row["method"])):
        for artifact in run.artifacts("students", method):
            entries = artifact.summary.get("history") or []
            named = (table.plain_words(method), style(method)[0])
            losses.append(Curve(*named, *history(entries, "loss"), seed=True))
            scores.append(Curve(*named, *history(entries, "val"), seed=True))
    again, learnt = run.artifact("refit"), ""
    if again and (entries := again.summary.get("history")):
        method = str(run.results["refit"]["method"])
        name = table.trained_again(method)
        losses.append(Curve(name, style(method)[0], *history(entries, "loss")))
        learnt = f" Not drawn: {name} on all labels, because it has learnt the validation images."
    for artifact in run.artifacts("teacher"):
        entries = artifact.summary.get("history") or []
        losses.append(Curve("the teacher", LIGHT["red"], *history(entries, "loss"), dashed=True))
        scores.append(Curve("the teacher", LIGHT["red"], *history(entries, "val"), dashed=True))
    caption = "Score on the validation split, one line per seed; a line that improves until the end needs more steps."
    validation = curves.curves(scores, f"validation {table.metric_with_unit(run.results)}")
    blocks = drawn(validation, "val-curves", f"{caption}{learnt}")
    caption = "Each method has its own loss (KD's contains the teacher's term), so compare shapes, not heights."
    blocks += drawn(curves.curves(losses, "training loss", log=True), "loss-curves", caption)
    blocks += _last_and_best(run)
    return Section("Learning curves", "curves", blocks or [Note("The folder has no training histories.")])


def _last_and_best(run: Run) -> list[Block]:
    """The scores of both sets of weights that are kept of every student; none where the run is of an older version."""
    rows = []
    for row in run.results["rows"]:
        weights = row.get("weights") or {}
        if "best_steps" in weights:
            pairs = [(which, split) for which in ("last", "best") for split in ("val", "test")]
            scores = [table.score(run.results, *(weights[a][b][part] for part in ("mean", "std"))) for a, b in pairs]
            scores = [text.replace(" ", NO_BREAK) for text in scores]
            steps = ", ".join(table.count(step) for step in weights["best_steps"])
            rows.append([table.words(row["method"]), weights["ships"], *scores, steps])
    if not rows:
        return []
    columns = ["row", "shipped", "last: validation", "last: test", "best: validation", "best: test", "best after steps"]
    title = (
        "Last weights, and weights with the best validation score. The shipped ones (student.ships) are scored above"
    )
    return [Grid(columns, rows, title)]


def _other_syntheses(run: Run) -> list[Block]:
    """The sets of generated images of the ablation's rows, as a small table."""
    syntheses = (run.results.get("artifacts") or {}).get("synthesis")
    if not isinstance(syntheses, dict) or len(syntheses) < 2:
        return []
    rows = []
    for method in syntheses:
        artifact = run.artifact("synthesis", method)
        if artifact:
            summary = artifact.summary
            counts = [table.count(summary.get(key)) for key in ("requested", "generated", "kept")]
            accepted = "–" if _all_accepted(summary) else _percent(summary.get("acceptance"))
            rows.append([table.words(method), *counts, accepted, _percent(_share_kept(summary))])
    header = ["images for", "requested", "generated", "kept", "accepted, of those generated"]
    caption = "All sets of images (a dash under accepted: not subsampled)"
    return [Grid([*header, "kept, of those generated"], rows, caption)]


def _from_generated_to_kept(summary: Mapping[str, Any]) -> str:
    """How many images each step left, and of how many: the density ratio's share is not that of the filter."""
    generated, kept = summary.get("generated"), summary["kept"]
    accepted = (
        "" if _all_accepted(summary) else f" The density ratio accepted {_percent(summary.get('acceptance'))} of them."
    )
    by = ", after the teacher's filter" if summary.get("filter_quantile") is not None else ""
    missing = (summary.get("requested") or kept) - kept
    verb = "is" if missing == 1 else "are"
    short = f" {table.count(missing)} of the requested images {verb} missing." if missing else ""
    return (
        f"{table.count(generated)} images were generated.{accepted} {table.count(kept)} were kept{by}: "
        f"{_percent(_share_kept(summary))} of those generated.{short}"
    )


def _all_accepted(summary: Mapping[str, Any]) -> bool:
    """Whether images were not subsampled, so that a share of accepted ones says nothing."""
    return summary.get("subsampling") == "none" or summary.get("acceptance") is None


def _share_kept(summary: Mapping[str, Any]) -> float | None:
    generated = summary.get("generated")
    return summary["kept"] / generated if generated else None


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.{0 if share >= 0.01 else 1}f} %"


def _synthesis(run: Run) -> tuple[Mapping[str, Any], Artifact | None]:
    """The summary and the artifact of the generated images of cGAN-KD, or of the first row that has some."""
    syntheses = (run.results.get("artifacts") or {}).get("synthesis")
    methods = list(syntheses) if isinstance(syntheses, dict) else []
    for method in ["cgan", "cgan_kd", *methods]:
        if artifact := run.artifact("synthesis", method):
            return artifact.summary or run.results.get("synthesis") or {}, artifact
    return run.results.get("synthesis") or {}, run.artifact("synthesis")


def _by_bin(artifact: Artifact, names: Sequence[str]) -> list[tuple[str, Array]]:
    """The images of a preview, by bin; bins without images are left out."""
    images, place = artifact.tensor(PREVIEW, "images"), artifact.tensor(PREVIEW, "bin")
    if images is None or place is None:
        return []
    return [(name, images[place == i]) for i, name in enumerate(names) if (place == i).any()]


def _pairs(run: Run, artifact: Artifact, name: str) -> tuple[Array, Array]:
    """Requested labels, and predictions; those of a label that wraps may be outside its range, to lie beside them."""
    at = evenly(artifact.length(SAMPLES, f"{name}_labels"), 400)
    labels, predictions = (artifact.tensor(SAMPLES, f"{name}_{kind}", at) for kind in ("labels", "predictions"))
    if labels is None or predictions is None:
        return np.empty(0), np.empty(0)
    return labels, labels + run.task.difference(torch.from_numpy(predictions), torch.from_numpy(labels)).numpy()


def _labels(run: Run, artifact: Artifact, name: str, at: Sequence[int]) -> list[str]:
    values = artifact.tensor(SAMPLES, name, at)
    return [] if values is None else [run.task.short_text(float(value)) for value in values]


def _tiles(artifact: Artifact, name: str, at: Sequence[int], texts: Sequence[str]) -> list[Tile]:
    images = artifact.tensor(SAMPLES, name, at)
    if images is None:
        return []
    return [
        Tile(picture(images[i : i + 1]), text) for i, text in enumerate([*texts, *[""] * len(images)][: len(images)])
    ]
