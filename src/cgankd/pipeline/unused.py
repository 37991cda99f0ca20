"""Settings that differ from their defaults and have no effect in their recipe, with the reasons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import BaseModel

from cgankd.config.recipe import Recipe
from cgankd.config.settings import (
    AugmentSettings,
    JurorSettings,
    NoSubsampling,
    StudentSettings,
)
from cgankd.core.errors import first_of
from cgankd.distill import MethodStack
from cgankd.pipeline.comparisons import row, views
from cgankd.tasks import Task
from cgankd.teachers.endpoint import is_address

if TYPE_CHECKING:
    from cgankd.pipeline.run import Run

CLASSES_IGNORE = (
    "generator.scalar",
    "ratio.vicinity_gaps",
    "synthesis.labels",
    "search.labels",
    "metrics.generator.window",
    "metrics.generator.windows",
)

Reason = tuple[str, str]  # a setting, or the group that it is in; and why it has no effect


def of_run(run: Run) -> list[str]:
    """As :func:`unused`, of a run."""
    ready = run.ready_generator
    return unused(run.recipe, run.task, ready_images=ready is not None and ready.held is not None)


def unused(recipe: Recipe, task: Task, *, ready_images: bool = False) -> list[str]:
    """A sentence for each reason why settings have no effect; [] where all have one.

    A setting at its default is never named, and neither is what a choice of fewer rows alone leaves unused: a recipe's
    generator where no row has generated images, or the steps of NOKD where no row needs it. The recipe must have passed
    :func:`cgankd.pipeline.preflight.check`. ready_images: whether generator.source holds images.
    """
    reasons = [
        *_of_data(recipe, task),
        *_of_teachers(recipe),
        *_of_generated_images(recipe, task),
        *_of_students(recipe, task),
        *([("synthesis.labels", "ready images keep their own labels")] if ready_images else []),
    ]
    found: dict[str, list[str]] = {}
    for setting in _changed(recipe):
        why = next((why for group, why in reasons if f"{setting}.".startswith(f"{group}.")), None)
        if why is not None and setting != "generator.source":
            found.setdefault(why, []).append(setting)
    return [
        f"{first_of(settings)} {'have' if len(settings) > 1 else 'has'} no effect, because {why}."
        for why, settings in found.items()
    ]


def _changed(recipe: Recipe) -> list[str]:
    """The settings that differ from their defaults."""
    jury = [(f"teacher.jury.{place}", juror) for place, juror in enumerate(recipe.teacher.jury)]
    return [
        *_differing(recipe, Recipe(), ""),
        *(name for setting, juror in jury for name in _differing(juror, JurorSettings(), f"{setting}.")),
    ]


def _differing(settings: BaseModel, default: BaseModel, path: str) -> Iterator[str]:
    for name in type(settings).model_fields:
        value, usual = getattr(settings, name), getattr(default, name)
        if isinstance(value, BaseModel) and type(value) is type(usual):
            yield from _differing(value, usual, f"{path}{name}.")
        elif path == "student." and name == "method_settings":
            yield from (f"{path}{name}.{method}" for method in value)
        elif value != usual:
            yield f"{path}{name}"


def _of_data(recipe: Recipe, task: Task) -> Iterator[Reason]:
    data = recipe.data
    if data.source != "rotated-fashion":
        yield "data.turns", "it is for rotated-fashion alone"
    if not any(row(name).pseudo for name in recipe.rows):
        yield "data.unlabelled", "no row learns from unlabelled images, such as pseudo+fm"
    if not task.continuous:
        yield "data.unit", "labels are classes"
    elif (own := task.deployed_facts.get("unit")) != data.unit:
        yield "data.unit", f"the labels of {data.source} are in {own}"


def _of_teachers(recipe: Recipe) -> Iterator[Reason]:
    settings = recipe.teacher
    for name, teacher in settings.all():
        if not is_address(teacher.source):
            yield f"{name}.http", f"{name}.source is no address"
        if teacher.source is not None:
            yield f"{name}.network", f"{name}.source takes its place"
    if all(teacher.source is not None or teacher.weights is not None for _, teacher in settings.all()):
        for name in ("teacher.fit", "teacher.trained_on"):
            yield name, "no teacher is trained here"
    yield "teacher.fit.compile_teacher", "a teacher is trained on labels alone"
    if not settings.fit.augment.mixes:
        yield "teacher.fit.augment.mixed_views", "images are not mixed there"
    if settings.votes == "first" and not any(row(name).fakes for name in recipe.rows):
        yield "teacher.jury", "teacher.votes is first, and no row has generated images"


def _of_generated_images(recipe: Recipe, task: Task) -> Iterator[Reason]:
    if recipe.generator.source is not None:
        yield "generator", "generator.source takes the place of a GAN"
    if isinstance(recipe.synthesis.subsampling, NoSubsampling):
        yield "ratio", "synthesis.subsampling is none"
    if recipe.synthesis.filter is None:
        yield "search.rho", "synthesis.filter is none"
    if not task.continuous:
        for group in CLASSES_IGNORE:
            yield group, "labels are classes"


def _of_students(recipe: Recipe, task: Task) -> Iterator[Reason]:
    student, rows = recipe.student, [row(name) for name in recipe.rows]
    if not student.fit.augment.mixes:
        yield "student.fit.augment.mixed_views", "images are not mixed there"

    def seen(settings: StudentSettings) -> list[AugmentSettings]:
        found = [views(compared, settings, task) for compared in rows]
        return [view if view.mixes else view.model_copy(update={"mixed_views": 0}) for view in found]

    def numbers(settings: StudentSettings) -> list[MethodStack]:
        return [MethodStack.of(compared.method, task, settings) for compared in rows]

    default, strong = StudentSettings(), student.strong_augment
    for name in AugmentSettings.model_fields:
        usual = strong.model_copy(update={name: getattr(default.strong_augment, name)})
        if seen(student.model_copy(update={"strong_augment": usual})) == seen(student):
            yield f"student.strong_augment.{name}", "no row's views depend on it"
    for name in ("temperature", "label_weight", "teacher_weight"):
        if numbers(student.model_copy(update={name: getattr(default, name)})) == numbers(student):
            yield f"student.{name}", "no row's loss depends on it"
    for method in student.method_settings:
        if not any(method in stack.numbers for stack in numbers(student)):
            yield f"student.method_settings.{method}", f"no row uses {method}"
