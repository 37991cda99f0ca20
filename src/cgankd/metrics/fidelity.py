"""How alike two sets of feature vectors are: Fréchet and kernel distance, precision and recall, diversity.

All take float32 features [N, F] of real and of generated images, of any extractor; a score's name must say which.
Ours rather than torchmetrics': its Fréchet distance takes the eigenvalues of an F x F matrix however few images a
label window holds, a hundred times as long where F is in the hundreds; its kernel distance draws from torch's
global generator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cgankd.core import rng
from cgankd.metrics.distances import nearest, within

NEIGHBOURS = 3  # of the manifold that precision and recall are taken over
SUBSETS, LARGEST_SUBSET = 20, 500  # of the kernel distance
LARGEST_GROUP = 200  # vectors whose pairwise distances are averaged


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """FID's arithmetic (Heusel et al., arXiv 1706.08500) on any features; both need two rows or more.

    |m_r - m_f|^2 + tr S_r + tr S_f - 2 tr (S_r S_f)^(1/2). With S_r = A'A and S_f = B'B, the last trace is the sum
    of the singular values of AB', which needs no root of a matrix and is exact where a covariance is singular.
    The fewer images, the larger: compare it only between sets of the same sizes.
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

    The unbiased squared maximum mean discrepancy with the kernel (x'y / F + 1)^3; it may come out below zero, and
    its mean does not depend on how many images there are. A subset takes half of the smaller set, 500 at most.
    """
    size = min(LARGEST_SUBSET, len(real) // 2, len(fake) // 2)
    values = torch.empty(SUBSETS, dtype=torch.float64)
    for number in range(SUBSETS):
        x = real[_subset(len(real), size, seed, "kid/real", number)].double()
        y = fake[_subset(len(fake), size, seed, "kid/fake", number)].double()
        values[number] = squared_discrepancy(x, y)
    return float(values.mean()), float(values.std())


def _subset(total: int, size: int, seed: int, stream: str, number: int) -> Tensor:
    return rng.bits(seed, stream, torch.tensor(number), torch.arange(total)).argsort()[:size]


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

    Precision: the share of fakes inside the real manifold (nearer to some real vector than its third neighbour);
    recall: the share of real vectors inside the fakes' manifold. Both sets need four rows or more.
    """

    def covered(queries: Tensor, manifold: Tensor) -> float:
        radii = nearest(manifold, manifold, NEIGHBOURS, same=True)[0][:, -1]
        return float(within(queries, manifold, radii).double().mean())

    return covered(fake, real), covered(real, fake)


def mean_pairwise_distance(features: Tensor) -> float:
    """Over all pairs of the first 200 rows; at least two rows."""
    return float(torch.pdist(features[:LARGEST_GROUP].double()).mean())
