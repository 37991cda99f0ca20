"""How the generator is measured, and how robust each row is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cgankd.config.settings.base import OnOrOff, Settings
from cgankd.config.settings.training import AttackSettings


class RobustnessSettings(AttackSettings):
    """Scores of each row and of the teacher on attacked test images, which are changed to mislead the network."""

    attacks: tuple[Literal["pgd", "autoattack"], ...] = Field(
        ("pgd",),
        min_length=1,
        description="pgd (both tasks), autoattack (four classes or more; pip install 'cgankd[robust]')",
    )
    images: int = Field(500, ge=1, description="test images that are attacked, the same for every network")


class GeneratorMetricsSettings(Settings):
    """Scores of the generated images (FID and others), copies of training images, and the error bound."""

    images: int = Field(2000, ge=50, description="number of fakes that are compared")
    features: tuple[Literal["teacher", "nokd"], ...] = Field(
        ("teacher", "nokd"), description="networks whose penultimate layer gives the features for the distances"
    )
    window: float = Field(0.05, gt=0, le=0.5, description="SFID: half-width of a label window, share of the range")
    windows: int = Field(20, ge=2, description="SFID: number of windows, evenly over the label range")


class MetricsSettings(Settings):
    """What is measured in addition to the score of each row."""

    generator: Annotated[GeneratorMetricsSettings | None, OnOrOff] = Field(
        GeneratorMetricsSettings(), description="how good the generated images are; none: not measured"
    )
    robustness: Annotated[RobustnessSettings | None, OnOrOff] = Field(
        None, description="scores under attack; none: not measured"
    )
