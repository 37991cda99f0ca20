"""A wrong setting of every kind gives one sentence: the key, what was found, what is allowed."""

from __future__ import annotations

import re

import pytest

from cgankd.config import recipe, yaml_config
from cgankd.core.errors import UserError

SIZE = "a whole number at least 2, or none"
NUMBERS = "a list of two, each a number, or none"
SEEDS = "a list of one or more, each a whole number"
WIDTHS = "a whole number at least 32, a multiple of 8"
HIDDEN = f"mlp3, mlp5, mlp5_scalar, or a list of one or more, each {WIDTHS}"
FILTER = "true, false, or settings (rho, by, calibration)"
BY = "auto, label, all, or a whole number at least 2"
KINDS = "none, maximum, quantile, budget"
JUROR = "settings (source, http, network, weights, start, outputs)"
AUGMENTS = "color, translation, cutout"
# the override, what was found, the word that was probably meant, what is allowed
WRONG = [
    # numbers
    ("data.train_size=many", "data.train_size = 'many'", "", SIZE),
    ("data.train_size=1", "data.train_size = 1", "", SIZE),
    ("data.train_size=2.5", "data.train_size = 2.5", "", SIZE),
    ("data.train_size=true", "data.train_size = true", "", SIZE),
    ("data.train_size=[3]", "data.train_size = [3]", "", SIZE),
    ("data.train_size={a: b}", "data.train_size = {a: 'b'}", "", SIZE),
    ("student.fit.steps=", "student.fit.steps = none", "", "a whole number at least 1"),
    ("student.fit.steps=1e3", "student.fit.steps = '1e3'", "", "a whole number at least 1"),
    ("student.fit.momentum=1", "student.fit.momentum = 1", "", "a number at least 0, below 1"),
    ("student.fit.momentum=.inf", "student.fit.momentum = inf", "", "a finite number at least 0, below 1"),
    ("student.fit.clip_norm=-1", "student.fit.clip_norm = -1", "", "auto, a number above 0, or none"),
    # true and false
    ("demonstration=perhaps", "demonstration = 'perhaps'", "", "true, false"),
    ("data.split_folders=3", "data.split_folders = 3", "", "true, false, none"),
    # words
    ("data.task=clasification", "data.task = 'clasification'", "classification", "auto, classification, regression"),
    ("data.channels=2", "data.channels = 2", "", "1, 3, none"),
    ("data.source=", "data.source = ''", "", "text that is not empty"),
    ("synthesis.filter.by=1", "synthesis.filter.by = 1", "", BY),
    ("synthesis.filter.by=lable", "synthesis.filter.by = 'lable'", "label", BY),
    # lists
    ("seeds=3", "seeds = 3", "", f"{SEEDS}, such as seeds=[3]"),
    ("seeds=0,1", "seeds = '0,1'", "", f"{SEEDS}, such as seeds=[0,1]"),
    ("seeds=all", "seeds = 'all'", "", SEEDS),
    ("seeds=true", "seeds = true", "", SEEDS),
    ("seeds=[]", "seeds = []", "", SEEDS),
    ("seeds=[1, x]", "seeds.1 = 'x'", "", "a whole number"),
    ("seeds=[0, true]", "seeds.1 = true", "", "a whole number"),
    ("data.label_range=[0]", "data.label_range = [0]", "", NUMBERS),
    ("data.label_range=[0, 1, 2]", "data.label_range = [0, 1, 2]", "", NUMBERS),
    ("data.label_range=[0, .inf]", "data.label_range.1 = inf", "", "a finite number"),
    ("compare.methods=null", "compare.methods = none", "", "auto, or a list, each text"),
    ("compare.methods=Auto", "compare.methods = 'Auto'", "auto", "auto, or a list, each text"),
    ("compare.methods=kd", "compare.methods = 'kd'", "", "auto, or a list, each text, such as compare.methods=[kd]"),
    ("compare.methods=kd, cgan+fm~mixup", "compare.methods = 'kd, cgan+fm~mixup'", "",
     "auto, or a list, each text, such as compare.methods=[kd,cgan+fm~mixup]"),
    ("compare.methods='a: b'", "compare.methods = 'a: b'", "", "auto, or a list, each text"),
    ("generator.diffaugment=color", "generator.diffaugment = 'color'", "",
     f"a list, each one of {AUGMENTS}, such as generator.diffaugment=[color]"),
    ("generator.diffaugment=blur", "generator.diffaugment = 'blur'", "", f"a list, each one of {AUGMENTS}"),
    ("search.rho=0.5", "search.rho = 0.5", "", "a list, each a number above 0, at most 1, such as search.rho=[0.5]"),
    ("generator.diffaugment=[colour]", "generator.diffaugment.0 = 'colour'", "color", AUGMENTS),
    ("ratio.hidden=[31]", "ratio.hidden.0 = 31", "", WIDTHS),
    ("ratio.hidden=mlp55", "ratio.hidden = 'mlp55'", "mlp5", HIDDEN),
    ("ratio.hidden=[]", "ratio.hidden = []", "", HIDDEN),
    # groups of settings, which may be switched off or have kinds
    ("student.fit.augment=7", "student.fit.augment = 7", "",
     "settings (shift, flip, views, randaugment, mixup, cutmix, mixed_views)"),
    ("synthesis.filter=maybe", "synthesis.filter = 'maybe'", "", FILTER),
    ("student.fit.augment.randaugment=many", "student.fit.augment.randaugment = 'many'", "",
     "true, false, a whole number of operations, or settings (operations, magnitude)"),
    ("synthesis.subsampling=maximun", "synthesis.subsampling = 'maximun'", "maximum", KINDS),
    ("synthesis.subsampling=3", "synthesis.subsampling = 3", "", KINDS),
    ("synthesis.subsampling={kind: quantile, q: 2}", "synthesis.subsampling.q = 2", "", "a number above 0, below 1"),
    ("search.labels=[distinct, evn]", "search.labels.1 = 'evn'", "even", "even, distinct, empirical"),
    ("teacher.jury=[3]", "teacher.jury.0 = 3", "", JUROR),
    ("teacher.jury=3", "teacher.jury = 3", "", f"a list of {JUROR}"),
    ("teacher.jury=[{}, {weights: [3]}]", "teacher.jury.1.weights = [3]", "", "text, none"),
    # numbers by name
    ("student.method_settings=3", "student.method_settings = 3", "",
     "groups of numbers by name as in {NAME: {NAME: 0.5}}"),
    ("student.method_settings={crd: 3}", "student.method_settings.crd = 3", "", "numbers by name as in {NAME: 0.5}"),
    ("student.method_settings={crd: {weight: heavy}}", "student.method_settings.crd.weight = 'heavy'", "", "a number"),
]  # fmt: skip
OTHERS = [
    ("seeds=[1, 2, 1]",
     "seeds = [1, 2, 1] is not allowed: the same seed is given twice; "
     "allowed: distinct whole numbers"),
    ("student.start={kind: weights}", "student.start.file is missing; needed: text"),
    ("generator.transition={start: .5, end: .2}",
     "generator.transition: start is 0.5 and end is 0.2; "
     "allowed: a start below the end"),
    ("synthesis.subsampling={kind: quantile, draws: 2}",
     "key 'synthesis.subsampling.draws' is not known; "
     "allowed here: burn_in, fall_back, kind, q"),
    ("teacher.jury=[{netwrok: cnn8}]",
     "key 'teacher.jury.0.netwrok' is not known (did you mean 'network'?); "
     "allowed here: source, http, network, weights, start, outputs"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "value", "meant", "allowed"), WRONG)
