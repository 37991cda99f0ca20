"""Information flow (PKT's successor): matches similarities of images at every resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from cgankd.distill.base import DistillBatch, Method, Preparation, pairs, register
from cgankd.distill.methods.pkt import cosine_kernel, log_conditional
from cgankd.distill.networks import NetworkFactory
from cgankd.nets.feature_layers import map_layers
from cgankd.nets.taps import PENULTIMATE, Taps
from cgankd.tasks import Task


@register
class Flow(Method):
    """weight sum_l w_l sum_K mean_i J(p^a_i, p^s_i) over layers l and two kernels K, from an auxiliary network a.

    J(p, q) = sum (p - q)(log p - log q); p_ij = K_ij / sum_k K_ik; K_ij is (cos(f_i, f_j) + 1) / 2 or 1 / (1 + d_ij), d
    the Euclidean distance. w is 1 at the penultimate layer and first decay^epoch at the maps before it, epoch =
    ``epochs`` times the share done. Maps are averaged over their pixels [ours], to [B, D].

    The auxiliary network has the student's layers, but wider, so that layers match one by one. In the paper it is twice
    as wide; here it is the network of the student's family that is nearest to that [ours]. It is trained before the
    student, by pkt at the teacher's penultimate layer and by the labels, for ``auxiliary`` times the student's steps
    [ours]. With auxiliary 0 the teacher takes its place, and maps are paired from the deepest one on. Defaults: first
    100, decay .7, epochs 100, weight 1, auxiliary 1, r 1 (arXiv 2005.00727).
    """

    name = "flow"
    tasks = ("classification", "regression")
    matches = "relation"
    where = "all maps, penultimate"
    distance = "Jeffreys"
    paper = "arXiv 2005.00727"
    defaults: ClassVar[dict[str, float]] = {
        "weight": 1.0, "first": 100.0, "decay": 0.7, "epochs": 100.0, "auxiliary": 1.0,
    }  # fmt: skip
    version = 3  # version 1 had no auxiliary network, 2 averaged tokens over the wrong dimension
    needs_inside = True
    teaches_by = "pkt"

    def __init__(self, task: Task, numbers: Mapping[str, float] | None = None) -> None:
        super().__init__(task, numbers)
        self.asks_teacher = not self.values["auxiliary"]

    def networks(self, factory: NetworkFactory) -> None:
        if self.asks_teacher:
            return
        name = factory.wider(self.name, f"student.method_settings.{self.name}.auxiliary = 0, which uses the teacher")
        self.auxiliary = factory(name).eval().requires_grad_(False)
        layers = map_layers(self.auxiliary, factory.channels, factory.size)
        self.auxiliary_taps = Taps(self.auxiliary, [*layers, PENULTIMATE])

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        mine, theirs = pairs(student, teacher if self.asks_teacher else self.auxiliary_taps.names)
        self.pairs = list(zip(mine, theirs, strict=True))
        return mine, theirs if self.asks_teacher else []

    def prepare(self, preparation: Preparation) -> None:
        if not self.asks_teacher:
            preparation.teach(self.auxiliary, self, self.values["auxiliary"])

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        values = self.values
        below = values["first"] * values["decay"] ** (values["epochs"] * batch.done)
        guide = batch.teacher_features if self.asks_teacher else self._auxiliary_features(batch)
        total = batch.outputs.new_zeros(())
        for place, (mine, theirs) in enumerate(self.pairs, start=1):
            layer_weight = 1.0 if place == len(self.pairs) else below
            s, t = (pooled(x) for x in (batch.student_features[mine], guide[theirs]))
            for kernel in (cosine_kernel, distance_kernel):
                total = total + layer_weight * jeffreys(log_conditional(kernel(t)), log_conditional(kernel(s)))
        return {"flow": values["weight"] * total}

    @torch.no_grad()
    def _auxiliary_features(self, batch: DistillBatch) -> Mapping[str, Tensor]:
        assert batch.images is not None
        return self.auxiliary_taps(batch.images)[1]


def pooled(features: Tensor) -> Tensor:
    """Features [B, D], maps [B, D, H, W] or tokens [B, L, D] -> [B, D]."""
    if features.ndim == 3:  # a transformer's last layer may read tokens [B, L, D]
        return features.mean(dim=1)
    return features.flatten(2).mean(dim=2) if features.ndim > 3 else features


def distance_kernel(features: Tensor) -> Tensor:
    """1 / (1 + d) for each pair of rows: [B, D] -> [B, B]."""
    difference = features.unsqueeze(0) - features.unsqueeze(1)
    return 1.0 / (1.0 + torch.linalg.vector_norm(difference, dim=2))


def jeffreys(log_p: Tensor, log_q: Tensor) -> Tensor:
    """The sum of both Kullback-Leibler divergences, averaged over the rows of [B, K]."""
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=1).mean()
