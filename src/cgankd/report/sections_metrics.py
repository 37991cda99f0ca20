"""The page's sections on the generated images: their quality, whether they are copies, and the error bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cgankd.report import curves, figures, table
from cgankd.report.blocks import Block, Grid, Note, Section, Tiles, drawn
from cgankd.report.grids import Tile, picture
from cgankd.report.run import Run

PAIRS = "pairs.safetensors"
SETS = {"raw": "raw", "processed": "processed", "real": "real images"}
SPACES = {"pixels": "pixels", "teacher": "the teacher's features", "nokd": "the NOKD student's features"}
NONE = "This run did not measure generated images (metrics.generator measures them, in a run that generates some)."
SIGNIFICANT = 0.01
SAYS = {
    "FID": "Fréchet distance of two Gaussians fitted to the features; measures quality and variety",
    "KID": "kernel distance; unlike FID it does not grow for fewer images; ± over random subsets",
    "precision": "share of these images that are close to real images: quality",
    "recall": "share of real images that are close to these images: variety",
    "Intra-FID": "mean of FID within each class; ± over classes",
    "SFID": "mean of FID within windows of the label; ± over windows",
    "diversity": "distance between images of one label, divided by that of real images; 1 is ideal, and more can be "
    "noise",
    "label score": "the teacher's metric against the requested label (real images: validation)",
}


def quality(run: Run) -> Section:
    """The scores of raw, processed and real images, and the scores per class or label window."""
    title, anchor = "How good are the generated images?", "quality"
    metrics = run.results.get("metrics") or {}
    scores = metrics.get("scores") or []
    if not scores:
        return Section(title, anchor, [Note(NONE)])
    blocks: list[Block] = [
        Note(
            f"Compared with {metrics.get('reference', 'real images')}. Raw: unprocessed generated images. Processed: "
            "after subsampling and filter, with the labels for the student. Real images: other real images, a score "
            "that no generator can be expected to beat. The number of images is in brackets. Scores with other "
            "features or other numbers of images can't be compared, so neither can the FID of papers (Inception "
            "features, 50,000 images)."
        )
    ]
    usual = {name: scores[0]["of"].get(name, {}).get("images") for name in SETS}
    rows = [
        [_named(score), *(_value(run, score, name, usual[name]) for name in SETS), _better(score),
         table.count(score["dimension"])]
        for score in scores
    ]  # fmt: skip
    header = ["score[features]", *(f"{words} ({table.count(usual[name])})" for name, words in SETS.items()),
              "better is", "features"]  # fmt: skip
    blocks.append(Grid(header, rows, "Scores"))
    kinds = dict.fromkeys(score["name"].split("[")[0] for score in scores)
    meanings = [[kind, SAYS[kind]] for kind in kinds if kind in SAYS]
    blocks.append(Grid(["score", "meaning"], meanings, "What each score means", folded=True, prose=True))
    blocks += _missing(scores)
    empty: list[str] = []
    kind = run.task.window_names[0]
    for place, windows in enumerate(metrics.get("windows") or []):
        of = {SETS.get(name, name): values for name, values in windows["of"].items()}
        figure = curves.windows(windows["windows"], of, f"FID within a {kind}, {windows['name']}")
        if figure:
            limit = f" Only the {figures.MOST_BINS} highest are shown." if figure[1] else ""
            caption = (
                f"The Fréchet distance within each {kind} (lower is better); the generator is bad at a {kind} whose "
                f"mark is far right of the real images' mark.{limit}"
            )
            blocks += drawn(figure[0], f"windows-{place}", caption)
        else:
            empty.append(windows["name"])
    if empty:
        blocks.append(Note(f"{', '.join(empty)}: no {kind} has enough images for a score of its own."))
    return Section(title, anchor, blocks)


def copies(run: Run) -> Section:
    """The distance of generated images to training images, and the nearest pairs."""
    title, anchor = "Are they copies?", "copies"
    entries = (run.results.get("metrics") or {}).get("memorisation") or []
    if not entries:
        return Section(title, anchor, [Note(NONE)])
    blocks: list[Block] = [Note(_verdict(entries))]
    rows = [
        [f"{_set(entry)}, in {_space(entry)}", _percent(entry["share"]), _percent(entry["expected"]),
         _p_value(entry["p_value"]), table.number(entry["median_ratio"], 2)]
        for entry in entries
    ]  # fmt: skip
    header = ["images", "very near", "expected", "p-value", "median distance"]
    blocks.append(Grid(header, rows, "Distance to the nearest training image"))
    entry = entries[0]
    blocks.append(
        Note(
            f"Very near: closer to one of the {table.count(entry['train'])} training images than the closest 1 % (or "
            f"the closest one) of {table.count(entry['held_out'])} validation images, which are new to the generator. "
            "Expected: the share for images as new as those. p-value: the probability that at least as many of them "
            "are very near. Median distance: divided by that of the validation images. Blurred and typical images are "
            "close to others without being copies, so look at the pairs."
        )
    )
    blocks += [
        Note(f"{_set(entry)}, in {_space(entry)}: no share ({entry['why']}).") for entry in entries if entry.get("why")
    ]
    artifact = run.artifact("metrics")
    for space, name in SPACES.items():
        if artifact is None:
            break
        parts = [artifact.tensor(PAIRS, f"{space}_{kind}") for kind in ("fakes", "train", "distances")]
        known = [part for part in parts if part is not None and len(part)]
        if len(known) < len(parts):
            continue
        tiles = [
            Tile(picture(np.stack([fake, nearest])), f"{ratio:.2f}")
            for fake, nearest, ratio in zip(*known, strict=True)
        ]
        caption = (
            "The processed images closest to a training image: generated image left, training image right, and their "
            "distance (1: the typical distance of a validation image). Two equal images would be a copy."
        )
        blocks.append(Tiles(f"Nearest in {name}", tiles, caption))
    return Section(title, anchor, blocks)


def theory(run: Run) -> Section:
    """The terms of the error bound, each with its meaning and limits."""
    title, anchor = "What the theory says here", "theory"
    bound = (run.results.get("metrics") or {}).get("bound") or {}
    terms = bound.get("terms") or []
    if not terms:
        return Section(title, anchor, [Note(NONE)])
    least = float(bound.get("at_least") or 0.0)
    useless = ", so here it says nothing about the student" if least >= 1.0 else ""
    blocks: list[Block] = [
        Note(
            "A sum of terms bounds how much worse than the best possible student this student can be (docs, method). "
            f"The loss is {bound.get('loss', 'in [0, 1]')}, at most 1. The terms that can be estimated add up to "
            f"{least:.2f}; the bound is at least that{useless}. The student may be far better than the bound: the "
            "terms show what to improve, not how good the student is."
        )
    ]
    rows = [
        [f"{term['term']}, {term['symbol']}", _with_error(term), table.count(term["n"]),
         table.number(term["adds"], 3), str(term["says"]), str(term["cannot_say"])]
        for term in terms
    ]  # fmt: skip
    header = ["term", "value", "images", "adds", "says", "can't say"]
    blocks.append(Grid(header, rows, "Terms of the bound", prose=True))
    return Section(title, anchor, blocks)


def _missing(scores: Sequence[Mapping[str, Any]]) -> list[Block]:
    """One sentence per reason why scores have no value."""
    named: dict[str, list[str]] = {}
    for score in scores:
        reasons: dict[str, list[str]] = {}
        for name, measured in score["of"].items():
            if measured.get("why"):
                reasons.setdefault(measured["why"], []).append(SETS.get(name, name))
        for why, sets in reasons.items():
            of = "" if len(sets) == len(score["of"]) else f" of {' and '.join(sets)}"
            named.setdefault(why, []).append(score["name"] + of)
    return [Note(f"No value for {', '.join(which)}: {why}.") for why, which in named.items()]


def _named(score: Mapping[str, Any]) -> str:
    """The score's name; KID is small, so it is given times 1,000."""
    return f"{score['name']} × 1,000" if score["name"].startswith("KID") else str(score["name"])


