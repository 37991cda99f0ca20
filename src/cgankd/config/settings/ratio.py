"""The conditional density ratio."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cgankd.config.settings.base import Decay, Milestone, Settings, by_kind

RatioWidths = Annotated[tuple[Annotated[int, Field(ge=32, multiple_of=8)], ...], Field(min_length=1)]
RATIO_NETWORKS = {  # the paper's; MLP5 is wider for classes than for scalars
    "mlp3": (512, 256, 128),
    "mlp5": (2048, 1024, 512, 256, 128),
    "mlp5_scalar": (1024, 512, 256, 128, 64),
}


class TeacherFeatures(Settings):
    """The penultimate layer of the teacher."""

    kind: Literal["teacher"] = "teacher"


class NOKDFeatures(Settings):
    """The penultimate layer of the NOKD student."""

    kind: Literal["nokd"] = "nokd"


class _TrainedFeatures(Settings):
    network: str = Field("cnn24", description="the network that is trained for the features")
    steps: int = Field(2000, ge=1, description="training steps")


class ClassifierFeatures(_TrainedFeatures):
    """The penultimate layer of a classifier that is trained on the labelled images for this (paper, classes)."""

    kind: Literal["classifier"] = "classifier"


class AutoencoderFeatures(_TrainedFeatures):
    """The code of a sparse auto-encoder that also predicts the label (paper, scalar labels)."""

    kind: Literal["autoencoder"] = "autoencoder"


class RatioFitSettings(Settings):
    """The network of the density ratio and its training."""

    hidden: Literal["mlp3", "mlp5", "mlp5_scalar"] | RatioWidths = Field(
        (512, 256, 128), description="widths of the hidden layers (group norm, 8 groups), or a network of the paper"
    )
    vicinity_gaps: float | None = Field(
        None,
        gt=0,
        description="scalar labels: leave out fakes whose predicted label differs from the real label by more than "
        "this many times the widest gap between labels (paper: 6); none: keep all",
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="share of the hidden units that are switched off")
    penalty: float = Field(
        1.0, ge=0, description="lambda: keeps the mean ratio of fakes near 1; with the paper's .01 few are accepted"
    )
    steps: int = Field(1000, ge=1, description="optimiser steps")
    batch_size: int = Field(256, ge=2, description="real images, and as many fakes, in a step")
    learning_rate: float = Field(5e-4, gt=0, description="Adam's learning rate")
    milestones: tuple[Milestone, ...] = Field(
        (0.4, 0.75), description="the learning rate is divided by 10 at these shares of the steps"
    )
    betas: tuple[Decay, Decay] = Field((0.5, 0.999), description="Adam's betas")
    weight_decay: float = Field(1e-4, ge=0, description="Adam's")
    fakes_per_image: int = Field(10, ge=1, description="fakes drawn at the label of each real image")

    @property
    def widths(self) -> tuple[int, ...]:
        """``hidden`` as numbers."""
        return self.hidden if isinstance(self.hidden, tuple) else RATIO_NETWORKS[self.hidden]


class RatioSettings(RatioFitSettings):
    """The conditional density ratio h(x, y)."""

    features: Annotated[
        TeacherFeatures | NOKDFeatures | ClassifierFeatures | AutoencoderFeatures,
        Field(discriminator="kind"),
        by_kind("teacher"),
    ] = Field(
        TeacherFeatures(),
        description="image features, computed once: the penultimate layer of teacher, nokd (the student trained on "
        "labels alone) or a classifier trained for this, or the code of an autoencoder",
    )

    @property
    def fit(self) -> RatioFitSettings:
        """The settings without ``features``."""
        return RatioFitSettings(**{name: getattr(self, name) for name in RatioFitSettings.model_fields})
