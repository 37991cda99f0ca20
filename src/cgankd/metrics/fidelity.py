"""Similarity of two sets of feature vectors: Fréchet and kernel distance, precision and recall, diversity.

All take float32 features [N, F] of real and of generated images, of any extractor; the name of a score must say
which. torchmetrics is not used for two reasons. Its Fréchet distance computes the eigenvalues of an F x F matrix even
for few images, which takes a hundred times as long for an F of some hundreds. Its kernel distance draws from torch's
global generator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cgankd.core import rng
from cgankd.metrics.distances import nearest, within

NEIGHBOURS = 3  # which set the radii for precision and recall
SUBSETS, LARGEST_SUBSET = 20, 500  # of the kernel distance
LARGEST_GROUP = 200  # vectors whose pairwise distances are averaged


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """The formula of FID (Heusel et al., arXiv 1706.08500) on any features; both sets need two rows or more.

    |m_r - m_f|^2 + tr S_r + tr S_f - 2 tr (S_r S_f)^(1/2). With S_r = A'A and S_f = B'B, the last trace is the sum
    of the singular values of AB', which needs no matrix root and is exact for singular covariances. The distance grows
    as the number of images falls, so compare it only between sets of equal sizes.
    """
    real, fake = real.double(), fake.double()
    mean = (real.mean(dim=0) - fake.mean(dim=0)).square().sum()
    a, b = _covariance_root(real), _covariance_root(fake)
    cross = torch.linalg.svdvals(a @ b.T).sum()
    return max(0.0, float(mean + a.square().sum() + b.square().sum() - 2.0 * cross))


def _covariance_root(x: Tensor) -> Tensor:
    """A with A'A the covariance of x [N, F]; [min(N, F), F]."""
    centred = (x - x.mean(dim=0)) / (len(x) - 1) ** 0.5
    if len(x) <= x.shape[1]:
        return centred
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    return values.clamp(min=0).sqrt()[:, None] * vectors.T


def kernel_distance(real: Tensor, fake: Tensor, seed: int) -> tuple[float, float]:
    """KID (Binkowski et al., arXiv 1801.01401): mean and standard deviation over random subsets.

    The unbiased squared maximum mean discrepancy with the kernel (x'y / F + 1)^3. It may be below zero, and its
    expectation does not depend on the number of images. A subset has half the size of the smaller set, 500 at most.
    """
    size = min(LARGEST_SUBSET, len(real) // 2, len(fake) // 2)
    values = torch.empty(SUBSETS, dtype=torch.float64)
    for number in range(SUBSETS):
        x = real[rng.order(len(real), seed, "kid/real", number)[:size]].double()
        y = fake[rng.order(len(fake), seed, "kid/fake", number)[:size]].double()
        values[number] = squared_discrepancy(x, y)
    return float(values.mean()), float(values.std())


def squared_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased estimate of MMD^2 with the kernel (x'y / F + 1)^3; x and y [n, F], n >= 2."""
    n, width = x.shape

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / width + 1.0) ** 3

    def off_diagonal_mean(k: Tensor) -> Tensor:
        return (k.sum() - k.trace()) / (n * (n - 1))

    return off_diagonal_mean(kernel(x, x)) + off_diagonal_mean(kernel(y, y)) - 2.0 * kernel(x, y).mean()


def precision_recall(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al., arXiv 1904.06991) with 3 nearest neighbours.

    Precision: the share of fakes inside the real manifold (nearer to some real vector than its third neighbour).
    Recall: the share of real vectors inside the fakes' manifold. Both sets need four rows or more.
    """

    def covered(queries: Tensor, manifold: Tensor) -> float:
        radii = nearest(manifold, manifold, NEIGHBOURS, same=True)[0][:, -1]
        return float(within(queries, manifold, radii).double().mean())

    return covered(fake, real), covered(real, fake)


def mean_pairwise_distance(features: Tensor) -> float:
    """The mean distance over all pairs of 200 rows, or of all if there are fewer; needs at least two rows.

    These rows are evenly spread, because the rows of processed fakes are sorted by label bin.
    """
    count = min(len(features), LARGEST_GROUP)
    rows = torch.arange(count) * len(features) // count
    return float(torch.pdist(features[rows].double()).mean())
