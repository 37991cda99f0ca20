"""From finished artifacts to results.json: rows over seeds, paired differences, and a summary of the synthesis."""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgankd._version import __version__
from cgankd.config.settings import FilterSettings, NoSubsampling
from cgankd.core import ranks
from cgankd.core.files import INT8, STUDENT_FILES, student_stem, write_json, write_text
from cgankd.core.paths import PAGE, RECIPE, RESULTS
from cgankd.core.run_folder import earlier
from cgankd.core.store import Artifact
from cgankd.data.rejected import write_rejected
from cgankd.metrics.robustness import Attack
from cgankd.metrics.statistics import mean_of_known, paired_difference, spread
from cgankd.nets.build import StoredNetwork
from cgankd.pipeline import measurements, unused
from cgankd.pipeline.comparisons import CONTROL, needs_pseudo_labels, row
from cgankd.pipeline.gathering import Gathered, gather, taught
from cgankd.pipeline.notes import run_notes
from cgankd.pipeline.refit import Refit
from cgankd.pipeline.stations import stations
from cgankd.pipeline.warnings import balanced_accuracy, warnings

if TYPE_CHECKING:
    from cgankd.pipeline.run import Run

EXPORTED = (*STUDENT_FILES.values(), f"{INT8}.onnx")  # endings of files of a student
INNER = {"built", "history", "shape"}  # entries of summaries that results.json leaves out


def write(run: Run, import_seconds: float) -> dict[str, Any]:
    """Run every seed and row of the recipe, and write what :func:`cgankd.pipeline.run.run` says to the run's folder."""
    out, text = run.store.path, run.recipe.to_yaml()
    if not (out / RESULTS).is_file():  # else the file says how these results were made
        ranks.first(lambda: write_text(out / RECIPE, text))
    ranks.first(lambda: write_rejected(run.splits.rejected, out))
    for sentence in unused.of_run(run):
        run.store.progress.say(sentence)
    run.store.progress.plan(functools.partial(stations, run))
    record = collect(run)
    record["seconds"] = {"import": import_seconds, **run.store.seconds()}
    record["used"] = run.store.used_names()
    ranks.first(lambda: write_text(out / RECIPE, text))
    ranks.first(lambda: _write(out / RESULTS, record))
    return record


def _write(path: Path, record: dict[str, Any]) -> None:
    """Write results.json. Where it holds these very results, the time of reading the images stays the one it gives, so
    a finished run that is started again changes nothing, and its page still belongs to it."""
    before = earlier(path) or {}
    for name in _outdated(record, before) if before else ():  # so that no file of another student passes for this one's
        (path.parent / name).unlink(missing_ok=True)
    if json.dumps({**record, "seconds": 0}) == json.dumps({**before, "seconds": 0}):
        record["seconds"] = {**record["seconds"], "import": before["seconds"]["import"]}
    else:  # the page shows the results before; --no-report writes no other
        (path.parent / PAGE).unlink(missing_ok=True)
    write_json(path, record)


