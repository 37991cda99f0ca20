"""Logit standardisation: a method on logits, with each image's logits at mean 0 and standard deviation 1."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from cgankd.distill import classes
from cgankd.distill.base import DistillBatch, Method, register
from cgankd.distill.methods.dist import DIST
from cgankd.distill.methods.dkd import DKD
from cgankd.distill.methods.kd import KD
from cgankd.distill.methods.mlkd import MLKD
from cgankd.tasks import Task


class Standardised(Method):
    """weight L(z(f_s), z(f_t)), z(x) = (x - mean(x)) / std(x) over an image's classes, for a method L.

    ``class LSKD(Standardised, KD)`` is this with KD as L. The student need not match the teacher's range of logits. The
    temperature is the method's own setting, not ``student.temperature``. Outputs [B, C], C > 2: two standardised logits
    are always 1 and -1. Defaults: temperature 2, and the published weights of the loss, unless the class says [ours]
    (arXiv 2403.01427).
    """

    def __init__(self, task: Task, numbers: Mapping[str, float] | None = None) -> None:
        super().__init__(task, numbers)
        classes.refuse_two(self.name, task, "two standardised logits are always 1 and -1")

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        terms = super().loss(_standardised(batch))
        return {f"ls-{name}": self.values["weight"] * term for name, term in terms.items()}


def _standardised(batch: DistillBatch) -> DistillBatch:
    assert batch.teacher_outputs is not None
    return dataclasses.replace(
        batch,
        outputs=standardise(batch.outputs),
        teacher_outputs=standardise(batch.teacher_outputs),
        extra=None if batch.extra is None else _standardised(batch.extra),
    )


def standardise(logits: Tensor) -> Tensor:
    """Each row of [B, C] with mean 0 and standard deviation 1; equal logits become 0."""
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dim=1, keepdim=True) + 1e-7)


@register
class LSKD(Standardised, KD):
    """:class:`Standardised` KD, r .1; a = .9 times weight 10."""

    name = "ls-kd"
    tasks = ("classification",)
    paper = "arXiv 2403.01427"
    defaults: ClassVar[dict[str, float]] = {"temperature": 2.0, "weight": 10.0}


@register
class LSDKD(Standardised, DKD):
    """:class:`Standardised` DKD."""

    name = "ls-dkd"
    paper = "arXiv 2403.01427, 2203.08679"
    defaults: ClassVar[dict[str, float]] = {**DKD.defaults, "temperature": 2.0, "weight": 9.0}


@register
class LSMLKD(Standardised, MLKD):
    """:class:`Standardised` MLKD; the temperature is the first of its five. The label's loss uses plain logits."""

    name = "ls-mlkd"
    paper = "arXiv 2403.01427, CVPR 2023"
    defaults: ClassVar[dict[str, float]] = {**MLKD.defaults, "temperature": 2.0, "weight": 1.0}

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        terms = super().loss(batch)
        if self.values["strong"]:
            assert batch.extra is not None
            terms["ls-mlkd_strong_label"] = self.task.loss(batch.extra.outputs, batch.extra.targets)
        return terms


@register
class LSDIST(Standardised, DIST):
    """:class:`Standardised` DIST; with weight 4, T^2 weight is the same as in DIST at temperature 4 [ours]."""

    name = "ls-dist"
    paper = "arXiv 2403.01427, 2205.10536"
    defaults: ClassVar[dict[str, float]] = {**DIST.defaults, "temperature": 2.0, "weight": 4.0}
