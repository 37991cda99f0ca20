"""The conditional GAN, or what replaces it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cgankd.config.settings.base import Decay, OnOrOff, Settings, SourceText, by_kind


class RobustWidth(Settings):
    """Each target label has its own half-width, just wide enough for its nearest images [ours]."""

    kind: Literal["robust"] = "robust"
    neighbours: int = Field(30, ge=1, description="images inside the window")
    widest: float = Field(0.1, gt=0, description="largest half-width, as a share of the label range")


class PaperWidth(Settings):
    """One half-width for all labels: a multiple of the widest gap between neighbouring distinct labels."""

    kind: Literal["paper"] = "paper"
    gaps: float = Field(5.0, gt=0, description="k: half-width in widest gaps")


Width = Annotated[RobustWidth | PaperWidth, Field(discriminator="kind"), by_kind("robust")]


class _Vicinity(Settings):
    width: Width = Field(RobustWidth(), description="half-width of the window around a label: robust or paper")
    noise: float | None = Field(
        None, ge=0, description="sigma added to target labels, in [0, 1] labels; none: 1.06 std N^-1/5"
    )


class HardVicinity(_Vicinity):
    """All images inside the window have the same weight."""

    kind: Literal["hard"] = "hard"


class SoftVicinity(_Vicinity):
    """The weight of an image falls with the distance of its label."""

    kind: Literal["soft"] = "soft"
    draw: Literal["uniform", "weighted"] = Field(
        "uniform", description="uniform draws and weighted losses (paper), or draws by weight and plain losses"
    )


class ILI(Settings):
    """Improved label input: an embedding of the label that is trained before the GAN."""

    kind: Literal["ili"] = "ili"
    steps: int = Field(600, ge=1, description="training steps of each of the embedding's two networks")


class NLI(Settings):
    """Naive label input: the number itself."""

    kind: Literal["nli"] = "nli"


class ScalarLabelSettings(Settings):
    """How scalar labels enter the GAN (CcGAN); not used for classes."""

    vicinity: Annotated[HardVicinity | SoftVicinity, Field(discriminator="kind"), by_kind("hard")] = Field(
        HardVicinity(), description="which real images count as images of a label: hard or soft"
    )
    label_input: Annotated[ILI | NLI, Field(discriminator="kind"), by_kind("ili")] = Field(
        ILI(), description="how the label is fed in: ili or nli"
    )


class SNGAN(Settings):
    """Residual networks with spectral norm."""

    kind: Literal["sngan"] = "sngan"


class _WithAttention(Settings):
    attention: int | None = Field(
        None, ge=0, description="side of the maps with self-attention; none: half the image's; 0: no attention"
    )


class SAGAN(_WithAttention):
    """SNGAN with self-attention."""

    kind: Literal["sagan"] = "sagan"


class BigGAN(_WithAttention):
    """BigGAN."""

    kind: Literal["biggan"] = "biggan"


class R1Settings(Settings):
    """The R1 penalty on the discriminator's gradient at real images."""

    gamma: float = Field(1.0, gt=0, description="the penalty is gamma / 2 times the squared norm of the gradient")
    every: int = Field(16, ge=1, description="discriminator steps between two penalties, each multiplied by this")
    fakes: bool = Field(False, description="the same penalty at generated images too (R2)")


class TransitionSettings(Settings):
    """An unconditional GAN at first, into which the label enters step by step."""

    start: float = Field(0.2, ge=0, lt=1, description="share of the steps after which the label begins to enter")
    end: float = Field(0.4, gt=0, le=1, description="share of the steps after which it has entered in full")

    @model_validator(mode="after")
    def _in_order(self) -> TransitionSettings:
        if self.start >= self.end:
            raise ValueError(f"start is {self.start:g} and end is {self.end:g}; allowed: a start below the end")
        return self


class GuidanceSettings(Settings):
    """The teacher inside the generator's loss. It must be a network, because its gradient is needed."""

    outputs: float = Field(
        1.0,
        ge=0,
        description="weight of the teacher's loss on generated images: cross-entropy, or for a scalar the squared "
        "error in tenths of the label range",
    )
    statistics: float = Field(
        1.0, ge=0, description="weight of the distance to the statistics that the teacher's batch norm keeps"
    )


