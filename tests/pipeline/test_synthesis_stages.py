"""Each way of subsampling, filtering and relabelling, once along the whole road with networks of a few steps."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from cgankd.config import recipe
from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors, read_json
from cgankd.pipeline import run
from cgankd.synthesis import checks

TINY = {
    "demonstration": True,
    "seeds": [0],
    "data": {"source": "digits", "train_size": 60, "val_size": 10},
    "teacher": {"network": "cnn8", "fit": {"steps": 4, "batch_size": 16}},
    "student": {"network": "cnn8", "fit": {"steps": 2, "batch_size": 16}, "transfer_steps": 3},
    "generator": {"channels": 8, "latent": 8, "label_dim": 8, "steps": 4, "batch_size": 16, "ema_start": 2},
    "ratio": {"hidden": [32], "steps": 4, "batch_size": 32, "fakes_per_image": 1},
    "synthesis": {"images": 40, "filter": {"calibration": 20}, "subsampling": {"burn_in": 20}},
    "metrics": {"generator": False},
    "compare": {"methods": ["cgan"]},
    "runtime": {"threads": 1, "precision": "fp32"},
}  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all, so that the teacher and the generator are trained once."""
    return tmp_path_factory.mktemp("road")


def go(out: Path, *overrides: str) -> tuple[dict[str, Any], Counter[str]]:
    """The results, and how many artifacts of each stage are new."""

    def stages() -> Counter[str]:
        found = out / "artifacts"
        return Counter(p.name.rsplit("-", 1)[0] for p in found.iterdir()) if found.is_dir() else Counter()

    before = stages()
    tree = {name: dict(value) if isinstance(value, dict) else value for name, value in TINY.items()}
    found = run.run(recipe.from_tree(tree, overrides), out)
    return found, stages() - before


@pytest.mark.xdist_group("synthesis road")
@pytest.mark.parametrize("features", ["teacher", "nokd", "classifier", "autoencoder"])
def test_each_feature_of_the_ratio(features: str, out: Path) -> None:
    words = [f"ratio.features={features}"]
    if features in ("classifier", "autoencoder"):
        words = [f"ratio.features={{kind: {features}, network: cnn8, steps: 3}}"]
    go(out, "compare.methods=[nokd,kd]")  # the teacher and the NOKD student, which are not of this test
    found, made = go(out, *words)
    stage = {"teacher": None, "nokd": None, "classifier": "train_network", "autoencoder": "train_encoder"}[features]
    assert made["train_density_ratio"] == made["burn_in"] == made["calibrate_filter"] == made["make_images"] == 1
    assert [name for name in ("train_network", "train_encoder") if made[name]] == ([stage] if stage else [])
    assert made["train_student"] == 1  # the row's
    assert found["ratio"]["left_out"] == 0.0
    assert found["synthesis"]["kept"] == 40
    assert go(out, *words)[1] == Counter()  # all of it is found again


@pytest.mark.xdist_group("synthesis road")
def test_the_classifier_of_the_ratio_is_not_the_teacher(out: Path) -> None:
    # The same network, images and training as the teacher's, as in the recipes of CIFAR-10.
    network, steps = TINY["teacher"]["network"], 6
    words = ["teacher.trained_on=train", f"teacher.fit.steps={steps}", f"student.fit.steps={steps}"]
    go(out, *words, f"ratio.features={{kind: classifier, network: {network}, steps: {steps}}}")
    weights = [
        load_tensors(path / "weights.safetensors")[0]["fc.weight"]
        for path in (out / "artifacts").glob("train_network-*")
        if read_json(path / "artifact.json")["arguments"]["fit"]["steps"] == steps
    ]
    assert len(weights) == 2
    assert not torch.equal(*weights)


@pytest.mark.xdist_group("synthesis road")
@pytest.mark.parametrize("policy", ["quantile", "budget", "none"])
def test_each_policy(policy: str, out: Path) -> None:
    go(out)
    found, made = go(out, f"synthesis.subsampling{'' if policy == 'none' else '.kind'}={policy}")
    assert made["make_images"] == 1
    assert found["synthesis"]["subsampling"] == policy
    assert found["synthesis"]["fell_back"] == []
    assert found["synthesis"]["draws_per_image"] >= 1
    assert ("ratio" in found) == (policy != "none")
    assert made["train_density_ratio"] == made["burn_in"] == 0  # M is another quantile of the same ratios
    assert made["calibrate_filter"] == 1  # of other images


