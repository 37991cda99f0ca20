"""How long steps take on this machine: measured with the run's own loops, a few steps of each."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from cgankd.config.recipe import Recipe
from cgankd.config.settings import FitSettings
from cgankd.core.progress import Bar, Progress
from cgankd.core.runtime import Fabric
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet, Splits, TrainingImages
from cgankd.data.resizing import resized_set
from cgankd.distill import SUPERVISED, MethodStack
from cgankd.gan.generator import GanSampler, new_generator
from cgankd.gan.guidance import Guidance
from cgankd.gan.train import train_gan
from cgankd.labels import label_embedding, ratio_embedding
from cgankd.nets import inference
from cgankd.nets.build import Architecture, fresh_network
from cgankd.nets.precision import MixedPrecision
from cgankd.nets.taps import example_images, last_linear
from cgankd.synthesis.density_ratio import Pairs, RatioNetwork, train_ratio
from cgankd.tasks import Task
from cgankd.training.loop import fit

QUICK = 64  # the side of images whose steps take seconds
LEAST_GROWTH = 0.5  # of a step's time, as a share of the growth of the number of pixels
STEPS = 4  # of a short training; the first one only warms up
LEAST_STEPS = 3  # of these, where they take longer than LONG seconds
LONG = 4.0
IMAGES = 512  # that the trainings draw from
ASKED = 128  # images that a network is asked about at once
GENERATED = 32  # images that a generator draws at once
REPEATS = 3  # of these questions


@dataclasses.dataclass(frozen=True)
class Seconds:
    """Of one training step, or of one image that a network is asked about. 0: not measured.

    teacher_image: at float32, whose outputs are stored; teacher_view: at the training precision, seen once.
    """

    teacher_step: float = 0.0
    student_step: float = 0.0
    generator_step: float = 0.0
    ratio_step: float = 0.0
    teacher_image: float = 0.0
    student_image: float = 0.0
    generated_image: float = 0.0
    teacher_view: float = 0.0

    def at_most(self, other: Seconds) -> Seconds:
        """Each of these times, or the other's where that is shorter."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Seconds(*(min(mine, known or mine) for mine, known in pairs))


def measure(recipe: Recipe, splits: Splits, fabric: Fabric, bar: Bar) -> Iterator[Seconds]:
    """The fastest of a few repetitions of each, because other programs can only add to a time. Takes seconds.

    What is known so far: first the networks, then the generator and the ratio too, so that whoever asks can leave out
    these, the slow ones, where networks alone take too long. Of large images the first is only the least that the
    student takes, by smaller ones, because their steps may take minutes, and more memory than there is. bar: is told of
    every step, so that whoever watches sees that something goes on, and can stop it.
    """
    images, task = splits.train.few(IMAGES), splits.task
    clock = _Clock(bar)
    work = Work(fabric, progress=clock)

    def network(name: str, images: ImageSet) -> nn.Module:
        return fresh_network(Architecture(name), images, task.num_outputs, 0)

    def supervised(network: nn.Module, settings: FitSettings, images: ImageSet = images) -> float:
        objective = MethodStack.of(SUPERVISED, task).create(task)
        short = settings.model_copy(update={"steps": STEPS})
        return clock.per_step(lambda: fit(work, network, objective, TrainingImages(images), short, seed=0))

    larger = math.prod(images.size) / QUICK**2
    if larger > 1:
        quick = resized_set(images, (QUICK, QUICK))
        step = supervised(network(recipe.student.network, quick), recipe.student.fit, quick)
        yield Seconds(student_step=LEAST_GROWTH * larger * step)
    teacher, student = (network(part.network, images) for part in (recipe.teacher, recipe.student))
    asked = images.few(ASKED)
    seconds = Seconds(
        teacher_step=supervised(teacher, recipe.teacher.fit),
        student_step=supervised(student, recipe.student.fit),
        teacher_image=_per_image(work, teacher, asked),
        student_image=_per_image(work, student, asked),
        teacher_view=_per_view(fabric, teacher, asked),
    )
    yield seconds
    small = resized_set(images, recipe.generator.drawn(images.size))
    gan = recipe.generator.gan.model_copy(update={"steps": STEPS})
    scalar = recipe.generator.scalar if task.continuous else None
    if scalar is not None:
        scalar = scalar.model_copy(update={"label_input": scalar.label_input.model_copy(update={"steps": 1})})
    guidance = None if gan.guidance is None else Guidance(teacher, task, gan.guidance, fabric, images)
    generator_step = clock.per_step(lambda: train_gan(work, small, task, gan, scalar, seed=0, guidance=guidance))
    generator = new_generator(gan, label_embedding(task, scalar, gan.label_dim), small.channels, small.size)
    sampler = GanSampler(generator, gan.latent, fabric)
    drawn = task.to_target(images.few(GENERATED).labels)
    yield dataclasses.replace(
        seconds,
        generator_step=generator_step,
        ratio_step=_ratio_step(work, clock, recipe, images, task, teacher),
        generated_image=_fastest(lambda: sampler.sample(drawn, torch.arange(len(drawn)), 0)) / len(drawn),
    )


