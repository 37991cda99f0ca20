"""How one network is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cgankd.config.settings.base import Settings


class AugmentSettings(Settings):
    """Random views of a training image."""

    shift: int = Field(2, ge=0, description="pixels, up to, in each direction; black comes in")
    flip: bool | None = Field(None, description="mirror half the views; none: where the task allows it")
    views: int = Field(
        64, ge=0, description="views of an image that recur, so that teacher outputs can be cached; 0: never"
    )
    randaugment: int = Field(0, ge=0, description="RandAugment: operations on each view; those that keep the label")
    magnitude: float = Field(0.5, gt=0, le=1, description="RandAugment: strength of the operations")
    cutmix: float = Field(0.0, ge=0, description="CutMix: a of Beta(a, a); classes only; 0: none")


class AttackSettings(Settings):
    """How far an attack on a network moves an image's pixels, which lie in [0, 1]."""

    eps: float = Field(8 / 255, gt=0, le=1, description="at most, in any pixel and channel (L-infinity)")
    steps: int = Field(20, ge=1, description="PGD: steps along the sign of the gradient")
    step_size: float | None = Field(None, gt=0, le=1, description="PGD: of one step; none: 2.5 eps / steps")

    @property
    def step(self) -> float:
        """``step_size``, or what it is where there is none."""
        return self.step_size or 2.5 * self.eps / self.steps


class AdversarialSettings(AttackSettings):
    """Adversarial training (arXiv 1706.06083): PGD against the network as it is at each step."""

    steps: int = Field(5, ge=1, description="of PGD, each of which costs a forward and a backward pass")


class FitSettings(Settings):
    """Supervised training of one network."""

    steps: int = Field(2000, ge=1, description="optimiser steps")
    batch_size: int = Field(128, ge=2)
    learning_rate: float = Field(0.05, gt=0, description="SGD with Nesterov momentum: the peak")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["onecycle", "cosine", "step", "constant"] = "onecycle"
    milestones: tuple[float, ...] = Field((0.625, 0.75, 0.875), description="step: where it is divided by 10")
    warmup: float = Field(0.2, ge=0, lt=1, description="onecycle: share of the steps before the peak")
    clip_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    augment: AugmentSettings = AugmentSettings()
    adversarial: AdversarialSettings | None = Field(
        None, description="images are attacked before the network learns from them, by labels alone; none: never"
    )
