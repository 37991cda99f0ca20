"""Class labels: draws follow the training split, the plan shares out M."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from cgankd.config.settings import SynthesisSettings
from cgankd.labels import ClassLabels, ScalarLabels, label_embedding, label_space, ratio_embedding
from cgankd.tasks import Classification, Regression

TARGETS = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)[torch.randperm(100, generator=torch.Generator().manual_seed(0))]


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_a_discriminator_batch_judges_every_image_at_its_own_class() -> None:
    draw = ClassLabels(3, TARGETS).discriminator_draw(20_000, rng())
    assert torch.equal(TARGETS[draw.real], draw.condition)
    assert torch.equal(draw.fake_targets, draw.condition)
    assert draw.real_weight is None
    assert draw.fake_weight is None
    assert stats.chisquare(torch.bincount(draw.real, minlength=100).numpy()).pvalue > 1e-3


def test_generator_labels_are_as_frequent_as_in_training() -> None:
    found = torch.bincount(ClassLabels(3, TARGETS).generator_draw(20_000, rng()), minlength=3)
    assert stats.chisquare(found.numpy(), [10_000, 6_000, 4_000]).pvalue > 1e-3


@pytest.mark.parametrize("images", [1, 3, 10, 100, 101])
def test_plan_gives_every_class_its_share(images: int) -> None:
    plan = ClassLabels(3, TARGETS).plan(SynthesisSettings(images=images))
    assert plan.targets.tolist() == plan.pool.tolist() == plan.group.tolist() == [0, 1, 2]
    assert int(plan.quota.sum()) == images
    assert int(plan.quota.max() - plan.quota.min()) <= 1


def test_both_embeddings_are_one_vector_per_class() -> None:
    task = Classification(("a", "b", "c"))
    for embedding in (label_embedding(task, None, 16), ratio_embedding(task, 16)):
        vectors = embedding(torch.tensor([0, 1, 2, 0]))
        assert vectors.shape == (4, 16)
        assert torch.equal(vectors[0], vectors[3])
        assert len(vectors.unique(dim=0)) == 3


def test_the_task_chooses_the_space() -> None:
    assert isinstance(label_space(Classification(("a", "b")), torch.tensor([0, 1])), ClassLabels)
    assert isinstance(label_space(Regression(0.0, 1.0), torch.tensor([0.0, 1.0])), ScalarLabels)