def _ratio_step(work: Work, clock: _Clock, recipe: Recipe, images: ImageSet, task: Task, teacher: nn.Module) -> float:
    """A step on random features of the width of the teacher's penultimate layer."""
    width = last_linear(teacher, example_images(teacher, images.channels, images.size)).in_features
    features, valid = torch.rand(len(images), width), torch.ones(len(images), 1, dtype=torch.bool)
    pairs = Pairs(features, task.to_target(images.labels), features[:, None], valid)
    settings = recipe.ratio.fit.model_copy(update={"steps": STEPS})
    embedding = ratio_embedding(task, RatioNetwork.LABEL_DIM)
    return clock.per_step(lambda: train_ratio(work, pairs, embedding, settings, seed=0))


class _Measured(Exception):
    """Ends a training whose steps have been measured."""


class _Clock(Progress):
    """Notes when each step of the last loop ended, and ends the loop once that is enough."""

    def __init__(self, whole: Bar) -> None:
        """whole: of all that is measured; its length is not known."""
        self.ends: list[float] = []
        self._whole = whole

    def per_step(self, training: Callable[[], object]) -> float:
        """The seconds of the fastest step, without the first one, which only warms up, unless that one is LONG."""
        with contextlib.suppress(_Measured):
            training()
        return min(after - before for before, after in itertools.pairwise(self.ends))

    @contextmanager
    def bar(self, title: str, total: float) -> Iterator[Bar]:
        ends, whole, started = self.ends, self._whole, time.perf_counter()
        ends.clear()

        class Noted(Bar):
            def to(self, done: float, note: str = "") -> None:
                whole.to(0.0)
                if not ends and time.perf_counter() - started > LONG:
                    ends.append(started)  # warming up is little of so long a step
                ends.append(time.perf_counter())
                if len(ends) >= (LEAST_STEPS if ends[-1] - started > LONG else STEPS):
                    raise _Measured

        yield Noted()


def _per_image(work: Work, network: nn.Module, images: ImageSet) -> float:
    inference.outputs(work, network, images.images[:16])  # the first call prepares
    return _fastest(lambda: inference.outputs(work, network, images.images)) / len(images)


def _per_view(fabric: Fabric, network: nn.Module, images: ImageSet) -> float:
    """Not compiled: what that saves is time left over."""
    precision = MixedPrecision(network, fabric, images.channels, images.size)
    views = inference.to_input(images.images[:], fabric.device)
    with torch.no_grad(), precision.autocast():
        network(views[:16])
        seconds = _fastest(lambda: network(views)) / len(images)
    precision.close()
    return seconds


def _fastest(action: Callable[[], object]) -> float:
    def timed() -> float:
        started = time.perf_counter()
        action()
        return time.perf_counter() - started

    times = [timed()]
    while len(times) < REPEATS and sum(times) < LONG:
        times.append(timed())
    return min(times)
