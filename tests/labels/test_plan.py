"""Which labels share a filter threshold and a burn-in, and which predicted labels count as near."""

from __future__ import annotations

import pytest
import torch

from cgankd.config.settings import FilterSettings, ScalarLabelSettings, SynthesisSettings
from cgankd.labels import ClassLabels, ScalarLabels

TARGETS = torch.tensor([0.0, 0.1, 0.1, 0.35, 0.4, 1.0])  # the widest gap is 0.6


@pytest.mark.parametrize("by", ["auto", "label", 20])
def test_a_class_is_its_own_bin(by: str | int) -> None:
    plan = ClassLabels(4, torch.arange(4)).plan(SynthesisSettings(filter=FilterSettings(by=by)))
    assert plan.group.tolist() == plan.pool.tolist() == [0, 1, 2, 3]


def test_all_classes_may_share_one_threshold() -> None:
    plan = ClassLabels(4, torch.arange(4)).plan(SynthesisSettings(filter=FilterSettings(by="all")))
    assert plan.group.tolist() == [0, 0, 0, 0]
    assert plan.pool.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("by", "group"),
    [
        ("auto", [0, 0, 0, 0, 0]),
        ("all", [0, 0, 0, 0, 0]),
        ("label", [0, 1, 2, 3, 4]),
        (4, [0, 0, 1, 1, 2]),  # quarters: the third holds none
    ],
)
def test_thresholds_of_scalars(by: str | int, group: list[int]) -> None:
    settings = SynthesisSettings(images=10, labels="distinct", filter={"by": by})
    plan = ScalarLabels(TARGETS, ScalarLabelSettings()).plan(settings)
    assert plan.targets.tolist() == pytest.approx([0.0, 0.1, 0.35, 0.4, 1.0])
    assert plan.group.tolist() == group


def test_pools_of_scalars_are_twentieths() -> None:
    found = ScalarLabels(TARGETS, ScalarLabelSettings()).pools(torch.tensor([0.0, 0.049, 0.051, 0.5, 0.99, 1.0]))
    assert found.tolist() == [0, 0, 1, 10, 19, 19]
    classes = torch.tensor([3, 0, 3])
    assert torch.equal(ClassLabels(4, classes).pools(classes), classes)


def test_near_is_counted_in_widest_gaps() -> None:
    space = ScalarLabels(TARGETS, ScalarLabelSettings())
    at = torch.full((4,), 0.2)
    assert space.near(torch.tensor([0.2, 0.49, 0.51, -0.05]), at, 0.5).tolist() == [True, True, False, True]
    classes = ClassLabels(3, torch.arange(3))
    assert classes.near(torch.tensor([0, 1]), torch.tensor([0, 2]), 0.1).all()


def test_ready_images_are_asked_for_at_their_own_labels_as_often_as_they_occur() -> None:
    held = torch.tensor([0.2, 0.3, 0.9]), torch.tensor([1, 2, 5])
    for law in ("even", "distinct", "empirical"):
        plan = ScalarLabels(TARGETS, ScalarLabelSettings()).plan(SynthesisSettings(images=16, labels=law), held)
        assert plan.targets.tolist() == held[0].tolist()
        assert plan.quota.tolist() == [2, 4, 10]
