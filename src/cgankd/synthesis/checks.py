"""Checks of the density ratio h on held-out images, and the fallback where one fails.

The images were used to train neither the generator nor h. The checks: Is h a density ratio (its mean over fakes is
1)? Is it the right one (calibration)? Can rejection sampling use it (separability, effective sample size)?
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from cgankd.config.settings import NoSubsampling, Subsampling
from cgankd.core import rng
from cgankd.synthesis.density_ratio import row_by_row
from cgankd.synthesis.rejection import effective_sample_share

# For the true ratio E_fake[p_real / p_fake] = 1, and the training loss holds h near that. Rejection does not depend on
# the scale of h, but an h whose mean on new images is above 1.5 or below 0.5 did not generalise.
MEAN_OFF = 0.5
# The gradient of the loss fades for ratios above 4 (s'(4) = .018). Where h is larger on a typical real image, it
# classifies instead of estimating a ratio. Measured on rotated-fashion: 4.7 on average over held-out real images, one
# fake in six accepted, and the teacher agrees less with the accepted fakes than with all generated ones.
MEAN_ON_REAL = 4.0
# Above this the supports barely overlap: the few accepted fakes are chosen by traits that separate fake from real.
AUC = 0.95
# Below this one fake in twenty carries all the weight, so the accepted images cover few modes.
SHARE = 0.05
# Above this, in a typical bin, real images are over twice or under half as frequent relative to fakes as h says.
CALIBRATION = math.log(2.0)

BINS = 10  # of the calibration, at most
REALS_PER_BIN = 10  # at least; with fewer, the noise of the count comes near the limit
FAKES_PER_POOL = 20  # a pool with fewer takes the mean of all fakes, because its own is too noisy
PRIOR = 1.0  # images added to the observed and the expected count of a bin, so that an empty bin gives no infinity


def halves(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of ``count`` validation images: one half chooses the weights of h, the other checks it; int64.

    So neither the checks nor the error bound use images that h was chosen on.
    """
    order = rng.order(count, seed, "ratio/halves")
    return order[: count // 2], order[count // 2 :]


def check(h_real: Tensor, h_fake: Tensor, valid: Tensor, pool: Tensor) -> dict[str, Any]:
    """The results of all checks of h on held-out images.

    h_real: float32 [N]. h_fake: float32 [N, K], fakes at the same labels; valid: bool [N, K], which of them count, some
    in each row; all rows count the same (:func:`cgankd.synthesis.density_ratio.row_by_row`).
    pool: int64 [N], labels that share a scale of h. Returns ``mean_on_fakes``, ``mean_on_real``, ``auc``,
    ``effective_sample_share``, ``calibration_error`` (None: too few images), ``passed`` and ``reasons``: a sentence
    for each check that fails. For all but the first, h is divided by its mean over the fakes of the pool, because
    acceptance with probability h / M does not depend on a pool's scale.
    """
    h_real, h_fake, valid = h_real.cpu().double(), h_fake.cpu().double(), valid.cpu()
    pool = pool.cpu().unique(return_inverse=True)[1]
    pool_of_fake = pool[:, None].expand_as(valid).flatten()
    fake = row_by_row(h_fake, valid).flatten()
    if not bool(torch.isfinite(h_real).all() and torch.isfinite(fake).all()):
        return {"passed": False, "reasons": ["The ratio of a held-out image is not finite; allowed: finite numbers."]}
    count = torch.bincount(pool_of_fake, minlength=int(pool.max()) + 1)
    mean = torch.zeros(len(count), dtype=torch.float64).index_add_(0, pool_of_fake, fake) / count
    distinct = torch.zeros_like(count).index_add_(0, pool, valid.sum(dim=1))
    mean = torch.where(distinct < FAKES_PER_POOL, fake.mean(), mean)
    known = mean[pool] > 0  # a pool whose fakes all have ratio 0 has no scale
    if not bool(known.any()):
        return {"passed": False, "reasons": ["The ratio of every held-out fake is 0; allowed: more for some."]}
    real_weight, fake_weight = h_real[known] / mean[pool][known], (fake / mean[pool_of_fake])[known[pool_of_fake]]
    results: dict[str, Any] = {
        "mean_on_fakes": float(fake.mean()),
        "mean_on_real": float(real_weight.mean()),
        "auc": separability(real_weight, fake_weight),
        "effective_sample_share": effective_sample_share(fake_weight),
        "calibration_error": calibration_error(real_weight, fake_weight),
    }
    reasons = list(_reasons(results))
    return {**results, "passed": not reasons, "reasons": reasons}


def _reasons(results: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each check that fails."""
    if abs(results["mean_on_fakes"] - 1.0) > MEAN_OFF:
        yield (
            f"The mean ratio of held-out fakes is {results['mean_on_fakes']:.2f}; allowed: {1 - MEAN_OFF:g} to "
            f"{1 + MEAN_OFF:g}."
        )
    if results["mean_on_real"] > MEAN_ON_REAL:
        yield (
            f"The mean ratio of held-out real images is {results['mean_on_real']:.1f}, too large to be learnt; "
            f"allowed: {MEAN_ON_REAL:g} at most."
        )
    if results["auc"] > AUC:
        yield (
            f"The ratio separates held-out real images from fakes almost perfectly (AUC {results['auc']:.3f}); "
            f"allowed: {AUC:g} at most."
        )
    if results["effective_sample_share"] < SHARE:
        yield (
            f"The effective sample size of held-out fakes is {results['effective_sample_share']:.1%} of their number; "
            f"allowed: {SHARE:.0%} at least."
        )
    if results["calibration_error"] is not None and results["calibration_error"] > CALIBRATION:
        yield (
            f"The ratio is off by a factor of {math.exp(results['calibration_error']):.1f} on held-out images; "
            f"allowed: {math.exp(CALIBRATION):g} at most."
        )


def separability(real: Tensor, fake: Tensor) -> float:
    """AUC: the share of pairs in which the real image has the larger ratio; ties count half; [N], [M]."""
    order = fake.sort().values
    below = torch.searchsorted(order, real) + torch.searchsorted(order, real, right=True)
    return float(below.double().mean()) / (2 * len(fake))


def calibration_error(real: Tensor, fake: Tensor) -> float | None:
    """Mean of |log(observed / expected)| over quantile bins of h, weighted by the real images in them.

    For the true ratio, a bin's share of the real images is its share of the fakes times their mean h. ``observed`` is
    the number of real images in the bin, ``expected`` the number that follows from its fakes; ``PRIOR`` is added to
    both. The bins hold equal shares of real and fake images together, where both kinds have the same total weight.
    real: float64 [N], fake: float64 [M]. None where there are too few real images for two bins.
    """
    bins = min(BINS, len(real) // REALS_PER_BIN)
    if bins < 2:
        return None
    both, order = torch.cat([real, fake]).sort(stable=True)
    share = torch.cat([torch.full_like(real, 0.5 / len(real)), torch.full_like(fake, 0.5 / len(fake))])[order]
    inner = torch.arange(1, bins, dtype=torch.float64) / bins
    edges = both[torch.searchsorted(share.cumsum(0), inner).clamp(max=len(both) - 1)].unique()
    place = [torch.searchsorted(edges, h, right=True) for h in (real, fake)]
    observed = torch.bincount(place[0], minlength=bins).double()
    expected = torch.zeros(len(observed), dtype=torch.float64).index_add_(0, place[1], fake) * len(real) / len(fake)
    off = ((observed + PRIOR) / (expected + PRIOR)).log().abs()
    return float((off * observed).sum() / observed.sum())


def fall_back(settings: Subsampling, result: Mapping[str, Any] | None) -> tuple[Subsampling, list[str]]:
    """How to subsample, and the reasons where subsampling is left out although the settings ask for it.

    result: of :func:`check`; None, or without ``passed``, where nothing could be checked.
    """
    if isinstance(settings, NoSubsampling) or not settings.fall_back or result is None or result.get("passed", True):
        return settings, []
    return NoSubsampling(), result["reasons"]
