"""From finished artifacts to results.json: rows over seeds, paired differences, what the synthesis did."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgankd import distill
from cgankd._version import __version__
from cgankd.config.recipe import Recipe
from cgankd.config.settings import NoSubsampling
from cgankd.core.store import Artifact
from cgankd.metrics.robustness import Attack
from cgankd.metrics.statistics import few_seeds, paired_difference, spread
from cgankd.pipeline.comparisons import CONTROL, row
from cgankd.teachers.answers import StoredAnswers

if TYPE_CHECKING:
    from cgankd.pipeline.run import Run


INNER = {"built", "history", "shape"}  # of summaries: by what artifacts are opened again, and curves


def collect(road: Run) -> dict[str, Any]:
    """Go the road for every seed and row of its recipe; everything of results.json but the seconds."""
    recipe, task, names = road.recipe, road.task, road.recipe.rows
    data = road.data()
    upstream = list(dict.fromkeys(road.upstream(seed) for seed in recipe.seeds))
    first = upstream[0]
    teachers = [road.teacher(seed) for seed in upstream]
    students: dict[str, list[Artifact]] = {name: [] for name in names}
    for seed in recipe.seeds:
        for name in names:
            students[name].append(road.student(name, seed))
    made = {name: road.synthesis(first, row(name)) for name in names if row(name).fakes}
    pseudo = {name: road.pseudo(first) for name in names if row(name).pseudo}
    table = []
    for name in names:
        unlabelled = pseudo[name].summary["images"] if name in pseudo else 0
        details = {
            "steps": recipe.student.transfer_steps if row(name).longer else recipe.student.fit.steps,
            "real_images": len(road.splits.train) + unlabelled,
            "pseudo_labelled": unlabelled,  # of the real ones
            "fake_images": made[name].summary["kept"] if name in made else 0,
        }
        table.append(table_row(name, [artifact.summary for artifact in students[name]], details))
    compare(table)
    measured = recipe.metrics.robustness
    if measured is not None:
        for entry in table:
            entry["robustness"] = robustness(road, students[entry["method"]])

    def path(artifact: Artifact) -> str:
        return Path(os.path.relpath(artifact.folder, road.store.path)).as_posix()  # may lie beside: shared

    teacher = teachers[0].summary
    networks = [teachers[0], *(artifacts[0] for artifacts in students.values())]
    found: dict[str, Any] = {
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
        "rows": table,
        "teacher": {
            **{name: teacher[name] for name in ("network", "parameters", "images", "val", "test")},
            "trained_on": "elsewhere" if teacher["images"] is None else recipe.teacher.trained_on,
            "per_bin": teacher["test_per_bin"],
            "values": [value for artifact in teachers if (value := artifact.summary["test"]) is not None],
        },
        "latency_ms": {artifact.summary["network"]: artifact.summary["latency_ms"] for artifact in networks},
        "notes": [*road.splits.notes, *row_notes(road), *teacher_notes(road, teacher)],
        "artifacts": {
            "data": path(data),
            "teacher": path(teachers[0]),
            "students": {name: [path(artifact) for artifact in students[name]] for name in names},
        },
    }
    found["artifacts"] |= {name: path(artifact) for name, artifact in pseudo.items()}
    if measured is not None:
        if not teacher.get("only_answers"):
            found["teacher"]["robustness"] = robustness(road, teachers)
        found["robustness"] = measured.model_dump(mode="json")
        found["robustness"]["images"] = min(measured.images, len(road.splits.test))
    if made:
        generator = road.generator(first)
        # The teacher's metric on what came out of the generator, before anything was rejected or dropped.
        untouched = made.get("cgan_raw") or next(iter(made.values()))
        on_fakes = untouched.summary["teacher_metric"]["generated"]
        found["generator"] = {
            "parameters": generator.summary["parameters"],
            "teacher_metric_on_fakes": on_fakes,
            "ready_images": road.ready_generator is not None and road.ready_generator.held is not None,
        }
        found["artifacts"] |= {
            "generator": path(generator),
            "synthesis": {name: path(artifact) for name, artifact in made.items()},
        }
        if not isinstance(recipe.synthesis.subsampling, NoSubsampling):
            ratio = road.ratio(first)
            found["ratio"] = {name: value for name, value in ratio.summary.items() if name not in INNER}
            found["artifacts"]["ratio"] = path(ratio)
        processed = made.get("cgan") or road.synthesis(first, row("cgan"))
        reasons = {seed: road.fell_back(seed) for seed in upstream}
        found["synthesis"] = {
            **{name: value for name, value in processed.summary.items() if name not in INNER},
            "filter_by": _filter_by(recipe),
            "replace": road.replace,
            "fell_back": [
                reason if len(upstream) == 1 else f"Seed {seed}: {reason}"
                for seed in upstream
                for reason in reasons[seed]
            ],
        }
        choice = road.choice(first)
        if choice is not None:
            found["search"] = choice.to_json()
        if recipe.metrics.generator is not None:
            judged = road.quality(first)
            found["metrics"] = judged.summary
            found["artifacts"]["metrics"] = path(judged)
    found["warnings"] = [*warnings(found), *road.told]
    return found


def _filter_by(recipe: Recipe) -> str | None:
    settings = recipe.synthesis.filter
    if settings is None:
        return None
    return "bin" if isinstance(settings.by, int) else settings.by


def row_notes(road: Run) -> list[str]:
    """What the task leaves out of a row's settings."""
    strong, task = road.recipe.student.strong_augment, road.task
    said = []
    for name in (name for name in road.recipe.rows if row(name).strong):
        if strong.cutmix and not task.mixable:
            said.append(f"row {name} has no CutMix: a picture cut out of two images has no label in {task.name}")
        if strong.randaugment and not task.geometry_safe:
            said.append(f"row {name} changes pixel values only: turning or shearing an image may change its label")
    return said


