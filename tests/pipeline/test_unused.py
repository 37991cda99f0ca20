"""Settings without effect are named, with the reason. The second way to know it: no key of a stage depends on them."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning_fabric import Fabric
from test_keys import SOURCES, keys
from test_run_road import tiny

from cgankd.config import recipe as recipes
from cgankd.config.recipe import Recipe
from cgankd.core.files import read_json
from cgankd.data import sources
from cgankd.data.imageset import Splits
from cgankd.pipeline import run
from cgankd.pipeline.unused import unused
from cgankd.tasks import Classification, Regression, Task

CLASSES, DEGREES = Classification(("a", "b", "c")), Regression(0.0, 90.0, "degrees")
SCALAR = ("chairs", "rc49", "rotated", "steering", "utkface")
ROWS = "compare.methods=[nokd_longer,kd,cgan]"
NO_FAKES = "compare.methods=[nokd_longer,kd]"


def task_of(name: str) -> Task:
    return DEGREES if name.startswith(SCALAR) else CLASSES


@pytest.mark.parametrize("name", recipes.ready())
def test_every_setting_of_a_ready_recipe_has_an_effect(name: str) -> None:
    assert unused(recipes.load(name), task_of(name)) == []


@pytest.mark.parametrize(
    ("task", "words", "sentence"),
    [
        (CLASSES, "data.turns=2", "data.turns has no effect, because it is for rotated-fashion alone."),
        (
            CLASSES, f"data.unlabelled=more {ROWS}",
            "data.unlabelled has no effect, because no row learns from unlabelled images, such as pseudo+fm.",
        ),
        (CLASSES, "data.unit=kg", "data.unit has no effect, because labels are classes."),
        (DEGREES, "data.unit=rad", "data.unit has no effect, because the labels of digits are in degrees."),
        (CLASSES, "teacher.http.tries=2", "teacher.http.tries has no effect, because teacher.source is no address."),
        (
            CLASSES, "teacher.weights=a.safetensors teacher.fit.steps=5 teacher.trained_on=pool",
            "teacher.trained_on, teacher.fit.steps have no effect, because no teacher is trained here.",
        ),
        (
            CLASSES, "teacher.source=a:b teacher.network=cnn8",
            "teacher.network has no effect, because teacher.source takes its place.",
        ),
        (
            CLASSES, "teacher.jury=[{source:&a:b,network:&cnn8}]",
            "teacher.jury.0.network has no effect, because teacher.jury.0.source takes its place.",
        ),
        (
            CLASSES, f"{NO_FAKES} teacher.jury=[{{network:&cnn8}}]",
            "teacher.jury, teacher.jury.0.network have no effect, because teacher.votes is first, and no row has "
            "generated images.",
        ),
        (
            CLASSES, "generator.source=a:b generator.steps=5 generator.r1=true generator.network=biggan",
            "generator.network, generator.steps, generator.r1 have no effect, because generator.source takes the "
            "place of a GAN.",
        ),
        (
            CLASSES, "generator.scalar.label_input=nli",
            "generator.scalar.label_input has no effect, because labels are classes.",
        ),
        (
            CLASSES, "metrics.generator.windows=5",
            "metrics.generator.windows has no effect, because labels are classes.",
        ),
        (
            CLASSES, "synthesis.subsampling=none ratio.steps=5 ratio.features=classifier",
            "ratio.steps, ratio.features have no effect, because synthesis.subsampling is none.",
        ),
        (
            CLASSES, "student.fit.augment.mixed_views=4",
            "student.fit.augment.mixed_views has no effect, because images are not mixed there.",
        ),
        (
            CLASSES, "student.strong_augment.cutmix=0.5",
            "student.strong_augment.cutmix has no effect, because no row's views depend on it.",
        ),
        (
            DEGREES, "compare.methods=[augment,cgan] student.strong_augment.cutmix=0.5",
            "student.strong_augment.cutmix has no effect, because no row's views depend on it.",
        ),
        (
            DEGREES, "student.temperature=2", "student.temperature has no effect, because no row's loss depends on it.",
        ),
        (
            CLASSES, "compare.methods=[fm,cgan] student.teacher_weight=0.5",
            "student.teacher_weight has no effect, because no row's loss depends on it.",
        ),
        (
            CLASSES, "student.method_settings.crd.wieght=2",
            "student.method_settings.crd has no effect, because no row uses crd.",
        ),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_named(task: Task, words: str, sentence: str) -> None:
    overrides = [word.replace("&", " ") for word in words.split()]
    assert " ".join(unused(recipes.from_tree({}, [ROWS, *overrides]), task)) == sentence


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (CLASSES, "compare.methods=[fm~cutmix] student.strong_augment.cutmix=0.5"),
        (CLASSES, "compare.methods=[cgan+dkd] student.temperature=2"),
        (CLASSES, "compare.methods=[nokd] student.fit.steps=5"),
        (CLASSES, f"{NO_FAKES} synthesis.images=5 student.fit.steps=5 student.real_share=0.5"),
        (CLASSES, "compare.methods=[kd] student.start=nokd student.fit.steps=5"),
        (CLASSES, "compare.methods=[pseudo] student.real_share=0.5"),
        (CLASSES, "compare.methods=[cgan+pseudo+fm] data.unlabelled=more"),
        (CLASSES, "compare.methods=auto data.unlabelled=more"),
        (CLASSES, "compare.methods=[crd] student.method_settings.crd.weight=2"),
        (CLASSES, "compare.methods=auto student.strong_augment.mixup=0.5 student.fit.steps=5 generator.steps=5"),
        (CLASSES, "teacher.weights=a.safetensors teacher.jury=[{}] teacher.fit.steps=5"),
        (CLASSES, "teacher.source=https://a/b teacher.http.tries=2"),
        (DEGREES, "generator.scalar.label_input=nli synthesis.labels=distinct ratio.vicinity_gaps=6"),
    ],
)
def test_a_setting_with_an_effect_is_not_named(task: Task, words: str) -> None:
    assert unused(recipes.from_tree({}, words.split()), task) == []


@pytest.fixture(scope="module")
def splits() -> Splits:
    return sources.load(Recipe.model_validate({"data": SOURCES["classification"]}).data)


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("synthesis.subsampling=none", "ratio.steps=5 ratio.features=classifier"),
        ("student.start=scratch", "student.strong_augment.cutmix=0.5 student.teacher_weight=3 student.temperature=9"),
        ("student.start=scratch", "student.method_settings.crd.weight=2 generator.scalar.label_input=nli"),
    ],
)
def test_no_stage_reads_what_has_no_effect(splits: Splits, fabric: Fabric, base: str, words: str) -> None:
    tree = {
        "seeds": [0],
        "data": SOURCES["classification"],
        "teacher": {"network": "cnn8"},
        "student": {"network": "cnn8"},
        "compare": {"methods": ["nokd_longer", "cgan"]},
    }
    plain, other = recipes.from_tree(tree, [base]), recipes.from_tree(tree, [base, *words.split()])
    named = " ".join(unused(other, splits.task))
    assert all(word.partition("=")[0].removesuffix(".weight") in named for word in words.split())
    assert keys(plain, splits, fabric) == keys(other, splits, fabric)


def test_a_run_says_it_and_warns_of_it(tmp_path: Path) -> None:
    words = ["compare.methods=[nokd_longer]", "seeds=[0]", "teacher.http.tries=7"]
    run.run(tiny(*words), tmp_path)
    warned = [text for text in read_json(tmp_path / "results.json")["warnings"] if "teacher.http.tries" in text]
    assert warned == ["teacher.http.tries has no effect, because teacher.source is no address."]
