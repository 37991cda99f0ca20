"""The road: which rows there are, which artifacts a seed changes, and what a reader is warned of."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from cgankd.config import recipe
from cgankd.config.recipe import Recipe
from cgankd.config.settings import (
    AugmentSettings,
    CompareSettings,
    FilterSettings,
    MaximumRatio,
    NoSubsampling,
    QuantileRatio,
    SynthesisSettings,
)
from cgankd.config.settings.compare import CANDIDATES, UNLABELLED_CANDIDATES
from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors, read_json
from cgankd.core.store import Store
from cgankd.data import sources
from cgankd.data.imageset import ImageSet, Splits, Together, TrainingImages
from cgankd.nets.build import Architecture, StoredNetwork
from cgankd.nets.registry import VERSIONS
from cgankd.pipeline import comparisons, preflight, run
from cgankd.pipeline.comparisons import ROWS, Ablation, Row, needs_pseudo_labels
from cgankd.pipeline.inputs import PseudoLabelled
from cgankd.pipeline.notes import row_notes
from cgankd.pipeline.run import Run
from cgankd.pipeline.stages import networks
from cgankd.pipeline.warnings import warnings
from cgankd.report.headline import headline
from cgankd.report.shipped import labelled
from cgankd.tasks import Classification, Regression, Task

CLASSES, SCALAR = Classification(("a", "b", "c")), Regression(0.0, 1.0)
TINY = {
    "demonstration": True,
    "seeds": [0, 1],
    "data": {"source": "digits", "train_size": 60, "val_size": 10},
    "teacher": {"network": "cnn8", "fit": {"steps": 6, "batch_size": 16}},
    "student": {"network": "cnn8", "fit": {"steps": 4, "batch_size": 16}, "transfer_steps": 5, "real_share": 0.5},
    "generator": {"channels": 8, "latent": 8, "label_dim": 8, "steps": 6, "batch_size": 16, "ema_start": 2},
    "ratio": {"hidden": [32], "steps": 6, "batch_size": 32, "fakes_per_image": 1},
    "synthesis": {"images": 40, "filter": {"calibration": 20}, "subsampling": {"burn_in": 20}},
    "metrics": {"generator": {"images": 50}},
    "compare": {"methods": ["nokd", "cgan_kd"]},
    "runtime": {"threads": 1, "precision": "fp32"},
}  # fmt: skip


def tiny(*overrides: str) -> Recipe:
    return recipe.from_tree(json.loads(json.dumps(TINY)), overrides)


def stages(out: Path) -> Counter[str]:
    return Counter(path.name.rsplit("-", 1)[0] for path in (out / "artifacts").iterdir())


# --- rows ---------------------------------------------------------------------------------------------------------


def test_the_table_s_own_rows_stand_in_its_order() -> None:
    compared = [name for name in ROWS if not ROWS[name].ablation]
    assert Recipe(compare=CompareSettings(methods=tuple(compared), ablation=True)).rows == tuple(ROWS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pkt", Row(method="pkt")),
        ("cgan+kd", ROWS["cgan_kd"]),
        ("cgan+kd+sp@real", Row("kd+sp@real", fakes=True)),
        ("pseudo+kd+pkt", Row("kd+pkt", pseudo=True)),
        ("pseudo~mixup", Row(pseudo=True, views=("mixup",))),
        ("cgan+pseudo", Row(fakes=True, pseudo=True)),
    ],
)
def test_any_method_is_a_row_with_and_without_fakes(name: str, expected: Row) -> None:
    assert comparisons.row(name) == expected


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("pseudo+rkd@fake", r"allowed: pseudo\+rkd$"), ("cgan+pseudo+kd+rkd@real", r"allowed: cgan\+pseudo\+kd\+rkd$")],
)
def test_a_part_of_a_batch_with_unlabelled_images_is_refused(name: str, allowed: str) -> None:
    with pytest.raises(UserError, match=allowed):
        preflight.check_names(tiny(f"compare.methods=[{name}]"))


def test_methods_are_trained_as_rows_and_unknown_ones_refused(tmp_path: Path) -> None:
    extra = ("compare.methods=[nokd_longer, pkt, cgan+kd+sp@fake]", "seeds=[0]", "metrics.generator=false")
    found = run.run(tiny(*extra), tmp_path / "run")
    assert [made["method"] for made in found["rows"]] == ["nokd_longer", "pkt", "cgan+kd+sp@fake"]
    assert all(made["difference"] for made in found["rows"][1:])
    for name in ("cgan+", "cgan_pkt", "pkt+no", "best"):
        with pytest.raises(UserError, match=f"compare.methods holds '{re.escape(name)}', which is not known"):
            run.run(tiny(f"compare.methods=[nokd, {name}]"), tmp_path / "none")
    said = r"'kd\+sp@fake', a row without generated images.*; allowed: cgan\+kd\+sp@fake, and kd$"
    with pytest.raises(UserError, match=said):
        run.run(tiny("compare.methods=[nokd, kd+sp@fake]"), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_rows_are_what_they_are_called() -> None:
    assert [name for name, row in ROWS.items() if not row.longer] == ["nokd"]
    assert comparisons.CONTROL in ROWS
    assert ROWS[comparisons.CONTROL] == Row()  # the control: supervised, real images, as many steps
    assert {name for name, row in ROWS.items() if row.method == "kd"} == {"kd", "cgan_kd"}
    assert [name for name, row in ROWS.items() if row.strong] == ["augment"]
    assert [name for name, row in ROWS.items() if row.pseudo] == ["pseudo"]
    assert {name for name, row in ROWS.items() if row.fakes} == {name for name in ROWS if name.startswith("cgan")}


ABLATION = ("cgan_raw", "cgan_subsample", "cgan_filter", "cgan_replace")


@pytest.mark.parametrize(
    "settings",
    [
        SynthesisSettings(images=7, subsampling=QuantileRatio(q=0.9), filter=FilterSettings(rho=0.6), replace="soft"),
        SynthesisSettings(max_draws=3),
        SynthesisSettings(subsampling=NoSubsampling()),
    ],
)
def test_the_ablation_adds_one_thing_at_a_time(settings: SynthesisSettings) -> None:
    own, rule = settings.subsampling, settings.filter
    steps = [ROWS[name].ablation for name in ABLATION]
    applied = [step.applied(settings) for step in steps if step is not None]
    assert [(made.subsampling, made.filter, made.replace) for made in applied] == [
        (NoSubsampling(), None, "none"), (own, None, "none"), (own, rule, "none"), (own, rule, "hard"),
    ]  # fmt: skip
    for made in applied:  # and changes nothing else
        assert made.model_copy(update={"subsampling": own, "filter": rule, "replace": settings.replace}) == settings
    assert {name for name, row in ROWS.items() if row.ablation} == set(ABLATION)  # cgan and cgan_kd: as the recipe says


def test_the_ablation_filters_where_the_recipe_does_not() -> None:
    made = Ablation(subsample=True, filter=True, replace="none").applied(SynthesisSettings(filter=None))
    assert (made.subsampling, made.filter) == (MaximumRatio(), FilterSettings())


# --- what a seed changes ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def student_varies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("student varies")
    return out, run.run(tiny(), out)


@pytest.mark.xdist_group("pipeline")
def test_a_seed_changes_the_student_only(student_varies: tuple[Path, dict[str, Any]]) -> None:
    out, found = student_varies
    assert stages(out) == {
        "describe_data": 1, "train_network": 1, "score_teacher": 1, "train_generator": 1, "train_density_ratio": 1,
        "burn_in": 1,
        "calibrate_filter": 1, "make_images": 1, "train_student": 4, "score_student": 4, "measure_generator": 1,
        "find_worst_answers": 1,
    }  # fmt: skip
    assert found["vary"] == "student"
    assert len(found["teacher"]["values"]) == 1
    for row in found["rows"]:
        assert len(row["values"]) == 2


@pytest.mark.xdist_group("pipeline")
def test_or_everything(student_varies: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    found = run.run(tiny("vary=everything"), tmp_path)
    assert stages(tmp_path) == {
        "describe_data": 1, "train_network": 2, "score_teacher": 2, "train_generator": 2, "train_density_ratio": 2,
        "burn_in": 2,
        "calibrate_filter": 2, "make_images": 2, "train_student": 4, "score_student": 4, "find_worst_answers": 1,
        "measure_generator": 1,  # of the first seed's generator
    }  # fmt: skip
    assert len(found["teacher"]["values"]) == 2
    # The first seed's teacher is the same one; the second seed's cGAN-KD student comes from another.
    whole, other = student_varies[1], found
    assert other["teacher"]["values"][0] == whole["teacher"]["values"][0]
    assert other["artifacts"]["students"]["nokd"] == whole["artifacts"]["students"]["nokd"]
    assert other["artifacts"]["students"]["cgan_kd"][0] == whole["artifacts"]["students"]["cgan_kd"][0]
    assert other["artifacts"]["students"]["cgan_kd"][1] != whole["artifacts"]["students"]["cgan_kd"][1]


def test_without_fakes_there_is_no_generator(tmp_path: Path) -> None:
    found = run.run(tiny("compare.methods=[nokd,kd]", "seeds=[0]"), tmp_path)
    assert stages(tmp_path) == {
        "describe_data": 1, "train_network": 1, "score_teacher": 1, "train_student": 2, "score_student": 2,
        "find_worst_answers": 1,
    }  # fmt: skip
    assert "synthesis" not in found
    assert "generator" not in found


def test_without_subsampling_there_is_no_density_ratio(tmp_path: Path) -> None:
    words = ["compare.methods=[cgan]", "synthesis.subsampling=none", "seeds=[0]", "metrics.generator=false"]
    found = run.run(tiny(*words), tmp_path)
    assert stages(tmp_path) == {
        "describe_data": 1, "train_network": 1, "score_teacher": 1, "train_generator": 1, "calibrate_filter": 1,
        "make_images": 1,
        "train_student": 1, "score_student": 1, "find_worst_answers": 1,
    }  # fmt: skip
    assert "metrics" not in found
    assert "ratio" not in found
    assert found["synthesis"]["acceptance"] == 1.0


def test_metrics_ask_for_the_networks_that_they_name(tmp_path: Path) -> None:
    words = ["compare.methods=[cgan]", "synthesis.subsampling=none", "seeds=[0]"]
    found = run.run(tiny(*words, "metrics.generator.features=[teacher]"), tmp_path)
    assert stages(tmp_path)["train_student"] == 1
    assert not any("nokd" in score["name"] for score in found["metrics"]["scores"])
    found = run.run(tiny(*words), tmp_path)
    assert stages(tmp_path)["train_student"] == 2
    assert any("nokd" in score["name"] for score in found["metrics"]["scores"])


def test_features_may_be_the_students(tmp_path: Path) -> None:
    words = ["compare.methods=[cgan]", "ratio.features=nokd", "student.start=nokd", "seeds=[0]"]
    found = run.run(tiny(*words), tmp_path)
    assert stages(tmp_path) == {
        "describe_data": 1, "train_network": 1, "score_teacher": 1, "train_generator": 1, "train_density_ratio": 1,
        "burn_in": 1,
        "calibrate_filter": 1, "make_images": 1, "train_student": 2,  # with NOKD
        "score_student": 1,
        "find_worst_answers": 1,
        "measure_generator": 1,
    }  # fmt: skip
    assert [row["method"] for row in found["rows"]] == ["cgan"]


# --- the sceptic's rows -------------------------------------------------------------------------------------------

SCEPTIC = ("compare.methods=[nokd_longer,augment,pseudo]", "seeds=[0]")


def row_of(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in found["rows"] if row["method"] == name)


def student_weights(out: Path, found: dict[str, Any], name: str) -> dict[str, Tensor]:
    return load_tensors(out / found["artifacts"]["students"][name][0] / "weights.safetensors")[0]


@pytest.fixture(scope="module")
def sceptic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("sceptic")
    return out, run.run(tiny(*SCEPTIC), out)


@pytest.mark.xdist_group("sceptic")
def test_the_sceptics_rows_need_no_generator(sceptic: tuple[Path, dict[str, Any]]) -> None:
    out, found = sceptic
    assert stages(out) == {
        "describe_data": 1,
        "train_network": 1,
        "score_teacher": 1,
        "pseudo_label": 1,
        "train_student": 3,
        "score_student": 3,
        "find_worst_answers": 1,
    }
    pool = sources.load(tiny().data).pool
    images = {row["method"]: (row["real_images"], row["pseudo_labelled"], row["fake_images"]) for row in found["rows"]}
    assert images == {
        "nokd_longer": (60, 0, 0), "augment": (60, 0, 0), "pseudo": (len(pool), len(pool) - 60, 0),
    }  # fmt: skip
    assert {row["steps"] for row in found["rows"]} == {5}
    assert all(row["difference"] for row in found["rows"] if row["method"] != comparisons.CONTROL)
    learnt = [student_weights(out, found, row["method"])["fc.weight"] for row in found["rows"]]
    assert len(torch.stack(learnt).unique(dim=0)) == 3


@pytest.mark.xdist_group("sceptic")
def test_true_labels_of_the_pool_change_nothing(
    sceptic: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = sources.load(tiny().data)
    owned = len(splits.train)
    labels = splits.pool.labels.clone()
    labels[owned:] = labels[owned:].flip(0)
    assert float((labels != splits.pool.labels).float().mean()) > 0.5
    permuted = dataclasses.replace(splits, pool=dataclasses.replace(splits.pool, labels=labels))
    monkeypatch.setattr(sources, "load", lambda *_: permuted)
    found = run.run(tiny(*SCEPTIC), tmp_path)
    assert found["artifacts"]["data"] != sceptic[1]["artifacts"]["data"]  # other labels, made anew in another folder
    assert found["artifacts"]["pseudo"] == sceptic[1]["artifacts"]["pseudo"]  # which no key of the row sees
    assert found["artifacts"]["students"]["pseudo"] == sceptic[1]["artifacts"]["students"]["pseudo"]
    assert row_of(found, "pseudo")["values"] == row_of(sceptic[1], "pseudo")["values"]
    before, after = (student_weights(*run, "pseudo") for run in (sceptic, (tmp_path, found)))
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("scalar", [False, True])
def test_pseudo_labels_are_the_teachers_predictions(
    noise: Callable[..., ImageSet], fabric: Fabric, tmp_path: Path, scalar: bool
) -> None:
    made = road(noise, fabric, tmp_path, scalar)
    artifact = made.pseudo(0)
    images = made.splits.pool.images[12:]
    with torch.no_grad():
        outputs = StoredNetwork(made.teacher(0)).open(fabric)(images / 255.0)
    found = artifact.tensors("labels")["labels"]
    if scalar:  # in the label's own unit, clipped to its range
        assert torch.allclose(found, 40.0 * outputs[:, 0].clamp(0, 1) - 10.0, atol=1e-3)
    else:
        assert torch.equal(found, outputs.argmax(dim=1))
    fakes = PseudoLabelled(made.splits.unlabelled, artifact).open()
    assert torch.equal(fakes.images, images)
    assert torch.equal(fakes.labels, found)


def test_rows_with_unlabelled_images_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: Callable[..., ImageSet]
) -> None:
    """Each row's student trains on the images that its name says, and only their number counts the unlabelled ones."""
    np.savez(tmp_path / "u.npz", images=noise(50).images[:, 0].numpy())
    seen: dict[str, list[int]] = {}
    train = networks.train

    def watched(work: Any, network: Any, objective: Any, images: TrainingImages, *more: Any, **named: Any) -> Any:
        parts = images.fake.parts if isinstance(images.fake, Together) else (images.fake,) * (images.fake is not None)
        seen[work.title] = [len(part.open()) for part in (images.real, *parts)]
        return train(work, network, objective, images, *more, **named)

    monkeypatch.setattr(networks, "train", watched)
    methods = "compare.methods=[pseudo,pseudo+fm,cgan+pseudo+fm~mixup,cgan+fm]"
    settings = (f"data.unlabelled={tmp_path / 'u.npz'}", "student.real_share=0.5", "student.refit=true", "seeds=[0]")
    found = run.run(tiny(methods, "metrics.generator=false", *settings), tmp_path / "out")
    rows = {row["method"]: (row["real_images"], row["pseudo_labelled"], row["fake_images"]) for row in found["rows"]}
    fakes = rows["cgan+fm"][2]
    assert fakes > 0
    assert rows["pseudo"] == rows["pseudo+fm"] == (110, 50, 0)
    assert rows["cgan+pseudo+fm~mixup"] == (110, 50, fakes)
    trained = {title.split(" (")[0]: images for title, images in seen.items() if "all labels" not in title}
    assert trained["pseudo"] == trained["pseudo+fm"] == [60, 50]
    assert trained["cgan+pseudo+fm~mixup"] == [60, 50, fakes]
    best = found["best"]["row"]
    assert seen[f"{best} (seed 0), all labels"] == [70, *trained[best][1:]]
    assert found["unlabelled_from"] == "elsewhere"
    assert "teacher-labelled real images + fm" in str(headline(found))
    assert labelled(found["refit"]) == 70


