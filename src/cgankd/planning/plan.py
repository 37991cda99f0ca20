"""Settings that fit the images and the machine, and how long the run will take."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cgankd.config import recipe as recipes
from cgankd.config import yaml_config
from cgankd.config.recipe import Recipe
from cgankd.config.settings import (
    ILI,
    AutoencoderFeatures,
    ClassifierFeatures,
    FromNOKD,
    NoSubsampling,
    SynthesisSettings,
    TeacherSettings,
)
from cgankd.core.progress import Bar
from cgankd.core.runtime import Fabric
from cgankd.data.imageset import Splits
from cgankd.distill import SUPERVISED
from cgankd.labels import label_space
from cgankd.pipeline.autopilot import Score, fly
from cgankd.pipeline.comparisons import CONTROL, needs_pseudo_labels, row, views
from cgankd.planning.timing import Seconds, measure
from cgankd.teachers.opening import answers_files

METHODS = ("nokd_longer", "augment", "kd", "fm", "cgan_kd", "cgan+fm")  # where time is too short for trials
# Where it is too short for a generator. Beside a teacher of the same labels, augment is often the best row.
WITHOUT_FAKES = ("nokd_longer", "augment", "fm")
UNLABELLED_METHODS = ("pseudo+kd", "pseudo+fm")  # further rows where there are images without labels
# Where time allows. Students of function matching still gain long after 3,000 steps (docs/research-notes.md).
STEPS = {"teacher": 2000, "student": 1500, "transfer": 8000, "generator": 3000}
# The steps of a part are its usual ones times the share to this power: less is saved on what the others build on.
POWERS = {"teacher": 0.5, "student": 0.5, "transfer": 1.0, "generator": 0.7}
TEACHER_VIEWS = {"randaugment": 2, "cutmix": 1.0}  # a teacher of few labels gains much (docs/research-notes.md)
LEAST = 0.08  # of these, below which students are hardly trained
LEAST_WITH_REFIT = 0.15  # of these, below which the time of a second training is worth more as steps of the first
LEAST_WITH_FAKES = 0.15  # of these, below which the generator draws little that helps, and takes the students' time
LEAST_WITH_TRIALS = 0.2  # of these, below which a trial, a quarter of a training, says nothing
DRAWS = 4.0  # proposals for each image that is kept, until it is known
FAKES = 20_000  # that the density ratio is learnt from, at most, where time allows
VALIDATIONS = 25  # of a student while it is trained
AUTOATTACK_STEPS = 100  # of PGD, that take about as long
REPORT = 10.0  # seconds for tables, pictures and the page

Methods = Literal["auto"] | tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """recipe: checked. tree: what differs from the defaults. seconds: of the whole run, by part. speeds: measured."""

    recipe: Recipe
    tree: Mapping[str, Any]
    seconds: Mapping[str, float]
    share: float  # of the usual steps
    speeds: Seconds

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def with_fakes(self) -> bool:
        """Whether there are generated images."""
        return any(row(name).fakes for name in self.recipe.rows)


def make_plan(
    data: Mapping[str, Any],
    name: str,
    splits: Splits,
    fabric: Fabric,
    budget: float,
    overrides: Sequence[str] = (),
    larger: Seconds | None = None,
    bar: Bar | None = None,
    limit: float = math.inf,
) -> Plan:
    """A recipe whose run takes about ``budget`` seconds here, or less where the usual steps need less.

    overrides: ``key=value`` settings of the user. larger: what was measured on larger images; smaller ones take no
    longer, whatever the machine did meanwhile. bar: of the measurement. limit: seconds from which a plan is of no use,
    so that its time need not be measured further; it then takes at least as long as it says.
    """
    for seconds in measure(_recipe(data, name, splits, 1.0, "auto", True, overrides)[1], splits, fabric, bar or Bar()):
        known = seconds if larger is None else seconds.at_most(larger)
        plan = _fitted(data, name, splits, budget, overrides, known)
        if plan.total > limit or (known.teacher_step and not plan.with_fakes):
            break
    return plan


def _fitted(
    data: Mapping[str, Any], name: str, splits: Splits, budget: float, overrides: Sequence[str], seconds: Seconds
) -> Plan:
    """The best plan that takes about ``budget`` seconds, or else the shortest."""

    def fitted(methods: Methods, refit: bool, least: float) -> Plan:
        share = 1.0
        for _ in range(20):  # what does not follow the steps makes the time not quite proportional to them
            tree, recipe = _recipe(data, name, splits, share, methods, refit, overrides)
            plan = Plan(recipe, tree, estimate(recipe, splits, seconds), share, seconds)
            if plan.total <= budget or share <= least:
                break
            share = max(least, share * min(0.95, budget / plan.total))
        return plan

    tiers: tuple[tuple[Methods, bool, float], ...] = (
        ("auto", True, LEAST_WITH_TRIALS),
        (METHODS, True, LEAST_WITH_FAKES),
        (WITHOUT_FAKES, True, LEAST_WITH_REFIT),
        (WITHOUT_FAKES, False, LEAST),
    )
    for methods, refit, least in tiers:
        plan = fitted(methods, refit, least)
        if plan.total <= budget:
            break
    return plan


def _recipe(
    data: Mapping[str, Any],
    name: str,
    splits: Splits,
    share: float,
    methods: Methods,
    refit: bool,
    overrides: Sequence[str],
) -> tuple[dict[str, Any], Recipe]:
    def steps(what: str) -> int:
        return max(50, round(share ** POWERS[what] * STEPS[what] / 50) * 50)

    scalar, with_fakes = splits.task.continuous, methods != WITHOUT_FAKES
    images = max(1000, min(10_000, 10 * len(splits.train)))
    less = share**0.5  # of what is no training of a student
    fakes = max(0.2, less) * FAKES // len(splits.train)
    tree: dict[str, Any] = {
        "name": name,
        "seeds": [0],
        "data": dict(data),
        "teacher": {
            "network": "cnn40_grid" if scalar else "cnn48_grid",
            "fit": {"steps": steps("teacher"), **({"augment": TEACHER_VIEWS} if splits.task.mixable else {})},
        },
        "student": {
            "network": "cnn16",
            "fit": {"steps": steps("student")},
            "transfer_steps": steps("transfer"),
            **({"refit": True} if refit else {}),
            **({"real_share": 0.4} if with_fakes else {}),
        },
    }
    if with_fakes:
        tree |= {
            "generator": {"steps": steps("generator")},
            # Ten fakes for each labelled image, as in the paper, or fewer where these are many.
            "ratio": {"fakes_per_image": max(1, min(10, int(fakes))), "steps": round(1000 * max(less, 0.4) / 50) * 50},
            "synthesis": {"images": round(images * max(less, 0.2) / 100) * 100, **_filter(less)},
        }
    rows = [*methods, *(UNLABELLED_METHODS if data.get("unlabelled") else ())]
    tree["compare"] = {"methods": methods if methods == "auto" else rows}
    given = recipes.from_tree(yaml_config.changed(Recipe, tree, overrides), where=name)
    if not with_fakes and not _needs_nokd(given):
        del tree["student"]["fit"]  # whose steps are those of NOKD
    if not trained(given.teacher):
        del tree["teacher"]["fit"]
    if given.teacher.source is not None:
        del tree["teacher"]["network"]
    if answers_files(given.teacher.source or ""):
        tree["student"].pop("refit", None)
    if given.generator.source is not None:
        tree.pop("generator", None)
    if isinstance(given.synthesis.subsampling, NoSubsampling):
        tree.pop("ratio", None)
    tree = yaml_config.changed(Recipe, tree, overrides)
    return tree, recipes.from_tree(tree, where=name)


def _needs_nokd(recipe: Recipe) -> bool:
    """Whether rows need a student that is trained for ``student.fit.steps``, for each seed."""
    return isinstance(recipe.student.start, FromNOKD) or not all(row(name).longer for name in recipe.rows)


def _filter(less: float) -> dict[str, Any]:
    """A cut-off that is found with fewer images, where the budget is short."""
    return {"filter": {"calibration": 500}} if less < 0.3 else {}


def trained(settings: TeacherSettings) -> int:
    """How many of the teachers are trained here."""
    return sum(teacher.source is None and teacher.weights is None for _, teacher in settings.all())


def estimate(recipe: Recipe, splits: Splits, seconds: Seconds) -> dict[str, float]:
    """Seconds of each part of a run, from those of a step and of an image."""
    teacher, train = recipe.teacher, len(splits.train)
    held = len(splits.val) + len(splits.test)
    teachers, taught = len(teacher.all()), trained(teacher) * teacher.fit.steps * seconds.teacher_step
    generated = seconds.generated_image + teachers * seconds.teacher_image
    ratio = recipe.ratio
    drawn = ratio.fakes_per_image * (train + len(splits.val))
    label_input = recipe.generator.scalar.label_input
    embedding = 2 * label_input.steps * 0.4 * seconds.student_step if isinstance(label_input, ILI) else 0.0
    metrics = 0 if recipe.metrics.generator is None else recipe.metrics.generator.images
    upstreams = _upstreams(recipe)
    pseudo = any(needs_pseudo_labels(name, recipe.student, splits.task) for name in recipe.rows)
    answered = teachers * held + (len(splits.unlabelled) if pseudo else 0)
    parts = {
        "teacher": upstreams * (taught + answered * seconds.teacher_image),
        "students": _students(recipe, splits, seconds),
        "training on all labels": _refit(recipe, splits, seconds),
        "attacks": _attacks(recipe, splits, seconds),
    }
    sets = {row(name).ablation for name in recipe.rows if row(name).fakes}
    if not sets:
        return {**parts, "measurements": REPORT}
    searched = _searched(recipe, splits)
    search = {}
    if recipe.search is not None:  # its trials, and one without generated images
        trial = _student(recipe, CONTROL, recipe.search.steps or recipe.student.transfer_steps, splits, seconds)
        search = {"search": upstreams * (searched + 1) * trial}
    images = (len(sets - {None}) + max(1, searched)) * _proposals(recipe.synthesis, splits) * generated
    gan = recipe.generator.steps * seconds.generator_step + (embedding if splits.task.continuous else 0.0)
    density_ratio = drawn * generated + ratio.steps * seconds.ratio_step
    subsampled = not isinstance(recipe.synthesis.subsampling, NoSubsampling)
    if isinstance(ratio.features, ClassifierFeatures | AutoencoderFeatures):
        density_ratio += ratio.features.steps * seconds.teacher_step  # their network is usually smaller
    return {
        **parts,
        "generator": upstreams * gan if recipe.generator.source is None else 0.0,
        "density ratio": upstreams * density_ratio if subsampled else 0.0,
        "generated images": upstreams * images,
        **search,
        "measurements": 5 * metrics * (seconds.teacher_image + seconds.student_image) + REPORT,
    }


def _attacks(recipe: Recipe, splits: Splits, seconds: Seconds) -> float:
    """The attacks on the students and teachers of the table: as many training steps on the images, without others."""
    settings = recipe.metrics.robustness
    if settings is None:
        return 0.0
    steps = {"pgd": settings.steps, "autoattack": AUTOATTACK_STEPS}
    images = min(settings.images, len(splits.test)) * sum(steps[name] for name in settings.attacks)
    rows = 2 if recipe.compare.methods == "auto" else len(recipe.rows)  # the control and the chosen one
    students = rows * len(recipe.seeds) * seconds.student_step / recipe.student.fit.batch_size
    teachers = _upstreams(recipe) * seconds.teacher_step / recipe.teacher.fit.batch_size
    return images * (students + (teachers if recipe.teacher.source is None else 0.0))


def _upstreams(recipe: Recipe) -> int:
    """How many teachers and generators there are, one for each of their seeds."""
    return len(recipe.seeds) if recipe.vary == "everything" else 1


def _searched(recipe: Recipe, splits: Splits) -> int:
    """How many synthesis settings the search tries, at most."""
    if recipe.search is None:
        return 0
    rho = recipe.search.rho if recipe.synthesis.filter else ()
    return 1 + len(rho) + len(recipe.search.images) + (len(recipe.search.labels) if splits.task.continuous else 0)


def _proposals(settings: SynthesisSettings, splits: Splits) -> float:
    """How many images the generator draws for burn-in, calibration and synthesis."""
    plan = label_space(splits.task, splits.task.to_target(splits.train.labels)).plan(settings)
    burn_in, calibration = 0, 0  # of each class or part of the label range, so many classes need many
    if not isinstance(settings.subsampling, NoSubsampling):
        burn_in = int(plan.with_total_per(plan.pool, settings.subsampling.burn_in).quota.sum())
    if settings.filter is not None:
        calibration = int(plan.for_calibration(settings.filter.calibration).quota.sum())
    return burn_in + DRAWS * (calibration + settings.images)


def _students(recipe: Recipe, splits: Splits, seconds: Seconds) -> float:
    """NOKD, where a row or a measurement needs it; then every row, or the autopilot's trials and the control."""
    student = recipe.student
    rows, seeds = [name for name in recipe.rows if row(name).longer], len(recipe.seeds)
    needed = seeds if _needs_nokd(recipe) else _upstreams(recipe) * any(row(name).fakes for name in rows)
    nokd = needed * student.fit.steps * seconds.student_step
    if recipe.compare.methods != "auto":
        return nokd + seeds * sum(_student(recipe, name, student.transfer_steps, splits, seconds) for name in rows)

    def time(name: str, steps: int) -> float:
        return _student(recipe, name, steps, splits, seconds)

    def dearness(names: Sequence[str], steps: int) -> list[Score]:
        return [Score(time(name, steps)) for name in names]

    # The dearest candidates are taken to win, so that the time is enough whichever do.
    flight = fly(rows, student.transfer_steps, None, True, dearness)
    trials, full = sum(trial.val for trial in flight.trials), time(flight.chosen, student.transfer_steps)
    return nokd + trials + (seeds - 1) * full + seeds * time(CONTROL, student.transfer_steps)  # trials have one seed


