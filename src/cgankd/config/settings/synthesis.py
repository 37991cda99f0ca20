"""Which generated images are kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cgankd.config.settings.base import Settings


class SynthesisSettings(Settings):
    """Which generated images the student sees."""

    images: int = Field(10_000, ge=1, description="M: images kept")
    subsampling: Literal["maximum", "quantile", "budget", "none"] = Field(
        "maximum",
        description="M1: accept with h / M; M the rising maximum (paper), or a quantile of h, or h scaled to a "
        "budget of draws; or keep all",
    )
    cap_quantile: float = Field(0.99, gt=0, lt=1, description="quantile: which quantile of the burn-in's h is M")
    draw_budget: float = Field(4.0, ge=1, description="budget: draws per accepted image, in expectation")
    fall_back: bool = Field(
        True,
        description="keep all where h fails its held-out checks, rather than spoil the images; the run says so",
    )
    filter_quantile: float | None = Field(None, gt=0, le=1, description="M2: rho; none: .9 classes, .7 scalar")
    filter: bool = Field(True, description="M2: drop what the teacher disagrees with most")
    filter_by: Literal["auto", "label", "all", "bin"] = Field(
        "auto",
        description="thresholds per class (Algorithm 1), one over all (Algorithm 2), or per label bin, which keeps "
        "the labels' frequencies; auto: label for classes, all for scalars",
    )
    filter_bins: int = Field(20, ge=2, description="bin: how many, evenly over the label range")
    replace: Literal["auto", "none", "hard", "soft"] = Field(
        "auto",
        description="M2: the label becomes the teacher's prediction (hard), or its probabilities (soft, classes); "
        "auto: none for classes, hard for scalars (final paper)",
    )
    labels: Literal["even", "distinct", "empirical"] = Field(
        "even", description="scalar: evenly spaced, or each distinct training label, or as frequent as in training"
    )
    even_labels: int = Field(500, ge=2, description="scalar: how many evenly spaced labels")
    calibration: int = Field(1000, ge=10, description="fakes that the filter's quantile is taken over, per class")
    burn_in: int = Field(500, ge=1, description="fakes that the first maximum ratio is taken over, per class")
    max_draws: int = Field(50, ge=1, description="generated per image kept, at most")
    batch_size: int = Field(500, ge=1)


class SearchSettings(Settings):
    """rho, M and the label law, chosen on the validation split (the grid of the paper's v1)."""

    enabled: bool = Field(False, description="otherwise the synthesis settings are used as they stand")
    quantiles: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    images: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="values of M; none: synthesis.images alone"
    )
    labels: tuple[Literal["even", "distinct", "empirical"], ...] = Field(
        (), description="scalar labels: label laws; none: synthesis.labels alone"
    )
    steps: int | None = Field(None, ge=1, description="of each trial student; none: student.transfer_steps")
    patience: int = Field(2, ge=1, description="values in a row that don't improve before a setting's search stops")
