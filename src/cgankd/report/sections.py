"""The page's sections about the stages, in the order of the road: data, generator, subsampling, filter, training.

Each takes the run and returns its blocks; where a stage is missing, a sentence that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cgankd.report import curves, figures, table
from cgankd.report.blocks import Block, Grid, Note, Section, Strips, Tiles, drawn
from cgankd.report.curves import Curve, history
from cgankd.report.figures import LIGHT, style
from cgankd.report.grids import StripRow, Tile, evenly, picture, strip
from cgankd.report.run import Array, Artifact, Run
from cgankd.tasks import Classification, Regression

PREVIEW, SAMPLES = "preview.safetensors", "samples.safetensors"
STRIP, MOST_STRIPS, TILES = 6, 10, 12  # images in a strip, strips, images in half a page's width


def data(run: Run) -> Section:
    """How many images there are, how their labels are spread, and what they look like."""
    artifact = run.artifact("data")
    if artifact is None:
        return Section("Data", "data", [Note("The folder holds no data artifact, so there are no images to show.")])
    summary = artifact.summary
    names = [str(name) for name in summary.get("bins") or run.results.get("bins") or []]
    counts = summary.get("counts") or {}
    size = "×".join(str(side) for side in summary.get("size") or [])
    colour = {1: "grey", 3: "colour"}.get(summary.get("channels", 0), "")
    said = ", ".join(f"{split} {table.count(total)}" for split, total in counts.items())
    shape = ", ".join(part for part in (f"{size} pixels" if size else "", colour) if part)
    blocks: list[Block] = [Note(f"{summary.get('name', 'Data')}: {shape}. Images: {said}.")]
    notes = [*(summary.get("notes") or []), *(run.results.get("notes") or [])]
    blocks += [Note(note) for note in dict.fromkeys(str(note) for note in notes)]
    blocks += drawn(
        curves.histogram(names, summary.get("histogram") or {}),
        "labels",
        "How the labels of each split are spread; marks far apart on one line mean that the splits differ.",
    )
    groups = _by_bin(artifact, names)
    few = [groups[place] for place in evenly(len(groups), MOST_STRIPS)]
    rows = [StripRow(name, (strip(images, 2 * STRIP),)) for name, images in few]
    if rows and run.artifact("generator") is None:
        blocks.append(Strips(("real",), rows, "Real training images, a few of each label."))
    elif rows:
        each = max(1, 4 * TILES // len(groups))
        shown = np.concatenate([images[:each] for _, images in groups])
        tiles = [Tile(picture(shown[i : i + 1]), "") for i in evenly(len(shown), 4 * TILES)]
        blocks.append(Tiles("Samples", tiles, "Real training images in the order of their labels."))
    return Section("Data", "data", blocks)


def generator(run: Run) -> Section:
    """Real beside generated images, and whether the two networks kept each other in balance."""
    artifact = run.artifact("generator")
    if artifact is None:
        return Section("Generator", "generator", [Note("This run trained no generator.")])
    blocks: list[Block] = []
    on_fakes = (run.results.get("generator") or {}).get("teacher_metric_on_fakes")
    on_real = (run.results.get("teacher") or {}).get("test")
    if on_fakes is not None and on_real is not None:
        said = [table.score(run.results, value, None) for value in (on_fakes, on_real)]
        blocks.append(
            Note(
                f"On raw generated images the teacher's {run.results['metric'].replace('mae', 'MAE')} against the "
                f"label that was asked for is {said[0]}; on real test images it is {said[1]}. "
                "The nearer the two, the better the generator obeys its label."
            )
        )
    names = [str(name) for name in run.results.get("bins") or []]
    source = run.artifact("data")
    real_images = dict(_by_bin(source, names)) if source else {}
    fakes = dict(_by_bin(artifact, names))
    both = [name for name in names if name in fakes]
    rows = [
        StripRow(names_at, tuple(strip(g[names_at], STRIP) if names_at in g else None for g in (real_images, fakes)))
        for names_at in (both[place] for place in evenly(len(both), MOST_STRIPS))
    ]
    if rows:
        caption = "Each row should show one label on both sides, the right side as varied as the left."
        blocks.append(Strips(("real", "generated"), rows, caption))
    entries = artifact.summary.get("history") or []
    losses = [
        Curve("discriminator", LIGHT["orange"], *history(entries, "discriminator_loss")),
        Curve("generator", LIGHT["blue"], *history(entries, "generator_loss"), dashed=True),
    ]
    logits = [
        Curve("real images", LIGHT["orange"], *history(entries, "real_logit")),
        Curve("generated images", LIGHT["blue"], *history(entries, "fake_logit"), dashed=True),
    ]
    caption = "Hinge losses need not fall: a discriminator loss that stays at zero means the generator lost touch."
    blocks += drawn(curves.curves(losses, "loss"), "gan-loss", caption)
    caption = "The discriminator's output: lines that stay within a few units of each other mean an even contest."
    blocks += drawn(curves.curves(logits, "discriminator's output"), "gan-logit", caption)
    return Section("Generator", "generator", blocks)


def subsampling(run: Run) -> Section:
    """What rejection by the density ratio let through."""
    summary, artifact = _synthesis(run)
    title, anchor = "Subsampling", "subsampling"
    blocks: list[Block] = []
    ratio = run.results.get("ratio") or {}
    if ratio.get("mean_on_fakes") is not None and ratio.get("mean_on_real") is not None:
        blocks.append(
            Note(
                f"The density ratio is {ratio['mean_on_fakes']:.2f} on average over generated images (it should be "
                f"near 1) and {ratio['mean_on_real']:.2f} over real ones (it should be higher)."
            )
        )
    if ratio.get("auc") is not None:
        error = ratio.get("calibration_error")
        calibrated = "" if error is None else f"It is off by a factor of {np.exp(error):.2f} in a typical bin. "
        blocks.append(
            Note(
                f"On held-out images it tells real from generated in {100 * ratio['auc']:.0f} % of pairs "
                f"(50: not at all). {calibrated}Weighted by it, generated images are worth "
                f"{100 * ratio['effective_sample_share']:.0f} % of their number."
            )
        )
    if fell_back := (run.results.get("synthesis") or {}).get("fell_back"):
        blocks.append(Note("So images were not subsampled: " + " ".join(fell_back)))
    if summary.get("kept") is not None:
        share, draws = summary.get("acceptance"), summary.get("draws_per_image")
        said = "" if share is None else f", acceptance {100 * share:.0f} %"
        said += "" if draws is None else f", {draws:.1f} draws per image kept"
        blocks.append(
            Note(
                f"{table.count(summary.get('generated'))} images were generated to keep "
                f"{table.count(summary['kept'])} of the {table.count(summary.get('requested'))} requested{said}."
            )
        )
    shown = curves.acceptance(summary.get("per_label") or [])
    if shown:
        some = f" Only the {figures.MOST_BINS} lowest are shown." if shown[1] else ""
        caption = f"A label with a much lower bar is one that the generator draws less faithfully.{some}"
        blocks += drawn(shown[0], "acceptance", caption)
    ratios = run.artifact("ratio")
    if ratios:
        line = Curve("loss", LIGHT["blue"], *history(ratios.summary.get("history") or [], "loss"))
        caption = "Training of the density ratio; it should fall and settle."
        blocks += drawn(curves.curves([line], "loss of the density ratio"), "ratio-loss", caption)
    if artifact and (total := artifact.length(SAMPLES, "rejected_images")):
        at = evenly(total, 2 * TILES)
        values = artifact.tensor(SAMPLES, "rejected_ratios", at)
        labels = _labels(run, artifact, "rejected_labels", at)
        texts = [f"{name}" + ("" if values is None else f" · {values[i]:.2f}") for i, name in enumerate(labels)]
        caption = "Label asked for and density ratio: on the whole these should look less real than those kept below."
        blocks.append(Tiles("Rejected", _tiles(artifact, "rejected_images", at, texts), caption, wide=True))
    blocks += _other_syntheses(run)
    if not blocks:
        blocks = [Note("This run did not subsample its generated images.")]
    return Section(title, anchor, blocks)


def searched(run: Run) -> Section:
    """What the search on the validation split tried, and what it chose."""
    found, results = run.results["search"], run.results
    names = {
        "start": "start",
        "rho": "filter's quantile",
        "labels": "label law",
        "images": "images kept",
    }
    chosen = found["chosen"]
    alone = [trial["score"] for trial in found["trials"]].count(found["score"]) == 1
    rows = [
        [
            names.get(trial["setting"], trial["setting"]),
            "the recipe's" if trial["value"] is None else f"{trial['value']}",
            table.score(results, trial["score"], None),
            "best" if trial["score"] == found["score"] and (trial["setting"] != "start" or alone) else "",
        ]
        for trial in found["trials"]
    ]
    rows.append(["no generated images", "", table.score(results, found["control"], None), "the control"])
    said = ", ".join(f"{names[name]} {value}" for name, value in chosen.items())
    caption = (
        f"Score on the validation split of a student trained with each value, one seed. Chosen: {said}. "
        + ("Better" if found["helps"] else "Not better")
        + " than no generated images at all there."
    )
    header = ["setting", "value", f"validation {table.metric_name(results)}", ""]
    return Section("Search", "search", [Note(caption), Grid(header, rows, "What was tried", wide=False)])


def filtering(run: Run) -> Section:
    """What the teacher's error threw out, and where the line lay."""
    summary, artifact = _synthesis(run)
    title, anchor = "Filter", "filter"
    if artifact is None:
        return Section(title, anchor, [Note("This run holds no processed images, so no filter can be shown.")])
    scalar = run.task if isinstance(run.task, Regression) else None
    scale = scalar.span if scalar else 1.0
    unit = f", {scalar.unit}" if scalar and scalar.unit else ""
    x = f"|prediction − label|{unit}" if scalar else "cross-entropy of the teacher, nats"
    cuts = [scale * cut for cut in summary.get("thresholds") or [] if cut is not None]
    blocks: list[Block] = []
    if summary.get("filter_quantile") is not None and cuts:
        processed = run.results.get("synthesis") or {}
        part = ("label bin" if processed.get("filter_by") == "bin" else "label") if scalar else "class"
        each = "over all labels" if len(cuts) == 1 else f"for each {part} apart"
        teachers = summary.get("teachers", 1)
        error = "error" if teachers == 1 else f"error, the mean of {teachers} teachers',"
        becomes = {
            "hard": " Their label then becomes the teacher's prediction.",
            "soft": " The student learns the teacher's probabilities in their label's place.",
        }.get(str(processed.get("replace")), "")
        blocks.append(
            Note(
                f"Kept: images whose {error} lies below the {summary['filter_quantile']:g}-quantile, taken {each}."
                + becomes
            )
        )
    if not cuts:
        blocks.append(Note("No cut-off is recorded: this run did not filter its images."))
    measured = artifact.tensor(SAMPLES, "calibration_errors")
    if measured is None or not measured.size:
        parts = [artifact.tensor(SAMPLES, name) for name in ("kept_errors", "dropped_errors")]
        measured = np.concatenate([part for part in parts if part is not None] or [np.empty(0)])
    line = (
        "the line was dropped"
        if len(cuts) < 2
        else f"the cut-off of its {'label' if scalar else 'class'} was dropped (band: all, line: median)"
    )
    caption = f"How much the teacher disagrees with the label asked for; what lies right of {line}."
    histogram = curves.errors(measured.astype(float) * scale, cuts, x, log=scalar is None)
    blocks += drawn(histogram, "errors", caption)
    if isinstance(run.task, Classification):
        if shown := curves.cutoffs(list(run.task.class_names), cuts, x):
            some = f" Only the {figures.MOST_BINS} highest are shown." if shown[1] else ""
            caption = f"The cut-off of each class; a high one is a class that the generator draws loosely.{some}"
            blocks += drawn(shown[0], "cutoffs", caption)
    else:
        pairs = [_pairs(artifact, name) for name in ("kept", "dropped")]
        if pairs[0][0].size:
            caption = "Dropped images lie far from the diagonal: the generator drew another label than asked for."
            blocks += drawn(curves.agreement(pairs[0], pairs[1], scalar.unit if scalar else ""), "pairs", caption)
    for name, caption in (
        ("kept", "Label asked for → the teacher's prediction; the two should agree, and the image show it."),
        ("dropped", "Label asked for → the teacher's prediction; a good image here is one the filter wasted."),
    ):
        total = artifact.length(SAMPLES, f"{name}_images")
        at = evenly(total, TILES)
        if not at:
            blocks.append(Note(f"No {name} images are stored."))
            continue
        asked, said = (_labels(run, artifact, f"{name}_{kind}", at) for kind in ("labels", "predictions"))
        # Hard spaces: a line may break before the arrow only.
        texts = [f"{a} →\u00a0{b.replace(' ', chr(160))}" for a, b in zip(asked, said, strict=False)] or [""] * len(at)
        blocks.append(Tiles(name.capitalize(), _tiles(artifact, f"{name}_images", at, texts), caption))
    return Section(title, anchor, blocks)


