"""Which stages read which setting: every leaf of a recipe is changed, on both tasks, and nothing is trained.

The store here computes no stage. An artifact's key names the stage alone, so that a change shows at the stages that
are given what changed, and not at those that come after them.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning_fabric import Fabric
from pydantic import BaseModel

from cgankd.config import recipe as recipes
from cgankd.config.recipe import Recipe
from cgankd.core.hashing import content_key, describe
from cgankd.core.store import Artifact, Store
from cgankd.data import sources
from cgankd.data.imageset import Splits
from cgankd.metrics.robustness import Attack
from cgankd.nets.build import StoredNetwork
from cgankd.pipeline import measurements, preflight
from cgankd.pipeline.run import Run

SUMMARY = {
    "passed": True, "reasons": [], "val": 1.0, "network": "cnn8", "kept": 1, "images": 1, "best": {},
}  # what the road asks of summaries before results are collected  # fmt: skip


class Keys(Store):
    """Notes the key of every stage that is called, by stage and title, and computes none."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric, self.title, self.remark, self.keys, self.artifacts = fabric, "", "", {}, Path("nowhere")

    def call(self, function: Any, /, *args: Any, **arguments: Any) -> Artifact:
        title = re.sub(r" \(seed \d+\)", "", self.title)
        key = content_key(function.__name__, function.stage_version, describe(arguments))
        name = f"{function.__name__} {title}".strip()
        while self.keys.get(name, key) != key:  # the trials of a search have one title
            name += "'"
        self.keys[name] = key
        return Artifact(Path("nowhere"), name, 0.0, SUMMARY)


BASE = {
    "seeds": [0],
    "teacher": {"network": "cnn8", "trained_on": "pool", "jury": [{"network": "cnn16"}], "votes": "mean"},
    "student": {
        "network": "cnn8", "start": {"kind": "nokd"}, "real_share": 0.5, "label_weight": 0.2, "teacher_weight": 0.7,
        "fit": {"schedule": {"kind": "step"}, "augment": {"randaugment": {}}},
        "strong_augment": {"randaugment": {}},
        "method_settings": {"at": {"weight": 3.0}},
    },
    "ratio": {"features": {"kind": "classifier", "network": "cnn8"}, "vicinity_gaps": 6.0},
    "search": {"images": [5000], "steps": 77},
    "metrics": {"robustness": {"step_size": 0.01}},
    "compare": {"methods": ["nokd", "augment", "pseudo", "kd", "cgan", "cgan+at"]},
    "runtime": {"device": "cpu", "precision": "fp32", "threads": 1},
}  # fmt: skip
SOURCES = {
    "classification": {"source": "digits", "train_size": 100, "val_size": 40},
    "regression": {"source": "rotated-fashion", "train_size": 100, "val_size": 40, "turns": 1, "unit": "degrees"},
}


@pytest.fixture(scope="module", params=list(SOURCES))
def world(request: pytest.FixtureRequest) -> tuple[str, Recipe, Splits]:
    recipe = recipes.from_tree({**BASE, "data": SOURCES[request.param]})
    return request.param, recipe, sources.load(recipe.data)


def keys(recipe: Recipe, splits: Splits, fabric: Fabric) -> dict[str, str]:
    """Stage and title -> key, of all stages of the recipe."""
    store = Keys(fabric)
    road = Run(preflight.resolve(recipe), splits, store)
    road.data()
    for seed in recipe.seeds:
        for name in recipe.rows:
            road.student(name, seed)
    first = recipe.seeds[0]
    road.generator(first)
    if recipe.metrics.generator is not None:
        measurements.quality(road, first)
    if recipe.metrics.robustness is not None:
        for name in recipe.metrics.robustness.attacks:
            measurements.attacked(road, StoredNetwork(road.teacher(first)), Attack.of(recipe.metrics.robustness, name))
    return store.keys


def leaves(settings: BaseModel, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name)


