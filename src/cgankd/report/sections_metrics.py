"""The page's sections about the generated images as such: how good, whether copies, what theory says of them."""

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
NONE = "This run did not judge its generated images (metrics.generator, in a run that generates some)."
SIGNIFICANT = 0.01
SAYS = {
    "FID": "Fréchet distance of two Gaussians fitted to the features; sees both quality and variety",
    "KID": "kernel distance; unlike FID not larger for fewer images; ± over random subsets",
    "precision": "share of the images that lie among real ones: quality",
    "recall": "share of real images that lie among these: variety",
    "Intra-FID": "mean of FID within each class; ± over classes",
    "SFID": "mean of FID within windows of the label; ± over windows",
    "diversity": "distance between images of one label, as a share of that between real images; 1 is right, "
    "and more can be noise",
    "label score": "the teacher's metric against the label that was asked for (real images: validation)",
}


def quality(run: Run) -> Section:
    """The scores, raw against processed against the floor of real images, and where labels differ."""
    title, anchor = "How good are the generated images?", "quality"
    found = run.results.get("metrics") or {}
    scores = found.get("scores") or []
    if not scores:
        return Section(title, anchor, [Note(NONE)])
    blocks: list[Block] = [
        Note(
            f"Compared with {found.get('reference', 'real images')}. Raw: as the generator made them; processed: "
            "after subsampling and filter, with the student's labels; real images: other real ones in their place, "
            "which no generator can be expected to beat. In brackets, how many there are. Scores with other "
            "features, or on other numbers of images, are not comparable, least of all with the FID of papers "
            "(Inception features, 50,000 images)."
        )
    ]
    usual = {name: scores[0]["of"].get(name, {}).get("images") for name in SETS}
    rows = [
        [_named(score), *(_value(score, name, usual[name]) for name in SETS), score["better"],
         table.count(score["dimension"])]
        for score in scores
    ]  # fmt: skip
    header = ["score[features]", *(f"{words} ({table.count(usual[name])})" for name, words in SETS.items()),
              "better is", "features"]  # fmt: skip
    blocks.append(Grid(header, rows, "Scores"))
    kinds = dict.fromkeys(score["name"].split("[")[0] for score in scores)
    explained = [[kind, SAYS[kind]] for kind in kinds if kind in SAYS]
    blocks.append(Grid(["score", "what it says"], explained, "What each score says", folded=True, prose=True))
    blocks += _missing(scores)
    empty: list[str] = []
    kind = "label window" if run.task.continuous else "class"
    for place, windows in enumerate(found.get("windows") or []):
        of = {SETS.get(name, name): values for name, values in windows["of"].items()}
        shown = curves.windows(windows["windows"], of, f"FID within a {kind}, {windows['name']}")
        if shown:
            some = f" Only the {figures.MOST_BINS} highest are shown." if shown[1] else ""
            caption = (
                f"The Fréchet distance within each {kind} (lower is better); far right of the real images is a "
                f"{kind} that the generator draws badly.{some}"
            )
            blocks += drawn(shown[0], f"windows-{place}", caption)
        else:
            empty.append(windows["name"])
    if empty:
        blocks.append(Note(f"{', '.join(empty)}: no {kind} holds enough images for a score of its own."))
    return Section(title, anchor, blocks)


