"""Every stage that a run needs, in order. What a run computes is listed here and nowhere else.

results.py makes results.json of the artifacts; stations.py calls the same with a store that computes nothing, so that
the stages are known before the run starts.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cgankd.core.store import Artifact
from cgankd.distill import SUPERVISED
from cgankd.metrics.robustness import Attack
from cgankd.metrics.statistics import mean_of_known, place_of_best
from cgankd.nets.build import StoredNetwork
from cgankd.pipeline import measurements, stages
from cgankd.pipeline.comparisons import CONTROL, needs_pseudo_labels, row
from cgankd.pipeline.refit import Refit, refit

if TYPE_CHECKING:
    from cgankd.pipeline.run import Run


@dataclasses.dataclass(frozen=True)
class Gathered:
    """The artifacts that results.json begins with.

    teachers: one for each seed of a teacher. students: row -> one for each seed. best: row and seed of the best student
    by validation, which are the first ones where a student is not trained yet. refit: that student, trained again on
    all labels; None where the recipe does not ask for it. worst: answers to the test images.
    """

    data: Artifact
    teachers: list[Artifact]
    students: Mapping[str, Sequence[Artifact]]
    best: tuple[str, int]
    refit: Refit | None
    worst: Artifact


def taught(run: Run, seed: int) -> Mapping[str, Any]:
    """The teacher's summary; where students learn from a vote of several teachers, with the scores of the vote."""
    known = run.teacher(seed).summary
    if run.recipe.teacher.votes == "first":
        return known
    store = run.store.titled(f"vote of the teachers (seed {seed})")
    vote = store.call(stages.score_vote, teachers=run.distilled(seed), around=run.around)
    return {**known, **vote.summary}


def gather(run: Run) -> Gathered:
    """Call all stages. Every student's score is announced as soon as it is there."""
    recipe, upstream = run.recipe, run.upstreams()
    data = run.data()
    teachers = [run.teacher(seed) for seed in upstream]
    for seed in upstream:
        if same := taught(run, seed).get("same_answer"):
            run.store.progress.say(f"the teacher answers {same} for nearly all test images")
    students: dict[str, list[Artifact]] = {name: [] for name in run.rows}
    for seed in recipe.seeds:
        for name in run.rows:
            student = run.student(name, seed)
            students[name].append(student)
            if student.summary:
                scored = scores(run, student)
                shown = {"validation": scored["val"], "test": scored["test"]}
                run.store.progress.score(name, seed, shown, run.task.metric, run.task.metric_unit)
    if any(needs_pseudo_labels(name, recipe.student, run.task) for name in run.rows):
        run.pseudo(upstream[0])
    if any(row(name).fakes for name in run.rows):
        _gather_generated(run, upstream)
    best = best_by_validation(run, students)
    again = _on_all_labels(run, students, *best) if recipe.student.refit else None
    _attack_all(run, teachers, students, again)
    shown = _networks_shown(run, students, *best)
    if again is not None and again.ships:
        shown[again.row] = StoredNetwork(again.student)
    return Gathered(data, teachers, students, best, again, measurements.worst_answers(run, shown))


def scores(run: Run, student: Artifact) -> Mapping[str, Any]:
    """The scores of the weights that ship: val, test and test_per_bin."""
    last = run.recipe.student.ships == "last" or not student.summary
    return student.summary if last else student.summary["best"]


def _all_trained(students: Mapping[str, Sequence[Artifact]]) -> bool:
    return all(student.summary for trained in students.values() for student in trained)


def _on_all_labels(run: Run, students: Mapping[str, Sequence[Artifact]], best: str, seed: int) -> Refit:
    """The best student, trained again. While it is not known, a row that asks the teacher stands for it, because then
    a teacher is trained again too."""
    if not _all_trained(students):
        best = next((name for name in reversed(run.rows) if row(name).method != SUPERVISED), run.rows[-1])
    return refit(run, best, seed, scores(run, students[best][run.recipe.seeds.index(seed)]))


def _networks_shown(
    run: Run, students: Mapping[str, Sequence[Artifact]], best: str, seed: int
) -> dict[str, StoredNetwork]:
    """The control and the best student, of the same seed."""
    place = run.recipe.seeds.index(seed)
    return {name: run.shipped(students[name][place]) for name in (CONTROL, best) if name in students}


def best_by_validation(run: Run, students: Mapping[str, Sequence[Artifact]]) -> tuple[str, int]:
    """The row whose students are best on the validation split, on average over seeds, and its best seed."""
    if not _all_trained(students):
        return run.rows[0], run.recipe.seeds[0]
    found = {
        name: [(float(scores(run, student)["val"]), scores(run, student).get("val_loss")) for student in trained]
        for name, trained in students.items()
    }
    if run.recipe.compare.methods == "auto":  # of equal ones the row that the autopilot chose, not the control
        found = dict(reversed(found.items()))
    return best_student(found, run.recipe.seeds, run.task.higher_is_better, len(run.splits.val))


def best_student(
    found: Mapping[str, Sequence[tuple[float, float | None]]],
    seeds: Sequence[int],
    higher_is_better: bool,
    images: int | None = None,
) -> tuple[str, int]:
    """The row with the best mean, and the seed of its best student. found: row -> score and loss for each seed.

    Of equal ones that of the lowest loss is taken, or the first where a loss is not known. images: for validation; rows
    within a standard error count as equal, but not the seeds of a row, which differ by chance alone.

    >>> best_student({"kd": [(4.0, 0.2), (4.0, 0.1)], "cgan": [(3.0, 0.5), (7.0, 0.1)]}, [3, 7], True)
    ('cgan', 7)
    >>> best_student({"kd": [(5.0, 0.2), (5.0, 0.3)], "cgan": [(5.0, 0.2), (5.0, 0.1)]}, [3, 7], True)
    ('cgan', 7)
    """
    values = {name: tuple(zip(*each, strict=True)) for name, each in found.items()}
    means = [statistics.fmean(scores) for scores, _ in values.values()]
    losses = [mean_of_known(each) for _, each in values.values()]
    best = list(found)[place_of_best(means, higher_is_better, losses, images)]
    return best, seeds[place_of_best(values[best][0], higher_is_better, values[best][1])]


def _attack_all(
    run: Run, teachers: Sequence[Artifact], students: Mapping[str, Sequence[Artifact]], again: Refit | None
) -> None:
    settings = run.recipe.metrics.robustness
    if settings is None:
        return
    attacked = [run.shipped(student) for trained in students.values() for student in trained]
    if run.black_box is None:
        attacked += [StoredNetwork(teacher) for teacher in teachers]
    if again is not None:
        attacked.append(StoredNetwork(again.student))
    for network in attacked:
        for name in settings.attacks:
            measurements.attacked(run, network, Attack.of(settings, name))


def _gather_generated(run: Run, upstream: Sequence[int]) -> None:
    """What is shown and measured of generator, density ratio and generated images."""
    first = upstream[0]
    run.generator(first)
    if run.task.continuous:
        run.along_labels(first)
    run.synthesis(first, row("cgan"))
    for seed in upstream:
        run.fell_back(seed)
    run.choice(first)
    if run.recipe.metrics.generator is not None:
        measurements.quality(run, first)
