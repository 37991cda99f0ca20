"""The interface of a distillation method: its tasks, the features it reads, and its named loss terms."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from cgankd.config.settings import StudentSettings
from cgankd.core.errors import TrainingError, UserError, did_you_mean
from cgankd.core.runtime import to_device
from cgankd.core.shared_rows import all_rows, own_rows
from cgankd.core.store import Work
from cgankd.data.batches import Batch, Batches
from cgankd.distill.networks import NetworkFactory
from cgankd.tasks import Task

# in the order of a forward pass
WHERE = ("images", "attention", "all maps", "middle map", "last map", "penultimate", "outputs")
Shape = tuple[int, ...]  # of a feature, without its batch dimension
Outputs = tuple[Tensor, Mapping[str, Tensor]]  # a network's outputs [B, number of outputs], and its features by layer


@dataclasses.dataclass(frozen=True)
class DistillBatch:
    """The inputs of a method's loss, for B images, real and fake together. Features are float32, by layer name.

    extra: the same for the extra views of these images that :meth:`Method.views` returned, if any.
    """

    outputs: Tensor  # the student's, [B, number of outputs]
    targets: Tensor  # [B], or [B, classes] if targets are probabilities
    teacher_outputs: Tensor | None  # [B, number of outputs]; None if no loss reads the teacher
    student_features: Mapping[str, Tensor]
    teacher_features: Mapping[str, Tensor]
    fake: Tensor  # bool [B], on the CPU, so that selecting real or fake images does not wait for the device
    images: Tensor | None = None  # [B, C, H, W]; they require a gradient if the method sets input_gradients
    done: float = 0.0  # share of the training that is done, in [0, 1]
    extra: DistillBatch | None = None
    source: Tensor | None = None  # of a part of a batch: all images of the forward pass, of which ``images`` is a part
    places: Tensor | None = None  # int64 [B]: the rows of ``images`` in ``source``
    copies: int = 1  # of each image in the forward pass: the image itself, and its extra views

    def rows(self, mask: Tensor) -> DistillBatch:
        """The part of the batch where ``mask`` (bool [B], on the CPU) is true, with the extra views of these images."""
        places = to_device(mask.nonzero().squeeze(1), self.outputs.device)

        def select(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[places]

        copies = 0 if self.extra is None else len(self.extra.fake) // len(mask)
        return dataclasses.replace(
            self,
            outputs=self.outputs[places],
            targets=self.targets[places],
            teacher_outputs=select(self.teacher_outputs),
            student_features={name: value[places] for name, value in self.student_features.items()},
            teacher_features={name: value[places] for name, value in self.teacher_features.items()},
            fake=self.fake[mask],
            images=select(self.images),
            extra=None if self.extra is None else self.extra.rows(mask.repeat(copies)),
            source=self.images if self.source is None else self.source,
            places=places if self.places is None else self.places[places],
        )

    def without_teacher_gradient(self) -> DistillBatch:
        """The same, with the teacher's outputs and features detached."""
        outputs, extra = self.teacher_outputs, self.extra
        return dataclasses.replace(
            self,
            teacher_outputs=None if outputs is None else outputs.detach(),
            teacher_features={name: value.detach() for name, value in self.teacher_features.items()},
            extra=None if extra is None else extra.without_teacher_gradient(),
        )

    def image_gradient(self, values: Tensor, differentiable: bool = False) -> Tensor:
        """The gradient of the sum of ``values`` with respect to each image, [B, C, H, W].

        values: computed from outputs or features. differentiable: whether a loss of it must reach the weights.
        """
        images = self.images if self.source is None else self.source
        assert images is not None
        (gradient,) = torch.autograd.grad(values.sum(), images, create_graph=differentiable, retain_graph=True)
        # ``values`` depend on the images of this process alone: the other rows come from the other processes.
        gradient = all_rows(own_rows(gradient, self.copies), len(images) // self.copies, self.copies)
        return gradient if self.places is None else gradient[self.places]


class Networks(Protocol):
    """Student and teacher, as the training loop runs them (:class:`cgankd.training.forward.BatchForward`)."""

    batches: Batches

    def student_forward(self, images: Tensor) -> Outputs: ...

    def teacher_forward(self, images: Tensor) -> Outputs: ...


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What :meth:`Method.prepare` may use to train something before the student."""

    networks: Networks
    student: nn.Module
    steps: int  # of the student's training, which follows
    work: Work
    seed: int
    train: Callable[[nn.Module, str, int], None]  # (network, method, steps): trains it by the same teacher and images

    def images(self, step: int) -> Tensor:
        """The images of batch ``step`` of the student's training, [B, C, H, W]."""
        return self.networks.batches.at(step).images

    @torch.no_grad()
    def teacher(self, images: Tensor) -> Outputs:
        """The teacher's outputs and features, without a gradient."""
        return self.networks.teacher_forward(images)

    def share(self, first: float) -> int:
        """``first`` times the steps of the student's training, rounded; at least 1."""
        return max(1, round(first * self.steps))

    def teach(self, network: nn.Module, method: Method, first: float) -> None:
        """Train a network of ``method`` by ``method.teaches_by``, for :meth:`share` of ``first`` steps; freeze it."""
        network.requires_grad_(True)
        self.train(network, method.teaches_by, self.share(first))
        for weight in network.parameters():
            weight.grad = None
        network.eval().requires_grad_(False)

    def minimise(self, layers: nn.Module, loss: Callable[[Tensor], Tensor], first: float, title: str) -> None:
        """Train only ``layers``, by Adam at learning rate 0.001, for :meth:`share` of ``first`` steps; freeze them.

        loss: images [B, C, H, W] -> a scalar. Raises TrainingError if its last value is not finite.
        """
        steps, checkpoint = self.share(first), self.work.within(title).checkpoint()
        layers.requires_grad_(True)
        optimizer = torch.optim.Adam(layers.parameters(), lr=1e-3)
        modules, optimizers = {"layers": layers}, {"adam": optimizer}
        start, _ = checkpoint.load(modules, optimizers)
        with self.work.progress.bar(title, steps) as bar:
            for step in range(start, steps):
                value = loss(self.images(step))
                optimizer.zero_grad(set_to_none=True)
                self.work.fabric.backward(value)
                optimizer.step()
                done = step + 1
                bar.to(done)
                if done == steps and not math.isfinite(last := float(value.detach())):
                    raise TrainingError(
                        f"{title}: the loss is {last} after {steps} steps; are the teacher's features finite?"
                    )
                if checkpoint.due() or done == steps:
                    checkpoint.save(done, modules, optimizers)
        optimizer.zero_grad(set_to_none=True)
        layers.requires_grad_(False)


# The allowed range of a method's setting goes by its name; any other must be 0 or more.
COUNTS = {"batches", "top", "width"}
ABOVE_ZERO = {"contrast_temperature", "scale", "softness", "temperature"}
SHARES = {"alone", "easy", "keep_contrast", "keep_turned", "strong"}


class Method(nn.Module):
    """A distillation method. Its adapter layers are its parameters, trained together with the student's.

    A subclass states what it is (``tasks``, ``paper``, and in the terms of arXiv 1912.13179 ``matches``, ``where`` and
    ``distance``), which features it reads (``taps``), which layers it adds (``build``), and what it minimises
    (``loss``). ``defaults`` are its settings, which ``student.method_settings`` may change; ``self.values`` holds the
    values in use. ``task_defaults`` override them for a task. They are needed because published weights are for a
    cross-entropy: a scalar's loss, the squared error as a share of the label range, is about 100 times smaller. The
    range of a setting goes by its name: COUNTS, ABOVE_ZERO, SHARES, else 0 or more.
    """

    name: ClassVar[str]
    tasks: ClassVar[tuple[str, ...]]
    matches: ClassVar[str]  # what of the teacher: output, feature, relation, gradient, or nothing (vam)
    where: ClassVar[str]  # the place in the networks, see WHERE
    distance: ClassVar[str]  # the distance between student and teacher
    paper: ClassVar[str]
    defaults: ClassVar[Mapping[str, float]] = {}
    task_defaults: ClassVar[Mapping[str, Mapping[str, float]]] = {}  # other defaults for a task
    shared: ClassVar[tuple[str, ...]] = ()  # settings in ``student`` that it also reads
    version: ClassVar[int] = 1  # raise it when the same settings give other results; older results are then not reused
    needs_inside: ClassVar[bool] = False  # reads the teacher's features, which a plain callable does not have
    looks_at_student: ClassVar[bool] = False  # reads the student's features, and none of the teacher's
    reads_labels: ClassVar[bool] = False  # its own terms depend on the labels
    student_suffix: ClassVar[str] = ""  # appended to the name of the student's network, such as +vam
    input_gradients: ClassVar[bool] = False  # differentiates outputs with respect to the images
    beside: ClassVar[str] = ""  # the method to which it was published as an addition
    teaches_by: ClassVar[str] = ""  # the method that trains a network of its own first
    asks_teacher: bool = True  # its loss reads the teacher; False: only the training before it does
    label_weight: float = 1.0  # r: the weight of the label's loss beside this method's terms

    def __init__(self, task: Task, numbers: Mapping[str, float] | None = None) -> None:
        """numbers: the result of :meth:`resolve`; None: the defaults."""
        super().__init__()
        self.task = task
        self.values = self.resolve(task) if numbers is None else dict(numbers)
        self.label_weight = self.values.get("label_weight", type(self).label_weight)

    @classmethod
    def resolve(cls, task: Task, settings: StudentSettings | None = None) -> dict[str, float]:
        """All settings that this method uses on ``task``, by name, and no others.

        In order of priority: ``student.method_settings``, its defaults for the task, its defaults, and the ``shared``
        settings of the student. Raises UserError for a task that it does not serve, and for a value not allowed.
        """
        if task.name not in cls.tasks:
            raise UserError(
                f"method {cls.name!r} does not serve {task.name}, only {' and '.join(cls.tasks)}; "
                f"methods for {task.name}: {', '.join(serving(task))}"
            )
        settings = settings or StudentSettings()
        chosen, shared = settings.method_settings.get(cls.name, {}), {}
        for name in cls.shared:
            if name == "temperature" and not task.has_temperature:
                continue
            value = getattr(settings, name)
            shared[name] = float(getattr(task, name) if value is None else value)
        known = {**shared, **cls.defaults, **cls.task_defaults.get(task.name, {})}
        if unknown := set(chosen) - set(known):
            raise UserError(
                f"student.method_settings.{cls.name}: {sorted(unknown)[0]!r} is not known; allowed: "
                f"{', '.join(known) or 'nothing, it has no settings'}"
            )
        for key, value in chosen.items():
            allowed, fits = _allowed(key, value)
            if not fits:
                raise UserError(f"student.method_settings.{cls.name}.{key} = {value:g}; allowed: {allowed}")
        return {**known, **chosen}

    @classmethod
    def needs(cls) -> str:
        """What it needs of the teacher: nothing, outputs (any callable), inside (a module), or gradient."""
        if cls.input_gradients:
            return "gradient"
        if cls.needs_inside:
            return "inside"
        return "outputs" if cls.asks_teacher else "nothing"

    @classmethod
    def matches_views(cls) -> bool:
        """Whether it needs the teacher's outputs for the training's own views alone."""
        return cls.needs() == "outputs" and cls.views is Method.views

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        """Names of the student's and of the teacher's layers whose features ``loss`` reads.

        student, teacher: the layers with feature maps (:func:`cgankd.nets.feature_layers.map_layers`), and last the
        penultimate layer; teacher is empty for a plain callable.
        """
        return [], []

    def networks(self, factory: NetworkFactory) -> None:
        """Create the method's own networks, by ``factory(name)``, or inspect the student.

        Unlike :meth:`prepare`, this is also called in a resumed run.
        """

    def build(self, student: Mapping[str, Shape], teacher: Mapping[str, Shape]) -> None:
        """Create the adapter layers, from the shapes of the features that :meth:`taps` named."""

    def prepare(self, preparation: Preparation) -> None:
        """Train what must be trained before the student. Random numbers depend only on ``preparation.seed``.

        What it trains must be modules or buffers of the method: the checkpoint saves them, so a resumed run skips this.
        """

    def label_share(self, done: float) -> float:
        """The weight r of the label's loss after the share ``done`` of the training."""
        return self.label_weight

    def views(self, batch: Batch, seed: int) -> Tensor | None:
        """k extra views of each of B images, [k B, C, H, W], ordered by view, then by image; None: no extra views.

        Random numbers in them are a function of (seed, batch.index, batch.view), by cgankd.core.rng.
        """
        return None

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        """Named terms, each a scalar that includes its weight. Their sum plus the label's loss is minimised."""
        raise NotImplementedError


def _allowed(key: str, value: float) -> tuple[str, bool]:
    """The allowed range of the setting of this name, in words, and whether ``value`` is in it."""
    if key in COUNTS:
        return "a whole number, 1 or more", value >= 1 and value == int(value)
    if key in ABOVE_ZERO:
        return "a number above 0", value > 0
    if key in SHARES:
        return "0 to 1", 0 <= value <= 1
    return "0 or more", value >= 0


def pairs(student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
    """Pairs of layers, counted from the deepest one; as many as both networks have.

    >>> pairs(["a", "b", "end"], ["x", "end"])
    (['b', 'end'], ['x', 'end'])
    """
    count = min(len(student), len(teacher))
    return list(student[len(student) - count :]), list(teacher[len(teacher) - count :])


METHODS: dict[str, type[Method]] = {}


def register(method: type[Method]) -> type[Method]:
    """Class decorator: registers a method under its ``name``. Raises ValueError if the name exists."""
    if method.name in METHODS:
        raise ValueError(f"a method named {method.name!r} is registered already")
    METHODS[method.name] = method
    return method


def as_published(name: str) -> str:
    """The stack of methods that was published as method ``name``.

    >>> as_published("crd"), as_published("sskd")
    ('crd', 'kd+sskd')
    """
    beside = METHODS[name].beside
    return f"{beside}+{name}" if beside else name


def find(name: str) -> type[Method]:
    """The class of method ``name``. Raises UserError for an unknown name."""
    if name not in METHODS:
        raise UserError(
            f"distillation method {name!r} is not known{did_you_mean(name, METHODS)}; allowed: "
            f"{', '.join(sorted(METHODS))}"
        )
    return METHODS[name]


def serving(task: Task, needs: str | None = None) -> list[str]:
    """The names of the methods that serve a task; needs: only those with exactly this :meth:`Method.needs`."""
    return sorted(
        name for name, method in METHODS.items() if task.name in method.tasks and needs in (None, method.needs())
    )
