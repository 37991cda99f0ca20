"""KDExplainer's virtual attention module (VAM): the student's attention concentrates on few blocks of channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from cgankd.core.errors import UserError
from cgankd.distill.base import DistillBatch, Method, register
from cgankd.distill.networks import NetworkFactory
from cgankd.nets.attention import BLOCKS, SUFFIX, gates


@register
class VAM(Method):
    """weight mean_l mean_i H(a_li) / ln K, H(a) = - sum_k a_k ln a_k.

    a_li [K]: the attention of image i over the K blocks of channels at gate l (:mod:`cgankd.nets.attention`). The
    student must have these gates: a row of the table with this method has the student NAME+vam. The mean is 1 if all
    blocks have equal weight, and 0 if one block has all the weight. The term needs nothing of the teacher; ``kd+vam``
    is as published (arXiv 2105.04181). The division by ln K, the weight and the design of the gates are ours.
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

    def networks(self, factory: NetworkFactory) -> None:
        self.scores = list(gates(factory.student))
        if not self.scores:
            raise UserError(
                f"method 'vam' needs a student with virtual attention, but this {type(factory.student).__name__} "
                f"has none; allowed: a network NAME{SUFFIX}, or one from cgankd.nets.attention.add_attention"
            )

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        return self.scores, []

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        scores = torch.stack([batch.student_features[name].flatten(1) for name in self.scores])  # [gates, B, K]
        return {"vam": self.values["weight"] * entropy(scores).mean() / math.log(BLOCKS)}


def entropy(scores: Tensor) -> Tensor:
    """H of softmax(scores), in nats: [.., K] -> [..]. Its gradient is finite even if a share is 0."""
    logs = torch.log_softmax(scores, dim=-1)
    return -(logs.exp() * logs).sum(dim=-1)
