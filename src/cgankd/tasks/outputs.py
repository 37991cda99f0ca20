"""The kind of a teacher's outputs: those that losses take, or others, such as probabilities, which are converted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from cgankd.core.errors import UserError
from cgankd.core.hashing import content_key
from cgankd.tasks.base import Task

AUTO = "auto"
STEADY_WITHIN = 0.02  # of the outputs' standard deviation; float16 differs by less from one batch to another


@dataclasses.dataclass(frozen=True)
class OutputKind:
    """Converts outputs [B, num_outputs] of a kind in ``task.output_kinds`` to float32 ones that the task's losses take.

    misfit: a sentence where outputs of this kind hardly fit the labels of the images that they were seen for.
    """

    task: Task
    kind: str
    misfit: str = dataclasses.field(default="", compare=False)

    def __call__(self, outputs: Tensor) -> Tensor:
        return self.task.from_kind(_precise(outputs), self.kind).float()

    @property
    def changes(self) -> bool:
        """Whether outputs of this kind are converted."""
        return self.kind in self.task.converted_kinds

    @property
    def content_key(self) -> str:
        """Depends on everything that the conversion depends on."""
        return content_key(self.kind, self.task.content_key)


def _precise(outputs: Tensor) -> Tensor:
    """Outputs as float32, or float64 where they are: a label far from zero in its own unit is no float32."""
    return outputs if outputs.dtype == torch.float64 else outputs.float()


def why(num_outputs: int) -> str:
    """Why a network needs so many outputs, for messages.

    >>> why(43), why(1), why(2)
    ('because the data has 43 classes', 'because the label is one number', 'because the data has 2 classes, or a label \
that wraps (cosine and sine)')
    """
    if num_outputs == 1:
        return "because the label is one number"
    wraps = ", or a label that wraps (cosine and sine)" if num_outputs == 2 else ""
    return f"because the data has {num_outputs} classes{wraps}"


def resolve(
    stated: str, outputs: Tensor, labels: Tensor, task: Task, who: str, setting: str, *, trained: bool = True
) -> OutputKind:
    """The kind of a teacher's outputs for training images with these labels.

    stated: a kind, or AUTO: derived from the outputs. who: the teacher's name in messages. setting: the name of the
    setting that states a kind. trained: whether the teacher is trained for the task. Raises UserError if the task has
    no such kind, if the outputs are not of the stated kind, and, for AUTO, if they are unsuitable.
    """
    if stated not in (AUTO, *task.output_kinds):
        raise UserError(
            f"{setting} = {stated} is not allowed for {task.name}; allowed: {', '.join((AUTO, *task.output_kinds))}"
        )
    numbers = _precise(outputs.detach()).cpu()
    try:
        kind = task.kind_of(numbers, labels.cpu(), trained=trained) if stated == AUTO else stated
        task.check_kind(numbers, kind)
    except ValueError as reason:
        raise UserError(f"{who}: {str(reason).replace('outputs=', f'{setting}=')}") from None
    misfit = task.misfit(numbers, labels.cpu(), kind) if trained else ""
    return OutputKind(task, kind, f"{who}: {misfit}" if misfit else "")


def sentence(kind: OutputKind, who: str, setting: str) -> str:
    """A note that outputs are converted although no setting states their kind."""
    name, how = kind.kind.replace("_", " "), kind.task.converted_kinds[kind.kind]
    return (
        f"{who}: its outputs for training images are {name} ({how}); {setting}={kind.task.output_kinds[0]} uses "
        "them without conversion."
    )


def unsteady(who: str, ask: Callable[[Tensor], Tensor], images: Tensor, outputs: Tensor) -> str:
    """A warning where outputs for images [B, C, H, W] depend on the batch that they come in, or on chance; or "".

    outputs: [B, num_outputs], of ``ask(images)``. Students would match the answers of one draw of batches.
    """
    half = len(images) // 2
    if not half:
        return ""
    first = outputs[:half].detach().double()
    apart = (ask(images[:half].flip(0)).detach().flip(0).double() - first).abs().max()
    if float(apart) <= STEADY_WITHIN * float(outputs.double().std()):
        return ""
    return (
        f"{who}: its outputs for the same images differ from batch to batch (by up to {float(apart):.2g}). A network "
        "in training mode does this, and its answers are worse then; network.eval() ends it."
    )


def check_unchanged(kind: OutputKind, who: str) -> None:
    """UserError if a network to be trained gives outputs of another kind than its loss takes."""
    if kind.changes:
        raise UserError(
            f"{who}: it gives {kind.kind.replace('_', ' ')}, but its loss takes {kind.task.output_kinds[0]}; needed: "
            "the network without its last softmax"
        )