def teacher_notes(road: Run, teacher: dict[str, Any]) -> list[str]:
    """What teachers knew before they were trained, or what can't be known of one that only answers."""
    jury = enumerate(road.recipe.teacher.jury, start=1)
    said = [f"juror {number} is {one.source or one.start}" for number, one in jury if one.source or one.start]
    if "started_anew" in teacher:
        anew = ", ".join(teacher["started_anew"]) or "no layer"
        said.append(f"the teacher's training started from {road.recipe.teacher.start}; from random weights: {anew}")
    if not teacher.get("only_answers"):
        return said
    quality = road.recipe.metrics.generator
    shown = "none" if quality is None else f"[{', '.join(quality.features)}]"
    said += [
        "the teacher only answers, so its size and speed are not known, and features are those of others: "
        f"ratio.features={road.recipe.ratio.features.kind}, metrics.generator.features={shown}"
    ]
    if isinstance(answers := road.black_box, StoredAnswers):
        said += _stored_notes(road, answers)
    if road.recipe.metrics.robustness is not None:
        said.append("the teacher was not attacked, as it shows no gradient to attack it by")
    return said


def _stored_notes(road: Run, answers: StoredAnswers) -> list[str]:
    said = []
    for split, name in (("val", "validation"), ("test", "test")):
        images = getattr(road.splits, split).images
        if missing := answers.unanswered(images):
            said.append(
                f"the teacher has answered about {len(images) - missing} of {len(images)} {name} images, so it has "
                "no score there"
            )
    if {"cgan_raw", "cgan_subsample"} & set(road.recipe.rows):
        said.append("images were subsampled before they were exported, if at all, so cgan_raw is cgan_subsample")
    return said


def table_row(method: str, per_seed: Sequence[dict[str, Any]], details: dict[str, Any]) -> dict[str, Any]:
    """One row of the table. per_seed: the summaries of the fitted students, one per seed."""
    values = [summary["test"] for summary in per_seed]
    bins = zip(*(summary["test_per_bin"] for summary in per_seed), strict=True)
    return {
        "method": method,
        "network": per_seed[0]["network"],
        "parameters": per_seed[0]["parameters"],
        **details,
        **spread(values),
        "per_bin": [None if None in scores else statistics.fmean(scores) for scores in bins],
        "difference": None,
        "label_share": _label_share(per_seed),
    }


def _label_share(per_seed: Sequence[dict[str, Any]]) -> float | None:
    """What share of the loss was the label's at the end, mean over the seeds; None where it is all."""
    ends = [summary["history"][-1] for summary in per_seed if summary.get("history")]
    shares = [end["label_share"] for end in ends if "label_share" in end]
    return statistics.fmean(shares) if shares else None


