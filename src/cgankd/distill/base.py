"""The contract of a distillation method: which tasks, which features, which named loss terms."""

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
from cgankd.core.store import Work
from cgankd.data.batches import Batch, Batches
from cgankd.distill.networks import Maker
from cgankd.tasks import Task

WHERE = ("images", "attention", "all maps", "middle map", "last map", "penultimate", "outputs")  # from the image on
Shape = tuple[int, ...]  # of a feature, without its batch dimension
Outputs = tuple[Tensor, Mapping[str, Tensor]]  # of a network: outputs [B, number of outputs], features by layer


@dataclasses.dataclass(frozen=True)
class DistillBatch:
    """What a method's loss may look at. B images, real and fake together; features float32, by their layers' names.

    extra: the same for the further images that :meth:`Method.views` made of these, where it made any.
    """

    outputs: Tensor  # the student's, [B, number of outputs]
    targets: Tensor  # [B], or [B, classes] where targets are probabilities
    teacher_outputs: Tensor | None  # [B, number of outputs]; there if the method needs the teacher
    student_features: Mapping[str, Tensor]
    teacher_features: Mapping[str, Tensor]
    fake: Tensor  # bool [B], on the CPU, so that no device is waited for where real and fake images part
    images: Tensor | None = None  # [B, C, H, W]; require a gradient where the method says input_gradients
    done: float = 0.0  # share of the training that lies behind
    extra: DistillBatch | None = None
    source: Tensor | None = None  # of a part: the images that the networks were shown, which ``images`` is cut from
    places: Tensor | None = None  # int64 [B]: which of them

    def rows(self, mask: Tensor) -> DistillBatch:
        """The part of the batch where ``mask`` (bool [B], on the CPU) is true; extra images stay with theirs."""
        places = to_device(mask.nonzero().squeeze(1), self.outputs.device)

        def chosen(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[places]

        copies = 0 if self.extra is None else len(self.extra.fake) // len(mask)
        return dataclasses.replace(
            self,
            outputs=self.outputs[places],
            targets=self.targets[places],
            teacher_outputs=chosen(self.teacher_outputs),
            student_features={name: value[places] for name, value in self.student_features.items()},
            teacher_features={name: value[places] for name, value in self.teacher_features.items()},
            fake=self.fake[mask],
            images=chosen(self.images),
            extra=None if self.extra is None else self.extra.rows(mask.repeat(copies)),
            source=self.images if self.source is None else self.source,
            places=places if self.places is None else self.places[places],
        )

    def without_teacher_gradient(self) -> DistillBatch:
        """The same for a method that differentiates nothing of the teacher's."""
        asked, extra = self.teacher_outputs, self.extra
        return dataclasses.replace(
            self,
            teacher_outputs=None if asked is None else asked.detach(),
            teacher_features={name: value.detach() for name, value in self.teacher_features.items()},
            extra=None if extra is None else extra.without_teacher_gradient(),
        )

    def image_gradient(self, values: Tensor, differentiable: bool = False) -> Tensor:
        """The gradient of the sum of ``values``, made of outputs or features, by each image: [B, C, H, W].

        differentiable: whether a loss made of it is to reach the weights.
        """
        shown = self.images if self.source is None else self.source
        assert shown is not None
        (slope,) = torch.autograd.grad(values.sum(), shown, create_graph=differentiable, retain_graph=True)
        return slope if self.places is None else slope[self.places]


class Networks(Protocol):
    """Student and teacher, as the training loop runs them (:class:`cgankd.training.forward.BatchForward`)."""

    batches: Batches

    def student_forward(self, images: Tensor) -> Outputs: ...

    def teacher_forward(self, images: Tensor) -> Outputs: ...


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What a method that has something to train first may use; see :meth:`Method.prepare`."""

    networks: Networks
    student: nn.Module
    steps: int  # of the training that follows
    work: Work
    seed: int
    train: Callable[[nn.Module, str, int], None]  # (network, method, steps): as the student, from the same teacher

    def images(self, step: int) -> Tensor:
        """The images of batch ``step`` of the training that follows, [B, C, H, W]."""
        return self.networks.batches.at(step).images

    @torch.no_grad()
    def teacher(self, images: Tensor) -> Outputs:
        """The teacher's outputs and features, without a gradient."""
        return self.networks.teacher_forward(images)

    def share(self, first: float) -> int:
        """How many steps are ``first`` times those that follow; at least one."""
        return max(1, round(first * self.steps))

    def teach(self, network: nn.Module, method: Method, first: float) -> None:
        """Train a network of ``method``'s own by what it ``teaches_by``, ``first`` times the steps; freeze it."""
        network.requires_grad_(True)
        self.train(network, method.teaches_by, self.share(first))
        for weight in network.parameters():
            weight.grad = None
        network.eval().requires_grad_(False)

    def minimise(self, layers: nn.Module, loss: Callable[[Tensor], Tensor], first: float, title: str) -> None:
        """Train ``layers`` alone, with Adam at 0.001, for :meth:`share` of ``first`` steps, and freeze them.

        loss: images [B, C, H, W] -> a scalar. Raises TrainingError where its last value is not finite.
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
                        f"{title}: the loss is {last} after {steps} steps; are the teacher's numbers finite?"
                    )
                if checkpoint.due() or done == steps:
                    checkpoint.save(done, modules, optimizers)
        optimizer.zero_grad(set_to_none=True)
        layers.requires_grad_(False)


# What a method's own numbers may be, by their names; all others 0 or more.
COUNTS = {"batches", "top", "width"}
ABOVE_ZERO = {"contrast_temperature", "scale", "softness", "temperature"}
SHARES = {"alone", "easy", "keep_contrast", "keep_turned", "strong"}


class Method(nn.Module):
    """A distillation method; its adapter layers are its own parameters, trained beside the student's.

    Subclasses say what they are (``tasks``, ``paper``, and in the terms of arXiv 1912.13179 ``matches``, ``where``
    and ``distance``), what they look at (``taps``), what layers they
    need for it (``build``) and what they minimise (``loss``). ``defaults`` are their own numbers, which the setting
    ``student.method_settings`` may change; the chosen ones are in ``self.values``. Weights are published beside a
    cross-entropy; a scalar's loss, a squared share of its range, is some hundred times as small, so that a method
    may have ``task_defaults``. What a number may be goes by its name: COUNTS, ABOVE_ZERO, SHARES, else 0 or more.
    """

    name: ClassVar[str]
    tasks: ClassVar[tuple[str, ...]]
    matches: ClassVar[str]  # output, feature, relation or gradient; nothing: of the teacher's, as vam
    where: ClassVar[str]  # in the networks: see WHERE
    distance: ClassVar[str]  # how far apart the two are
    paper: ClassVar[str]
    defaults: ClassVar[Mapping[str, float]] = {}
    task_defaults: ClassVar[Mapping[str, Mapping[str, float]]] = {}  # those of them that a task has others of
    shared: ClassVar[tuple[str, ...]] = ()  # settings of the student that it reads besides
    version: ClassVar[int] = 1  # raised where the same settings give other numbers: older results are stale then
    needs_inside: ClassVar[bool] = False  # looks at the teacher's features, which a plain callable does not show
    looks_at_student: ClassVar[bool] = False  # looks at the student's features, and at none of the teacher's
    reads_labels: ClassVar[bool] = False  # its own terms depend on the labels
    student_suffix: ClassVar[str] = ""  # put behind the name of the student's network, as +vam
    input_gradients: ClassVar[bool] = False  # differentiates outputs by the images
    beside: ClassVar[str] = ""  # the method that it is published as an addition to
    teaches_by: ClassVar[str] = ""  # the method by which a network of its own is taught first
    asks_teacher: bool = True  # its loss looks at the teacher; False: only what is trained first does
    label_weight: float = 1.0  # r: what the label's own loss counts beside this method's terms

    def __init__(self, task: Task, numbers: Mapping[str, float] | None = None) -> None:
        """numbers: what :meth:`resolve` gave; None: the defaults."""
        super().__init__()
        self.task = task
        self.values = self.resolve(task) if numbers is None else dict(numbers)
        self.label_weight = self.values.get("label_weight", type(self).label_weight)

    @classmethod
    def resolve(cls, task: Task, settings: StudentSettings | None = None) -> dict[str, float]:
        """All numbers that this method computes with on ``task``, and no other.

        Its own chosen ones count first, then its defaults for the task, its defaults, and the ``shared`` settings of
        the student. Raises UserError for a task that it does not serve, and for a number that is not allowed.
        """
        if task.name not in cls.tasks:
            raise UserError(
                f"method {cls.name!r} does not serve {task.name}, it serves {' and '.join(cls.tasks)}; "
                f"methods for {task.name}: {', '.join(serving(task))}"
            )
        settings = settings or StudentSettings()
        chosen, given = settings.method_settings.get(cls.name, {}), {}
        for name in cls.shared:
            if name == "temperature" and not task.has_temperature:
                continue
            value = getattr(settings, name)
            given[name] = float(getattr(task, name) if value is None else value)
        known = {**given, **cls.defaults, **cls.task_defaults.get(task.name, {})}
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
        """What it asks of the teacher: nothing, outputs (any callable), inside (a module), or its gradient."""
        if cls.input_gradients:
            return "gradient"
        if cls.needs_inside:
            return "inside"
        return "outputs" if cls.asks_teacher else "nothing"

    def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
        """Names of the student's and of the teacher's layers whose features ``loss`` looks at.

        student, teacher: the layers at whose end the maps get smaller, from the image on, and last the penultimate;
        of a teacher that is a plain callable none.
        """
        return [], []

    def networks(self, make: Maker) -> None:
        """Make whole networks of its own, by ``make(name)``, or see what the student is made of.

        Other than :meth:`prepare`, in a resumed run too.
        """

    def build(self, student: Mapping[str, Shape], teacher: Mapping[str, Shape]) -> None:
        """Make the adapter layers, from the shapes of the features that :meth:`taps` named."""

    def prepare(self, preparation: Preparation) -> None:
        """Train what must be trained before the student is; random numbers come from its seed alone.

        What it trains is a module or a buffer of the method's, and stands in the checkpoint: a killed run goes on
        without it.
        """

    def label_share(self, done: float) -> float:
        """r after ``done`` of the training."""
        return self.label_weight

    def views(self, batch: Batch, seed: int) -> Tensor | None:
        """k further images for each of B, [k B, C, H, W], the first of every image first; None: no more.

        What is random in them is a function of (seed, batch.index, batch.view), by cgankd.core.rng.
        """
        return None

    def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
        """Named terms, each a scalar with its weight in it; their sum and the label's loss are minimised."""
        raise NotImplementedError


def _allowed(key: str, value: float) -> tuple[str, bool]:
    """What the number of this name may be, and whether ``value`` is."""
    if key in COUNTS:
        return "a whole number from 1", value >= 1 and value == int(value)
    if key in ABOVE_ZERO:
        return "a number above 0", value > 0
    if key in SHARES:
        return "0 to 1", 0 <= value <= 1
    return "0 or more", value >= 0


def pairs(student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
    """The layers that belong together: from the deepest upwards, as many as both networks have.

    >>> pairs(["a", "b", "end"], ["x", "end"])
    (['b', 'end'], ['x', 'end'])
    """
    count = min(len(student), len(teacher))
    return list(student[len(student) - count :]), list(teacher[len(teacher) - count :])


METHODS: dict[str, type[Method]] = {}


def register(method: type[Method]) -> type[Method]:
    """Class decorator: makes a method known by its ``name``."""
    if method.name in METHODS:
        raise ValueError(f"a method named {method.name!r} is registered already")
    METHODS[method.name] = method
    return method


def as_published(name: str) -> str:
    """The stack that method ``name`` is published as.

    >>> as_published("crd"), as_published("sskd")
    ('crd', 'kd+sskd')
    """
    beside = METHODS[name].beside
    return f"{beside}+{name}" if beside else name


def find(name: str) -> type[Method]:
    """The method called ``name``; UserError where none is."""
    if name not in METHODS:
        raise UserError(
            f"distillation method {name!r} is not known{did_you_mean(name, METHODS)}; allowed: "
            f"{', '.join(sorted(METHODS))}"
        )
    return METHODS[name]


def serving(task: Task, needs: str | None = None) -> list[str]:
    """The names of the methods that serve a task; ``needs``: those that ask just that of the teacher."""
    return sorted(
        name for name, method in METHODS.items() if task.name in method.tasks and needs in (None, method.needs())
    )
