"""Information flow (PKT's successor): the teacher's similarities at every resolution, the early ones early on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from cgankd.distill.method import DistillBatch, Method, Shape, pairs, register
from cgankd.distill.pkt import cosine_kernel, log_conditional


@register
class Flow(Method):
    """weight sum_l w_l sum_K mean_i J(p^t_i, p^s_i) over layers l and two kernels K.

    J(p, q) = sum (p - q)(log p - log q); p_ij = K_ij / sum_k K_ik; K_ij is (cos(f_i, f_j) + 1) / 2 or
    1 / (1 + d_ij), d the Euclidean distance. w is 1 at the penultimate layer and first decay^epoch at the stages
    below, epoch = ``epochs`` times the share done. Stages (maps, averaged over their pixels, [B, D]) are paired
    from the deepest upwards, as many as both networks have; so the published auxiliary network, which has as many
    layers as the student, is left out [ours]. Defaults: first 100, decay .7, epochs 100, weight 1, r 1
    (arXiv 2005.00727).
    """

    name = "flow"
    tasks = ("classification", "regression")
    matches = "relation"
    paper = "arXiv 2005.00727"
    defaults: ClassVar[dict[str, float]] = {"weight": 1.0, "first": 100.0, "decay": 0.7, "epochs": 100.0}
    needs_inside = True

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        return pairs(student, teacher)

    def build(self, student: Mapping[str, Shape], teacher: Mapping[str, Shape]) -> None:
        self.pairs = list(zip(student, teacher, strict=True))

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        values = self.values
        below = values["first"] * values["decay"] ** (values["epochs"] * batch.done)
        total = batch.outputs.new_zeros(())
        for place, (mine, theirs) in enumerate(self.pairs, start=1):
            layer_weight = 1.0 if place == len(self.pairs) else below
            s, t = (_pooled(x) for x in (batch.student_features[mine], batch.teacher_features[theirs]))
            for kernel in (cosine_kernel, distance_kernel):
                total = total + layer_weight * jeffreys(log_conditional(kernel(t)), log_conditional(kernel(s)))
        return {"flow": values["weight"] * total}


def _pooled(features: Tensor) -> Tensor:
    return features.flatten(2).mean(dim=2) if features.ndim > 2 else features


def distance_kernel(features: Tensor) -> Tensor:
    """1 / (1 + d) of each two rows: [B, D] -> [B, B]."""
    difference = features.unsqueeze(0) - features.unsqueeze(1)
    return 1.0 / (1.0 + torch.linalg.vector_norm(difference, dim=2))


def jeffreys(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Both Kullback-Leibler divergences added, a mean over the rows of [B, K]."""
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=1).mean()
