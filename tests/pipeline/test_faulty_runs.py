"""Numerical faults along the whole road: each is bounded in time, loses no finished stage, and is in the warnings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from cgankd.config import recipe
from cgankd.core.errors import TrainingError
from cgankd.core.files import read_json
from cgankd.core.store import Artifact, Work
from cgankd.data.imageset import ImageSet
from cgankd.gan.step import GanStep
from cgankd.pipeline import results, run
from cgankd.pipeline.warnings import warnings
from cgankd.report.render import render
from cgankd.synthesis.density_ratio import RatioNetwork
from cgankd.tasks import CircularRegression, Classification, Regression, Task
from cgankd.training import scoring

TINY = {
    "demonstration": True,
    "seeds": [0],
    "data": {"source": "digits", "train_size": 60, "val_size": 40},
    "teacher": {"network": "cnn8", "fit": {"steps": 20, "batch_size": 16}},
    "student": {"network": "cnn8", "fit": {"steps": 2, "batch_size": 16}, "transfer_steps": 3},
    "generator": {"channels": 8, "latent": 8, "label_dim": 8, "steps": 10, "batch_size": 16, "ema_start": 2},
    "ratio": {"hidden": [32], "steps": 4, "batch_size": 32, "fakes_per_image": 1},
    "synthesis": {"images": 40, "filter": {"calibration": 20}, "subsampling": {"burn_in": 20}, "max_draws": 3},
    "metrics": {"generator": False},
    "compare": {"methods": ["nokd_longer", "cgan"]},
    "runtime": {"threads": 1, "precision": "fp32"},
}  # fmt: skip
OWN = """
import torch

def same_image(targets, indices, seed):
    return torch.full((len(targets), 1, 16, 16), 40, dtype=torch.uint8)

def says_three(images):
    return 5.0 * torch.eye(10)[3].expand(len(images), -1)
"""


def go(out: Path, *overrides: str) -> dict[str, Any]:
    return run.run(recipe.from_tree(json.loads(json.dumps(TINY)), overrides), out)


def stages(out: Path) -> set[str]:
    return {path.name.rsplit("-", 1)[0] for path in (out / "artifacts").iterdir()}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module ``own_faults`` with a generator and a teacher that each give one thing."""
    (tmp_path / "own_faults.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def ratio(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Tensor], Tensor]], None]:
    """ratio(function): in eval mode the density ratio of targets [B] is ``function(targets)``."""
    forward = RatioNetwork.forward

    def become(function: Callable[[Tensor], Tensor]) -> None:
        def changed(self: RatioNetwork, features: Tensor, targets: Tensor) -> Tensor:
            return forward(self, features, targets) if self.training else function(targets).float()

        monkeypatch.setattr(RatioNetwork, "forward", changed)

    return become


# --- the generator ----------------------------------------------------------------------------------------------------


def test_a_gan_that_diverges_twice_stops_and_a_lower_rate_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"^generator: .*after a first fault; lower generator.generator_rate and"):
        go(out, "generator.generator_rate=1e30", "generator.discriminator_rate=1e30")
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "artifacts").glob("train_network-*/weights*")}
    assert len(kept) == 1  # the teacher
    assert go(out)["second_tries"] == []
    assert {path.name: path.stat().st_mtime_ns for path in (out / "artifacts").glob("train_network-*/weights*")} == kept


def test_a_second_try_is_in_results_and_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = GanStep.step

    def poisoned(self: GanStep, number: int) -> dict[str, Tensor]:
        values = step(self, number)
        if number == 7 and self.generator_optimizer.param_groups[0]["lr"] > 1e-4:
            values["generator_loss"] = torch.tensor(torch.nan)
        return values

    monkeypatch.setattr(GanStep, "step", poisoned)
    sentence = (
        "generator: generator_loss is nan at step 8, so its training went back to step 5 and continued with a tenth of "
        "generator.generator_rate and generator.discriminator_rate."
    )
    record = go(tmp_path / "run")
    assert record["second_tries"] == [sentence]
    assert sentence in record["warnings"]


