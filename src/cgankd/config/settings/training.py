"""How a network is trained: steps, optimiser, schedule, random views of its images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cgankd.config.settings.base import Also, Milestone, OnOrOff, Settings, by_kind


class RandAugmentSettings(Settings):
    """RandAugment (arXiv 1909.13719): random operations on each view; only operations that keep the label."""

    operations: int = Field(2, ge=1, description="operations on each view")
    magnitude: float = Field(0.5, gt=0, le=1, description="strength of the operations")


def _operations(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"operations": value} if value else None
    return value


class AugmentSettings(Settings):
    """Random views of a training image."""

    shift: int = Field(2, ge=0, description="shift by up to this many pixels in each direction; the gap is black")
    flip: bool | None = Field(
        None, description="mirror half of the views; none: no; in strong_augment as in fit.augment"
    )
    views: int = Field(
        64, ge=0, description="number of views of an image, which then repeat (teacher outputs are kept); 0: all differ"
    )
    randaugment: Annotated[
        RandAugmentSettings | None, BeforeValidator(_operations), OnOrOff, Also("a whole number of operations")
    ] = Field(None, description="none, a number of operations, or operations and magnitude")
    mixup: float = Field(0.0, ge=0, description="MixUp: a of Beta(a, a), drawn for each image; 0: none")
    cutmix: float = Field(
        0.0, ge=0, description="CutMix: a of Beta(a, a); 0: none; with MixUp, each image gets one of the two"
    )
    mixed_views: int = Field(
        0,
        ge=0,
        description="number of mixed images for each image, which then repeat (teacher outputs are kept); 0: all "
        "differ, which is far better where a teacher costs nothing but time",
    )

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with others."""
        return bool(self.mixup or self.cutmix)


class AttackSettings(Settings):
    """How far an attack on a network changes the pixels of an image, which are in [0, 1]."""

    eps: float = Field(8 / 255, gt=0, le=1, description="largest change of a pixel in a channel (L-infinity)")
    steps: int = Field(20, ge=1, description="PGD: steps along the sign of the gradient")
    step_size: float | None = Field(None, gt=0, le=1, description="PGD: size of a step; none: 2.5 eps / steps")

    @property
    def step(self) -> float:
        """``step_size``, or its default."""
        return self.step_size or 2.5 * self.eps / self.steps


class AdversarialSettings(AttackSettings):
    """Adversarial training (arXiv 1706.06083): PGD against the network as it is at each step."""

    steps: int = Field(5, ge=1, description="PGD: steps; each costs a forward and a backward pass")


class OneCycle(Settings):
    """The learning rate rises linearly to its peak, then falls along a cosine."""

    kind: Literal["onecycle"] = "onecycle"
    warmup: float = Field(0.2, ge=0, lt=1, description="share of the steps before the peak")


class Cosine(Settings):
    """The learning rate falls from its peak along a cosine."""

    kind: Literal["cosine"] = "cosine"


class StepDecay(Settings):
    """The learning rate is divided by 10 at each milestone."""

    kind: Literal["step"] = "step"
    milestones: tuple[Milestone, ...] = Field(
        (0.625, 0.75, 0.875), description="shares of the steps, as 0.5 for half of them"
    )


class Constant(Settings):
    """The learning rate stays at its peak."""

    kind: Literal["constant"] = "constant"


Schedule = Annotated[OneCycle | Cosine | StepDecay | Constant, Field(discriminator="kind"), by_kind("onecycle")]


class FitSettings(Settings):
    """The training of one network: SGD with Nesterov momentum."""

    steps: int = Field(2000, ge=1, description="optimiser steps")
    batch_size: int = Field(128, ge=2, description="images")
    learning_rate: float = Field(0.05, gt=0, description="the peak of the schedule")
    momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov's; 0: none")
    weight_decay: float = Field(5e-4, ge=0, description="SGD's, for all parameters")
    schedule: Schedule = Field(OneCycle(), description="onecycle, cosine, step or constant")
    clip_norm: Literal["auto"] | Annotated[float, Field(gt=0)] | None = Field(
        "auto",
        description="gradients are clipped to this norm; none: never; auto: 1 for scalars, because their squared error "
        "diverges otherwise at the usual learning rates, and none for classes, as in the papers",
    )
    augment: AugmentSettings = AugmentSettings()
    compile_teacher: Literal["auto"] | bool = Field(
        "auto",
        description="whether torch.compile compiles the teacher's passes on views that never recur; auto: on a CPU "
        "with a C++ compiler, from 2,000 steps",
    )
    adversarial: Annotated[AdversarialSettings | None, OnOrOff] = Field(
        None, description="train on attacked images; only for training on labels alone; none: never"
    )
