"""Settings that fit the images and the machine, and how long the run will take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lightning_fabric import Fabric

from cgankd.config import recipe as recipes
from cgankd.config.recipe import Recipe
from cgankd.config.settings import ILI
from cgankd.data.imageset import Splits
from cgankd.pipeline.comparisons import row
from cgankd.planning.timing import Seconds, measure

METHODS = ("nokd_longer", "kd", "fm", "cgan_kd", "cgan+fm")
STEPS = {"teacher": 2000, "student": 1500, "transfer": 3000, "generator": 3000}  # where time allows
LEAST = 0.1  # of these, below which a run proves nothing
DRAWS = 4.0  # proposals for each image that is kept, until it is known
FAKES = 20_000  # that the density ratio is learnt from, at most, where time allows
VALIDATIONS = 25  # of a student while it is trained
REPORT = 10.0  # seconds for tables, pictures and the page


@dataclasses.dataclass(frozen=True)
class Plan:
    """recipe: checked. tree: what differs from the defaults. seconds: of the whole run, by part."""

    recipe: Recipe
    tree: Mapping[str, Any]
    seconds: Mapping[str, float]
    share: float  # of the usual steps

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def make_plan(data: Mapping[str, Any], name: str, splits: Splits, fabric: Fabric, budget: float) -> Plan:
    """A recipe whose run takes about ``budget`` seconds here, or less where the usual steps need less."""
    whole = _recipe(data, name, splits, 1.0)[1]
    seconds = measure(whole, splits, fabric)
    share = 1.0
    for _ in range(20):  # what does not follow the steps makes the time not quite proportional to them
        tree, recipe = _recipe(data, name, splits, share)
        parts = estimate(recipe, splits, seconds)
        total = sum(parts.values())
        if total <= budget or share <= LEAST:
            break
        share = max(LEAST, share * min(0.95, budget / total))
    return Plan(recipe, tree, parts, share)


def _recipe(data: Mapping[str, Any], name: str, splits: Splits, share: float) -> tuple[dict[str, Any], Recipe]:
    def steps(what: str) -> int:
        return max(50, round(share * STEPS[what] / 50) * 50)

    scalar = splits.task.continuous
    images = max(1000, min(10_000, 10 * len(splits.train)))
    fakes = max(0.2, share) * FAKES // len(splits.train)
    tree: dict[str, Any] = {
        "name": name,
        "seeds": [0],
        "data": dict(data),
        "teacher": {"network": "cnn40_grid" if scalar else "cnn48_grid", "fit": {"steps": steps("teacher")}},
        "student": {
            "network": "cnn16",
            "fit": {"steps": steps("student")},
            "transfer_steps": steps("transfer"),
            "real_share": 0.4,
        },
        "generator": {"steps": steps("generator")},
        # Ten fakes for each labelled image, as in the paper, or fewer where these are many.
        "ratio": {"fakes_per_image": max(1, min(10, int(fakes))), "steps": round(1000 * max(share, 0.4) / 50) * 50},
        "synthesis": {"images": round(images * max(share, 0.2) / 100) * 100, **_filter(share)},
        "compare": {"methods": list(METHODS)},
    }
    return tree, recipes.from_tree(tree, where=name)


def _filter(share: float) -> dict[str, Any]:
    """A cut-off that is found with fewer images, where the budget is short."""
    return {"filter": {"calibration": 500}} if share < 0.3 else {}


def estimate(recipe: Recipe, splits: Splits, seconds: Seconds) -> dict[str, float]:
    """Seconds of each part of a run, from those of a step and of an image."""
    student, teacher, train = recipe.student, recipe.teacher, len(splits.train)
    held = len(splits.val) + len(splits.test)
    generated = seconds.generated_image + seconds.teacher_image
    students = student.fit.steps * seconds.student_step
    for name in recipe.rows:
        compared = row(name)
        if not compared.longer:
            continue
        validations = VALIDATIONS * len(splits.val) * seconds.student_image
        students += student.transfer_steps * seconds.student_step + held * seconds.student_image + validations
        if "fm" in compared.method:
            students += student.transfer_steps * student.fit.batch_size * seconds.teacher_image
        elif compared.method != "supervised":
            count = train + (recipe.synthesis.images if compared.fakes else 0)
            views = student.fit.augment.views or 10**9
            seen = min(count * views, student.transfer_steps * student.fit.batch_size)
            students += seen * seconds.teacher_image
    ratio, synthesis = recipe.ratio, recipe.synthesis
    drawn = ratio.fakes_per_image * (train + len(splits.val))
    label_input = recipe.generator.scalar.label_input
    embedding = 2 * label_input.steps * 0.4 * seconds.student_step if isinstance(label_input, ILI) else 0.0
    calibration = 0 if synthesis.filter is None else synthesis.filter.calibration
    proposals = DRAWS * (synthesis.images + calibration) + 500 * (
        1 if splits.task.continuous else splits.task.num_outputs
    )
    metrics = 0 if recipe.metrics.generator is None else recipe.metrics.generator.images
    return {
        "teacher": teacher.fit.steps * seconds.teacher_step + held * seconds.teacher_image,
        "students": students,
        "generator": recipe.generator.steps * seconds.generator_step + (embedding if splits.task.continuous else 0.0),
        "density ratio": drawn * generated + ratio.steps * seconds.ratio_step,
        "generated images": proposals * generated,
        "measurements": 5 * metrics * (seconds.teacher_image + seconds.student_image) + REPORT,
    }