def test_a_generator_that_draws_one_image_is_a_warning(own: None, tmp_path: Path) -> None:
    record = go(tmp_path / "run", "generator.source=own_faults:same_image")
    assert record["generator"]["variety"][0]["values"] == [0.0] * 10
    (stuck,) = [warning for warning in record["warnings"] if "again and again" in warning]
    assert stuck.startswith(
        "The generator draws the same few images again and again for all labels that were looked at (0, 1, 2, 3, 4 and "
        "5 more): they differ far less than real images of these labels."
    )


def test_only_labels_with_the_fault_are_named() -> None:
    variety = {"labels": ["a", "b", "c"], "values": [0.5, 0.01, 0.7], "alike": ["b"]}
    record = healthy(generator={"variety": [None, variety, variety]})
    assert "for 1 of 3 labels that were looked at (b):" in " ".join(warnings(record))
    assert warnings(healthy(generator={"variety": [variety | {"alike": []}]})) == []


# --- the teacher ------------------------------------------------------------------------------------------------------


def test_a_teacher_with_one_answer_is_a_warning(own: None, tmp_path: Path) -> None:
    record = go(tmp_path / "run", "teacher.source=own_faults:says_three", "ratio.features=nokd")
    (constant,) = [warning for warning in record["warnings"] if "than always answering 0" in warning][:1]
    assert constant.startswith(
        f"The teacher ({record['teacher']['test']:.4g} % on the test split) is hardly better than always answering 0 "
        "(10.02 %), because it answers 3 for nearly all test images: "
    )


@pytest.mark.parametrize(("teacher", "warned"), [(30.0, ""), (10.5, "hardly"), (10.0, "no"), (4.0, "no")])
def test_a_teacher_that_is_hardly_better_than_one_answer_is_a_warning(teacher: float, warned: str) -> None:
    record = healthy(teacher={"values": [teacher]}, rows=[], constant={"label": "7", "test": 10.0})
    expected = f" is {warned} better than always answering 7 (10 %):"
    assert [expected in sentence for sentence in warnings(record)] == [True] * bool(warned)


@pytest.mark.parametrize(
    ("task", "outputs", "answer"),
    [
        (Classification(("a", "b")), torch.tensor([[0.0, 1.0]]).repeat(200, 1), "b"),
        (Classification(("a", "b")), torch.eye(2).repeat(100, 1), None),
        (Regression(0.0, 50.0), torch.linspace(0.500, 0.509, 200)[:, None], "25.0"),
        (Regression(0.0, 50.0), torch.linspace(0.4, 0.6, 200)[:, None], None),
        (CircularRegression(0.0, 360.0), torch.tensor([[1.0, 0.01], [1.0, -0.01]]).repeat(100, 1), "1"),
    ],
)
def test_the_answer_for_nearly_all_images(task: Task, outputs: Tensor, answer: str | None, fabric: Fabric) -> None:
    labels = torch.arange(200) % 2 if not task.continuous else torch.linspace(0.0, 50.0, 200)
    images = ImageSet(torch.zeros(200, 1, 16, 16, dtype=torch.uint8), labels)
    given = iter([outputs])
    found = scoring.scored(Work(fabric), lambda batch: next(given), images, task)
    assert found.same_answer == answer


def test_outputs_that_are_not_finite_have_no_score(noise: Callable[..., ImageSet], fabric: Fabric) -> None:
    def network(images: Tensor) -> Tensor:
        return torch.full((len(images), 3), torch.nan)  # whose largest entry would be class 0

    with pytest.raises(TrainingError, match=r"^kd \(seed 1\): its outputs for the images of test are not finite"):
        scoring.scored(Work(fabric, title="kd (seed 1)"), network, noise(9), Classification(("a", "b", "c")), "test")


# --- the density ratio ------------------------------------------------------------------------------------------------


def test_a_ratio_of_nought_everywhere_subsamples_nothing(
    ratio: Callable[[Callable[[Tensor], Tensor]], None], tmp_path: Path
) -> None:
    ratio(torch.zeros_like)
    record = go(tmp_path / "run")
    assert record["synthesis"]["subsampling"] == "none"
    assert record["synthesis"]["kept"] == 40
    assert any("The ratio of every held-out fake is 0" in warning for warning in record["warnings"])


