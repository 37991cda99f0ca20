"""The road from images to a student for the estimators: teacher, generator, density ratio, synthesis, student."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from cgankd.api import METHOD_NUMBERS, Distiller
from cgankd.config.settings import FitSettings, GeneratorSettings, RatioSettings, StudentSettings, SynthesisSettings
from cgankd.config.settings.base import Settings
from cgankd.config.yaml_config import from_tree
from cgankd.core.errors import UserError, did_you_mean
from cgankd.core.progress import SILENT, Progress
from cgankd.core.runtime import make_fabric
from cgankd.core.store import Store
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.distill import SUPERVISED, MethodStack
from cgankd.nets import inference
from cgankd.nets.build import WEIGHTS, Architecture, ModuleNetwork, fresh_copy, fresh_network
from cgankd.pipeline import stages
from cgankd.pipeline.comparisons import as_method
from cgankd.sklearn.layout import Layout
from cgankd.tasks import Task

UNFITTED = (
    "teacher: this %(name)s is not fitted; needed: a fitted one, which cross_val_score and GridSearchCV keep so where "
    "it is given as sklearn.frozen.FrozenEstimator(teacher)"
)
ELSEWHERE = {  # settings of the stages that parameters of an estimator give
    "student": {
        "method": "method", "generated": "generated", "student": "student", "unlabelled": "X_unlabelled of fit"
    },
    "synthesis": {"images": "n_generated"},
}  # fmt: skip
STAGES: Mapping[str, type[Settings]] = {
    "teacher": FitSettings, "generator": GeneratorSettings, "ratio": RatioSettings, "synthesis": SynthesisSettings
}  # fmt: skip
SECTIONS = (*STAGES, "student")


@dataclasses.dataclass(frozen=True, eq=False)
class FittedTeacher:
    """A fitted scikit-learn estimator as a teacher: it is asked about images in the layout of X.

    columns: the place of each of its classes among those of the task; None for a regressor.
    """

    estimator: Any
    layout: Layout
    task: Task
    columns: tuple[int, ...] | None

    @classmethod
    def of(cls, estimator: Any, layout: Layout, task: Task, classes: npt.NDArray[Any] | None) -> FittedTeacher:
        """classes: those of the labels; None for numbers. Raises UserError for an estimator of another task."""
        check_is_fitted(estimator, msg=UNFITTED)
        if classes is None:
            return cls(estimator, layout, task, None)
        own = getattr(estimator, "classes_", None)
        if own is None:
            raise UserError(f"teacher is {type(estimator).__name__}, which has no classes; needed: a classifier")
        known = {value: place for place, value in enumerate(classes.tolist())}
        unknown = [value for value in np.asarray(own).tolist() if value not in known]
        if unknown:
            raise UserError(f"teacher knows the class {unknown[0]!r}, which y has not; allowed: the classes of y")
        return cls(estimator, layout, task, tuple(known[value] for value in np.asarray(own).tolist()))

    def __call__(self, images: Tensor) -> Tensor:
        """Float images [B, C, H, W] in [0, 1] -> outputs as losses take them, [B, classes] or [B, 1]."""
        X = self.layout.arrays(images)
        if self.columns is None:
            labels = torch.from_numpy(np.asarray(self.estimator.predict(X), np.float64)).reshape(-1)
            return self.task.to_target(labels)[:, None].to(images.device)
        answers = torch.zeros(len(X), self.task.num_outputs)
        if hasattr(self.estimator, "predict_proba"):
            answers[:, list(self.columns)] = torch.from_numpy(np.asarray(self.estimator.predict_proba(X), np.float32))
        else:
            place = np.searchsorted(np.asarray(self.estimator.classes_), self.estimator.predict(X))
            answers[torch.arange(len(X)), torch.tensor(self.columns)[torch.from_numpy(place)]] = 1.0
        return self.task.from_answer(answers).to(images.device)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What an estimator's parameters say. settings: of the stages, by the names in ``SECTIONS``."""

    student: str | nn.Module
    teacher: Any
    teacher_network: str
    method: str
    generated: bool
    n_generated: int
    steps: int
    generator_steps: int
    settings: Mapping[str, Mapping[str, Any]]
    seed: int
    progress: Progress = SILENT
    unlabelled: Tensor | None = None  # uint8 [M, C, H, W]

    def __post_init__(self) -> None:
        if not isinstance(self.method, str):
            raise UserError(f"method is {self.method!r}; needed: a name, such as 'supervised' or 'kd'")
        if not isinstance(self.settings, Mapping):
            raise UserError(f"settings is {self.settings!r}; needed: a dict, by stage ({', '.join(SECTIONS)})")
        for name, section in self.settings.items():
            if name not in SECTIONS:
                raise UserError(f"settings has {name!r}{did_you_mean(name, SECTIONS)}; allowed: {', '.join(SECTIONS)}")
            if not isinstance(section, Mapping):
                raise UserError(f"settings[{name!r}] is {section!r}; needed: a dict")
            for setting in ELSEWHERE.get(name, {}).keys() & section.keys():
                raise UserError(f"settings[{name!r}] has {setting!r}; needed: {ELSEWHERE[name][setting]} in its place")

    @property
    def needs_teacher(self) -> bool:
        return self.generated or self.method != SUPERVISED or self.unlabelled is not None

    def of(self, section: str, **defaults: Any) -> dict[str, Any]:
        """The settings of a stage, the user's own over ``defaults``."""
        return {**defaults, **self.settings.get(section, {})}


