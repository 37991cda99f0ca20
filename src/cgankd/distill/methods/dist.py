"""DIST: the student's probabilities correlate with the teacher's, instead of being equal to them."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cgankd.distill.base import DistillBatch, Method, register


@register
class DIST(Method):
    """T^2 (beta (1 - mean_i rho(p_s[i], p_t[i])) + gamma (1 - mean_c rho(p_s[:, c], p_t[:, c]))).

    rho is Pearson's correlation, p = softmax(outputs / T) [B, C]: over the classes of each image, and over the
    images for each class. The second is left out if there is only one image; with two classes the first is always 1 or
    -1. Defaults: beta 2, gamma 2, r 1 (arXiv 2205.10536).
    """

    name = "dist"
    tasks = ("classification",)
    matches = "relation"
    where = "outputs"
    distance = "Pearson"
    paper = "arXiv 2205.10536"
    shared: ClassVar[tuple[str, ...]] = ("temperature",)
    defaults: ClassVar[dict[str, float]] = {"beta": 2.0, "gamma": 2.0}

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        assert batch.teacher_outputs is not None
        p_s, p_t = (
            torch.softmax(x / self.values["temperature"], dim=1) for x in (batch.outputs, batch.teacher_outputs)
        )
        weight = self.values["temperature"] ** 2
        return {
            "dist_inter": weight * self.values["beta"] * uncorrelated(p_s, p_t).mean(),
            "dist_intra": weight * self.values["gamma"] * uncorrelated(p_s.T, p_t.T).mean(),
        }


def uncorrelated(a: Tensor, b: Tensor) -> Tensor:
    """1 - Pearson's correlation of each row of ``a`` with that of ``b``, both [R, K] -> [R]; 0 if K is 1."""
    if a.shape[1] < 2:
        return 0.0 * a.sum(dim=1)
    a, b = (x - x.mean(dim=1, keepdim=True) for x in (a, b))
    return 1.0 - F.cosine_similarity(a, b, dim=1)
