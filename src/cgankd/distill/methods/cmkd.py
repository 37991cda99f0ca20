"""Correlation matching (CMKD): the student's answers correlate with the teacher's in value and in rank."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cgankd.distill.base import DistillBatch, Method, register
from cgankd.distill.methods.dist import uncorrelated


@register
class CMKD(Method):
    """weight (mean_i c(i; h_i) + mean_k c(k; mean h)), c = (1 - h)(1 - rho) + h (1 - rank rho).

    Over the classes of each image i, and over the batch for each class k, or for the number (which has only that).
    rho is Pearson's correlation of the class probabilities [B, C], or of the number [B, 1]; rank rho is Spearman's
    of the outputs themselves, with soft ranks r_i = sum_j sigmoid((z_i - z_j) / softness), z standardised outputs.
    h_i is the image's difficulty: the teacher's entropy over log C (1/2 for a number), so that easy images count by
    value and hard ones by rank [ours: the direction is not published]. Ranks are taken of the teacher's ``top``
    classes only, of each image or of the batch: all pairs of 1,000 would fill the memory. Two classes of an image
    correlate as 1 or -1, so there the batch alone teaches. Defaults: weight 2, softness .1, top 100, r 1
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
    """Ranks within each row of [R, K], smooth over ``softness`` of the row's deviation; from 1/2 to K - 1/2."""
    centred = values - values.mean(dim=1, keepdim=True)
    z = centred * torch.rsqrt(centred.square().mean(dim=1, keepdim=True) + 1e-12)
    return torch.sigmoid((z.unsqueeze(2) - z.unsqueeze(1)) / softness).sum(dim=2)