def robustness(road: Run, networks: Sequence[Artifact]) -> dict[str, Any]:
    """The scores of one row's networks on the attacked test images: as they are ("clean") and under each attack."""
    found: dict[str, Any] = {}
    settings = road.recipe.metrics.robustness
    assert settings is not None
    for attack in settings.attacks:
        made = Attack.of(settings, attack)
        summaries = [road.robustness(network, made).summary for network in networks]
        found["clean"] = spread([summary["clean"] for summary in summaries])
        found[attack] = spread([summary["attacked"] for summary in summaries])
    return found


def compare(rows: list[dict[str, Any]]) -> None:
    """Give every row trained as long as the control its paired difference to it, in place."""
    control = next((r for r in rows if r["method"] == CONTROL), None)
    if control is None:
        return
    for other in rows:
        if other is not control and other["steps"] == control["steps"]:
            other["difference"] = {"to": CONTROL, **paired_difference(other["values"], control["values"])}


DROWNED = 0.1  # the share of the loss under which the label counts for little


def drowned(rows: Sequence[dict[str, Any]], better: float, scored: Callable[[float], str]) -> list[str]:
    """Of rows whose methods have weights and leave little of the label's loss, those that labels alone outdo."""
    plain = {row(one["method"]).fakes: one for one in rows if one["method"] in (CONTROL, "cgan")}
    said = []
    for one in rows:
        of = row(one["method"])
        weights = [part for part in distill.parts(of.method) if "weight" in distill.find(part).defaults]
        share, beside = one.get("label_share"), plain.get(of.fakes)
        if not weights or share is None or share >= DROWNED or beside is None:
            continue
        if better * (one["mean"] - beside["mean"]) < 0:
            settings = ", ".join(f"student.method_settings.{part}.weight" for part in weights)
            said.append(
                f"Row {one['method']} ({scored(one['mean'])}) does worse than {beside['method']} "
                f"({scored(beside['mean'])}), and at the end {share:.1%} of what it minimised was the label's "
                f"loss: a smaller {settings} may help."
            )
    return said


def warnings(found: dict[str, Any]) -> list[str]:
    """Sentences about what a reader should know before believing the table."""
    said = []
    better = 1.0 if found["higher_is_better"] else -1.0

    def scored(value: float) -> str:
        return f"{value:.4g} {found['unit']}".rstrip()

    if found["demonstration"]:
        said.append("This is a demonstration: training was cut short to show the road, and proves nothing.")
    else:
        said += few_seeds(len(found["seeds"]))
    control = next((r for r in found["rows"] if r["method"] == CONTROL), None)
    values = found["teacher"]["values"]  # none of one that has not answered about test images
    teacher = statistics.fmean(values) if values else math.nan
    if control and better * (teacher - control["mean"]) <= 0:
        its, own = (row.get("robustness", {}) for row in (found["teacher"], control))
        attacks = (its.keys() & own.keys()) - {"clean"}
        sturdier = any(better * (its[name]["mean"] - own[name]["mean"]) > 0 for name in attacks)
        but = " but how to stand attacks" if sturdier else ""
        said.append(
            f"The teacher ({scored(teacher)}) is no better than the student trained alone for as many steps "
            f"({scored(control['mean'])}): it has nothing to transfer{but}."
        )
    said += drowned(found["rows"], better, scored)
    if found["teacher"].get("trained_on") == "pool" and any(r.get("pseudo_labelled") for r in found["rows"]):
        said.append(
            "The teacher was trained on the images that row pseudo takes its labels for, with their true labels: "
            "the row is an upper reference that nearly has the truth."
        )
    chosen = found.get("search")
    if chosen and not chosen["helps"]:
        said.append(
            f"On the validation split nothing in the search ({scored(chosen['score'])} at best) beats the student "
            f"without generated images ({scored(chosen['control'])}): they would hurt here."
        )
    made = found.get("synthesis")
    if made and made.get("fell_back"):
        said.append(
            "Images were not subsampled, for the density ratio fails its held-out checks: "
            + " ".join(made["fell_back"])
        )
    elif (ratio := found.get("ratio")) and ratio.get("reasons"):
        said.append(
            "The density ratio fails its held-out checks, and images were subsampled by it all the same: "
            + " ".join(ratio["reasons"])
        )
    if made and made["kept"] < made["requested"]:
        said.append(
            f"{made['requested'] - made['kept']} of {made['requested']} images are missing: "
            + (
                "generator.source has no more of their labels, or they reached synthesis.max_draws draws per image."
                if found.get("generator", {}).get("ready_images")
                else "their labels reached synthesis.max_draws draws per image."
            )
        )
    return said
