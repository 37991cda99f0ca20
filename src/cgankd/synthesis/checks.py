"""Held-out checks of the density ratio, and what is done where it fails them.

On images that neither generator nor h was trained on: is h a ratio at all (its mean over fakes is 1), is it the
right one (calibration), and is it one that rejection can use (separability, effective share)?
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cgankd.config.settings import NoSubsampling, Subsampling
from cgankd.core import rng
from cgankd.synthesis.rejection import effective_sample_share

# E_fake[p_real / p_fake] = 1 for the true ratio. Rejection does not see h's scale, but an h that is half as large
# again, or half as large, on new images than on those it was trained on did not carry over to them.
MEAN_OFF = 0.5
# The loss's gradient fades for ratios above 4 (s'(4) = .018): where a typical real image has more, h is not a ratio
# any more but a verdict. Measured on rotated-fashion: 4.7 on average over held-out reals, one fake in six accepted,
# and the teacher agrees less with what is accepted than with what was generated.
MEAN_ON_REAL = 4.0
# The supports barely overlap: the few fakes that pass are picked by traits that tell fake from real.
AUC = 0.95
# One fake in twenty carries all the weight: what is kept is a few modes, again and again.
SHARE = 0.05
# In a typical bin, real images are twice, or half, as frequent among fakes as h says.
CALIBRATION = math.log(2.0)

BINS = 10  # of the calibration at most, and
REALS_PER_BIN = 10  # and so many reals in each: with fewer, the count's own noise comes near the limit
FAKES_PER_POOL = 20  # a pool with fewer has no mean of its own to speak of, and takes that of all
PRIOR = 1.0  # images added to a bin's observed and expected count, so that an empty bin is no infinity


def halves(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of ``count`` validation images: those that choose the ratio's weights, and those that check it; int64.

    The second half takes no part in the choice. So neither the checks nor the error bound judge by the images that h
    was chosen on.
    """
    order = rng.bits(seed, "ratio/halves", torch.arange(count)).argsort()
    return order[: count // 2], order[count // 2 :]


def check(h_real: Tensor, h_fake: Tensor, valid: Tensor, pool: Tensor) -> dict[str, Any]:
    """What h is worth on held-out images.

    h_real: float32 [N]. h_fake: float32 [N, K], fakes at the same labels; valid: bool [N, K], which of them count.
    pool: int64 [N], labels that share a scale of h. Returns ``mean_on_fakes``, ``mean_on_real``, ``auc``,
    ``effective_sample_share``, ``calibration_error`` (None: too few images), ``passed`` and ``reasons``: a sentence
    for each check that fails. All but the first are taken after h was divided by its pool's mean over fakes, for
    the rule h / M does not see a pool's scale.
    """
    h_real, h_fake, valid = h_real.cpu().double(), h_fake.cpu().double(), valid.cpu()
    pool = pool.cpu().unique(return_inverse=True)[1]
    pool_of_fake = pool[:, None].expand_as(valid)[valid]
    fake = h_fake[valid]
    count = torch.bincount(pool_of_fake, minlength=int(pool.max()) + 1)
    mean = torch.zeros(len(count), dtype=torch.float64).index_add_(0, pool_of_fake, fake) / count
    mean = torch.where(count < FAKES_PER_POOL, fake.mean(), mean)
    known = mean[pool] > 0  # a pool whose fakes all weigh nothing has no scale
    if not bool(known.any()):
        return {"passed": False, "reasons": ["The ratio of every held-out fake is 0; allowed: more for some."]}
    real_weight, fake_weight = h_real[known] / mean[pool][known], (fake / mean[pool_of_fake])[known[pool_of_fake]]
    found: dict[str, Any] = {
        "mean_on_fakes": float(fake.mean()),
        "mean_on_real": float(real_weight.mean()),
        "auc": separability(real_weight, fake_weight),
        "effective_sample_share": effective_sample_share(fake_weight),
        "calibration_error": calibration_error(real_weight, fake_weight),
    }
    reasons = []
    if abs(found["mean_on_fakes"] - 1.0) > MEAN_OFF:
        reasons.append(
            f"The mean ratio of held-out fakes is {found['mean_on_fakes']:.2f}; allowed: {1 - MEAN_OFF:g} to "
            f"{1 + MEAN_OFF:g}."
        )
    if found["mean_on_real"] > MEAN_ON_REAL:
        reasons.append(
            f"The mean ratio of held-out real images is {found['mean_on_real']:.1f}, more than can be learnt; "
            f"allowed: {MEAN_ON_REAL:g} at most."
        )
    if found["auc"] > AUC:
        reasons.append(
            f"The ratio tells held-out real images from fakes nearly always (AUC {found['auc']:.3f}); allowed: "
            f"{AUC:g} at most."
        )
    if found["effective_sample_share"] < SHARE:
        reasons.append(
            f"The weights of held-out fakes are worth {found['effective_sample_share']:.1%} of their number; "
            f"allowed: {SHARE:.0%} at least."
        )
    if found["calibration_error"] is not None and found["calibration_error"] > CALIBRATION:
        reasons.append(
            f"The ratio is off by a factor of {math.exp(found['calibration_error']):.1f} on held-out images; "
            f"allowed: {math.exp(CALIBRATION):g} at most."
        )
    return {**found, "passed": not reasons, "reasons": reasons}


def separability(real: Tensor, fake: Tensor) -> float:
    """AUC: the share of pairs in which the real image has the larger ratio, ties counting half; [N], [M]."""
    order = fake.sort().values
    below = torch.searchsorted(order, real) + torch.searchsorted(order, real, right=True)
    return float(below.double().mean()) / (2 * len(fake))


def calibration_error(real: Tensor, fake: Tensor) -> float | None:
    """Mean of |log(observed / expected)| over quantile bins of h, weighted by the real images in them.

    Where h is the ratio, a bin's share of the reals is its share of the fakes times their mean h. Observed is the
    bin's number of reals, expected what follows from its fakes, both plus ``PRIOR``. The bins hold equal shares of
    real and fake images taken together, both kinds weighing alike. real: float64 [N], fake: float64 [M]. None where
    there are too few reals for two bins.
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
    """How the synthesis subsamples, and why it does not where the settings ask for it ([]: it does).

    result: what :func:`check` gave; None where nothing could be checked.
    """
    if isinstance(settings, NoSubsampling) or not settings.fall_back or result is None or result["passed"]:
        return settings, []
    return NoSubsampling(), result["reasons"]