def _outdated(record: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[str]:
    """Names of files that hold students of the results before, where those of ``record`` are others."""
    stems = ["student"] if _shipped(record) != _shipped(before) else []
    for name in (entry["method"] for entry in before.get("rows", [])):
        if _students(record, name) not in (None, _students(before, name)):
            stems += [student_stem(name, seed) for seed in (None, *before.get("seeds", []))]
    return (f"{stem}{ending}" for stem in stems for ending in EXPORTED)


def _shipped(results: Mapping[str, Any]) -> Any:
    """What tells the student that ships from others; None in older results."""
    if "best" not in results:
        return None
    name, seed = results["best"]["row"], results["best"]["seed"]
    students, *rest = _students(results, name)
    again = results["artifacts"].get("refit") if results.get("refit", {}).get("ships") else None
    return name, seed, again or students[results["seeds"].index(seed)], *rest


def _students(results: Mapping[str, Any], name: str) -> Any:
    """What tells the students of a row from others; None where the results have no such row."""
    row = next((row for row in results["rows"] if row["method"] == name), None)
    students = results.get("artifacts", {}).get("students", {}).get(name)
    return row and students and (students, row.get("weights", {}).get("ships"), results["task_settings"])


def collect(run: Run) -> dict[str, Any]:
    """Run every seed and row of the recipe. Returns the contents of results.json without the seconds."""
    gathered = gather(run)
    recipe, task, upstream, names = run.recipe, run.task, run.upstreams(), run.rows
    further = run.splits.further
    data, teachers, students = gathered.data, gathered.teachers, gathered.students
    rows = _rows(run, students, upstream[0])
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
        "dataset": run.splits.name,
        "counts": data.summary["counts"],
        "unlabelled_from": "pool" if further is None or further.of_pool else "elsewhere",
        "test_images": run.splits.test.content_key,  # scores on other images are not compared
        "seeds": list(recipe.seeds),
        "vary": recipe.vary,
        "control": CONTROL,
        "bins": data.summary["bins"],
        "test_images_per_bin": data.summary["histogram"]["test"],
        "rows": rows,
        "teacher": _teacher(run, teachers, [taught(run, seed) for seed in upstream]),
        "constant": _constant(run),
        "latency_ms": latencies([*teachers, *itertools.chain(*students.values())]),
        "notes": [*run.splits.notes, *run_notes(run, students, teachers[0])],
        "second_tries": second_tries(run.store.used),
        "artifacts": {
            "data": _path(run, data),
            "teacher": _path(run, teachers[0]),
            "students": {name: [_path(run, artifact) for artifact in students[name]] for name in names},
        },
    }
    if recipe.metrics.robustness is not None:
        results["robustness"] = recipe.metrics.robustness.model_dump(mode="json")
        results["robustness"]["images"] = min(recipe.metrics.robustness.images, len(run.splits.test))
    for name in names:
        if needs_pseudo_labels(name, recipe.student, task):
            results["artifacts"][name] = _path(run, run.pseudo(upstream[0]))
    if any(row(name).fakes for name in names):
        _add_synthesis(run, results, upstream)
    if recipe.compare.methods == "auto":
        results["autopilot"] = run.flight().to_json(task.metric_unit)
        if run.flight().with_fakes:  # cgankd generate finds it, though no row of the table may need it
            results["artifacts"].setdefault("generator", _path(run, run.generator(upstream[0])))
    _add_best(run, gathered, results)
    results["artifacts"]["worst"] = _path(run, gathered.worst)
    results["warnings"] = [*warnings(results), *run.output_notes, *unused.of_run(run)]
    for sentence in results["warnings"]:
        run.store.progress.warn(sentence)
    return results


def _add_best(run: Run, gathered: Gathered, results: dict[str, Any]) -> None:
    """Add the entries on the student that validation chose, and on the same trained on all labels."""
    best, seed = gathered.best
    scored = next(entry for entry in results["rows"] if entry["method"] == best)
    results["best"] = {"row": best, "seed": seed, "val": scored["val"]["mean"], "test": scored["mean"]}
    if (again := gathered.refit) is not None:
        results["refit"] = _refit(run, again, scored)
        results["artifacts"]["refit"] = _path(run, again.student)
        if again.ships:
            results["best"]["test"] = results["refit"]["mean"]
    if (balanced := balanced_accuracy(results)) is not None:
        results["best"]["balanced"] = balanced
    if run.task.continuous and len(run.splits.test) > 1:
        answers = gathered.worst.tensors("answers")
        errors = run.task.difference(answers[f"{best}_predictions"], answers["labels"]).abs().double()
        results["best"]["test_standard_error"] = float(errors.std() / math.sqrt(len(errors)))


def second_tries(artifacts: Sequence[Artifact]) -> list[str]:
    """The sentences on trainings that failed at first, each once."""
    return list(dict.fromkeys(tried for artifact in artifacts if (tried := artifact.summary.get("second_try"))))


def _constant(run: Run) -> dict[str, Any]:
    """What always answering the same label would score: a student has to be better than that."""
    task, label = run.task, run.task.constant(run.splits.train.labels)
    return {"label": task.short_text(label), "test": task.constant_score(label, run.splits.test.labels)}