@pytest.mark.xdist_group("synthesis road")
def test_a_jury_has_a_juror_of_its_own_seed(out: Path) -> None:
    go(out)
    found, made = go(out, "teacher.jury=[{network: cnn8}]")
    assert made["train_network"] == made["calibrate_filter"] == made["make_images"] == 1
    # the jury filters, and nothing else
    assert made["train_density_ratio"] == made["train_generator"] == made["burn_in"] == 0
    assert found["synthesis"]["teachers"] == 2
    for network in ("cnn9", "cnn16, weights: nowhere.safetensors"):
        with pytest.raises(UserError, match=r"cnn9|nowhere"):
            go(out, f"teacher.jury=[{{network: {network}}}]")


@pytest.mark.xdist_group("synthesis road")
def test_soft_labels_share_their_images_with_the_ablation(out: Path) -> None:
    go(out)
    found, made = go(out, "synthesis.replace=soft", "compare.methods=[cgan,cgan_kd]", "compare.ablation=true")
    assert made["make_images"] == 3  # raw, subsampled, and filtered for three rows of the ablation and both methods
    # which all have the ratio, the burn-in and the filter's quantile of a run without an ablation
    assert made["burn_in"] == made["calibrate_filter"] == made["train_density_ratio"] == 0
    assert found["synthesis"]["replace"] == "soft"
    paths = found["artifacts"]["synthesis"]
    assert paths["cgan"] == paths["cgan_filter"] == paths["cgan_replace"] == paths["cgan_kd"]
    students = found["artifacts"]["students"]
    assert len({students[name][0] for name in ("cgan", "cgan_filter", "cgan_replace")}) == 3


@pytest.mark.xdist_group("synthesis road")
def test_soft_labels_for_a_scalar_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"synthesis.replace = soft needs classes"):
        go(tmp_path, "data.source=rotated-fashion", "data.turns=1", "synthesis.replace=soft")
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.xdist_group("synthesis road")
def test_bins_of_the_filter_for_classes_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"synthesis.filter.by = 5 needs scalar labels"):
        go(tmp_path, "synthesis.filter.by=5")
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.xdist_group("synthesis road")
def test_a_single_validation_image_checks_the_ratio_and_chooses_nothing(tmp_path: Path) -> None:
    found, made = go(tmp_path, "data.val_size=1")
    assert made["train_density_ratio"] == 1
    assert found["ratio"]["mean_on_fakes"] > 0.0


@pytest.mark.xdist_group("synthesis road")
def test_a_ratio_that_fails_its_checks_is_not_used(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "AUC", -1.0)
    rows = [
        "compare.methods=[cgan]",
        "compare.ablation=true",
        "ratio.steps=5",
    ]  # another ratio than the tests' above
    found, made = go(out, *rows)
    assert made["train_density_ratio"] == 1
    paths = found["artifacts"]["synthesis"]
    assert paths["cgan_raw"] == paths["cgan_subsample"]
    assert paths["cgan_filter"] == paths["cgan"] != paths["cgan_raw"]
    assert found["synthesis"]["subsampling"] == "none"
    assert found["synthesis"]["acceptance"] == 1.0
    (reason,) = found["synthesis"]["fell_back"]
    assert "AUC" in reason
    assert any("not subsampled" in warning and reason in warning for warning in found["warnings"])
    kept, made = go(out, *rows, "synthesis.subsampling.fall_back=false")
    assert made["train_density_ratio"] == 0
    assert kept["synthesis"]["subsampling"] == "maximum"
    assert kept["synthesis"]["fell_back"] == []
    assert any("nevertheless" in warning and reason in warning for warning in kept["warnings"])


@pytest.mark.long
@pytest.mark.xdist_group("synthesis road")
def test_scalars_with_a_vicinity_and_thresholds_per_bin(out: Path) -> None:
    found, made = go(
        out, "data.source=rotated-fashion", "data.turns=1", "data.val_size=30",
        "generator.scalar.label_input.steps=2", "ratio.vicinity_gaps=3", "synthesis.filter.by=4",
        "synthesis.labels.count=8", "ratio.features={kind: autoencoder, network: cnn8, steps: 3}",
    )  # fmt: skip
    assert made["train_encoder"] == 1
    assert 0 <= found["ratio"]["left_out"] < 1
    assert len(found["synthesis"]["thresholds"]) == 4
    assert found["synthesis"]["filter_by"] == "bin"
