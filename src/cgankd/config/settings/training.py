"""How one network is trained: steps, optimiser, schedule, random views of its images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cgankd.config.settings.base import OnOrOff, Settings, by_kind


class RandAugmentSettings(Settings):
    """RandAugment (arXiv 1909.13719): random operations on each view, of those that keep the label."""

    operations: int = Field(2, ge=1, description="operations on each view")
    magnitude: float = Field(0.5, gt=0, le=1, description="strength of the operations")


def _operations(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"operations": value} if value else None
    return value


class AugmentSettings(Settings):
    """Random views of a training image."""

    shift: int = Field(2, ge=0, description="shift by up to this many pixels in each direction; black comes in")
    flip: bool | None = Field(
        None, description="mirror half of the views; none: no, and strong_augment does as fit.augment"
    )
    views: int = Field(
        64, ge=0, description="views of an image that recur, so that teacher outputs can be kept; 0: never the same"
    )
    randaugment: Annotated[RandAugmentSettings | None, BeforeValidator(_operations), OnOrOff] = Field(
        None, description="none, or a number of operations, or both its settings"
    )
    mixup: float = Field(0.0, ge=0, description="MixUp: a of Beta(a, a), a share for each image; 0: none")
    cutmix: float = Field(0.0, ge=0, description="CutMix: a of Beta(a, a); 0: none; with both, each image draws which")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with others."""
        return bool(self.mixup or self.cutmix)


class AttackSettings(Settings):
    """How far an attack on a network moves the pixels of an image, which lie in [0, 1]."""

    eps: float = Field(8 / 255, gt=0, le=1, description="at most, in any pixel and channel (L-infinity)")
    steps: int = Field(20, ge=1, description="PGD: steps along the sign of the gradient")
    step_size: float | None = Field(None, gt=0, le=1, description="PGD: of one step; none: 2.5 eps / steps")

    @property
    def step(self) -> float:
        """``step_size``, or its default."""
        return self.step_size or 2.5 * self.eps / self.steps


class AdversarialSettings(AttackSettings):
    """Adversarial training (arXiv 1706.06083): PGD against the network as it is at each step."""

    steps: int = Field(5, ge=1, description="of PGD; each costs a forward and a backward pass")


class OneCycle(Settings):
    """The rate rises in a line to its peak, then falls along a cosine."""

    kind: Literal["onecycle"] = "onecycle"
    warmup: float = Field(0.2, ge=0, lt=1, description="share of the steps before the peak")


class Cosine(Settings):
    """The rate falls from its peak along a cosine."""

    kind: Literal["cosine"] = "cosine"


class StepDecay(Settings):
    """The rate is divided by 10 at each milestone."""

    kind: Literal["step"] = "step"
    milestones: tuple[float, ...] = Field((0.625, 0.75, 0.875), description="as shares of the steps")


class Constant(Settings):
    """The rate stays at its peak."""

    kind: Literal["constant"] = "constant"


Schedule = Annotated[OneCycle | Cosine | StepDecay | Constant, Field(discriminator="kind"), by_kind("onecycle")]


class FitSettings(Settings):
    """The training of one network: SGD with Nesterov momentum."""

    steps: int = Field(2000, ge=1, description="optimiser steps")
    batch_size: int = Field(128, ge=2)
    learning_rate: float = Field(0.05, gt=0, description="the peak")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Schedule = Field(OneCycle(), description="onecycle, cosine, step or constant")
    clip_norm: Literal["auto"] | Annotated[float, Field(gt=0)] | None = Field(
        "auto",
        description="gradients are clipped to this norm; none: never; auto: 1 for scalars, whose squared error "
        "diverges without it at the usual rates, none for classes, as losses are published",
    )
    augment: AugmentSettings = AugmentSettings()
    adversarial: Annotated[AdversarialSettings | None, OnOrOff] = Field(
        None, description="attack the images before the network learns from them; needs labels alone; none: never"
    )
