"""Input gradient alignment (KDIGA): matches the gradients with respect to the image, to transfer robustness."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from cgankd.distill.base import DistillBatch, Method, register


@register
class KDIGA(Method):
    """weight mean_i |d e_s,i / d x_i - d e_t,i / d x_i|, the norm over all values of image x_i, [C, H, W].

    e: the cross-entropy (classes) or the output (a scalar [ours]) of image i, of student and teacher. The student is in
    training mode, so its gradient includes the part through the batch's statistics. Gradients are per unit of pixels in
    [0, 1]. Stack it on plain KD (``kd+kdiga``), as published. Default: weight 1 [ours], r 1 (arXiv 2110.12072).
    """

    name = "kdiga"
    tasks = ("classification", "regression")
    matches = "gradient"
    where = "images"
    distance = "Euclidean"
    paper = "arXiv 2110.12072"
    reads_labels = True
    defaults: ClassVar[dict[str, float]] = {"weight": 1.0}
    input_gradients = True
    beside = "kd"

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        assert batch.teacher_outputs is not None
        theirs = batch.image_gradient(self.task.explained(batch.teacher_outputs, batch.targets))
        mine = batch.image_gradient(self.task.explained(batch.outputs, batch.targets), differentiable=True)
        distances = torch.linalg.vector_norm((mine - theirs).flatten(1), dim=1)  # [B]
        return {"kdiga": self.values["weight"] * distances.mean()}