def _path(run: Run, artifact: Artifact) -> str:
    """The path from the folder of the run, which may lead out of it to a shared artifact."""
    return Path(os.path.relpath(artifact.folder, run.store.path)).as_posix()


def _rows(run: Run, students: Mapping[str, Sequence[Artifact]], seed: int) -> list[dict[str, Any]]:
    """The rows of the table. seed: that of the generator whose images are counted."""
    settings, rows = run.recipe.student, []
    for name, artifacts in students.items():
        compared = row(name)
        unlabelled = len(run.splits.unlabelled) if compared.pseudo else 0
        details = {
            "steps": settings.transfer_steps if compared.longer else settings.fit.steps,
            "real_images": len(run.splits.train) + unlabelled,
            "pseudo_labelled": unlabelled,  # included in real_images; some rows need no label of them
            "fake_images": run.synthesis(seed, compared).summary["kept"] if compared.fakes else 0,
        }
        entry = table_row(name, [artifact.summary for artifact in artifacts], details, settings.ships)
        if run.recipe.metrics.robustness is not None:
            entry["robustness"] = robustness(run, [run.shipped(artifact) for artifact in artifacts])
        rows.append(entry)
    compare(rows)
    return rows


def _refit(run: Run, again: Refit, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of the student that was trained on all labels. chosen: that of its row."""
    details = {name: chosen[name] for name in ("steps", "real_images", "pseudo_labelled", "fake_images")}
    details["real_images"] += len(run.splits.val)
    entry = table_row(again.row, [again.student.summary], details)
    if run.recipe.metrics.robustness is not None:
        entry["robustness"] = robustness(run, [StoredNetwork(again.student)])
    return {**entry, "seed": again.seed, "ships": again.ships}


def latencies(networks: Iterable[Artifact]) -> dict[str, float | None]:
    """Milliseconds for one image, by network: the least of all that were measured, because load only adds to a time."""
    measured: dict[str, float | None] = {}
    for name, ms in ((network.summary["network"], network.summary["latency_ms"]) for network in networks):
        measured[name] = min(filter(None, (ms, measured.get(name))), default=None)
    return measured


def _teacher(run: Run, teachers: Sequence[Artifact], summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The teacher's entry; its scores are means over the seeds that have one of their own, as those of the rows.

    summaries: those of ``teachers``, or with the scores of their votes (:func:`taught`).
    """
    summary = summaries[0]
    record = {
        **{name: summary[name] for name in ("network", "parameters", "images")},
        **{split: mean_of_known([entry[split] for entry in summaries]) for split in ("val", "test")},
        "trained_on": "elsewhere" if summary["images"] is None else run.recipe.teacher.trained_on,
        "per_bin": None if summary["test_per_bin"] is None else _bins([entry["test_per_bin"] for entry in summaries]),
        "values": [entry["test"] for entry in summaries if entry["test"] is not None],
        "same_answer": next((same for entry in summaries if (same := entry.get("same_answer"))), None),
    }
    if run.recipe.metrics.robustness is not None and not summary.get("only_answers"):
        record["robustness"] = robustness(run, [StoredNetwork(teacher) for teacher in teachers])
    return record


def _add_synthesis(run: Run, results: dict[str, Any], upstream: Sequence[int]) -> None:
    """Add the entries on generator, density ratio and generated images, those of the first seed."""
    recipe, first = run.recipe, upstream[0]
    images = {name: run.synthesis(first, row(name)) for name in run.rows if row(name).fakes}
    generator, held = run.generator(first), None if run.ready_generator is None else run.ready_generator.held
    # The teacher's metric on all generated images, before any was rejected or filtered out.
    untouched = images.get("cgan_raw") or next(iter(images.values()))
    results["generator"] = {
        "parameters": generator.summary["parameters"],
        "teacher_metric_on_fakes": untouched.summary["teacher_metric"]["generated"],
        "ready_images": 0 if held is None else int(held[1].sum()),
        "variety": [run.generator(seed).summary.get("variety") for seed in upstream],
    }
    results["artifacts"] |= {
        "generator": _path(run, generator),
        "synthesis": {name: _path(run, artifact) for name, artifact in images.items()},
    }
    if run.task.continuous:
        results["artifacts"]["along"] = _path(run, run.along_labels(first))
    if not isinstance(recipe.synthesis.subsampling, NoSubsampling):
        ratio = run.ratio(first)
        results["ratio"] = _outer(ratio.summary)
        results["artifacts"]["ratio"] = _path(run, ratio)
    processed = images.get("cgan") or run.synthesis(first, row("cgan"))
    reasons = {seed: run.fell_back(seed) for seed in upstream}
    results["synthesis"] = {
        **_outer(processed.summary),
        "filter_by": _filter_by(recipe.synthesis.filter),
        "replace": run.replace,
        "fell_back": [
            reason if len(upstream) == 1 else f"Seed {seed}: {reason}" for seed in upstream for reason in reasons[seed]
        ],
    }
    choice = run.choice(first)
    if choice is not None:
        results["search"] = choice.to_json()
    if recipe.metrics.generator is not None:
        quality = measurements.quality(run, first)
        results["metrics"] = quality.summary
        results["artifacts"]["metrics"] = _path(run, quality)


def _outer(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if name not in INNER}


def _filter_by(settings: FilterSettings | None) -> str | None:
    if settings is None:
        return None
    return "bin" if isinstance(settings.by, int) else settings.by


def table_row(
    method: str, per_seed: Sequence[Mapping[str, Any]], details: Mapping[str, Any], ships: str = "last"
) -> dict[str, Any]:
    """One row of the table. per_seed: the summaries of the students, one per seed. ships: last or best, the weights
    whose scores are the row's."""
    scores = [summary if ships == "last" else summary["best"] for summary in per_seed]
    return {
        "method": method,
        "network": per_seed[0]["network"],
        "parameters": per_seed[0]["parameters"],
        **details,
        **spread([entry["test"] for entry in scores]),
        "val": {**spread([entry["val"] for entry in scores]), "losses": [entry.get("val_loss") for entry in scores]},
        "per_bin": _bins([entry["test_per_bin"] for entry in scores]),
        "difference": None,
        "label_share": _label_share(per_seed),
        "weights": {"ships": ships, **_weights(per_seed)},
    }


def _bins(per_seed: Sequence[Sequence[float | None]]) -> list[float | None]:
    """The mean score of each bin over seeds; None where the test split has no image of it."""
    return [mean_of_known(values) for values in zip(*per_seed, strict=True)]


def _weights(per_seed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The scores of the last weights and of those with the best validation score, and the latter's steps."""
    best = [summary["best"] for summary in per_seed]
    sets = {"last": per_seed, "best": best}
    scores = {
        name: {split: spread([entry[split] for entry in entries]) for split in ("val", "test")}
        for name, entries in sets.items()
    }
    return {**scores, "best_steps": [entry["step"] for entry in best]}


def _label_share(per_seed: Sequence[Mapping[str, Any]]) -> float | None:
    """The share of the label loss in the total loss at the end, a mean over seeds; None where it is the only loss."""
    ends = [summary["history"][-1] for summary in per_seed if summary.get("history")]
    shares = [end["label_share"] for end in ends if "label_share" in end]
    return statistics.fmean(shares) if shares else None


def robustness(run: Run, networks: Sequence[StoredNetwork]) -> dict[str, Any]:
    """The scores of networks on the test images chosen for attacks: clean, and under each attack."""
    settings = run.recipe.metrics.robustness
    assert settings is not None
    scores: dict[str, Any] = {}
    for name in settings.attacks:
        attack = Attack.of(settings, name)
        summaries = [measurements.attacked(run, network, attack).summary for network in networks]
        scores["clean"] = spread([summary["clean"] for summary in summaries])
        scores[name] = spread([summary["attacked"] for summary in summaries])
    return scores


def compare(rows: list[dict[str, Any]]) -> None:
    """Add its paired difference to the control to every row with the same number of training steps, in place."""
    control = next((entry for entry in rows if entry["method"] == CONTROL), None)
    if control is None:
        return
    for entry in rows:
        if entry is not control and entry["steps"] == control["steps"]:
            entry["difference"] = {"to": CONTROL, **paired_difference(entry["values"], control["values"])}
