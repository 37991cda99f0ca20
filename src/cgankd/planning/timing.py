"""How long steps take on this machine: measured with the run's own loops, a few steps of each."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import nn

from cgankd.config.recipe import Recipe
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet, Splits, TrainingImages
from cgankd.data.resizing import resized_set
from cgankd.distill import SUPERVISED, MethodStack
from cgankd.gan.guidance import Guidance
from cgankd.gan.train import train_gan
from cgankd.nets import inference
from cgankd.nets.build import Architecture, fresh_network
from cgankd.training.loop import fit

FEW, MORE = 2, 8  # steps of two short trainings: their difference is free of what a start costs
IMAGES = 512  # that the measurements are made with


@dataclasses.dataclass(frozen=True)
class Seconds:
    """Of one training step, or of one image that a network is asked about."""

    teacher_step: float
    student_step: float
    generator_step: float
    teacher_image: float
    student_image: float
    generated_image: float


def measure(recipe: Recipe, splits: Splits, fabric: Fabric) -> Seconds:
    """About ten seconds on two cores with small networks."""
    images, task = splits.train.few(IMAGES), splits.task
    teacher = fresh_network(Architecture(recipe.teacher.network), images, task.num_outputs, 0)
    student = fresh_network(Architecture(recipe.student.network), images, task.num_outputs, 0)
    work = Work(fabric)

    def supervised(network: nn.Module, recipe_fit: object) -> Callable[[int], None]:
        def train(steps: int) -> None:
            settings = recipe_fit.model_copy(update={"steps": steps})  # type: ignore[attr-defined]
            objective = MethodStack.of(SUPERVISED, task).create(task)
            fit(work, network, objective, TrainingImages(images), settings, seed=0)

        return train

    sampler = None
    small = resized_set(images, recipe.generator.drawn(images.size))

    def gan(steps: int) -> None:
        nonlocal sampler
        settings = recipe.generator.gan.model_copy(update={"steps": steps})
        scalar = recipe.generator.scalar if task.continuous else None
        if scalar is not None:
            scalar = scalar.model_copy(update={"label_input": scalar.label_input.model_copy(update={"steps": 1})})
        guidance = None
        if settings.guidance is not None:
            guidance = Guidance(teacher, task, settings.guidance, fabric, images)
        sampler, _ = train_gan(work, small, task, settings, scalar, seed=0, guidance=guidance)

    generator_step = _per_step(gan)
    assert sampler is not None
    targets = task.to_target(images.labels)
    return Seconds(
        teacher_step=_per_step(supervised(teacher, recipe.teacher.fit)),
        student_step=_per_step(supervised(student, recipe.student.fit)),
        generator_step=generator_step,
        teacher_image=_per_image(work, teacher, images),
        student_image=_per_image(work, student, images),
        generated_image=_timed(lambda: sampler.sample(targets, torch.arange(len(targets)), 0)) / len(targets),
    )


def _per_step(train: Callable[[int], None]) -> float:
    few, more = _timed(lambda: train(FEW)), _timed(lambda: train(MORE))
    return max(more - few, 1e-4) / (MORE - FEW)


def _per_image(work: Work, network: nn.Module, images: ImageSet) -> float:
    inference.outputs(work, network, images.images[:16])  # the first call prepares
    return _timed(lambda: inference.outputs(work, network, images.images)) / len(images)


def _timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