@dataclasses.dataclass(frozen=True)
class Taught:
    """The results. teacher: None where none was needed. fakes: the processed generated images, or None."""

    student: nn.Module
    teacher: Any
    fakes: ImageSet | None


def teach(plan: Plan, train: ImageSet, held_out: ImageSet | None, task: Task) -> Taught:
    """Train the student. held_out: images that check the density ratio. Raises UserError for wrong parameters."""
    _check_settings(plan, task)
    student = plan.student
    if isinstance(student, str):
        student = fresh_network(Architecture(student), train, task.num_outputs, plan.seed)
    else:
        student = fresh_copy(student)
    fit = plan.of("student", steps=plan.steps, batch_size=_batch(train))
    share = fit.pop("real_share", 0.3 if plan.generated else None)
    if not plan.needs_teacher:
        return Taught(_alone(plan, student, train, task, fit), None, None)
    teacher = plan.teacher
    if teacher is None:
        network = fresh_network(Architecture(plan.teacher_network), train, task.num_outputs, plan.seed + 1)
        settings = plan.of("teacher", steps=plan.steps, batch_size=_batch(train))
        teacher = _alone(plan, network, train, task, settings)
    features = None
    if not plan.generated:  # nothing asks for features, but a Distiller wants them from the start
        features = fresh_network(Architecture("cnn8"), train, task.num_outputs, plan.seed)
    elif not isinstance(teacher, nn.Module):  # a callable has no features for the density ratio
        features = _alone(plan, fresh_copy(student), train, task, fit)
    distiller = Distiller(
        train.images[:],
        train.labels,
        teacher,
        task,
        features_of=features,
        held_out=None if held_out is None else (held_out.images[:], held_out.labels),
        outputs=task.output_kinds[0] if isinstance(teacher, FittedTeacher) else "auto",
        seed=plan.seed,
        progress=plan.progress,
    )
    fakes = _synthesize(plan, distiller) if plan.generated else None
    distiller.distill(student, plan.method, share, generated=plan.generated, unlabelled=plan.unlabelled, **fit)
    return Taught(student, teacher, fakes)


def _check_settings(plan: Plan, task: Task) -> None:
    """UserError for what a later stage would refuse, when a teacher and a generator have been trained."""
    for name, kind in STAGES.items():
        from_tree(kind, plan.of(name), where=f"settings[{name!r}]")
    fit, where = plan.of("student"), "settings['student']"
    own = {name: fit.pop(name) for name in {*METHOD_NUMBERS, "real_share"} & set(fit)}
    MethodStack.of(as_method(plan.method), task, from_tree(StudentSettings, own, where=where))
    from_tree(FitSettings, fit, where=where)


def _synthesize(plan: Plan, distiller: Distiller) -> ImageSet:
    steps = plan.generator_steps
    distiller.train_generator(**plan.of("generator", steps=steps, ema_start=min(200, steps // 4)))
    few = max(20, min(500, plan.n_generated // 10))  # for each label; the papers' numbers are for many thousand images
    defaults = {"subsampling": {"burn_in": few}, "filter": {"calibration": few}}
    settings = plan.of("synthesis", **defaults)
    if settings["subsampling"] != "none":
        distiller.train_density_ratio(**plan.of("ratio", steps=min(2000, steps)))
    return distiller.synthesize(plan.n_generated, **settings)


def _alone(plan: Plan, network: nn.Module, train: ImageSet, task: Task, settings: Mapping[str, Any]) -> nn.Module:
    """The network, trained on labels alone."""
    fabric = make_fabric()
    store = Store.temporary(fabric, plan.progress)  # its folder is there as long as it is
    artifact = store.call(
        stages.train_module,
        student=ModuleNetwork(fresh_copy(network)),
        methods=MethodStack(SUPERVISED),
        teachers=None,
        images=TrainingImages(train),
        fit=from_tree(FitSettings, dict(settings), where="settings"),
        task=task,
        seed=plan.seed,
    )
    network.load_state_dict(artifact.tensors(WEIGHTS))
    return inference.place(network, fabric).eval()


def _batch(train: ImageSet) -> int:
    return max(2, min(64, len(train)))
