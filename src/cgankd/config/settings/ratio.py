"""The conditional density ratio."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cgankd.config.settings.base import Decay, RatioWidths, Settings

RATIO_NETWORKS = {  # the paper's; MLP5 is wider for classes than for a scalar
    "mlp3": (512, 256, 128),
    "mlp5": (2048, 1024, 512, 256, 128),
    "mlp5_scalar": (1024, 512, 256, 128, 64),
}


class RatioSettings(Settings):
    """The conditional density ratio h(x, y)."""

    features: Literal["teacher", "nokd", "classifier", "autoencoder"] = Field(
        "teacher",
        description="of images, computed once: the penultimate layer of teacher, NOKD student or a classifier of "
        "its own, or the code of a sparse auto-encoder with a regression branch (paper, scalar labels)",
    )
    feature_network: str = Field("cnn24", description="classifier, autoencoder: the network that is trained for it")
    feature_steps: int = Field(2000, ge=1, description="classifier, autoencoder: training steps")
    hidden: Literal["mlp3", "mlp5", "mlp5_scalar"] | RatioWidths = Field(
        (512, 256, 128), description="widths, normalised in eight groups, or the paper's networks by name"
    )
    vicinity_gaps: float | None = Field(
        None,
        gt=0,
        description="scalar labels: fakes whose predicted label is more widest gaps than this from the real label "
        "are left out of h's training (paper: 6); none: all are in",
    )
    dropout: float = Field(0.5, ge=0, lt=1)
    penalty: float = Field(
        1.0, ge=0, description="lambda: holds the fakes' mean ratio at 1; the paper's .01 leaves few to accept"
    )
    steps: int = Field(1000, ge=1)
    batch_size: int = Field(256, ge=2)
    learning_rate: float = Field(5e-4, gt=0)
    milestones: tuple[float, ...] = (0.4, 0.75)
    betas: tuple[Decay, Decay] = (0.5, 0.999)
    weight_decay: float = Field(1e-4, ge=0)
    fakes_per_image: int = Field(10, ge=1, description="fakes drawn at each real image's label")

    @property
    def widths(self) -> tuple[int, ...]:
        """``hidden`` as numbers."""
        return self.hidden if isinstance(self.hidden, tuple) else RATIO_NETWORKS[self.hidden]