def test_a_value_that_is_not_allowed_is_one_sentence(override: str, value: str, meant: str, allowed: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe.from_tree({}, [override], where="mine.yaml")
    hint = f" (did you mean {meant!r}?)" if meant else ""
    assert str(caught.value) == f"mine.yaml: {value} is not allowed{hint}; allowed: {allowed}"


@pytest.mark.parametrize(("override", "sentence"), OTHERS)
def test_another_mistake_is_one_sentence(override: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe.from_tree({}, [override], where="mine.yaml")
    assert str(caught.value) == f"mine.yaml: {sentence}"


def test_a_long_value_is_cut() -> None:
    with pytest.raises(
        UserError, match=re.escape("seeds = 'xxxx") + r"x{51} \.\.\. is not allowed; allowed: a list of"
    ):
        recipe.from_tree({}, [f"seeds={'x' * 500}"])


def test_no_field_of_any_recipe_gives_the_words_of_pydantic() -> None:
    refused = 0
    for key in keys(recipe.Recipe().model_dump(mode="python")):
        tree: dict[str, object] = {}
        inner = tree
        for name in key[:-1]:
            inner = inner.setdefault(name, {})  # type: ignore[assignment]
        inner[key[-1]] = object()
        with pytest.raises(UserError) as caught:
            yaml_config.from_tree(recipe.Recipe, tree, where="x")
        sentence = str(caught.value)
        assert "Input should" not in sentence
        assert sentence.startswith(f"x: {'.'.join(key)} = ")
        assert "; allowed: " in sentence
        refused += 1
    assert refused > 100


def keys(tree: dict[str, object]) -> list[tuple[str, ...]]:
    """The paths of all settings of a recipe, without kinds."""
    inner = [
        [(name,), *((name, *path) for path in keys(value))] if isinstance(value, dict) else [(name,)]
        for name, value in tree.items()
        if name != "kind"
    ]
    return [path for paths in inner for path in paths]
