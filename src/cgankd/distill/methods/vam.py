"""KDExplainer's virtual attention module (VAM): the student's attention over blocks of filters becomes decided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from cgankd.core.errors import UserError
from cgankd.distill.base import DistillBatch, Method, register
from cgankd.distill.networks import Maker
from cgankd.nets.attention import BLOCKS, SUFFIX, gates


@register
class VAM(Method):
    """weight mean_l mean_i H(a_li) / ln K, H(a) = - sum_k a_k ln a_k.

    a_li [K]: the attention of image i over the K blocks of filters at gate l (:mod:`cgankd.nets.attention`), which
    the student has: a row of the table with this method has the student NAME+vam. The term is 1 where all blocks
    count alike, 0 where one block counts alone. It asks nothing of the teacher: ``kd+vam`` is as published
    (arXiv 2105.04181). The division by ln K, the weight and what the gates are made of are ours.
    """

    name = "vam"
    tasks = ("classification", "regression")
    matches = "nothing"
    where = "attention"
    distance = "entropy"
    paper = "arXiv 2105.04181"
    defaults: ClassVar[dict[str, float]] = {"weight": 0.1}
    beside = "kd"
    looks_at_student = True
    asks_teacher = False
    student_suffix = SUFFIX

    def networks(self, make: Maker) -> None:
        self.scores = list(gates(make.student))
        if not self.scores:
            raise UserError(
                f"method 'vam' needs a student with virtual attention, which this {type(make.student).__name__} "
                f"has not; allowed: a network NAME{SUFFIX}, or what cgankd.nets.attention.add_attention makes"
            )

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        return self.scores, []

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        scores = torch.stack([batch.student_features[name].flatten(1) for name in self.scores])  # [gates, B, K]
        return {"vam": self.values["weight"] * entropy(scores).mean() / math.log(BLOCKS)}


def entropy(scores: Tensor) -> Tensor:
    """H of softmax(scores), in nats: [.., K] -> [..]. Its gradient is finite where a share is 0."""
    logs = torch.log_softmax(scores, dim=-1)
    return -(logs.exp() * logs).sum(dim=-1)
