"""The conditional GAN."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cgankd.config.settings.base import Decay, Settings


class VicinitySettings(Settings):
    """Which real images count as being at a label (CcGAN; scalar labels only)."""

    kind: Literal["hard", "soft"] = "hard"
    draw: Literal["uniform", "weighted"] = Field(
        "uniform",
        description="soft: uniform draws and weighted losses (paper), or draws by weight and plain losses",
    )
    rule: Literal["robust", "paper"] = Field(
        "robust", description="robust: half-width that holds the nearest images; paper: multiple of the widest gap"
    )
    neighbours: int = Field(30, ge=1, description="robust: images inside the window")
    widest: float = Field(0.1, gt=0, description="robust: half-width at most, as a share of the label range")
    gaps: float = Field(5.0, gt=0, description="paper: k, half-width in widest gaps between distinct labels")
    noise: float | None = Field(
        None, ge=0, description="sigma added to target labels, in [0,1] labels; none: 1.06 std N^-1/5"
    )


class GeneratorSettings(Settings):
    """The conditional GAN, or what stands in its place."""

    source: str | None = Field(
        None,
        description="in the GAN's place: module:function, an .onnx file, or ready images with labels "
        "(a folder, .npz, .h5); none: a GAN is trained here",
    )
    network: Literal["sngan", "sagan", "biggan"] = "sngan"
    channels: int = Field(32, ge=4, description="base channels")
    discriminator_channels: int | None = Field(None, ge=4, description="none: as channels")
    multipliers: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, description="base channels times these, from the largest map to the smallest; none: 1, 2, 4, 4 ..."
    )
    attention: int | None = Field(
        None,
        ge=0,
        description="sagan, biggan: side of the maps with self-attention; none: half the image's; 0: off",
    )
    shared_embedding: bool = Field(
        True, description="one label embedding for all norms of the generator; false: each norm learns its own"
    )
    latent: int = Field(
        32, ge=2, description="length of z; short ones are learnt sooner, and give varied images sooner"
    )
    label_dim: int = Field(128, ge=4, description="length of the label embedding")
    steps: int = Field(3000, ge=1, description="generator steps")
    discriminator_steps: int = Field(1, ge=1, description="per generator step")
    batch_size: int = Field(64, ge=2)
    generator_rate: float = Field(3e-4, gt=0)
    discriminator_rate: float = Field(4e-4, gt=0)
    betas: tuple[Decay, Decay] = (0.0, 0.99)
    loss: Literal["hinge", "vanilla"] = "hinge"
    r1: float = Field(0.0, ge=0, description="gamma of R1: half of it times D's squared gradient at real images")
    r1_every: int = Field(
        16, ge=1, description="discriminator steps between two R1 penalties (then as much larger)"
    )
    lecam: float = Field(0.0, ge=0, description="weight of the LeCam regulariser")
    mode_seeking: float = Field(
        0.0, ge=0, description="weight of the term that keeps images of one label apart; against collapse"
    )
    ema: float = Field(0.995, ge=0, lt=1, description="decay of the generator's moving average")
    ema_start: int = Field(200, ge=0, description="steps before the average starts")
    diffaugment: tuple[Literal["color", "translation", "cutout"], ...] = ("translation",)
    pooling: Literal["sum", "flatten"] = Field(
        "flatten", description="of the discriminator's last map: keep positions, or add them up (SNGAN's)"
    )
    label_input: Literal["ili", "nli"] = Field(
        "ili", description="scalar labels: a pre-trained embedding (ILI), or the number itself (NLI)"
    )
    vicinity: VicinitySettings = VicinitySettings()
    embedding_steps: int = Field(600, ge=1, description="scalar labels: steps of each of the two ILI networks")