def at(settings: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        settings = getattr(settings, name)
    return settings


# What the automatic change below can't guess: another value that is allowed.
OTHER = {
    "data.label_range": [-10.0, 100.0], "data.size": 20, "data.channels": 3, "data.task": "classification",
    "data.train_per_class": None, "data.label_column": "y", "data.group_column": None,
    "teacher.jury": [{"network": "cnn24"}], "teacher.network": "cnn24", "student.network": "cnn24",
    "ratio.features.network": "cnn24", "student.fit.adversarial": {"eps": 0.1},
    "student.fit.clip_norm": 0.5, "teacher.fit.clip_norm": 0.5,
    "student.fit.compile_teacher": False, "teacher.fit.compile_teacher": False,
    "teacher.fit.adversarial": {"eps": 0.1},
    "student.method_settings": {"at": {"weight": 4.0}}, "ratio.hidden": [64],
    "generator.multipliers": [1, 2], "generator.betas": [0.1, 0.9], "ratio.betas": [0.1, 0.9],
    "generator.diffaugment": ["color"], "generator.r1": {"gamma": 2.0}, "generator.discriminator_channels": 12,
    "ratio.milestones": [0.5], "student.fit.schedule.milestones": [0.5],
    "synthesis.filter.by": "all", "synthesis.filter.rho": 0.6, "search.rho": [0.5], "search.images": [700],
    "metrics.generator.features": ["nokd"], "metrics.robustness.attacks": ["pgd"],
    "generator.transition": {"start": 0.1, "end": 0.2}, "generator.guidance": {"outputs": 0.5}, "generator.size": 18,
    "generator.scalar.vicinity.noise": 0.2, "data.seed": 5, "data.unit": "radians", "synthesis.replace": "none",
}  # fmt: skip
SKIPPED = {
    # Another source, task or row is another run; a generator or teacher of one's own has tests of its own.
    "name", "description", "demonstration", "data.source", "data.task", "compare.methods", "compare.ablation",
    "seeds", "vary", "generator.source", "teacher.source", "teacher.weights", "teacher.start", "teacher.jury",
    "teacher.outputs", "teacher.votes", "search.labels", "data.label_column", "data.group_column",
    "data.train_per_class", "data.test_fraction", "data.label_range", "data.circular", "data.bits",
    "data.split_folders", "data.unlabelled",
    "data.group_pattern", "data.skip_bad", "runtime.device", "runtime.precision", "metrics.robustness.attacks",
}  # fmt: skip


def changed(recipe: Recipe, path: tuple[str, ...]) -> Recipe:
    """The recipe with one leaf changed."""
    key, value = ".".join(path), at(recipe, path)
    if key in OTHER:
        new = OTHER[key]
    elif isinstance(value, bool):
        new = not value
    elif isinstance(value, int):
        new = value + 1
    elif isinstance(value, float):
        new = value * 0.75 or 0.1
    elif value is None:
        annotation = typing.get_args(type(at(recipe, path[:-1])).model_fields[path[-1]].annotation)
        new = 0.35 if float in annotation else True if bool in annotation else 17
    else:
        options = typing.get_args(type(at(recipe, path[:-1])).model_fields[path[-1]].annotation)
        new = next(option for option in options if option != value)
    tree = recipe.model_dump(mode="json")
    node = tree
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = new
    return recipes.from_tree(tree)


OTHER_TRIALS = {"search.rho", "search.images", "search.patience", "synthesis.filter.rho"}  # of the search
PROCESSED = {"burn_in", "calibrate_filter", "make_images"}


def expected(key: str, task: str) -> set[str] | None:
    """The stages that read a setting, by their functions' names; None where this table does not say."""
    scalar = task == "regression"
    table: list[tuple[str, set[str]]] = [
        ("teacher.network", {"train_network"}),
        ("teacher.trained_on", {"train_network"}),
        ("teacher.fit.", {"train_network"}),
        # the classifier of the ratio is trained as the student is
        ("student.fit.steps", {"train_student"}),
        ("student.fit.learning_rate", {"train_student", "train_network"}),  # NOKD's; rows start from it
        ("student.fit.", {"train_student", "train_network"}),
        ("student.network", {"train_student"}),
        ("student.transfer_steps", {"train_student"}),
        ("student.start.", {"train_student"}),
        ("student.real_share", {"train_student", "measure_generator"}),
        ("student.ships", set()),  # both sets of weights are kept
        ("student.refit", set()),  # it adds stages after the choice
        ("student.strong_augment.mixup", set() if scalar else {"train_student"}),  # a mix of scalars has no label
        ("student.strong_augment.cutmix", set() if scalar else {"train_student"}),
        ("student.strong_augment.", {"train_student"}),
        ("student.temperature", set() if scalar else {"train_student"}),
        ("student.label_weight", {"train_student"}),
        ("student.teacher_weight", {"train_student"}),
        ("student.method_settings", {"train_student"}),
        ("generator.scalar.", {"train_generator"} if scalar else set()),
        ("generator.", {"train_generator"}),
        ("ratio.features.", {"train_network"}),
        ("ratio.", {"train_density_ratio"}),
        ("synthesis.images", {"make_images"}),
        ("synthesis.labels.", PROCESSED if scalar else set()),
        ("synthesis.subsampling.burn_in", {"burn_in"}),
        ("synthesis.subsampling.fall_back", set()),  # it decides; the decision is in the key
        ("synthesis.filter.rho", set()),  # but of make_images, see the last test
        ("synthesis.filter.by", {"calibrate_filter", "make_images"} if not scalar else set()),
        ("synthesis.filter.calibration", {"calibrate_filter"}),
        ("synthesis.replace", {"train_student", "measure_generator"} if scalar else set()),
        ("synthesis.max_draws", PROCESSED),
        ("synthesis.batch_size", PROCESSED),
        ("search.rho", set()),  # other trials, no other stage
        ("search.images", set()),
        ("search.patience", set()),
        ("search.steps", {"train_student"}),
        ("metrics.generator.", {"measure_generator"}),
        ("metrics.robustness.", {"attack_network"}),
        ("runtime.", set()),
        ("data.unit", set()),
    ]  # fmt: skip
    return next((stages for start, stages in table if key.startswith(start)), None)


def test_each_setting_changes_the_keys_of_the_stages_that_read_it(
    world: tuple[str, Recipe, Splits], fabric: Fabric
) -> None:
    task, recipe, splits = world
    before, wrong = keys(recipe, splits, fabric), []
    for path in leaves(recipe):
        key = ".".join(path)
        if key in SKIPPED or key.startswith(("data.", "teacher.http.")) or path[-1] == "kind":
            continue
        after = keys(changed(recipe, path), splits, fabric)
        common = before.keys() & after.keys()  # a search may try something else, which is no stage that was there
        stale = {name.split()[0] for name in common if before[name] != after[name]}
        if key in OTHER_TRIALS:
            stale -= {"make_images", "train_student"}
        if stale != expected(key, task):
            wrong.append(f"{key}: {sorted(stale)}, not {expected(key, task)}")
    assert not wrong, "\n".join(wrong)


def test_images_change_every_stage_that_sees_them(world: tuple[str, Recipe, Splits], fabric: Fabric) -> None:
    task, recipe, splits = world
    before, wrong = keys(recipe, splits, fabric), []
    unread = {"data.unit", *(["data.turns"] if task == "classification" else [])}
    for path in leaves(recipe.data, ("data",)):
        key = ".".join(path)
        if key in SKIPPED:
            continue
        other = changed(recipe, path)
        after = keys(other, sources.load(other.data), fabric)
        stale = {name.split()[0] for name in before if before[name] != after.get(name)}
        seeing = {"describe_data", "train_network", "train_student"}
        if key == "data.shape":  # no image here is brought to another shape, but predictions are made by it
            seeing = {"describe_data"}
        if (not stale) != (key in unread) or (stale and not seeing <= stale):
            wrong.append(f"{key}: {sorted(stale)}")
    assert not wrong, "\n".join(wrong)


def test_the_number_of_labels_changes_no_teacher_of_the_pool(world: tuple[str, Recipe, Splits], fabric: Fabric) -> None:
    _, recipe, splits = world
    other = changed(recipe, ("data", "train_size"))
    before, after = keys(recipe, splits, fabric), keys(other, sources.load(other.data), fabric)
    for name in ("train_network teacher", "train_network juror 1"):
        assert before[name] == after[name]
    assert before["train_generator generator"] != after["train_generator generator"]


def test_another_test_split_trains_nothing_anew(world: tuple[str, Recipe, Splits], fabric: Fabric) -> None:
    _, recipe, splits = world
    other = dataclasses.replace(splits, test=splits.test.few(len(splits.test) - 1))
    before, after = keys(recipe, splits, fabric), keys(recipe, other, fabric)
    stale = {name.split()[0] for name in before if before[name] != after.get(name)}
    assert stale == {"describe_data", "score_teacher", "score_student", "attack_network"}


def test_every_stage_of_the_road_is_asked(world: tuple[str, Recipe, Splits], fabric: Fabric) -> None:
    _, recipe, splits = world
    stages = {name.split()[0] for name in keys(recipe, splits, fabric)}
    assert stages == {
        "describe_data", "train_network", "train_student", "pseudo_label", "train_generator", "train_density_ratio",
        "burn_in", "calibrate_filter", "make_images", "measure_generator", "attack_network", "score_student",
        "score_teacher",
    }  # fmt: skip


def test_a_seed_is_in_every_key_that_draws(world: tuple[str, Recipe, Splits], fabric: Fabric) -> None:
    _, recipe, splits = world
    other = recipe.model_copy(update={"seeds": (1,)})
    before = {name.split()[0]: key for name, key in keys(recipe, splits, fabric).items()}
    after = {name.split()[0]: key for name, key in keys(other, splits, fabric).items()}
    same = {name for name in before if before[name] == after[name]}
    # The attack's images are chosen by data.seed; keys of artifacts do not depend on those of other artifacts here.
    assert same == {"describe_data", "pseudo_label", "attack_network", "score_student", "score_teacher"}


def test_an_ablation_and_another_m_share_burn_in_and_calibration(
    world: tuple[str, Recipe, Splits], fabric: Fabric
) -> None:
    _, recipe, splits = world
    plain = recipe.model_copy(update={"search": None})
    more = recipes.from_tree(plain.model_dump(mode="json"), ["synthesis.images=20000", "synthesis.filter.rho=0.5"])
    shared = ("burn_in synthesis: burn-in", "calibrate_filter synthesis: calibration")
    for one, other in itertools.pairwise([keys(plain, splits, fabric), keys(more, splits, fabric)]):
        assert [one[name] for name in shared] == [other[name] for name in shared]
        assert one["make_images synthesis"] != other["make_images synthesis"]
