"""The stations of a run before it starts: its road is walked with a store that computes nothing."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from cgankd.core import rng
from cgankd.core.run_plan import Station
from cgankd.core.store import Artifact, Call
from cgankd.nets import zoo
from cgankd.pipeline import autopilot
from cgankd.pipeline.gathering import gather, scores
from cgankd.pipeline.search import choose

if TYPE_CHECKING:
    from cgankd.pipeline.run import Run

SMALL = 5e6  # operations of a small network for one small image
SMALL_IMAGE = 32 * 32  # pixels
GROWTH = 0.6  # a time grows with operations and pixels to this power


def stations(run: Run) -> list[Station]:
    """Every stage that the rest of the run needs, in order, with the finished ones.

    What depends on results that are not there yet (the number of trials of a search, a fallback of the density ratio)
    is assumed; once they are there, another call is exact.
    """
    calls: list[Call] = []
    walker = copy.copy(run)
    walker.store = run.store.noting(calls)
    walker.choice = functools.cache(functools.partial(choose, walker, score=_score_so_far))
    walker.flight = functools.cache(
        functools.partial(autopilot.choose, walker, score=functools.partial(_val_so_far, run))
    )
    gather(walker)
    once = {call.key: call for call in calls}
    train = run.splits.train
    if all(call.seconds is not None for call in once.values()):
        return [Station(call.key, call.title, call.stage, seconds=call.seconds) for call in once.values()]
    work = functools.cache(lambda name: _work(name, train.channels, train.size, run.task.num_outputs))
    pixels = (math.prod(train.size) / SMALL_IMAGE) ** GROWTH
    return [_station(call, work, pixels) for call in once.values()]


def _val_so_far(run: Run, trial: Artifact) -> autopilot.Score:
    """The score of a trial of the autopilot; the worst there is while it is not known, so that it stops nothing."""
    worst = {"val": -math.inf if run.task.higher_is_better else math.inf}
    return autopilot.Score.of(scores(run, trial) if trial.summary else worst)


def _score_so_far(trial: Artifact) -> float:
    return float(trial.summary.get("val", 0.0))


def _station(call: Call, work: Callable[[str], float], pixels: float) -> Station:
    alike, amount = _amount(call.stage, call.arguments, work, pixels)
    return Station(call.key, call.title, call.stage, alike, amount, call.seconds)


@functools.cache
def _work(network: str, channels: int, size: tuple[int, int], outputs: int) -> float:
    """The time of a training step with this network, relative to a small one on small images.

    A network with ten times the operations takes about four times as long, because it uses a processor better (GROWTH).
    """
    with rng.restored(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        zoo.create(network, channels, outputs, size).eval()(torch.zeros(1, channels, *size))
    return max(0.1, counter.get_total_flops() / SMALL) ** GROWTH


def _amount(stage: str, arguments: Mapping[str, Any], work: Callable[[str], float], pixels: float) -> tuple[str, float]:
    """What a stage's time depends on beside its amount of work, and this amount, in seconds of one core with small
    networks and images; only its proportions matter. work: of a network, by its name (:func:`_work`). pixels: work for
    an image, relative to a small one."""
    match stage:
        case "train_network":
            name = arguments["network"].name
            return f"fit {name}", _steps(arguments) * work(name)
        case "train_student":
            name, taught = arguments["student"].network.name, arguments["teachers"] is not None
            return f"fit {name} {taught}", _steps(arguments) * work(name) * (1.5 if taught else 1.0)
        case "train_generator":
            gan = arguments["gan"]
            return stage, pixels * gan.steps * gan.batch_size * (1 + gan.discriminator_steps) * 1e-3
        case "train_encoder":
            return stage, pixels * arguments["steps"] * arguments["batch_size"] * 5e-4
        case "train_density_ratio":
            settings, known = arguments["settings"], (arguments["train"], arguments["val"])
            images = sum(len(images) for images in known if images is not None)
            return stage, pixels * settings.fakes_per_image * images * 5e-4 + settings.steps * 1.5e-2
        case "burn_in" | "calibrate_filter" | "make_images":
            each = {"burn_in": 4e-4, "calibrate_filter": 1.4e-3, "make_images": 1.6e-3}[stage]
            return stage, pixels * int(arguments["plan"].quota.sum()) * each
        case "measure_generator":
            return stage, pixels * arguments["settings"].images * 1e-3
        case "attack_network":
            attack = arguments["attack"]
            steps = 100 if attack.pgd is None else attack.pgd.steps  # AutoAttack is several attacks
            return f"{stage} {attack.name}", min(attack.images, len(arguments["test"])) * steps * pixels * 5e-4
    return stage, 0.0


def _steps(arguments: Mapping[str, Any]) -> float:
    return float(arguments["fit"].steps * arguments["fit"].batch_size * 2.8e-4)