def _better(score: Mapping[str, Any]) -> str:
    """Which values are better; diversity has an ideal, which noise exceeds."""
    return "near 1" if score["name"].startswith("diversity") else str(score["better"])


def _value(run: Run, score: Mapping[str, Any], name: str, usual: int | None) -> str:
    """A set's value with its spread; also the number of images, if not the ``usual`` one, and of the classes or label
    windows that have enough images, if not all."""
    measured = score["of"].get(name) or {}
    if measured.get("value") is None:
        return "–"
    scale = 1000.0 if score["name"].startswith("KID") else 1.0
    size = abs(measured["value"]) * scale
    places = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    value = table.number(scale * measured["value"], places)
    if measured.get("spread") is not None:
        value += f" ± {table.number(scale * measured['spread'], places)}"
    parts = [value]
    filled, windows = measured.get("windows") or (0, 0)
    if filled < windows:
        parts.append(f"({filled} of {windows} {run.task.window_names[1]})")
    if measured["images"] != usual:
        parts.append(f"({table.count(measured['images'])})")
    return " ".join(part.replace(" ", "\u00a0") for part in parts)  # lines break between parts alone


def _set(entry: Mapping[str, Any]) -> str:
    return SETS.get(entry["set"], entry["set"])


def _space(entry: Mapping[str, Any]) -> str:
    return SPACES.get(entry["space"], entry["space"])


def _verdict(entries: list[Mapping[str, Any]]) -> str:
    known = [entry for entry in entries if entry.get("p_value") is not None]
    if not known:
        return "There are too few images to decide whether the generated images are copies."
    where = [f"{_set(entry)} images in {_space(entry)}" for entry in known if entry["p_value"] < SIGNIFICANT]
    if not where:
        more = any(entry["share"] > entry["expected"] for entry in known)
        found = "no p-value is below" if more else "no share is above the expected one, and no p-value is below"
        return f"No clear sign of copying: {found} {SIGNIFICANT:g}."
    return (
        f"More images are very near a training image than expected of new real images ({', '.join(where)}). They may "
        "be copies, or only simple images; the pairs show which."
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{table.number(100.0 * share, 1)} %"


def _p_value(value: float | None) -> str:
    if value is None:
        return "–"
    return "under 0.001" if value < 0.001 else table.number(value, 3)


def _with_error(term: Mapping[str, Any]) -> str:
    error = term.get("error")
    spread = "" if error is None else f"\u00a0±\u00a0{table.number(error, 3)}"  # non-breaking spaces
    return table.number(term["value"], 3) + spread
