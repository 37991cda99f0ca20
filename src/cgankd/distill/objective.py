"""What a student minimises: the label's loss and the terms of any number of methods, each on real or fake images.

``kd``, ``kd+crd`` (both), ``kd+crd@fake`` (crd on generated images only), ``supervised`` (the labels alone:
teacher, NOKD, its control, and cGAN-KD, whose knowledge is in the images).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from cgankd.config.settings import StudentSettings
from cgankd.core.errors import UserError
from cgankd.core.hashing import content_key
from cgankd.data.batches import Batch
from cgankd.distill.base import METHODS, DistillBatch, Method, Preparation, Shape, find
from cgankd.distill.networks import Maker
from cgankd.tasks import Task

SUPERVISED = "supervised"
PARTS = ("real", "fake")


class Objective(nn.Module):
    """loss = r label + the methods' terms.

    r is an image's own: the smallest that any of the methods that see it asks for (plain KD: .1), else 1.
    """

    def __init__(
        self, name: str, task: Task, methods: Sequence[tuple[Method, str | None]], stack: MethodStack | None = None
    ) -> None:
        super().__init__()
        self.name, self.task, self.stack = name, task, stack
        self.layers = nn.ModuleList(method for method, _ in methods)  # so that their parameters are found
        self.stacked = list(methods)
        self.needs_teacher = bool(methods)
        self.needs_inside = any(method.needs_inside for method, _ in methods)
        self.looks_inside = self.needs_inside or any(method.looks_at_student for method, _ in methods)
        self.asks_teacher = any(method.asks_teacher for method, _ in methods)
        self.input_gradients = any(method.input_gradients for method, _ in methods)
        self._looks_at: list[tuple[list[str], list[str]]] = []  # each method's own layers

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        """What any of the methods looks at, each layer once."""
        self._looks_at = [method.taps(student, teacher) for method, _ in self.stacked]
        sides = zip(*self._looks_at, strict=True)
        of_student, of_teacher = ([name for names in side for name in names] for side in sides)
        return list(dict.fromkeys(of_student)), list(dict.fromkeys(of_teacher))

    def networks(self, make: Maker) -> None:
        """Let each method make its own networks."""
        for method, _ in self.stacked:
            method.networks(make)

    def build(self, student: Mapping[str, Shape], teacher: Mapping[str, Shape]) -> None:
        """Make all methods' adapter layers, each method's from the layers that it named."""
        for (method, _), (mine, theirs) in zip(self.stacked, self._looks_at, strict=True):
            method.build({name: student[name] for name in mine}, {name: teacher[name] for name in theirs})

    def prepare(self, preparation: Preparation) -> None:
        """Let each method train what it must."""
        for method, _ in self.stacked:
            method.prepare(preparation)

    def teaching(self, name: str) -> Objective:
        """The objective by which one of the methods teaches a network of its own first."""
        if self.stack is None:
            raise ValueError(f"{self.name} was made without the numbers of {name}")
        return self.stack.teaching(name).create(self.task)

    def views(self, batch: Batch, seed: int) -> Tensor | None:
        """The further images that one of the methods wants; two that want some can't be stacked."""
        made = [more for method, _ in self.stacked if (more := method.views(batch, seed)) is not None]
        if len(made) > 1:
            raise UserError(f"method {self.name!r} stacks two that need images of their own; allowed: one of them")
        return made[0] if made else None

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        """All terms by name."""
        terms = {"label": self._label(batch)}
        for method, part in self.stacked:
            seen = batch if part is None else batch.rows(_kind(batch, part))
            if not method.input_gradients:
                seen = seen.without_teacher_gradient()
            if len(seen.fake):  # else there are none of that kind in this batch
                terms |= method.loss(seen)
        return terms

    @property
    def reads_labels(self) -> bool:
        """Whether any loss depends on a label; a method's own may change its weight while it trains."""
        kinds = {kind: [method for method, part in self.stacked if part in (None, kind)] for kind in PARTS}
        unweighted = all(methods and min(m.label_weight for m in methods) == 0 for methods in kinds.values())
        return not unweighted or any(method.reads_labels for method, _ in self.stacked)

    def _label(self, batch: DistillBatch) -> Tensor:
        asked = [(method.label_share(batch.done), part) for method, part in self.stacked]
        weights = {kind: min((r for r, part in asked if part in (None, kind)), default=1.0) for kind in PARTS}
        if not any(weights.values()):
            return batch.outputs.new_zeros(())  # and not 0 times the loss: a mixed image may have no label
        if len(set(weights.values())) == 1:
            return weights["real"] * self.task.loss(batch.outputs, batch.targets)
        total = batch.outputs.new_zeros(())
        for kind, weight in weights.items():
            rows = _kind(batch, kind)
            if rows.any():
                part = batch.rows(rows)
                total = total + weight * rows.float().mean() * self.task.loss(part.outputs, part.targets)
        return total