class GanSettings(Settings):
    """The conditional GAN: both networks and their training."""

    network: Annotated[SNGAN | SAGAN | BigGAN, Field(discriminator="kind"), by_kind("sngan")] = Field(
        SNGAN(), description="sngan, sagan or biggan"
    )
    channels: int = Field(32, ge=4, description="base channels")
    discriminator_channels: int | None = Field(None, ge=4, description="base channels; none: those of the generator")
    multipliers: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, description="base channels times these, from the largest map to the smallest; none: 1, 2, 4, 4 ..."
    )
    shared_embedding: bool = Field(
        True, description="one label embedding for all norm layers of the generator; false: each layer learns its own"
    )
    latent: int = Field(32, ge=2, description="length of z; a short z trains faster and soon gives varied images")
    label_dim: int = Field(128, ge=4, description="length of the label embedding")
    steps: int = Field(3000, ge=1, description="generator steps")
    discriminator_steps: int = Field(1, ge=1, description="per generator step")
    batch_size: int = Field(64, ge=2, description="real images, and as many fakes, in a step")
    generator_rate: float = Field(3e-4, gt=0, description="Adam's learning rate")
    discriminator_rate: float = Field(4e-4, gt=0, description="Adam's learning rate")
    betas: tuple[Decay, Decay] = Field((0.0, 0.99), description="Adam's betas, for both networks")
    loss: Literal["hinge", "vanilla", "relativistic"] = Field(
        "hinge",
        description="hinge, vanilla (logistic, non-saturating), or relativistic, which compares each generated image "
        "with a real one of the same label",
    )
    r1: Annotated[R1Settings | None, OnOrOff] = Field(None, description="R1 penalty; none: without")
    lecam: float = Field(0.0, ge=0, description="weight of the LeCam regulariser; 0: without")
    mode_seeking: float = Field(
        0.0,
        ge=0,
        description="weight of the mode-seeking term, which keeps images of one label different, against mode "
        "collapse; 0: without",
    )
    transition: Annotated[TransitionSettings | None, OnOrOff] = Field(
        None, description="from an unconditional GAN to a conditional one; none: conditional from the start"
    )
    auxiliary: float = Field(
        0.0,
        ge=0,
        description="weight of a regression head in the discriminator, which the generator's images must satisfy too; "
        "for scalar labels alone; 0: without",
    )
    guidance: Annotated[GuidanceSettings | None, OnOrOff] = Field(
        None, description="the teacher inside the generator's loss; none: without"
    )
    ema: float = Field(0.995, ge=0, lt=1, description="decay of the generator's moving average")
    ema_start: int = Field(200, ge=0, description="steps before the average starts")
    diffaugment: tuple[Literal["color", "translation", "cutout"], ...] = Field(
        ("translation",), description="DiffAugment: random changes of all images that the discriminator sees; []: none"
    )
    pooling: Literal["sum", "flatten"] = Field(
        "flatten", description="the discriminator's last map: flatten keeps positions, sum adds them up (SNGAN)"
    )


class GeneratorSettings(GanSettings):
    """The conditional GAN, or with ``source`` what replaces it; then the other settings are not used."""

    source: SourceText | None = Field(
        None,
        description="in place of a GAN: module:function, an .onnx file, or existing images with labels "
        "(a folder, .csv, .npz, .h5, .parquet, .tar, or the address of one); none: a GAN is trained here",
    )
    size: int | None = Field(
        None,
        ge=16,
        description="side in pixels of what the GAN generates; a side below that of the images makes it faster: real "
        "images are reduced for it, and generated ones are enlarged, both by bilinear resampling with antialias; "
        "none: the images' own size",
    )
    scalar: ScalarLabelSettings = ScalarLabelSettings()

    def drawn(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size of the GAN's images, (height, width), for images of this size."""
        return size if self.size is None else (self.size, self.size)

    @property
    def gan(self) -> GanSettings:
        """The settings of the GAN alone."""
        return GanSettings(**{name: getattr(self, name) for name in GanSettings.model_fields})