def learning(run: Run) -> Section:
    """Training loss and validation score of every network."""
    losses: list[Curve] = []
    scores: list[Curve] = []
    for method in (row["method"] for row in run.results["rows"] if not table.is_ablation(row["method"])):
        for artifact in run.artifacts("students", method):
            entries = artifact.summary.get("history") or []
            named = (table.words(method).replace(" (control)", ""), style(method)[0])
            losses.append(Curve(*named, *history(entries, "loss"), seed=True))
            scores.append(Curve(*named, *history(entries, "val"), seed=True))
    for artifact in run.artifacts("teacher"):
        entries = artifact.summary.get("history") or []
        losses.append(Curve("the teacher", LIGHT["red"], *history(entries, "loss"), dashed=True))
        scores.append(Curve("the teacher", LIGHT["red"], *history(entries, "val"), dashed=True))
    caption = "Score on the validation split, one line per seed; a line still climbing at its end wanted more steps."
    blocks = drawn(curves.curves(scores, f"validation {table.metric_name(run.results)}"), "val-curves", caption)
    caption = "Each method's own loss, so compare shapes, not heights: with KD it holds the teacher's term too."
    blocks += drawn(curves.curves(losses, "training loss", log=True), "loss-curves", caption)
    return Section("Learning curves", "curves", blocks or [Note("The folder holds no training histories.")])


