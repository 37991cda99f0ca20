"""Decoupled knowledge distillation (DKD): the target class and the other classes have separate weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cgankd.distill import classes
from cgankd.distill.base import DistillBatch, Method, register
from cgankd.tasks import Task


@register
class DKD(Method):
    """min(1, done / warmup) T^2 (alpha KL(b_t || b_s) + beta KL(q_t || q_s)), a mean over the batch.

    At temperature T, b = (p_y, 1 - p_y) for the label y, and q are the probabilities of the C - 1 other classes,
    normalised among themselves. Plain KD is alpha = 1 with beta = 1 - p_t,y. Outputs [B, C], C > 2: with two classes q
    is 1. Defaults: alpha 1, beta 8, warmup 1/12 of the training (20 of 240 epochs), r 1 (arXiv 2203.08679).
    """

    name = "dkd"
    tasks = ("classification",)
    matches = "output"
    where = "outputs"
    distance = "KL"
    paper = "arXiv 2203.08679"
    reads_labels = True
    shared: ClassVar[tuple[str, ...]] = ("temperature",)
    defaults: ClassVar[dict[str, float]] = {"alpha": 1.0, "beta": 8.0, "warmup": 1 / 12}

    def __init__(self, task: Task, numbers: Mapping[str, float] | None = None) -> None:
        super().__init__(task, numbers)
        classes.refuse_two(self.name, task, "there is only one class besides the target")

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        assert batch.teacher_outputs is not None
        target, others = decoupled(
            batch.outputs, batch.teacher_outputs, classes.index(batch.targets), self.values["temperature"]
        )
        values, warmup = self.values, self.values["warmup"]
        ramp = min(1.0, batch.done / warmup) if warmup > 0 else 1.0
        weight = ramp * self.values["temperature"] ** 2
        return {"dkd": weight * (values["alpha"] * target + values["beta"] * others).mean()}


def decoupled(outputs: Tensor, teacher: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """KL divergences teacher || student of b and of q, each [B]; outputs, teacher [B, C], target int64 [B]."""
    (b_s, q_s), (b_t, q_t) = (parts(logits / temperature, target) for logits in (outputs, teacher))
    return tuple(  # type: ignore[return-value]
        F.kl_div(s, t, reduction="none", log_target=True).sum(dim=1) for s, t in ((b_s, b_t), (q_s, q_t))
    )


def parts(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """log b [B, 2] and log q [B, C - 1]."""
    target = target.unsqueeze(1)
    column = torch.arange(logits.shape[1] - 1, device=logits.device).expand(len(logits), -1)
    others = logits.gather(1, column + (column >= target))  # all but the target class
    binary = torch.cat([logits.gather(1, target), others.logsumexp(dim=1, keepdim=True)], dim=1)
    return F.log_softmax(binary, dim=1), F.log_softmax(others, dim=1)
