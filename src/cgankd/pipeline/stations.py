"""The stations of a run before it starts: its road is walked with a store that computes nothing."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cgankd.core.run_plan import Station
from cgankd.core.store import Artifact, Call
from cgankd.metrics.robustness import Attack
from cgankd.nets.build import StoredNetwork
from cgankd.pipeline import measurements, results
from cgankd.pipeline.comparisons import row
from cgankd.pipeline.search import choose

if TYPE_CHECKING:
    from cgankd.pipeline.run import Run


def stations(run: Run) -> list[Station]:
    """Every stage that the rest of the run needs, in order, with the finished ones.

    What depends on results that are not there yet (the number of trials of a search, a fallback of the density ratio)
    is assumed; once they are there, another call is exact.
    """
    calls: list[Call] = []
    walker = copy.copy(run)
    walker.store = run.store.noting(calls)
    walker.choice = functools.cache(functools.partial(choose, walker, score=_score_so_far))
    _walk(walker)
    once = {call.key: call for call in calls}
    return [_station(call) for call in once.values()]


def _walk(run: Run) -> None:
    """Call the stages in the order of results.collect."""
    recipe = run.recipe
    run.data()
    upstream = list(dict.fromkeys(run.upstream(seed) for seed in recipe.seeds))
    teachers = [run.teacher(seed) for seed in upstream]
    students = {(seed, name): run.student(name, seed) for seed in recipe.seeds for name in recipe.rows}
    fakes = any(row(name).fakes for name in recipe.rows)
    if recipe.metrics.robustness is not None:
        for name in recipe.rows:
            if row(name).fakes:
                run.synthesis(upstream[0], row(name))
            _attack(run, [run.shipped(students[seed, name]) for seed in recipe.seeds])
        if run.black_box is None:
            _attack(run, [StoredNetwork(teacher) for teacher in teachers])
    for name in recipe.rows:
        if row(name).pseudo:
            run.pseudo(upstream[0])
    if fakes:
        run.generator(upstream[0])
        if run.task.continuous:
            run.along_labels(upstream[0])
        run.synthesis(upstream[0], row("cgan"))
        for seed in upstream:
            run.fell_back(seed)
        run.choice(upstream[0])
        if recipe.metrics.generator is not None:
            measurements.quality(run, upstream[0])
    by_row = {name: [students[seed, name] for seed in recipe.seeds] for name in recipe.rows}
    measurements.worst_answers(run, results.networks_shown(run, by_row, _best(run, by_row)))


def _best(run: Run, students: Mapping[str, list[Artifact]]) -> dict[str, Any]:
    """The best row and its seed; the first ones until all students are trained."""
    recipe = run.recipe
    if not all(student.summary for trained in students.values() for student in trained):
        return {"row": recipe.rows[0], "seed": recipe.seeds[0]}
    rows = [
        results.table_row(name, [student.summary for student in trained], {}, recipe.student.ships)
        for name, trained in students.items()
    ]
    return results.best_row(rows, run.task.higher_is_better, recipe.seeds)


def _attack(run: Run, networks: list[StoredNetwork]) -> None:
    settings = run.recipe.metrics.robustness
    assert settings is not None
    for name in settings.attacks:
        for network in networks:
            measurements.attacked(run, network, Attack.of(settings, name))


def _score_so_far(trial: Artifact) -> float:
    return float(trial.summary.get("val", 0.0))


def _station(call: Call) -> Station:
    alike, amount = _amount(call.stage, call.arguments)
    return Station(call.key, call.title, call.stage, alike, amount, call.seconds)


def _amount(stage: str, arguments: Mapping[str, Any]) -> tuple[str, float]:
    """What a stage's time depends on beside its amount of work, and this amount, in seconds of one core with small
    networks and images; only its proportions matter."""
    match stage:
        case "train_network" | "train_trial":
            return f"fit {arguments['network'].name}", _steps(arguments)
        case "train_student":
            taught = arguments["teachers"] is not None
            return f"fit {arguments['student'].network.name} {taught}", _steps(arguments) * (1.5 if taught else 1.0)
        case "train_generator":
            gan = arguments["gan"]
            return stage, gan.steps * gan.batch_size * (1 + gan.discriminator_steps) * 1e-3
        case "train_encoder":
            return stage, arguments["steps"] * arguments["batch_size"] * 5e-4
        case "train_density_ratio":
            settings, known = arguments["settings"], (arguments["train"], arguments["val"])
            images = sum(len(images) for images in known if images is not None)
            return stage, settings.fakes_per_image * images * 5e-4 + settings.steps * 1.5e-2
        case "burn_in" | "calibrate_filter" | "make_images":
            each = {"burn_in": 4e-4, "calibrate_filter": 1.4e-3, "make_images": 1.6e-3}[stage]
            return stage, int(arguments["plan"].quota.sum()) * each
        case "measure_generator":
            return stage, arguments["settings"].images * 1e-3
        case "attack_network":
            attack = arguments["attack"]
            steps = 100 if attack.pgd is None else attack.pgd.steps  # AutoAttack is several attacks
            return f"{stage} {attack.name}", min(attack.images, len(arguments["test"])) * steps * 5e-4
    return stage, 0.0


def _steps(arguments: Mapping[str, Any]) -> float:
    return float(arguments["fit"].steps * arguments["fit"].batch_size * 2.8e-4)
