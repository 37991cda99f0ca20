"""The filter's thresholds against numpy, and replaced labels."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from cgankd.config.settings import AugmentSettings, FilterSettings, FitSettings, StudentSettings, SynthesisSettings
from cgankd.core.errors import UserError
from cgankd.core.store import Work
from cgankd.data.batches import Batch, Batches
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.distill import DistillBatch, Method, Objective, create
from cgankd.synthesis import adjust
from cgankd.tasks import Classification, Regression
from cgankd.training.loop import fit

CLASSES, DEGREES = Classification(("a", "b", "c")), Regression(0.0, 90.0)


def errors(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) ** 2


@pytest.mark.parametrize("rho", [0.1, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("groups", [1, 4])
def test_thresholds_are_quantiles_of_each_group(rho: float, groups: int) -> None:
    found, group = errors(1001), torch.arange(1001) % groups
    found = found * (1 + group)  # each class on its own scale
    alpha = adjust.thresholds(found, group, groups, rho)
    expected = [np.quantile(found[group == number].double().numpy(), rho) for number in range(groups)]
    assert alpha.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rho", [0.7, 0.9])
def test_the_share_that_is_kept_is_rho(rho: float) -> None:
    found, group = errors(10_000), torch.zeros(10_000, dtype=torch.int64)
    kept = adjust.keep(found, adjust.thresholds(found, group, 1, rho)[group])
    assert abs(int(kept.sum()) - rho * 10_000) <= 1


def test_strictly_below() -> None:
    found = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    group = torch.zeros(5, dtype=torch.int64)
    alpha = adjust.thresholds(found, group, 1, 0.5)  # the median is one of the errors
    assert alpha.tolist() == [0.5]
    assert adjust.keep(found, alpha[group]).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("value", [0.0, 0.3, 7.5])
def test_where_all_errors_are_equal_all_are_kept(value: float) -> None:
    found = torch.cat([torch.full((50,), value), errors(50)])
    group = torch.arange(2).repeat_interleave(50)
    alpha = adjust.thresholds(found, group, 2, 0.9)
    assert adjust.keep(found[:50], alpha[group[:50]]).all()
    assert not adjust.keep(torch.tensor([value + 1e-3]), alpha[:1]).any()  # and nothing above
    assert int(adjust.keep(found[50:], alpha[group[50:]]).sum()) == 45  # the other class is untouched


def test_a_heap_at_the_smallest_error_is_kept() -> None:
    found = torch.cat([torch.zeros(95), torch.ones(5)])  # the quantile is 0, and nothing lies below
    group = torch.zeros(100, dtype=torch.int64)
    kept = adjust.keep(found, adjust.thresholds(found, group, 1, 0.9)[group])
    assert int(kept.sum()) == 95
    assert not kept[95:].any()


def test_a_group_without_a_fake_keeps_what_comes() -> None:
    alpha = adjust.thresholds(errors(10), torch.zeros(10, dtype=torch.int64), 2, 0.5)
    assert adjust.keep(torch.tensor([1e30]), alpha[1:]).all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_replaced_labels_are_the_predictions(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    columns = {"prediction": torch.tensor([2.0, 0.0, 5.0]), "error": errors(3)}
    fakes = ImageSet(images, torch.zeros(3, dtype=dtype), columns)
    found = adjust.relabelled(fakes, "hard")
    assert found.labels.tolist() == [2, 0, 5]
    assert found.labels.dtype == dtype
    assert torch.equal(found.images, images)
    assert torch.equal(found.columns["error"], columns["error"])
    assert fakes.labels.tolist() == [0, 0, 0]


def test_labels_may_stay_as_they_are() -> None:
    fakes = ImageSet(torch.zeros(3, 1, 16, 16, dtype=torch.uint8), torch.arange(3), {"prediction": errors(3)})
    assert adjust.relabelled(fakes, "none") is fakes


def test_a_filter_per_bin_keeps_as_large_a_share_of_each() -> None:
    # errors grow with the label: one threshold over all takes most from the last bin
    found = errors(20_000)
    bin_ = torch.arange(20_000) % 5
    found = found * (1 + bin_)
    per_bin = adjust.keep(found, adjust.thresholds(found, bin_, 5, 0.7)[bin_])
    assert torch.bincount(bin_[per_bin]).tolist() == [2800] * 5  # 0.7 of 4000
    nought = torch.zeros_like(bin_)
    over_all = torch.bincount(bin_[adjust.keep(found, adjust.thresholds(found, nought, 1, 0.7)[nought])])
    assert int(over_all.sum()) == 14_000
    assert over_all[0] > 1.5 * over_all[4]


# --- several teachers ---------------------------------------------------------------------------------------------


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_disagreement_is_the_mean_of_the_teachers_errors() -> None:
    draws = np.random.default_rng(0)
    votes, classes = 3 * draws.normal(size=(3, 8, 3)), draws.integers(0, 3, 8)
    expected = -np.log(softmax(votes)[:, np.arange(8), classes]).mean(axis=0)
    found = adjust.disagreement(CLASSES, torch.from_numpy(votes), torch.from_numpy(classes))
    assert found.tolist() == pytest.approx(expected.tolist())
    votes, y = draws.normal(0.5, 1, size=(3, 8, 1)), draws.random(8)
    expected = np.abs(votes.clip(0, 1)[..., 0] - y).mean(axis=0)
    found = adjust.disagreement(DEGREES, torch.from_numpy(votes), torch.from_numpy(y))
    assert found.tolist() == pytest.approx(expected.tolist())


def test_consensus_is_the_mean_vote() -> None:
    draws = np.random.default_rng(1)
    votes = 4 * draws.normal(size=(4, 50, 3))
    mean = softmax(votes).mean(axis=0)
    found = CLASSES.consensus(torch.from_numpy(votes))
    assert np.allclose(found.softmax(dim=1).numpy(), mean)
    assert CLASSES.predict(found).tolist() == mean.argmax(axis=1).tolist()
    assert mean.argmax(axis=1).tolist() != votes.mean(axis=0).argmax(axis=1).tolist()  # not the mean of logits
    one = torch.from_numpy(votes[:1])
    assert torch.equal(CLASSES.consensus(one), one[0])
    votes = draws.random((4, 50, 1))
    assert np.allclose(DEGREES.consensus(torch.from_numpy(votes)).numpy(), votes.mean(axis=0))


# --- soft labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "replace", "expected"),
    [
        (CLASSES, "auto", "none"), (CLASSES, "hard", "hard"), (CLASSES, "soft", "soft"),
        (DEGREES, "auto", "hard"), (DEGREES, "none", "none"),
    ],
)  # fmt: skip
def test_what_becomes_of_labels(task, replace: str, expected: str) -> None:
    assert adjust.replacement(SynthesisSettings(replace=replace), task) == expected


def test_soft_labels_need_classes() -> None:
    with pytest.raises(UserError, match=r"replace = soft needs classes; allowed for a scalar: auto, none, hard"):
        adjust.replacement(SynthesisSettings(replace="soft"), DEGREES)


def test_bins_of_the_filter_need_scalars() -> None:
    bins = SynthesisSettings(filter=FilterSettings(by=5))
    adjust.check_filter(bins, DEGREES)
    adjust.check_filter(SynthesisSettings(), CLASSES)
    with pytest.raises(UserError, match=r"filter.by = 5 needs scalar labels.*allowed for classes: auto, label, all"):
        adjust.check_filter(bins, CLASSES)


def test_soft_targets_in_batches_and_their_loss_by_hand() -> None:
    draws = np.random.default_rng(2)
    p = softmax(draws.normal(size=(4, 3))).astype(np.float32)
    pixels = torch.randint(0, 256, (10, 1, 16, 16), dtype=torch.uint8)
    real = ImageSet(pixels[:6], torch.tensor([0, 1, 2, 0, 1, 2]))
    fakes = ImageSet(pixels[6:], torch.tensor([2, 2, 0, 1]), {"probabilities": torch.from_numpy(p)})
    augment = AugmentSettings(shift=0)
    plain = Batches(TrainingImages(real, fakes), CLASSES, 10, augment, 0, torch.device("cpu")).at(0)
    assert plain.targets.shape == (10,)
    batch = Batches(
        TrainingImages(real, adjust.relabelled(fakes, "soft")), CLASSES, 10, augment, 0, torch.device("cpu")
    ).at(0)
    expected = np.concatenate([np.eye(3)[[0, 1, 2, 0, 1, 2]], p])[batch.index]
    assert np.allclose(batch.targets.numpy(), expected)
    outputs, teacher = draws.normal(size=(10, 3)), draws.normal(size=(10, 3))
    cross_entropy = -(expected * np.log(softmax(outputs))).sum(axis=1).mean()
    seen = DistillBatch(
        torch.from_numpy(outputs).float(), batch.targets, torch.from_numpy(teacher).float(), {}, {}, batch.fake
    )
    assert float(create("supervised", CLASSES).loss(seen)["label"]) == pytest.approx(cross_entropy, rel=1e-5)
    terms = create("kd", CLASSES, StudentSettings(temperature=2.0)).loss(seen)
    assert float(terms["label"]) == pytest.approx(0.1 * cross_entropy, rel=1e-5)
    t, s = softmax(teacher / 2), softmax(outputs / 2)
    kl = (t * np.log(t / s)).sum(axis=1).mean()
    assert float(terms["kd"]) == pytest.approx(0.9 * 4 * kl, rel=1e-4)


def test_soft_targets_go_with_the_copies_of_a_view(fabric: Fabric) -> None:
    # a method that adds views of each image: their targets are the image's own, row by row
    class Doubling(Method):
        name, tasks, matches, paper = "doubling", ("classification",), "output", "-"
        seen: ClassVar[list[torch.Tensor]] = []

        def views(self, batch: Batch, seed: int) -> torch.Tensor:
            return torch.cat([batch.images, batch.images])

        def loss(self, batch: DistillBatch) -> dict[str, torch.Tensor]:
            assert batch.extra is not None
            self.seen.append(torch.cat([batch.targets, batch.extra.targets]))
            return {}

    pixels = torch.randint(0, 256, (8, 1, 16, 16), dtype=torch.uint8)
    p = torch.rand(4, 3)
    real = ImageSet(pixels[:4], torch.tensor([0, 1, 2, 0]))
    fakes = adjust.relabelled(ImageSet(pixels[4:], torch.tensor([2, 2, 0, 1]), {"probabilities": p}), "soft")
    student, teacher = (nn.Sequential(nn.Flatten(), nn.Linear(256, 3)) for _ in range(2))
    objective = Objective("doubling", CLASSES, [(Doubling(CLASSES), None)])
    settings = FitSettings(steps=1, batch_size=8)
    fit(Work(fabric), student, objective, TrainingImages(real, fakes), settings, seed=0, teacher=teacher)
    (targets,) = Doubling.seen
    assert targets.shape == (24, 3)
    assert torch.equal(targets[:8], targets[8:16])
    assert torch.equal(targets[:8], targets[16:])
