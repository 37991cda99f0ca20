"""Self-supervised distillation (SSKD): the student imitates the teacher on a contrastive task with rotated images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.core.errors import UserError
from cgankd.data.batches import Batch
from cgankd.distill.base import DistillBatch, Method, Preparation, Shape, register

TURNS = 3  # by 90, 180 and 270 degrees


@register
class SSKD(Method):
    """turned T^2 KL(p_t(x') || p_s(x')) + contrast T_c^2 KL(q_t || q_s), x' three rotated copies of each image.

    q_ij [3 B, B]: softmax over j of cos(h(f(x'_i)), h(f(x_j))) / T_c; f the penultimate features [B, D]; h a linear
    layer, ReLU and a linear layer, of width D. The teacher's h is trained before the student, to find the image of each
    x' (cross-entropy of q_t), for ``first`` times the student's steps, and then frozen. The student's h is trained
    together with the student. Of the rows in which the teacher is wrong, the worst are left out, by the rank of the
    right class or image: the shares 1 - ``keep_turned`` and 1 - ``keep_contrast``. T is student.temperature. Stack it
    on plain KD (``kd+sskd``), as published. Defaults: turned 2.7, contrast 10, contrast_temperature (T_c) .5,
    keep_turned 1, keep_contrast .75, first .25 (60 of 240 epochs), r 1 (arXiv 2006.07114).
    """

    name = "sskd"
    tasks: ClassVar[tuple[str, ...]] = ("classification",)  # a rotated image may have another scalar label
    matches = "relation"
    where = "penultimate, outputs"
    distance = "KL"
    paper = "arXiv 2006.07114"
    reads_labels = True
    shared: ClassVar[tuple[str, ...]] = ("temperature",)
    defaults: ClassVar[dict[str, float]] = {
        "turned": 2.7, "contrast": 10.0, "contrast_temperature": 0.5, "keep_turned": 1.0, "keep_contrast": 0.75,
        "first": 0.25,
    }  # fmt: skip
    needs_inside = True
    beside = "kd"

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        return [student[-1]], [teacher[-1]]

    def build(self, student: Mapping[str, Shape], teacher: Mapping[str, Shape]) -> None:
        ((self.mine, s),), ((self.theirs, t),) = student.items(), teacher.items()
        self.student_head, self.teacher_head = _head(math.prod(s)), _head(math.prod(t)).requires_grad_(False)

    def views(self, batch: Batch, seed: int) -> Tensor:
        height, width = batch.images.shape[2:]
        if height != width:
            raise UserError(
                f"method 'sskd' rotates images by 90 degrees, but these are {height}x{width}; allowed: square images"
            )
        return turned_copies(batch.images)

    def prepare(self, preparation: Preparation) -> None:
        def finding(images: Tensor) -> Tensor:
            features = preparation.teacher(torch.cat([images, turned_copies(images)]))[1][self.theirs]
            upright, turned = features.tensor_split([len(images)])
            logits = cosines(self.teacher_head, turned, upright) / self.values["contrast_temperature"]
            return F.cross_entropy(logits, _source(len(images), images.device))

        preparation.minimise(self.teacher_head, finding, self.values["first"], "sskd: teacher's head")

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        values, extra = self.values, batch.extra
        assert extra is not None
        assert extra.teacher_outputs is not None
        right = self.task.right_answer(extra.targets).argmax(dim=1)
        s = cosines(self.student_head, extra.student_features[self.mine], batch.student_features[self.mine])
        t = cosines(self.teacher_head, extra.teacher_features[self.theirs], batch.teacher_features[self.theirs])
        own = _source(len(batch.fake), right.device)
        turned = selected_divergence(
            extra.outputs, extra.teacher_outputs, right, values["keep_turned"], values["temperature"]
        )
        contrast = selected_divergence(s, t, own, values["keep_contrast"], values["contrast_temperature"])
        return {"sskd_turned": values["turned"] * turned, "sskd_contrast": values["contrast"] * contrast}


def turned_copies(images: Tensor) -> Tensor:
    """[B, C, H, W] -> [3 B, C, H, W]: all rotated by 90 degrees, then by 180, then by 270."""
    return torch.cat([torch.rot90(images, turns, (2, 3)) for turns in range(1, TURNS + 1)])


def cosines(head: nn.Module, turned: Tensor, upright: Tensor) -> Tensor:
    """Between each rotated and each upright image, after ``head``: [3 B, ..], [B, ..] -> [3 B, B]."""
    a, b = (F.normalize(head(features.flatten(1)), dim=1) for features in (turned, upright))
    return a @ b.T


def selected_divergence(s: Tensor, t: Tensor, right: Tensor, keep: float, temperature: float) -> Tensor:
    """T^2 KL(softmax(t / T) || softmax(s / T)), a mean over rows; s, t [R, K]; right [R]: the right columns.

    It uses the rows in which t is largest at the right column, and the share ``keep`` of the others, by best rank.
    """
    rank = (t > t.gather(1, right[:, None])).sum(dim=1)  # [R], 0 where t is right
    place = rank.argsort(stable=True).argsort()
    wrong = (rank > 0).sum()
    kept = (place < len(t) - wrong + (keep * wrong).floor()).float()
    log_s, log_t = (F.log_softmax(x / temperature, dim=1) for x in (s, t))
    each = (log_t.exp() * (log_t - log_s)).sum(dim=1)
    return temperature**2 * (each * kept).sum() / kept.sum().clamp_min(1.0)


def _head(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))


def _source(count: int, device: torch.device) -> Tensor:
    """The index of the image that each rotated copy is of, [3 B]."""
    return torch.arange(count, device=device).repeat(TURNS)
