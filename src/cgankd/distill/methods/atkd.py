"""Adaptive teaching (ATKD): on images that are easy for the teacher, only the other classes are distilled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from cgankd.core.runtime import to_device
from cgankd.distill import classes
from cgankd.distill.base import DistillBatch, Method, register
from cgankd.distill.methods.dkd import decoupled, parts
from cgankd.tasks import Task


@register
class ATKD(Method):
    """weight T^2 (easy mean_easy KL(q) + (1 - easy) mean_hard (KL(b) + KL(q))), b and q as in DKD.

    An image is easy if 1 - p_t(label) is below the median in the batch, taken separately over real and over generated
    images. Outputs [B, C], C > 2: with two classes q is 1. The method was published for tokens of language models; here
    it is applied to images. Defaults: weight 1, easy .2, r 1 (arXiv 2402.11890).
    """

    name = "atkd"
    tasks = ("classification",)
    matches = "output"
    where = "outputs"
    distance = "KL"
    paper = "arXiv 2402.11890"
    reads_labels = True
    shared: ClassVar[tuple[str, ...]] = ("temperature",)
    defaults: ClassVar[dict[str, float]] = {"weight": 1.0, "easy": 0.2}
    version = 2  # in version 1 no image was easy if 1 - p is 0 in float32

    def __init__(self, task: Task, numbers: Mapping[str, float] | None = None) -> None:
        super().__init__(task, numbers)
        classes.refuse_two(self.name, task, "there is only one class besides the target")

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        teacher = batch.teacher_outputs
        assert teacher is not None
        label = classes.index(batch.targets)
        fake = to_device(batch.fake, teacher.device)
        easy, hard = easy_and_hard(batch.outputs, teacher, label, (fake, ~fake), self.values["temperature"])
        weight = self.values["weight"] * self.values["temperature"] ** 2
        return {
            "atkd_easy": weight * self.values["easy"] * easy,
            "atkd_hard": weight * (1.0 - self.values["easy"]) * hard,
        }


def easy_and_hard(
    outputs: Tensor, teacher: Tensor, label: Tensor, kinds: Sequence[Tensor], temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """mean_easy KL(q) and mean_hard (KL(b) + KL(q)), over images or tokens; 0 if there are none.

    outputs, teacher [B, C]; label int64 [B]; kinds: bool [B] each, groups with a median of 1 - p_t(label) each.
    """
    target, others = decoupled(outputs, teacher, label, temperature)
    target_or_not = parts(teacher, label)[0]
    doubt = target_or_not[:, 1] - target_or_not[:, 0]  # log-odds, because 1 - p rounds to 0 for a confident teacher
    easy = torch.zeros_like(label, dtype=torch.bool)
    for kind in kinds:
        median = torch.nanquantile(doubt.masked_fill(~kind, math.nan), 0.5)
        easy |= kind & (doubt < median)
    return _mean(others, easy), _mean(target + others, ~easy)


def _mean(values: Tensor, rows: Tensor) -> Tensor:
    """The mean over those rows; 0 if there are none."""
    return (values * rows).sum() / rows.sum().clamp_min(1)