def copies(run: Run) -> Section:
    """How near generated images lie to training images, and the nearest pairs to look at."""
    title, anchor = "Are they copies?", "copies"
    found = (run.results.get("metrics") or {}).get("memorisation") or []
    if not found:
        return Section(title, anchor, [Note(NONE)])
    blocks: list[Block] = [Note(_verdict(found))]
    rows = [
        [f"{SETS.get(entry['set'], entry['set'])}, in {SPACES.get(entry['space'], entry['space'])}",
         _percent(entry["share"]), _percent(entry["expected"]), _p_value(entry["p_value"]),
         table.number(entry["median_ratio"], 2)]
        for entry in found
    ]  # fmt: skip
    header = ["images", "very near", "expected", "chance of as many", "median distance"]
    blocks.append(Grid(header, rows, "Distance to the nearest training image"))
    entry = found[0]
    blocks.append(
        Note(
            f"Very near: nearer to one of the {table.count(entry['train'])} training images than the nearest 1 % "
            f"(or the nearest one) of {table.count(entry['held_out'])} validation images, new to the generator. "
            "Expected: the share if the images were as new as those, with the chance of at least as many as "
            "were found. Median distance: as a share of the validation images'. Blurred and typical images lie "
            "near others without being copies, so look at the pairs."
        )
    )
    blocks += [
        Note(f"{SETS.get(e['set'], e['set'])}, in {SPACES.get(e['space'], e['space'])}: no share, for {e['why']}.")
        for e in found
        if e.get("why")
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
            "The processed images nearest to a training image: generated left, training image right, and their "
            "distance (1: as far as a validation image typically is). The same picture twice would be a copy."
        )
        blocks.append(Tiles(f"Nearest in {name}", tiles, caption))
    return Section(title, anchor, blocks)


def theory(run: Run) -> Section:
    """The error bound's terms, each with what it can't say."""
    title, anchor = "What the theory says here", "theory"
    found = (run.results.get("metrics") or {}).get("bound") or {}
    terms = found.get("terms") or []
    if not terms:
        return Section(title, anchor, [Note(NONE)])
    least = float(found.get("at_least") or 0.0)
    nothing = ", so here it says nothing of the student" if least >= 1.0 else ""
    blocks: list[Block] = [
        Note(
            "How much worse than the best possible student this one may be is bounded by a sum of terms (docs, "
            f"method). The loss is {found.get('loss', 'in [0, 1]')}, at most 1. The terms that can be estimated "
            f"add up to {least:.2f}; the bound is that or more{nothing}. The student may be far better than its "
            "bound, which shows what to work on, not how good it is."
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
    """A sentence per reason why scores have no value, however many they are."""
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
    """KID is small, and usually given times 1,000."""
    return f"{score['name']} × 1,000" if score["name"].startswith("KID") else str(score["name"])


def _value(score: Mapping[str, Any], name: str, usual: int | None) -> str:
    """A set's value with its spread; the number of images where it is not the ``usual`` one, and of windows."""
    measured = score["of"].get(name) or {}
    if measured.get("value") is None:
        return "–"
    scale = 1000.0 if score["name"].startswith("KID") else 1.0
    size = abs(measured["value"]) * scale
    places = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    said = table.number(scale * measured["value"], places)
    if measured.get("spread") is not None:
        said += f" ± {table.number(scale * measured['spread'], places)}"
    filled, windows = measured.get("windows") or (0, 0)
    if filled < windows:
        said += f" ({filled} of {windows} windows)"
    if measured["images"] != usual:
        said += f" ({table.count(measured['images'])})"
    return said.replace(" ", "\u00a0")


def _verdict(found: list[Mapping[str, Any]]) -> str:
    known = [entry for entry in found if entry.get("p_value") is not None]
    if not known:
        return "Whether the images are copies can't be told here, for want of images to compare with."
    where = [
        f"{SETS.get(entry['set'], entry['set'])} images in {SPACES.get(entry['space'], entry['space'])}"
        for entry in known
        if entry["p_value"] < SIGNIFICANT
    ]
    if not where:
        return "No sign of copying: no more of the images lie very near a training image than new real ones would."
    return (
        f"More images lie very near a training image than new real ones would ({', '.join(where)}). They may be "
        "copies, or merely plain; the pairs show which."
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{table.number(100.0 * share, 1)} %"


def _p_value(value: float | None) -> str:
    if value is None:
        return "–"
    return "under 0.001" if value < 0.001 else table.number(value, 3)


def _with_error(term: Mapping[str, Any]) -> str:
    error = term.get("error")
    spread = "" if error is None else f"\u00a0±\u00a0{table.number(error, 3)}"  # never broken
    return table.number(term["value"], 3) + spread
