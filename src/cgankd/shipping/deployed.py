"""A student as it leaves: bytes or floats in, logits or the label's own unit out, with what a user must know of it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from cgankd._version import __version__
from cgankd.shipping.finished import Student
from cgankd.tasks import Task

InputKind = Literal["uint8", "float32"]
INPUT = "images"


class Deployed(nn.Module):
    """images [B, C, H, W], uint8 or floats in [0, 1] -> the task's deployed output, with its conversion inside."""

    def __init__(self, network: nn.Module, task: Task, kind: InputKind) -> None:
        super().__init__()
        self.network, self.task, self.bytes = network.eval(), task, kind == "uint8"

    def forward(self, images: Tensor) -> Tensor:
        return self.task.deployed(self.network(images.float() / 255.0 if self.bytes else images))


def example(student: Student, kind: InputKind, count: int = 2) -> Tensor:
    """Black images of the right shape and type, [count, C, H, W]."""
    plan = student.plan
    return torch.zeros(count, plan.channels, plan.height, plan.width, dtype=getattr(torch, kind))


def description(student: Student, kind: InputKind) -> dict[str, Any]:
    """What the file says of itself, as JSON."""
    task, plan = student.task, student.plan
    return {
        "made_by": f"cgankd {__version__}",
        "task": task.described(),
        "input": {
            "name": INPUT,
            "shape": ["batch", plan.channels, plan.height, plan.width],
            "type": kind,
            "range": [0, 255] if kind == "uint8" else [0.0, 1.0],
            "colour": "RGB" if plan.channels == 3 else "grey",
            "plan": plan._asdict(),
        },
        "output": {"name": task.deployed_name, **task.deployed_facts},
        "student": dict(student.facts),
    }