def test_the_teacher_labels_no_image_for_rows_that_read_no_label(tmp_path: Path) -> None:
    methods = "compare.methods=[pseudo+fm,cgan+pseudo+fm~mixup]"
    found = run.run(tiny(methods, "metrics.generator=false", "seeds=[0]"), tmp_path)
    assert "pseudo_label" not in stages(tmp_path)
    assert all(entry["pseudo_labelled"] > 0 for entry in found["rows"])


@pytest.mark.parametrize(
    ("name", "needed"),
    [("pseudo", True), ("pseudo+kd", True), ("cgan+pseudo+fm+kd", False), ("pseudo+fm+dkd", True), ("fm", False)],
)
def test_which_rows_need_labels_of_unlabelled_images(name: str, needed: bool) -> None:
    task, student = Classification(("a", "b", "c")), tiny().student
    assert needs_pseudo_labels(name, student, task) is needed
    weighted = student.model_copy(update={"method_settings": {"fm": {"label_weight": 0.5}}})
    assert needs_pseudo_labels("pseudo+fm", weighted, task)


def test_the_autopilot_tries_unlabelled_images_where_there_are_some() -> None:
    auto = tiny("compare.methods=auto")
    assert auto.rows == CANDIDATES
    assert tiny("compare.methods=auto", "data.unlabelled=somewhere").rows == (*CANDIDATES, *UNLABELLED_CANDIDATES)
    assert tiny("compare.methods=[kd]", "data.unlabelled=somewhere").rows == ("kd",)


