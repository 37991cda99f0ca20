"""The conditional density ratio."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cgankd.config.settings.base import Decay, Settings, by_kind

RatioWidths = Annotated[tuple[Annotated[int, Field(ge=32, multiple_of=8)], ...], Field(min_length=1)]
RATIO_NETWORKS = {  # of the paper; MLP5 is wider for classes than for a scalar
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
    network: str = Field("cnn24", description="the network that is trained for it")
    steps: int = Field(2000, ge=1, description="training steps")


class ClassifierFeatures(_TrainedFeatures):
    """The penultimate layer of a network of its own, trained on the labelled images (paper, classes)."""

    kind: Literal["classifier"] = "classifier"


class AutoencoderFeatures(_TrainedFeatures):
    """The code of a sparse auto-encoder that also predicts the label (paper, scalar labels)."""

    kind: Literal["autoencoder"] = "autoencoder"


class RatioFitSettings(Settings):
    """The network of the density ratio and its training."""

    hidden: Literal["mlp3", "mlp5", "mlp5_scalar"] | RatioWidths = Field(
        (512, 256, 128), description="widths, normalised in eight groups, or one of the paper's networks"
    )
    vicinity_gaps: float | None = Field(
        None,
        gt=0,
        description="scalar labels: leave out fakes whose predicted label is more than so many widest gaps from "
        "the real label (paper: 6); none: leave out none",
    )
    dropout: float = Field(0.5, ge=0, lt=1)
    penalty: float = Field(
        1.0, ge=0, description="lambda: holds the mean ratio of fakes at 1; the paper's .01 leaves few to accept"
    )
    steps: int = Field(1000, ge=1)
    batch_size: int = Field(256, ge=2)
    learning_rate: float = Field(5e-4, gt=0, description="of Adam")
    milestones: tuple[float, ...] = Field((0.4, 0.75), description="shares of the steps where the rate is tenthed")
    betas: tuple[Decay, Decay] = Field((0.5, 0.999), description="of Adam")
    weight_decay: float = Field(1e-4, ge=0)
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
        description="of images, computed once: the penultimate layer of teacher, nokd (the student trained on "
        "labels alone) or a classifier of its own, or the code of an autoencoder",
    )

    @property
    def fit(self) -> RatioFitSettings:
        """Without the features that it sees."""
        return RatioFitSettings(**{name: getattr(self, name) for name in RatioFitSettings.model_fields})