def _refit(recipe: Recipe, splits: Splits, seconds: Seconds) -> float:
    """The dearest row's student once more, with a teacher that learns from the same images."""
    if not recipe.student.refit:
        return 0.0
    steps = recipe.student.transfer_steps
    student = max(_student(recipe, name, steps, splits, seconds) for name in recipe.rows)
    again = (
        trained(recipe.teacher) if recipe.teacher.trained_on == "train" or len(splits.pool) == len(splits.train) else 0
    )
    nokd = recipe.student.fit.steps * seconds.student_step if isinstance(recipe.student.start, FromNOKD) else 0.0
    return student + nokd + again * recipe.teacher.fit.steps * seconds.teacher_step


def _student(recipe: Recipe, name: str, steps: int, splits: Splits, seconds: Seconds) -> float:
    """The training of one row's student, and its scores."""
    compared, fit = row(name), recipe.student.fit
    held = len(splits.val) + len(splits.test)
    validations = VALIDATIONS * len(splits.val) * seconds.student_image
    total = steps * seconds.student_step + held * seconds.student_image + validations
    if compared.method == SUPERVISED:
        return total
    augment = views(compared, recipe.student, splits.task)
    further = (recipe.synthesis.images if compared.fakes else 0) + (len(splits.unlabelled) if compared.pseudo else 0)
    count = len(splits.train) + further
    asked = float(steps * fit.batch_size)
    if augment.mixes or asked <= count * augment.views or not augment.views:  # no view recurs
        return total + asked * seconds.teacher_view
    return total + count * augment.views * seconds.teacher_image
