"""Correlation matching (CMKD): the student's outputs correlate with the teacher's, in value and in rank."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cgankd.distill.base import DistillBatch, Method, register
from cgankd.distill.methods.dist import uncorrelated


@register
class CMKD(Method):
    """weight (mean_i c(i; h_i) + mean_k c(k; mean h)), c = (1 - h)(1 - rho) + h (1 - rank rho).

    The first mean is over the classes of each image i, the second over the batch for each class k; a scalar has only
    the second. rho is Pearson's correlation of the class probabilities [B, C], or of the scalar [B, 1]; rank rho is
    Spearman's of the outputs themselves, with soft ranks r_i = sum_j sigmoid((z_i - z_j) / softness), z standardised
    outputs. h_i is the image's difficulty: the teacher's entropy over log C (1/2 for a scalar). So easy images count by
    value and hard ones by rank [ours: the direction is not published]. Ranks use only the teacher's ``top`` classes, of
    each image or of the batch, because all pairs of 1,000 classes need too much memory. With two classes the first
    correlation is always 1 or -1, so only the second teaches. Defaults: weight 2, softness .1, top 100, r 1
    (arXiv 2410.06561).
    """

    name = "cmkd"
    tasks = ("classification", "regression")
    matches = "relation"
    where = "outputs"
    distance = "Pearson, Spearman"
    paper = "arXiv 2410.06561"
    defaults: ClassVar[dict[str, float]] = {"weight": 2.0, "softness": 0.1, "top": 100}

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        f_s, f_t = batch.outputs, batch.teacher_outputs
        assert f_t is not None
        a_s, a_t = self.task.answer(f_s), self.task.answer(f_t)
        hard = self.task.uncertainty(f_t)  # [B]
        top = min(int(self.values["top"]), f_t.shape[1])
        of_image, of_batch = f_t.topk(top, dim=1).indices, a_t.mean(dim=0).topk(top).indices
        inter = (1.0 - hard) * uncorrelated(a_s, a_t)
        inter = inter + hard * self._ranked(f_s.gather(1, of_image), f_t.gather(1, of_image))
        intra = (1.0 - hard.mean()) * uncorrelated(a_s.T, a_t.T).mean()
        intra = intra + hard.mean() * self._ranked(f_s.T[of_batch], f_t.T[of_batch]).mean()
        return {"cmkd_inter": self.values["weight"] * inter.mean(), "cmkd_intra": self.values["weight"] * intra}

    def _ranked(self, student: Tensor, teacher: Tensor) -> Tensor:
        softness = self.values["softness"]
        return uncorrelated(soft_ranks(student, softness), soft_ranks(teacher, softness))


def soft_ranks(values: Tensor, softness: float) -> Tensor:
    """Ranks within each row of [R, K], smooth over ``softness`` standard deviations of the row; from 1/2 to K - 1/2."""
    centred = values - values.mean(dim=1, keepdim=True)
    z = centred * torch.rsqrt(centred.square().mean(dim=1, keepdim=True) + 1e-12)
    return torch.sigmoid((z.unsqueeze(2) - z.unsqueeze(1)) / softness).sum(dim=2)