def _kind(batch: DistillBatch, part: str) -> Tensor:
    return batch.fake if part == "fake" else ~batch.fake


@dataclasses.dataclass(frozen=True)
class MethodStack:
    """An objective before it is made: the stacked methods by name, and all numbers that they compute with.

    numbers: method -> what :meth:`Method.resolve` gave, of the stacked methods and of those that teach for them. The
    content key follows these and the methods' versions, and nothing else.
    """

    name: str
    numbers: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, name: str, task: Task, settings: StudentSettings | None = None) -> MethodStack:
        """UserError for a method that is not known or does not serve the task, and for a number not allowed."""
        stacked = parts(name)
        if len(set(stacked)) < len(stacked):
            raise UserError(f"method {name!r} names one method twice; allowed: each once")
        for word in name.split("+"):
            _, at, part = word.partition("@")
            if at and part not in PARTS:
                raise UserError(f"method {word!r}: {part!r} is no part of a batch; allowed: @real, @fake, or neither")
        return cls(name, {method: find(method).resolve(task, settings) for method in involved(name)})

    @property
    def content_key(self) -> str:
        return content_key(self.name, {name: [METHODS[name].version, own] for name, own in self.numbers.items()})

    def create(self, task: Task) -> Objective:
        """The objective, its methods new."""
        if self.name == SUPERVISED:
            return Objective(self.name, task, [])
        words = (word.partition("@") for word in self.name.split("+"))
        made = [(find(method)(task, self.numbers[method]), part or None) for method, _, part in words]
        return Objective(self.name, task, made, self)

    def teaching(self, name: str) -> MethodStack:
        """One of the involved methods by itself."""
        return MethodStack(name, {method: self.numbers[method] for method in involved(name)})


def create(name: str, task: Task, settings: StudentSettings | None = None) -> Objective:
    """The objective called ``name``; UserError as :meth:`MethodStack.of`."""
    return MethodStack.of(name, task, settings).create(task)


def parts(name: str) -> list[str]:
    """The methods that an objective's name stacks.

    >>> parts("kd+crd@fake"), parts("supervised")
    (['kd', 'crd'], [])
    """
    return [] if name == SUPERVISED else [word.partition("@")[0] for word in name.split("+")]


def student_network(name: str, network: str) -> str:
    """The name of the student's network: ``network``, and what an objective's methods put behind it.

    >>> student_network("kd+vam", "cnn16"), student_network("kd+vam", "cnn16+vam"), student_network("kd", "cnn16")
    ('cnn16+vam', 'cnn16+vam', 'cnn16')
    """
    for method in parts(name):
        suffix = find(method).student_suffix
        network = network if network.endswith(suffix) else network + suffix
    return network


def involved(name: str) -> list[str]:
    """The methods whose code and numbers an objective's results depend on: its own, and those that teach for them.

    >>> involved("crd+takd"), involved("supervised")
    (['crd', 'takd', 'kd'], [])
    """
    found = parts(name)
    for method in found:  # which grows meanwhile
        if (by := find(method).teaches_by) and by not in found:
            found.append(by)
    return found


def names() -> list[str]:
    """The registered methods."""
    return sorted(METHODS)
