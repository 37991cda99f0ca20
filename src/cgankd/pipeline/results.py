"""From finished artifacts to results.json: rows over seeds, paired differences, what the synthesis did."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgankd._version import __version__
from cgankd.config.settings import FilterSettings, NoSubsampling
from cgankd.core.store import Artifact
from cgankd.metrics.robustness import Attack
from cgankd.metrics.statistics import paired_difference, spread
from cgankd.pipeline import measurements
from cgankd.pipeline.comparisons import CONTROL, row
from cgankd.pipeline.warnings import warnings
from cgankd.teachers.answers import StoredAnswers

if TYPE_CHECKING:
    from cgankd.pipeline.run import Run

INNER = {"built", "history", "shape"}  # of summaries: by what artifacts are opened again, and curves


def collect(road: Run) -> dict[str, Any]:
    """Go the road for every seed and row of its recipe; everything of results.json but the seconds."""
    recipe, task, names = road.recipe, road.task, road.recipe.rows
    data = road.data()
    upstream = list(dict.fromkeys(road.upstream(seed) for seed in recipe.seeds))
    teachers = [road.teacher(seed) for seed in upstream]
    students: dict[str, list[Artifact]] = {name: [] for name in names}
    for seed in recipe.seeds:
        for name in names:
            students[name].append(road.student(name, seed))
    rows = _rows(road, students, upstream[0])
    networks = [teachers[0], *(artifacts[0] for artifacts in students.values())]
    results: dict[str, Any] = {
        "cgankd": __version__,
        "recipe": recipe.name,
        "description": recipe.description,
        "demonstration": recipe.demonstration,
        "task": task.name,
        "task_settings": task.to_json(),
        "metric": task.metric,
        "unit": task.metric_unit,
        "higher_is_better": task.higher_is_better,
        "dataset": road.splits.name,
        "seeds": list(recipe.seeds),
        "vary": recipe.vary,
        "control": CONTROL,
        "bins": data.summary["bins"],
        "rows": rows,
        "teacher": _teacher(road, teachers),
        "latency_ms": {network.summary["network"]: network.summary["latency_ms"] for network in networks},
        "notes": [*road.splits.notes, *row_notes(road), *teacher_notes(road, teachers[0].summary)],
        "artifacts": {
            "data": _path(road, data),
            "teacher": _path(road, teachers[0]),
            "students": {name: [_path(road, artifact) for artifact in students[name]] for name in names},
        },
    }
    if recipe.metrics.robustness is not None:
        results["robustness"] = recipe.metrics.robustness.model_dump(mode="json")
        results["robustness"]["images"] = min(recipe.metrics.robustness.images, len(road.splits.test))
    for name in names:
        if row(name).pseudo:
            results["artifacts"][name] = _path(road, road.pseudo(upstream[0]))
    if any(row(name).fakes for name in names):
        _add_synthesis(road, results, upstream)
    results["warnings"] = [*warnings(results), *road.told]
    return results


def _path(road: Run, artifact: Artifact) -> str:
    """From the folder of the run on; a shared artifact may lie beside it."""
    return Path(os.path.relpath(artifact.folder, road.store.path)).as_posix()


def _rows(road: Run, students: Mapping[str, Sequence[Artifact]], seed: int) -> list[dict[str, Any]]:
    """The rows of the table. seed: of the generator whose images are counted."""
    settings, rows = road.recipe.student, []
    for name, artifacts in students.items():
        compared = row(name)
        unlabelled = road.pseudo(seed).summary["images"] if compared.pseudo else 0
        details = {
            "steps": settings.transfer_steps if compared.longer else settings.fit.steps,
            "real_images": len(road.splits.train) + unlabelled,
            "pseudo_labelled": unlabelled,  # of the real ones
            "fake_images": road.synthesis(seed, compared).summary["kept"] if compared.fakes else 0,
        }
        entry = table_row(name, [artifact.summary for artifact in artifacts], details)
        if road.recipe.metrics.robustness is not None:
            entry["robustness"] = robustness(road, artifacts)
        rows.append(entry)
    compare(rows)
    return rows


def _teacher(road: Run, teachers: Sequence[Artifact]) -> dict[str, Any]:
    summary = teachers[0].summary
    record = {
        **{name: summary[name] for name in ("network", "parameters", "images", "val", "test")},
        "trained_on": "elsewhere" if summary["images"] is None else road.recipe.teacher.trained_on,
        "per_bin": summary["test_per_bin"],
        "values": [value for artifact in teachers if (value := artifact.summary["test"]) is not None],
    }
    if road.recipe.metrics.robustness is not None and not summary.get("only_answers"):
        record["robustness"] = robustness(road, teachers)
    return record


def _add_synthesis(road: Run, results: dict[str, Any], upstream: Sequence[int]) -> None:
    """What is known of generator, density ratio and generated images, those of the first seed."""
    recipe, first = road.recipe, upstream[0]
    images = {name: road.synthesis(first, row(name)) for name in recipe.rows if row(name).fakes}
    generator = road.generator(first)
    # The teacher's metric on what came out of the generator, before anything was rejected or dropped.
    untouched = images.get("cgan_raw") or next(iter(images.values()))
    results["generator"] = {
        "parameters": generator.summary["parameters"],
        "teacher_metric_on_fakes": untouched.summary["teacher_metric"]["generated"],
        "ready_images": road.ready_generator is not None and road.ready_generator.held is not None,
    }
    results["artifacts"] |= {
        "generator": _path(road, generator),
        "synthesis": {name: _path(road, artifact) for name, artifact in images.items()},
    }
    if not isinstance(recipe.synthesis.subsampling, NoSubsampling):
        ratio = road.ratio(first)
        results["ratio"] = _outer(ratio.summary)
        results["artifacts"]["ratio"] = _path(road, ratio)
    processed = images.get("cgan") or road.synthesis(first, row("cgan"))
    reasons = {seed: road.fell_back(seed) for seed in upstream}
    results["synthesis"] = {
        **_outer(processed.summary),
        "filter_by": _filter_by(recipe.synthesis.filter),
        "replace": road.replace,
        "fell_back": [
            reason if len(upstream) == 1 else f"Seed {seed}: {reason}" for seed in upstream for reason in reasons[seed]
        ],
    }
    choice = road.choice(first)
    if choice is not None:
        results["search"] = choice.to_json()
    if recipe.metrics.generator is not None:
        quality = measurements.quality(road, first)
        results["metrics"] = quality.summary
        results["artifacts"]["metrics"] = _path(road, quality)


def _outer(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if name not in INNER}


def _filter_by(settings: FilterSettings | None) -> str | None:
    if settings is None:
        return None
    return "bin" if isinstance(settings.by, int) else settings.by


def row_notes(road: Run) -> list[str]:
    """What the task leaves out of a row's settings."""
    strong, task = road.recipe.student.strong_augment, road.task
    notes = []
    for name in (name for name in road.recipe.rows if row(name).strong):
        if strong.mixes and not task.mixable:
            notes.append(f"row {name} mixes no images, because a mix of two has no label in {task.name}")
        if strong.randaugment and not task.geometry_safe:
            notes.append(f"row {name} changes pixel values only: turning or shearing an image may change its label")
    return notes


