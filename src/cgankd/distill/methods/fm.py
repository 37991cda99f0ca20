"""Function matching (FM): the student learns the teacher's output for the same view of an image, and no label."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from cgankd.distill.base import DistillBatch, Method, register


@register
class FM(Method):
    """imitation(f_s(x), f_t(x)) for each view x, which may be a mixed image; r = label_weight = 0.

    Imitation is plain KD's: T^2 KL(softmax(f_t/T) || softmax(f_s/T)), T = student.temperature, or for a scalar the
    squared error. The views are those of row ``augment``, with MixUp instead of CutMix. The teacher runs on each view,
    so every step needs one pass of it. Outputs [B, number of outputs]. Defaults: label_weight 0 (Beyer et al., arXiv
    2106.05237, for classes; scalars [ours]).
    """

    name = "fm"
    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression")
    matches = "output"
    where = "outputs"
    distance = "KL, squared"
    paper = "arXiv 2106.05237"
    shared: ClassVar[tuple[str, ...]] = ("temperature",)
    defaults: ClassVar[dict[str, float]] = {"label_weight": 0.0}

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        assert batch.teacher_outputs is not None
        temperature = self.values.get("temperature", 1.0)
        return {"fm": self.task.imitation_loss(batch.outputs, batch.teacher_outputs, temperature)}