def road(noise: Callable[..., ImageSet], fabric: Fabric, out: Path, scalar: bool) -> Run:
    def images(count: int, seed: int) -> ImageSet:
        made = noise(count, scalar=scalar, seed=seed)
        return dataclasses.replace(made, labels=40 * made.labels - 10) if scalar else made

    pool = images(30, 0)
    task = Regression(-10.0, 30.0, "degrees") if scalar else Classification(("a", "b", "c"))
    rows = torch.arange(12)
    splits = Splits("noise", task, pool.take(rows), pool, images(10, 1), images(10, 2), labelled=rows)
    chosen = tiny("compare.methods=[augment,pseudo]")
    return Run(chosen, splits, Store(out, fabric))


def test_notes_say_what_a_scalar_row_leaves_out(noise: Callable[..., ImageSet], fabric: Fabric, tmp_path: Path) -> None:
    assert row_notes(road(noise, fabric, tmp_path / "classes", False)) == []
    notes = row_notes(road(noise, fabric, tmp_path / "scalar", True))
    assert "mixes no images" in notes[0]
    assert "pixel values only" in notes[1]


def test_without_unlabelled_images_row_pseudo_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds pseudo, but digits has no unlabelled images.*data\.train_size under"):
        run.run(tiny(*SCEPTIC, "data.train_size=null"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_mixed_images_whose_labels_are_needed_are_refused_before_training(tmp_path: Path) -> None:
    chosen = tiny("compare.methods=[nokd,kd]", "student.fit.augment.cutmix=0.5")
    splits = sources.load(chosen.data)
    scalars = dataclasses.replace(splits, task=Regression(0.0, 9.0), **{
        name: ImageSet(part.images, part.labels.float())
        for name in ("train", "pool", "val", "test") for part in [getattr(splits, name)]
    })  # fmt: skip
    preflight.check(chosen, splits)
    with pytest.raises(UserError, match=r"augment\.cutmix=0\.5, but a mix of two images has no label in regression"):
        preflight.check(chosen, scalars)


def test_rows_of_function_matching_mix_images_and_need_no_label(tmp_path: Path) -> None:
    found = run.run(
        tiny("compare.methods=[nokd_longer, fm, cgan+fm]", "seeds=[0]", "metrics.generator=false"), tmp_path
    )
    assert [row["method"] for row in found["rows"]] == ["nokd_longer", "fm", "cgan+fm"]
    assert comparisons.partner("cgan+fm") == "fm"
    for path in (tmp_path / "artifacts").glob("train_student-*"):
        arguments = read_json(path / "artifact.json")["arguments"]
        augment = arguments["fit"]["augment"]
        matching = arguments["teachers"] is not None
        assert (augment["mixup"], augment["views"]) == ((1.0, 0) if matching else (0.0, 64))


def test_the_default_rows_hold_the_strong_rivals() -> None:
    assert Recipe().rows == ("nokd_longer", "augment", "kd", "fm", "cgan", "cgan_kd", "cgan+fm")


@pytest.mark.parametrize(
    ("row", "task", "expected"),
    [
        ("nokd_longer", CLASSES, {}),
        ("augment", CLASSES, {"randaugment": {"operations": 2, "magnitude": 0.5}, "cutmix": 1.0}),
        ("augment", SCALAR, {"randaugment": {"operations": 2, "magnitude": 0.5}}),
        ("fm", CLASSES, {"randaugment": {"operations": 2, "magnitude": 0.5}, "mixup": 1.0, "views": 0}),
        ("cgan+fm", SCALAR, {"mixup": 1.0, "views": 0}),
        ("fm~cutmix", SCALAR, {"cutmix": 1.0, "views": 0}),
        (
            "kd~randaugment~mixup",
            SCALAR,
            {"randaugment": {"operations": 2, "magnitude": 0.5}, "mixup": 1.0, "views": 0},
        ),
        ("cgan+fm~plain", CLASSES, {}),
    ],
)
def test_the_views_of_a_row(row: str, task: Task, expected: dict[str, Any]) -> None:
    views = comparisons.views(comparisons.row(row), tiny().student, task)
    assert views == AugmentSettings.model_validate(expected)


@pytest.mark.parametrize(
    ("plain", "strong", "expected"), [(None, None, None), (True, None, True), (True, False, False)]
)
def test_what_is_asked_of_mirrors_holds_for_stronger_views(
    plain: bool | None, strong: bool | None, expected: bool | None
) -> None:
    words = [f"student.fit.augment.flip={plain}".lower(), f"student.strong_augment.flip={strong}".lower()]
    student = tiny(*(word.replace("none", "null") for word in words)).student
    assert comparisons.views(comparisons.row("augment"), student, CLASSES).flip == expected


# --- warnings -----------------------------------------------------------------------------------------------------


def said(**changes: Any) -> str:
    found = {
        "higher_is_better": True, "demonstration": False, "seeds": [0, 1, 2], "unit": "%",
        "teacher": {"values": [90.0, 92.0]},
        "rows": [{"method": "nokd", "mean": 99.0}, {"method": "nokd_longer", "mean": 80.0}],
        "synthesis": {"kept": 100, "requested": 100}, **changes,
    }  # fmt: skip
    return " ".join(warnings(found))


def test_nothing_is_said_where_nothing_is_amiss() -> None:
    assert said() == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"demonstration": True}, ["demonstration", "too short to prove anything"]),
        ({"seeds": [0, 1]}, ["Fewer than three seeds"]),
        ({"teacher": {"values": [79.0, 81.0]}}, ["teacher (80 %)", "nothing to transfer"]),
        ({"higher_is_better": False, "unit": "degrees"}, ["teacher (91 degrees)", "(80 degrees)"]),
        ({"synthesis": {"kept": 90, "requested": 100}}, ["10 of 100 images are missing", "synthesis.max_draws"]),
    ],
)
def test_what_a_reader_is_warned_of(changes: dict[str, Any], words: list[str]) -> None:
    for word in words:
        assert word in said(**changes)