def _other_syntheses(run: Run) -> list[Block]:
    """The sets of images that the ablation's rows learnt from, as a small table."""
    found = (run.results.get("artifacts") or {}).get("synthesis")
    if not isinstance(found, dict) or len(found) < 2:
        return []
    rows = []
    for method in found:
        artifact = run.artifact("synthesis", method)
        if artifact:
            share = artifact.summary.get("acceptance")
            counts = [table.count(artifact.summary.get(key)) for key in ("requested", "generated", "kept")]
            rows.append([table.words(method), *counts, "–" if share is None else f"{100 * share:.0f} %"])
    return [Grid(["images for", "requested", "generated", "kept", "acceptance"], rows, "All sets of images")]


def _synthesis(run: Run) -> tuple[Mapping[str, Any], Artifact | None]:
    found = (run.results.get("artifacts") or {}).get("synthesis")
    methods = list(found) if isinstance(found, dict) else []
    for method in ["cgan", "cgan_kd", *methods]:
        if artifact := run.artifact("synthesis", method):
            return artifact.summary or run.results.get("synthesis") or {}, artifact
    return run.results.get("synthesis") or {}, run.artifact("synthesis")


def _by_bin(artifact: Artifact, names: Sequence[str]) -> list[tuple[str, Array]]:
    """A preview's images of each bin that has any."""
    images, place = artifact.tensor(PREVIEW, "images"), artifact.tensor(PREVIEW, "bin")
    if images is None or place is None:
        return []
    return [(name, images[place == i]) for i, name in enumerate(names) if (place == i).any()]


def _pairs(artifact: Artifact, name: str) -> tuple[Array, Array]:
    at = evenly(artifact.length(SAMPLES, f"{name}_labels"), 400)
    found = [artifact.tensor(SAMPLES, f"{name}_{kind}", at) for kind in ("labels", "predictions")]
    if found[0] is None or found[1] is None:
        return np.empty(0), np.empty(0)
    return found[0], found[1]


def _labels(run: Run, artifact: Artifact, name: str, at: Sequence[int]) -> list[str]:
    values = artifact.tensor(SAMPLES, name, at)
    if values is None:
        return []
    if isinstance(run.task, Classification):
        names = run.task.class_names
        return [names[int(v)] if 0 <= int(v) < len(names) else str(int(v)) for v in values]
    places = 0 if isinstance(run.task, Regression) and run.task.span >= 50 else 1
    return [f"{float(v):.{places}f}".replace("-", "−") for v in values]


def _tiles(artifact: Artifact, name: str, at: Sequence[int], texts: Sequence[str]) -> list[Tile]:
    images = artifact.tensor(SAMPLES, name, at)
    if images is None:
        return []
    return [
        Tile(picture(images[i : i + 1]), text) for i, text in enumerate([*texts, *[""] * len(images)][: len(images)])
    ]
