"""What a student minimises: the label's loss, and the terms of any number of methods, on real or fake images or both.

Names of objectives: ``kd``, ``kd+crd`` (both), ``kd+crd@fake`` (crd on generated images only), ``supervised`` (only
labels: for the teacher, NOKD, its control, and cGAN-KD, in which the images carry the teacher's knowledge).
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
from cgankd.distill.networks import NetworkFactory
from cgankd.tasks import Task

SUPERVISED = "supervised"
PARTS = ("real", "fake")


class Objective(nn.Module):
    """loss = r label + the methods' terms.

    r may differ between real and fake images: it is the smallest ``label_weight`` (plain KD: .1) of the methods that
    are applied to the image, or 1 if there are none.
    """

    def __init__(
        self, name: str, task: Task, methods: Sequence[tuple[Method, str | None]], stack: MethodStack | None = None
    ) -> None:
        super().__init__()
        self.name, self.task, self.stack = name, task, stack
        self.layers = nn.ModuleList(method for method, _ in methods)  # so that torch finds their parameters
        self.stacked = list(methods)
        self.needs_teacher = bool(methods)
        self.needs_inside = any(method.needs_inside for method, _ in methods)
        self.looks_inside = self.needs_inside or any(method.looks_at_student for method, _ in methods)
        self.asks_teacher = any(method.asks_teacher for method, _ in methods)
        self.input_gradients = any(method.input_gradients for method, _ in methods)
        self._looks_at: list[tuple[list[str], list[str]]] = []  # each method's own layers

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        """The layers that any of the methods reads, each once."""
        self._looks_at = [method.taps(student, teacher) for method, _ in self.stacked]
        sides = zip(*self._looks_at, strict=True)
        of_student, of_teacher = ([name for names in side for name in names] for side in sides)
        return list(dict.fromkeys(of_student)), list(dict.fromkeys(of_teacher))

    def networks(self, factory: NetworkFactory) -> None:
        """Let each method create its own networks."""
        for method, _ in self.stacked:
            method.networks(factory)

    def build(self, student: Mapping[str, Shape], teacher: Mapping[str, Shape]) -> None:
        """Create all methods' adapter layers, for each method from the layers that it named."""
        for (method, _), (mine, theirs) in zip(self.stacked, self._looks_at, strict=True):
            method.build({name: student[name] for name in mine}, {name: teacher[name] for name in theirs})

    def prepare(self, preparation: Preparation) -> None:
        """Let each method train what it needs before the student is trained."""
        for method, _ in self.stacked:
            method.prepare(preparation)

    def teaching(self, name: str) -> Objective:
        """The objective by which one of the methods trains a network of its own first."""
        if self.stack is None:
            raise ValueError(f"{self.name} was created without the settings of {name}")
        return self.stack.teaching(name).create(self.task)

    def views(self, batch: Batch, seed: int) -> Tensor | None:
        """The extra views that one of the methods needs. Raises UserError if two methods need some."""
        views = [extra for method, _ in self.stacked if (extra := method.views(batch, seed)) is not None]
        if len(views) > 1:
            raise UserError(f"method {self.name!r} stacks two that need extra views of images; allowed: one of them")
        return views[0] if views else None

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        """All terms by name."""
        terms = {"label": self._label(batch)}
        for method, part in self.stacked:
            rows = batch if part is None else batch.rows(_kind(batch, part))
            if not method.input_gradients:
                rows = rows.without_teacher_gradient()
            if len(rows.fake):  # a batch may have no images of that kind
                terms |= method.loss(rows)
        return terms

    @property
    def reads_labels(self) -> bool:
        """Whether any loss depends on a label: the label's own loss, a term of a method, or a loss by which a method
        trains a network of its own first."""
        kinds = {kind: [method for method, part in self.stacked if part in (None, kind)] for kind in PARTS}
        unweighted = all(methods and min(m.label_weight for m in methods) == 0 for methods in kinds.values())
        first = [method.teaches_by for method, _ in self.stacked if method.teaches_by and not method.asks_teacher]
        own = any(method.reads_labels for method, _ in self.stacked)
        return not unweighted or own or any(self.teaching(name).reads_labels for name in first)

    def _label(self, batch: DistillBatch) -> Tensor:
        shares = [(method.label_share(batch.done), part) for method, part in self.stacked]
        weights = {kind: min((r for r, part in shares if part in (None, kind)), default=1.0) for kind in PARTS}
        if not any(weights.values()):
            return batch.outputs.new_zeros(())  # not 0 times the loss, because a mixed image may have no label
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
    """The description of an objective: the names of the stacked methods, and all their settings.

    numbers: method -> the result of :meth:`Method.resolve`, for the stacked methods and for the methods that train
    their networks. The content key depends on the name, these settings and the methods' versions, and nothing else.
    """

    name: str
    numbers: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, name: str, task: Task, settings: StudentSettings | None = None) -> MethodStack:
        """Raises UserError for an unknown method, one that does not serve the task, and a setting not allowed."""
        stacked = parts(name)
        if len(set(stacked)) < len(stacked):
            raise UserError(f"method {name!r} names one method twice; allowed: each once")
        for entry in name.split("+"):
            _, at, part = entry.partition("@")
            if at and part not in PARTS:
                raise UserError(f"method {entry!r}: {part!r} is no part of a batch; allowed: @real, @fake, or neither")
        return cls(name, {method: find(method).resolve(task, settings) for method in involved(name)})

    @property
    def content_key(self) -> str:
        return content_key(self.name, {name: [METHODS[name].version, own] for name, own in self.numbers.items()})

    def create(self, task: Task) -> Objective:
        """A new objective with new methods."""
        if self.name == SUPERVISED:
            return Objective(self.name, task, [])
        entries = (entry.partition("@") for entry in self.name.split("+"))
        methods = [(find(method)(task, self.numbers[method]), part or None) for method, _, part in entries]
        return Objective(self.name, task, methods, self)

    def teaching(self, name: str) -> MethodStack:
        """The stack of one of the involved methods alone."""
        return MethodStack(name, {method: self.numbers[method] for method in involved(name)})


def create(name: str, task: Task, settings: StudentSettings | None = None) -> Objective:
    """The objective ``name``. Raises UserError as :meth:`MethodStack.of`."""
    return MethodStack.of(name, task, settings).create(task)


def parts(name: str) -> list[str]:
    """The methods that an objective's name stacks.

    >>> parts("kd+crd@fake"), parts("supervised")
    (['kd', 'crd'], [])
    """
    return [] if name == SUPERVISED else [entry.partition("@")[0] for entry in name.split("+")]


def student_network(name: str, network: str) -> str:
    """The name of the student's network: ``network`` plus the suffixes that an objective's methods require.

    >>> student_network("kd+vam", "cnn16"), student_network("kd+vam", "cnn16+vam"), student_network("kd", "cnn16")
    ('cnn16+vam', 'cnn16+vam', 'cnn16')
    """
    for method in parts(name):
        suffix = find(method).student_suffix
        network = network if network.endswith(suffix) else network + suffix
    return network


def involved(name: str) -> list[str]:
    """The methods that an objective's results depend on: its own, and those that train networks for them.

    >>> involved("crd+takd"), involved("supervised")
    (['crd', 'takd', 'kd'], [])
    """
    methods = parts(name)
    for method in methods:  # the list grows in the loop
        if (by := find(method).teaches_by) and by not in methods:
            methods.append(by)
    return methods
