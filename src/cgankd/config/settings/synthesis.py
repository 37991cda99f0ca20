"""The generated images that the student sees: their labels, subsampling, filter, replaced labels, and the search."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cgankd.config.settings.base import OnOrOff, Settings, Share, by_kind


class NoSubsampling(Settings):
    """Keep all."""

    kind: Literal["none"] = "none"


class _Subsampling(Settings):
    burn_in: int = Field(
        500, ge=1, description="fakes per class, or per twentieth of the label range, for the first value of M"
    )
    fall_back: bool = Field(
        True,
        description="where h fails its held-out checks: keep all fakes, with a warning; false: subsample anyway; where "
        "h is 0 for all burn-in fakes of a label: keep all fakes of this label, with a warning; false: an error",
    )


class MaximumRatio(_Subsampling):
    """Accept with probability h / M, M the largest ratio so far (paper)."""

    kind: Literal["maximum"] = "maximum"


class QuantileRatio(_Subsampling):
    """Accept with probability min(1, h / M), M a high quantile of h, which one outlier can't change [ours]."""

    kind: Literal["quantile"] = "quantile"
    q: float = Field(0.99, gt=0, lt=1, description="M is this quantile of h over the burn-in")


class RatioBudget(_Subsampling):
    """Accept with probability min(1, h / M), M such that a given number of draws is needed [ours]."""

    kind: Literal["budget"] = "budget"
    draws: float = Field(4.0, ge=1, description="expected number of draws per accepted image")


Subsampling = Annotated[
    NoSubsampling | MaximumRatio | QuantileRatio | RatioBudget, Field(discriminator="kind"), by_kind("maximum")
]


class FilterSettings(Settings):
    """Drop the fakes that the teacher disagrees with most."""

    rho: Share | None = Field(
        None, description="quantile of the error below which a fake is kept; none: .9 classes, .7 scalar"
    )
    by: Literal["auto", "label", "all"] | Annotated[int, Field(ge=2)] = Field(
        "auto",
        description="one threshold per label (Algorithm 1), one for all (Algorithm 2), or a number of bins of "
        "the label range with one threshold each, which keeps the frequencies of labels; auto: label for classes, all "
        "for scalars",
    )
    calibration: int = Field(
        1000,
        ge=10,
        description="generated images from which each threshold is computed; with one threshold per class this many of "
        "each class, even where synthesis.images is less; fewer are faster",
    )


class EvenLabels(Settings):
    """Evenly spaced labels, equally often."""

    kind: Literal["even"] = "even"
    count: int = Field(500, ge=2, description="how many labels")


class DistinctLabels(Settings):
    """Each distinct training label, equally often."""

    kind: Literal["distinct"] = "distinct"


class EmpiricalLabels(Settings):
    """Each distinct training label, as often as in training."""

    kind: Literal["empirical"] = "empirical"


LabelLaw = Annotated[EvenLabels | DistinctLabels | EmpiricalLabels, Field(discriminator="kind"), by_kind("even")]


class SynthesisSettings(Settings):
    """The generated images that the student sees."""

    images: int = Field(10_000, ge=1, description="M: images kept")
    labels: LabelLaw = Field(EvenLabels(), description="scalar labels: even, distinct or empirical")
    subsampling: Subsampling = Field(
        MaximumRatio(), description="M1, by the density ratio h: maximum, quantile, budget or none"
    )
    filter: Annotated[FilterSettings | None, OnOrOff] = Field(FilterSettings(), description="M2; none: keep all")
    replace: Literal["auto", "none", "hard", "soft"] = Field(
        "auto",
        description="M2: the teacher's prediction (hard) or its probabilities (soft, classes) replace the label; "
        "auto: none for classes, hard for scalars (final paper)",
    )
    max_draws: int = Field(50, ge=1, description="most images that are generated per image kept")
    batch_size: int = Field(500, ge=1, description="images generated at once")


class SearchSettings(Settings):
    """rho, M and the label law are chosen on the validation split (the grid of the paper's first version)."""

    rho: tuple[Share, ...] = Field(
        (0.5, 0.6, 0.7, 0.8, 0.9, 1.0), description="values of synthesis.filter.rho that are tried"
    )
    images: tuple[Annotated[int, Field(ge=1)], ...] = Field((), description="values of M; none: only synthesis.images")
    labels: tuple[LabelLaw, ...] = Field((), description="scalar labels: label laws; none: only synthesis.labels")
    steps: int | None = Field(None, ge=1, description="training steps of each trial; none: student.transfer_steps")
    patience: int = Field(
        2, ge=1, description="the search of a setting stops after this many values in a row without improvement"
    )
