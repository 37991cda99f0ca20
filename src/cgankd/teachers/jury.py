"""Several teachers combined into one, for the settings mean and confidence of ``teacher.votes``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cgankd.core.errors import UserError
from cgankd.core.mapped_rows import Images
from cgankd.core.runtime import Fabric
from cgankd.nets import inference
from cgankd.tasks import Task
from cgankd.teachers.black_box import BlackBox

VOTES = ("first", "mean", "confidence")


class Jury:
    """Float images [B, C, H, W] in [0, 1] -> the teachers' mean vote as outputs [B, number of outputs].

    Classes: the log of the mean probability; scalars: the mean. by_confidence: a weighted mean, with a weight for
    each teacher and image (:meth:`cgankd.tasks.Task.confidence`). A jury has no features and no gradients.
    """

    def __init__(
        self, members: Sequence[inference.Predictor], task: Task, fabric: Fabric, *, by_confidence: bool = False
    ) -> None:
        if len(members) < 2:
            raise UserError("teacher.votes needs several teachers, but there is one; allowed: first, or a jury")
        self.members, self.task, self.by_confidence = tuple(members), task, by_confidence
        for member in members:
            if isinstance(member, nn.Module):
                inference.place(member, fabric).eval()

    def knows(self, images: Images) -> bool:
        """Whether every teacher can answer about all images; see :meth:`BlackBox.knows`."""
        return all(member.knows(images) for member in self.members if isinstance(member, BlackBox))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        votes = torch.stack([member(images).float().to(images.device) for member in self.members])
        weights = self.task.confidence(votes) if self.by_confidence else None
        return self.task.consensus(votes, weights)


def as_one(
    teachers: Sequence[inference.Predictor], votes: str, task: Task, fabric: Fabric
) -> inference.Predictor | None:
    """The teacher of the distillation: the first one, or a :class:`Jury` of all; None if ``teachers`` is empty."""
    if votes not in VOTES:
        raise UserError(f"votes = {votes!r} is not known; allowed: {', '.join(VOTES)}")
    if votes == "first" or not teachers:
        return teachers[0] if teachers else None
    return Jury(teachers, task, fabric, by_confidence=votes == "confidence")
