"""What a training keeps besides its last weights: those with the best validation score, and its teacher's outputs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cgankd.tasks import Task


class BestWeights:
    """The weights of a network where its validation score was best during a training; of equal ones, the latest.

    step: the number of steps until then; 0 before the first score. tensors: the state dict, on the network's device.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.forget()

    def forget(self) -> None:
        """Begin again, as before the first score."""
        self.step, self.score = 0, math.nan
        self.tensors: dict[str, Tensor] = {}

    def see(self, network: nn.Module, step: int, score: float) -> None:
        """Keep a copy of the weights if no earlier score was better."""
        if self._reached(score):
            self.step, self.score = step, score
            self.tensors = {name: value.detach().clone() for name, value in network.state_dict().items()}

    def resume(self, tensors: Mapping[str, Tensor], history: Sequence[Mapping[str, Any]]) -> None:
        """Continue from the ``tensors`` of a checkpoint, and the history up to there."""
        self.tensors = dict(tensors)
        for entry in history:
            if self._reached(entry["val"]):
                self.step, self.score = entry["step"], entry["val"]

    def _reached(self, score: float) -> bool:
        better = score >= self.score if self.task.higher_is_better else score <= self.score
        return better or math.isnan(self.score)  # no score is better or worse than nan


@dataclasses.dataclass(frozen=True)
class Kept:
    """What a training keeps. teacher_outputs: a folder for the outputs of its teacher, which other trainings on the
    same views use again. best: None where only the last weights are of use."""

    teacher_outputs: Path | None = None
    best: BestWeights | None = None


NOTHING = Kept()