@pytest.mark.parametrize(("teachers", "words"), [(60.0, "nothing to transfer except its robustness to attacks."),
                                                  (40.0, "nothing to transfer.")])  # fmt: skip
def test_a_worse_teacher_may_still_stand_attacks(teachers: float, words: str) -> None:
    control = {"method": "nokd_longer", "mean": 80.0, "robustness": {"pgd": {"mean": 50.0}}}
    teacher = {"values": [79.0], "robustness": {"pgd": {"mean": teachers}}}
    assert words in said(rows=[control], teacher=teacher, robustness={"attacks": ["pgd"]})


def test_a_better_teacher_of_an_error_is_a_lower_one() -> None:
    assert said(higher_is_better=False, teacher={"values": [70.0]}) == ""


def test_no_control_no_word_on_the_teacher() -> None:
    assert said(rows=[], teacher={"values": [1.0]}) == ""


@pytest.mark.xdist_group("pipeline")
def test_a_runs_warnings_are_in_its_results(student_varies: tuple[Path, dict[str, Any]]) -> None:
    out, found = student_varies
    assert "demonstration" in found["warnings"][0]
    assert json.loads((out / "results.json").read_text()) == found


def test_another_timm_makes_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for version in ("1.0.30", "1.0.31"):
        monkeypatch.setattr(importlib.metadata, "version", {"timm": version}.__getitem__)
        found.append(Architecture("timm/resnet18").content_key)
    assert found[0] != found[1]


def test_another_version_of_a_network_makes_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("shufflenetv2", "shufflenetv2+vam", "resnet18")
    assert VERSIONS["shufflenetv2"] == 2
    assert "resnet18" not in VERSIONS  # the first
    before = [Architecture(name).content_key for name in names]
    assert len(set(before)) == 3
    monkeypatch.setitem(VERSIONS, "shufflenetv2", VERSIONS["shufflenetv2"] + 1)
    after = [Architecture(name).content_key for name in names]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, False, True]


def test_a_row_that_is_nearly_one_says_which() -> None:
    with pytest.raises(UserError, match=r"'kd\+pkd', which is not known \(did you mean '(pkt|kd)'\?\)"):
        preflight.check_names(tiny("compare.methods=[kd+pkd]"))