def teacher_notes(road: Run, teacher: Mapping[str, Any]) -> list[str]:
    """What teachers knew before they were trained, or what can't be known of one that only answers."""
    jury = enumerate(road.recipe.teacher.jury, start=1)
    notes = [
        f"juror {number} is {juror.source or juror.start}" for number, juror in jury if juror.source or juror.start
    ]
    if "started_anew" in teacher:
        anew = ", ".join(teacher["started_anew"]) or "no layer"
        notes.append(f"the teacher's training started from {road.recipe.teacher.start}; from random weights: {anew}")
    return [*notes, *_notes_on_answers(road)] if teacher.get("only_answers") else notes


def _notes_on_answers(road: Run) -> Iterator[str]:
    recipe = road.recipe
    quality = recipe.metrics.generator
    shown = "none" if quality is None else f"[{', '.join(quality.features)}]"
    yield (
        "the teacher only answers, so its size and speed are not known, and features are those of others: "
        f"ratio.features={recipe.ratio.features.kind}, metrics.generator.features={shown}"
    )
    if isinstance(answers := road.black_box, StoredAnswers):
        yield from _notes_on_files(road, answers)
    if recipe.metrics.robustness is not None:
        yield "the teacher was not attacked, because it shows no gradient to attack it by"


def _notes_on_files(road: Run, answers: StoredAnswers) -> Iterator[str]:
    for split, name in (("val", "validation"), ("test", "test")):
        images = getattr(road.splits, split).images
        if missing := answers.unanswered(images):
            yield (
                f"the teacher has answered about {len(images) - missing} of {len(images)} {name} images, so it has "
                "no score there"
            )
    if {"cgan_raw", "cgan_subsample"} & set(road.recipe.rows):
        yield "images were subsampled before they were exported, if at all, so cgan_raw is cgan_subsample"


def table_row(method: str, per_seed: Sequence[Mapping[str, Any]], details: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the table. per_seed: the summaries of the students, one per seed."""
    bins = zip(*(summary["test_per_bin"] for summary in per_seed), strict=True)
    return {
        "method": method,
        "network": per_seed[0]["network"],
        "parameters": per_seed[0]["parameters"],
        **details,
        **spread([summary["test"] for summary in per_seed]),
        "val": spread([summary["val"] for summary in per_seed]),
        "per_bin": [None if None in scores else statistics.fmean(scores) for scores in bins],
        "difference": None,
        "label_share": _label_share(per_seed),
    }


def _label_share(per_seed: Sequence[Mapping[str, Any]]) -> float | None:
    """What share of the loss was the label's at the end, mean over the seeds; None where it is all."""
    ends = [summary["history"][-1] for summary in per_seed if summary.get("history")]
    shares = [end["label_share"] for end in ends if "label_share" in end]
    return statistics.fmean(shares) if shares else None


def robustness(road: Run, networks: Sequence[Artifact]) -> dict[str, Any]:
    """The scores of networks on the attacked test images: as they are ("clean") and under each attack."""
    settings = road.recipe.metrics.robustness
    assert settings is not None
    scores: dict[str, Any] = {}
    for name in settings.attacks:
        attack = Attack.of(settings, name)
        summaries = [measurements.attacked(road, network, attack).summary for network in networks]
        scores["clean"] = spread([summary["clean"] for summary in summaries])
        scores[name] = spread([summary["attacked"] for summary in summaries])
    return scores


def compare(rows: list[dict[str, Any]]) -> None:
    """Give every row trained as long as the control its paired difference to it, in place."""
    control = next((entry for entry in rows if entry["method"] == CONTROL), None)
    if control is None:
        return
    for entry in rows:
        if entry is not control and entry["steps"] == control["steps"]:
            entry["difference"] = {"to": CONTROL, **paired_difference(entry["values"], control["values"])}
