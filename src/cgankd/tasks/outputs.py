"""What a teacher's outputs are: those that losses take, or others, such as probabilities, that are turned into them."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from cgankd.core.errors import UserError
from cgankd.core.hashing import content_key
from cgankd.tasks.base import Task

AUTO = "auto"


@dataclasses.dataclass(frozen=True)
class OutputKind:
    """Turns outputs [B, num_outputs] of one kind, of ``task.output_kinds``, into those that the task's losses take."""

    task: Task
    kind: str

    def __call__(self, outputs: Tensor) -> Tensor:
        return self.task.from_kind(outputs.float(), self.kind)

    @property
    def changes(self) -> bool:
        """Whether outputs of this kind become others."""
        return self.kind in self.task.converted_kinds

    @property
    def content_key(self) -> str:
        """Names what outputs become."""
        return content_key(self.kind, self.task.content_key)


def resolve(
    stated: str, outputs: Tensor, labels: Tensor, task: Task, who: str, setting: str, *, trained: bool = True
) -> OutputKind:
    """The kind of a teacher's outputs for training images with these labels.

    stated: a kind, or AUTO: as the outputs tell. who: what a sentence calls the teacher. setting: where a kind is
    stated. trained: whether the teacher knows its task already. Raises UserError for a kind that the task has not, for
    outputs that are not of the stated kind, and under AUTO for those that are of none that can be taken.
    """
    if stated not in (AUTO, *task.output_kinds):
        raise UserError(
            f"{setting} = {stated} is not allowed for {task.name}; allowed: {', '.join((AUTO, *task.output_kinds))}"
        )
    numbers = outputs.detach().float().cpu()
    try:
        kind = task.kind_of(numbers, labels.cpu(), trained=trained) if stated == AUTO else stated
        task.check_kind(numbers, kind)
    except ValueError as reason:
        raise UserError(f"{who}: {str(reason).replace('outputs=', f'{setting}=')}") from None
    return OutputKind(task, kind)


def sentence(kind: OutputKind, who: str, setting: str) -> str:
    """What to tell of outputs that are turned into others though nobody stated their kind."""
    named, how = kind.kind.replace("_", " "), kind.task.converted_kinds[kind.kind]
    return (
        f"{who}: its outputs for training images are {named} ({how}); {setting}={kind.task.output_kinds[0]} takes "
        "them as they are."
    )


def check_unchanged(kind: OutputKind, who: str) -> None:
    """UserError where a network that is trained gives other outputs than its loss takes."""
    if kind.changes:
        raise UserError(
            f"{who}: it gives {kind.kind.replace('_', ' ')}, where its loss takes {kind.task.output_kinds[0]}; needed: "
            "the network without its last softmax"
        )