def test_a_ratio_of_nought_at_one_label_accepts_all_its_images(
    ratio: Callable[[Callable[[Tensor], Tensor]], None], tmp_path: Path
) -> None:
    ratio(lambda targets: (targets != 3).float())
    record = go(tmp_path / "run")
    assert record["synthesis"]["subsampling"] == "maximum"
    assert record["synthesis"]["not_subsampled"] == ["3"]
    assert record["synthesis"]["per_label"][3]["kept"] == 4
    assert (
        "For 3 all generated images were accepted, because the density ratio of every burn-in fake there is 0. More "
        "ratio.steps may help."
    ) in record["warnings"]
    with pytest.raises(TrainingError, match=r"^density ratio: the ratio of every burn-in fake of 3 is 0"):
        go(tmp_path / "run", "synthesis.subsampling={kind: maximum, burn_in: 20, fall_back: false}")


@pytest.mark.long
def test_one_huge_ratio_ends_and_is_explained(
    ratio: Callable[[Callable[[Tensor], Tensor]], None], tmp_path: Path
) -> None:
    largest = [1e12]

    def huge_once(targets: Tensor) -> Tensor:
        """In the burn-in, the first pass of 200 images, the first image of each label has a huge ratio."""
        ratios = torch.full(targets.shape, 1e-6)
        if len(targets) == 200 and largest:
            seen = (targets[:, None] == targets[None, :]).tril(-1).any(dim=1)
            ratios[~seen] = largest.pop()
        return ratios

    ratio(huge_once)
    words = ["synthesis.subsampling={kind: maximum, burn_in: 20, fall_back: false}", "synthesis.batch_size=200"]
    words.append("metrics.generator={images: 50}")  # which have to do without a kept image
    record = go(tmp_path / "run", *words)
    assert record["synthesis"]["kept"] == 0
    assert record["synthesis"]["generated"] == 3 * 40  # max_draws
    told = " ".join(record["warnings"])
    assert "40 of 40 images are missing: some labels reached synthesis.max_draws draws per image." in told
    assert "No generated image was kept at all: rows with generated images were trained on real images alone." in told
    assert (
        "No generated image was accepted for 0, 1, 2, 3, 4 and 5 more, because their density ratios are near 0" in told
    )
    assert "No generated image was accepted" in render(tmp_path / "run").read_text()


def test_a_ratio_that_is_not_finite_is_an_error(
    ratio: Callable[[Callable[[Tensor], Tensor]], None], tmp_path: Path
) -> None:
    ratio(lambda targets: torch.full(targets.shape, torch.inf))
    with pytest.raises(TrainingError, match=r"^density ratio: .* is nan at step 1; a lower ratio.learning_rate than"):
        go(tmp_path / "run")
    assert "train_generator" in stages(tmp_path / "run")


# --- trainings --------------------------------------------------------------------------------------------------------


def test_a_teacher_that_diverges_stops_and_a_lower_rate_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"^teacher \(seed 0\): .* (nan|not finite) at step \d+ of 20; a "):
        go(out, "teacher.fit.learning_rate=1e8", "compare.methods=[kd]")
    assert stages(out) == {"describe_data"}
    go(out, "compare.methods=[kd]")
    assert read_json(out / "results.json")["second_tries"] == []


def test_each_second_try_is_told_once() -> None:
    tried, other, good = (Artifact(Path(), "", 0.0, {"second_try": text}) for text in ("a", "b", None))
    assert results.second_tries([tried, good, other, tried, Artifact(Path(), "", 0.0, {})]) == ["a", "b"]


def healthy(**changes: Any) -> dict[str, Any]:
    """The part of results that warnings read, in which nothing is wrong."""
    return {
        "higher_is_better": True, "demonstration": False, "seeds": [0, 1, 2], "unit": "%",
        "teacher": {"values": [90.0]}, "rows": [], **changes,
    }  # fmt: skip
