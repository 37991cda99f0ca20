"""Settings: extends and overrides, what is refused and what is proposed instead, the way there and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cgankd.config import recipe, yaml_values
from cgankd.config.recipe import Recipe
from cgankd.config.settings import (
    ILI,
    NLI,
    SAGAN,
    AdversarialSettings,
    ClassifierFeatures,
    Cosine,
    DistinctLabels,
    EvenLabels,
    FilterSettings,
    FromNOKD,
    FromWeights,
    HardVicinity,
    NoSubsampling,
    OneCycle,
    PaperWidth,
    QuantileRatio,
    R1Settings,
    RandAugmentSettings,
    RatioBudget,
    RobustnessSettings,
    RobustWidth,
    SearchSettings,
    SoftVicinity,
    StepDecay,
)
from cgankd.core.errors import UserError
from cgankd.lm import settings as language_settings


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


# --- extends ------------------------------------------------------------------------------------------------------


def test_a_chain_of_extends_holds_only_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path,
        a="student: {network: cnn16, fit: {steps: 7, batch_size: 9}}\nseeds: [4, 5]\ndescription: first",
        b="extends: a.yaml\nstudent: {fit: {steps: 8}}\nseeds: [6]",
        c="extends: b.yaml\nstudent: {fit: {momentum: 0.5}}",
    )
    found = recipe.load("c.yaml")
    assert found.student.network == "cnn16"
    assert (found.student.fit.steps, found.student.fit.batch_size, found.student.fit.momentum) == (8, 9, 0.5)
    assert found.student.fit.weight_decay == Recipe().student.fit.weight_decay
    assert found.seeds == (6,)  # a list is replaced, not merged
    assert (found.name, found.description) == ("c", "first")


def test_a_recipe_extends_a_ready_one(tmp_path: Path) -> None:
    write(tmp_path, mine="extends: digits\nteacher: {fit: {steps: 7}}")
    found, base = recipe.load(str(tmp_path / "mine.yaml")), recipe.load("digits")
    expected = base.model_dump()
    expected["teacher"]["fit"]["steps"] = 7
    expected["name"] = "mine"
    assert found.model_dump() == expected


def test_a_name_may_be_given(tmp_path: Path) -> None:
    write(tmp_path, mine="name: other", heir="extends: digits\nname: heir of digits")
    assert recipe.load(str(tmp_path / "mine.yaml")).name == "other"
    assert recipe.load(str(tmp_path / "heir.yaml")).name == "heir of digits"


def test_a_file_is_extended_from_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, elsewhere = tmp_path / "recipes", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    write(folder, a="seeds: [9]", b="extends: a.yaml")
    monkeypatch.chdir(elsewhere)
    assert recipe.load("../recipes/b.yaml").seeds == (9,)


@pytest.mark.parametrize(
    "files",
    [{"a": "extends: a.yaml"}, {"a": "extends: b.yaml", "b": "extends: a.yaml"},
     {"a": "extends: b.yaml", "b": "extends: c.yaml", "c": "extends: ./b.yaml"}],
)  # fmt: skip
def test_a_cycle_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, **files)
    with pytest.raises(UserError, match="extends itself through"):
        recipe.load("a.yaml")


def test_a_missing_base_is_named(tmp_path: Path) -> None:
    write(tmp_path, a="extends: nowhere.yaml")
    with pytest.raises(UserError, match=r"'.*nowhere\.yaml' is neither a ready recipe nor an existing YAML file"):
        recipe.load(str(tmp_path / "a.yaml"))


def test_a_folder_is_no_recipe_and_the_settings_of_the_run_in_it_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nor an existing YAML file, but a folder; ready recipes"):
        recipe.load(str(tmp_path))
    write(tmp_path, recipe="{}")
    with pytest.raises(UserError, match=r"the settings of the run in this folder are .*recipe\.yaml; ready recipes"):
        recipe.load(str(tmp_path))


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "extends: digits"])
def test_an_empty_recipe_is_its_base(tmp_path: Path, text: str) -> None:
    write(tmp_path, digits2=text)
    found = recipe.load(str(tmp_path / "digits2.yaml"))
    base = recipe.load("digits") if text.startswith("extends") else Recipe()
    assert found == base.model_copy(update={"name": "digits2"})


def test_yaml_that_would_run_code_is_refused(tmp_path: Path) -> None:
    write(tmp_path, bad=f"name: !!python/object/apply:os.mkdir ['{tmp_path}/executed']")
    with pytest.raises(UserError, match="not readable as YAML"):
        recipe.load(str(tmp_path / "bad.yaml"))
    assert not (tmp_path / "executed").exists()


def test_settings_that_an_alias_repeats_are_changed_apart(tmp_path: Path) -> None:
    write(
        tmp_path,
        a="teacher: {fit: &fit {steps: 9, augment: {shift: 3}}}\nstudent: {fit: *fit}",
        b=f"extends: {tmp_path / 'a.yaml'}\nstudent: {{fit: {{steps: 5}}}}",
    )
    base = recipe.load(str(tmp_path / "a.yaml"), ["student.fit.augment.shift=1", "student.fit.steps=7"])
    assert (base.teacher.fit.steps, base.teacher.fit.augment.shift) == (9, 3)
    assert (base.student.fit.steps, base.student.fit.augment.shift) == (7, 1)
    heir = recipe.load(str(tmp_path / "b.yaml"))
    assert (heir.teacher.fit.steps, heir.student.fit.steps) == (9, 5)
    shortened = recipe.load("cifar10-50k", ["student.fit.steps=77"])
    assert (shortened.teacher.fit.steps, shortened.student.fit.steps) == (134_000, 77)


def test_an_alias_of_what_it_is_a_part_of_is_refused(tmp_path: Path) -> None:
    write(tmp_path, a="teacher: &teacher {jury: [*teacher]}")
    with pytest.raises(UserError, match=r"a\.yaml: not readable as YAML: an alias repeats what it is itself a part of"):
        recipe.load(str(tmp_path / "a.yaml"))


# --- overrides ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("student.fit.learning_rate=1e-4", 1e-4),  # which YAML 1.1 takes for a word
        ("student.fit.learning_rate=1", 1.0),
        ("student.fit.weight_decay=0", 0.0),
        ("student.fit.steps=7", 7),
        ("student.network=resnet20", "resnet20"),
        ("student.network=mine:make", "mine:make"),
        ("student.real_share=null", None),
        ("student.real_share=~", None),
        ("student.real_share=0.25", 0.25),
        ("seeds=[3]", (3,)),
        ("seeds=[3, 1]", (3, 1)),
        ("ratio.hidden=[64, 32]", (64, 32)),
        ("generator.betas=[0.5, 9e-1]", (0.5, 0.9)),
        ("generator.diffaugment=[]", ()),
        ("ratio.milestones=[.5]", (0.5,)),
        ("data.label_range=[-1e1, 10]", (-10.0, 10.0)),
        ("data.label_range=null", None),
        ("compare.ablation=true", True),
        ("compare.ablation=no", False),
        ("synthesis.replace=none", "none"),
        ("data.source=a=b", "a=b"),
        ("description=a: b", "a: b"),
        ("description='a: b'", "a: b"),
        # settings of several kinds: short, by their numbers, or whole
        ("student.fit.schedule=cosine", Cosine()),
        ("student.fit.schedule={warmup: 0}", OneCycle(warmup=0.0)),
        ("student.fit.schedule={kind: step, milestones: [.5]}", StepDecay(milestones=(0.5,))),
        ("student.start={kind: nokd, learning_rate: 1e-4}", FromNOKD(learning_rate=1e-4)),
        ("student.start=a/b.safetensors", FromWeights(file="a/b.safetensors")),
        ("student.start=package:mine", FromWeights(file="package:mine")),
        ("student.start={file: mine}", FromWeights(file="mine")),
        ("generator.network={kind: sagan, attention: 8}", SAGAN(attention=8)),
        ("generator.scalar.vicinity=soft", SoftVicinity()),
        ("generator.scalar.vicinity.width={kind: paper, gaps: 4}", PaperWidth(gaps=4.0)),
        ("generator.scalar.label_input=nli", NLI()),
        ("synthesis.subsampling=none", NoSubsampling()),
        ("synthesis.labels=distinct", DistinctLabels()),
        ("search.labels=[distinct, {count: 7}]", (DistinctLabels(), EvenLabels(count=7))),
        ("ratio.features=classifier", ClassifierFeatures()),
        # settings that may be absent
        ("synthesis.filter=none", None),
        ("synthesis.filter=false", None),
        ("synthesis.filter=true", FilterSettings()),
        ("synthesis.filter.by=7", 7),
        ("synthesis.filter.by=label", "label"),
        ("generator.r1=true", R1Settings()),
        ("generator.r1.every=4", 4),
        ("student.fit.adversarial=true", AdversarialSettings()),
        ("student.fit.augment.randaugment=3", RandAugmentSettings(operations=3)),
        ("student.fit.augment.randaugment=0", None),
        ("student.strong_augment.randaugment=none", None),
        ("search=true", SearchSettings()),
        ("search.rho=[.5]", (0.5,)),
        ("metrics.generator=false", None),
        ("metrics.robustness=true", RobustnessSettings()),
        ("metrics.robustness.steps=3", 3),
    ],
)
def test_overrides_are_typed(override: str, value: Any) -> None:
    key = override.partition("=")[0]
    found: Any = recipe.from_tree({}, [override])
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_the_last_override_counts_and_overrides_beat_the_file(tmp_path: Path) -> None:
    write(tmp_path, a="student: {fit: {steps: 7, batch_size: 8}}")
    found = recipe.load(str(tmp_path / "a.yaml"), ["student.fit.steps=9", "student.fit.steps=10"])
    assert (found.student.fit.steps, found.student.fit.batch_size) == (10, 8)


def test_a_whole_branch_can_be_overridden() -> None:
    found = recipe.from_tree({"student": {"fit": {"steps": 7}}}, ["student.fit={batch_size: 5}"])
    assert (found.student.fit.steps, found.student.fit.batch_size) == (Recipe().student.fit.steps, 5)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seeds", "'seeds' is not of the form key=value"),
        ("=1", "'=1' is not of the form key=value"),
        ("seeds=[1", r"'\[1' is not readable as a YAML value"),
        ("seeds=3", "seeds = 3 is not allowed"),
        ("seeds.first=3", "seeds"),
        ("student.fit.steps=1e3", "student.fit.steps = '1e3' is not allowed"),
        ("student.fit.steps=", "student.fit.steps = none is not allowed"),
        ("student.fit.momentum=1", "student.fit.momentum = 1 is not allowed; allowed: a number at least 0, below 1$"),
        ("student.start=middle", "student.start = 'middle' is not allowed; allowed: scratch, nokd, weights$"),
        ("data.channels=2", "data.channels = 2 is not allowed"),
        ("seeds=[1,2,1]", "the same seed is given twice"),
    ],
)
def test_what_an_override_may_not_be(override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        recipe.from_tree({"seeds": [0]}, [override])


@pytest.mark.parametrize(
    ("key", "near", "allowed"),
    [
        ("techer", "teacher", "name, description"),
        ("student.fit.step", "steps", "steps, batch_size"),
        ("student.fit.augment.shifts", "shift", "shift, flip, views"),
        ("generator.scalar.vicinity.width.neighbors", "neighbours", "kind, neighbours, widest"),
        ("synthesis.subsample", "subsampling", "images, labels, subsampling"),
        ("synthesis.filter.roh", "rho", "rho, by, calibration"),
    ],
)
def test_an_unknown_key_is_named_with_what_is_near(key: str, near: str, allowed: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe.from_tree({}, [f"{key}=1"], where="mine.yaml")
    said = str(caught.value)
    assert said.startswith(f"mine.yaml: key {key!r} is not known (did you mean {near!r}?); allowed here: ")
    assert allowed in said


@pytest.mark.parametrize(
    ("override", "near", "allowed"),
    [
        ("generator.network=sngann", "sngan", "; allowed: sngan, sagan, biggan"),
        ("generator.loss=hinges", "hinge", "; allowed: hinge, vanilla, relativistic"),
        ("generator.diffaugment=[colour]", "color", "; allowed: color, translation, cutout"),
        (
            "ratio.hidden=mlp55",
            "mlp5",
            "; allowed: mlp3, mlp5, mlp5_scalar, or a list",
        ),  # one of several kinds of value
        ("search.labels=[distinct, evn]", "even", "; allowed: even, distinct, empirical"),
    ],
)
def test_a_word_that_is_not_allowed_is_met_with_what_is_near(override: str, near: str, allowed: str) -> None:
    with pytest.raises(UserError, match=rf"is not allowed \(did you mean '{near}'\?\){allowed}"):
        recipe.from_tree({}, [override])
    with pytest.raises(UserError, match="= 'xyzzy' is not allowed; allowed: sngan, sagan, biggan"):
        recipe.from_tree({}, ["generator.network=xyzzy"])
    with pytest.raises(UserError, match="= 'xyzzy' is not allowed; allowed: hinge, vanilla, rel"):
        recipe.from_tree({}, ["generator.loss=xyzzy"])
    with pytest.raises(UserError, match=r"data\.channels = 2 is not allowed; allowed: 1, 3, none"):
        recipe.from_tree({}, ["data.channels=2"])


def test_an_unknown_key_with_nothing_near() -> None:
    with pytest.raises(UserError, match="key 'xyzzy' is not known; allowed here: name, "):
        recipe.from_tree({"xyzzy": 1})


# --- settings of several kinds ------------------------------------------------------------------------------------


def test_a_number_of_another_kind_is_refused_and_the_kind_that_has_it_is_chosen_first() -> None:
    with pytest.raises(
        UserError, match=r"'student\.fit\.schedule\.milestones' is not known; allowed here: kind, warmup"
    ):
        recipe.from_tree({}, ["student.fit.schedule.milestones=[.5]"])
    found = recipe.from_tree({}, ["student.fit.schedule=step", "student.fit.schedule.milestones=[.5]"])
    assert found.student.fit.schedule == StepDecay(milestones=(0.5,))
    with pytest.raises(UserError, match=r"'generator\.scalar\.vicinity\.draw' is not known.*width, noise, kind"):
        recipe.from_tree({}, ["generator.scalar.vicinity.draw=weighted"])
    with pytest.raises(
        UserError, match=r"synthesis\.subsampling\.q = 2 is not allowed; allowed: a number above 0, below 1"
    ):
        recipe.from_tree({}, ["synthesis.subsampling={kind: quantile, q: 2}"])


def test_numbers_below_what_was_written_short_or_was_absent() -> None:
    tree = {"synthesis": {"subsampling": "quantile", "filter": None}, "generator": {"r1": True}}
    found = recipe.from_tree(tree, ["synthesis.subsampling.q=.9", "synthesis.filter.rho=.6", "generator.r1.gamma=2"])
    assert found.synthesis.subsampling == QuantileRatio(q=0.9)
    assert found.synthesis.filter == FilterSettings(rho=0.6)
    assert found.generator.r1 == R1Settings(gamma=2.0)


def test_another_kind_in_a_heir_leaves_the_numbers_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path,
        a="generator: {scalar: {vicinity: {kind: soft, draw: weighted, width: {neighbours: 9}}, label_input: ili}}\n"
        "synthesis: {subsampling: {kind: quantile, q: .9, burn_in: 7}, filter: {rho: .6}}",
        b="extends: a.yaml\ngenerator: {scalar: {vicinity: {noise: 0}, label_input: {steps: 3}}}\n"
        "synthesis: {subsampling: {burn_in: 8}, filter: {by: all}}",
        c="extends: b.yaml\ngenerator: {scalar: {vicinity: {kind: hard, width: {kind: paper}}}}\n"
        "synthesis: {subsampling: {kind: budget}, filter: none}",
    )
    heir, other = recipe.load("b.yaml"), recipe.load("c.yaml")
    width = RobustWidth(neighbours=9)
    assert heir.generator.scalar.vicinity == SoftVicinity(draw="weighted", width=width, noise=0.0)
    assert heir.generator.scalar.label_input == ILI(steps=3)
    assert heir.synthesis.subsampling == QuantileRatio(q=0.9, burn_in=8)
    assert heir.synthesis.filter == FilterSettings(rho=0.6, by="all")
    assert other.generator.scalar.vicinity == HardVicinity(width=PaperWidth())
    assert other.generator.scalar.label_input == ILI(steps=3)
    assert other.synthesis.subsampling == RatioBudget()
    assert other.synthesis.filter is None


# --- there and back -----------------------------------------------------------------------------------------------

CHANGED = [
    "seeds=[7]", "data.label_range=[-1.5,2]", "data.unit=°", "student.fit.learning_rate=1e-7",
    "compare.methods=[kd]", "generator.betas=[0,0.99]", "student.real_share=0.3",
    "vary=everything", "data.label_column='2020'", "generator.scalar.vicinity=soft", "generator.r1=true",
    "student.fit.schedule={kind: step, milestones: [.5]}", "synthesis.filter=none", "search.labels=[distinct]",
    "student.start=nokd", "ratio.hidden=mlp5", "metrics.generator=none", "metrics.robustness=true",
]  # fmt: skip


@pytest.mark.parametrize("name", sorted(recipe.ready()))
@pytest.mark.parametrize("overrides", [[], CHANGED])
def test_a_written_recipe_reads_back_equal(tmp_path: Path, name: str, overrides: list[str]) -> None:
    found = recipe.load(name, overrides)
    (tmp_path / "copy.yaml").write_text(found.to_yaml(), encoding="utf-8")
    assert recipe.load(str(tmp_path / "copy.yaml")) == found


def test_text_survives_the_way_there_and_back(tmp_path: Path) -> None:
    found = Recipe(description="mit Umlaut ü: 'quoted' # and more\nlines", name="no")
    (tmp_path / "copy.yaml").write_text(found.to_yaml(), encoding="utf-8")
    assert recipe.load(str(tmp_path / "copy.yaml")) == found


@pytest.mark.parametrize("name", sorted(recipe.ready()))
def test_ready_recipes_load_and_say_what_they_are(name: str) -> None:
    found = recipe.load(name)
    assert found.name == name
    assert found.description


def test_there_are_recipes_for_both_tasks() -> None:
    assert {"digits", "fashion", "rotated-fashion"} <= set(recipe.ready())


# --- rows ---------------------------------------------------------------------------------------------------------

ABLATION = ("cgan_raw", "cgan_subsample", "cgan_filter", "cgan_replace")


@pytest.mark.parametrize(
    ("methods", "ablation", "rows"),
    [
        ("[nokd, nokd_longer, kd, cgan, cgan_kd]", False, ("nokd", "nokd_longer", "kd", "cgan", "cgan_kd")),
        ("[nokd, cgan, cgan_kd]", True, ("nokd", *ABLATION, "cgan", "cgan_kd")),
        ("[nokd, kd]", True, ("nokd", "kd", *ABLATION)),
        ("[cgan_kd, nokd]", False, ("cgan_kd", "nokd")),
    ],
)
def test_rows_stand_in_order_with_the_ablation_before_cgan(methods: str, ablation: bool, rows: tuple[str, ...]) -> None:
    found = recipe.from_tree({}, [f"compare.methods={methods}", f"compare.ablation={str(ablation).lower()}"])
    assert found.rows == rows


def test_a_key_inside_a_list_of_settings_is_named_too() -> None:
    with pytest.raises(UserError, match=r"'teacher\.jury\.0\.netwrok' is not known \(did you mean 'network'"):
        recipe.from_tree({}, ["teacher.jury=[{netwrok: cnn8}]"])
    with pytest.raises(UserError, match=r"teacher\.jury\.1\.weights = \[3\]"):
        recipe.from_tree({}, ["teacher.jury=[{network: cnn8}, {weights: [3]}]"])


def test_overrides_leave_the_callers_tree_as_it_is() -> None:
    tree: dict[str, Any] = {"student": {"fit": {"steps": 10}}}
    assert recipe.from_tree(tree, ["student.fit.steps=20", "ratio.steps=5"]).student.fit.steps == 20
    assert tree == {"student": {"fit": {"steps": 10}}}


def test_a_wrong_value_of_a_list_is_refused_on_every_python() -> None:
    """In Python 3.10 the type tuple[int, ...] looks like a class, and asking whether it is one of settings fails."""
    with pytest.raises(UserError, match="seeds = 'x' is not allowed"):
        recipe.load("digits", ["seeds=x"])
    assert not yaml_values.is_model(tuple[int, ...])
    assert yaml_values.is_model(recipe.Recipe)


def test_one_setting_of_a_group_leaves_the_others_at_the_defaults_that_the_group_has_there() -> None:
    usual = recipe.load("digits").student.strong_augment
    assert usual.cutmix
    assert usual.randaugment is not None
    for words in ("student.strong_augment.mixed_views=3", "student.strong_augment={mixed_views: 3}"):
        changed = recipe.load("digits", [words]).student.strong_augment
        assert changed == usual.model_copy(update={"mixed_views": 3})
    less = recipe.load("digits", ["student.strong_augment.randaugment=none"]).student.strong_augment
    assert less == usual.model_copy(update={"randaugment": None})
    text = language_settings.load("pydoc", ["distil.fit.steps=7"]).distil.fit
    assert text == language_settings.load("pydoc").distil.fit.model_copy(update={"steps": 7})


@pytest.mark.parametrize("key", ["student.fit.schedule={kind: step, milestones: [%s]}", "ratio.milestones=[%s]"])
@pytest.mark.parametrize("milestone", ["150", "0", "1"])
def test_a_milestone_is_a_share_of_the_steps(key: str, milestone: str) -> None:
    with pytest.raises(UserError, match=r"milestones\.0 = .* is not allowed; allowed: a number above 0, below 1"):
        recipe.load("digits", [key % milestone])
