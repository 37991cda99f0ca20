"""How the generator and the rows are measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cgankd.config.settings.base import Settings
from cgankd.config.settings.training import AttackSettings


class RobustnessSettings(AttackSettings):
    """What is left of each row's score, and of the teacher's, where test images are changed to mislead it."""

    enabled: bool = False
    attacks: tuple[Literal["pgd", "autoattack"], ...] = Field(
        ("pgd",),
        min_length=1,
        description="pgd, both tasks; autoattack, four classes or more (pip install 'cgankd[robust]')",
    )
    images: int = Field(500, ge=1, description="test images that are attacked, the same for every network")


class MetricsSettings(Settings):
    """How the generator is judged (FID and its kin, copies of training images), and how robust each row is."""

    enabled: bool = True
    images: int = Field(2000, ge=50, description="fakes that are compared")
    features: tuple[Literal["teacher", "nokd"], ...] = Field(
        ("teacher", "nokd"), description="penultimate layers that the distances are taken in; a score names its own"
    )
    window: float = Field(0.05, gt=0, le=0.5, description="SFID: half-width of a label window, share of the range")
    windows: int = Field(20, ge=2, description="SFID: windows, evenly over the label range")
    robustness: RobustnessSettings = RobustnessSettings()
