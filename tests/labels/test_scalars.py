"""Scalar labels: quotas, the Fourier embedding against numpy, and improved label input on images of one grey."""

from __future__ import annotations

import copy
import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.config.settings import EvenLabels, ScalarLabelSettings, SynthesisSettings
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.labels import LabelPlan, ScalarLabels, label_embedding, label_space, ratio_embedding
from cgankd.labels.scalars import FourierEmbedding, ILIEmbedding, NLIEmbedding
from cgankd.nets import inference
from cgankd.tasks import Regression
from works import stopped_at_every_save

UNEVEN = torch.cat([torch.zeros(700), torch.linspace(0, 1, 41), torch.full((259,), 0.3)])


def space(targets: Tensor = UNEVEN) -> ScalarLabels:
    return ScalarLabels(targets, ScalarLabelSettings())


def plan(images: int, labels: str | EvenLabels) -> LabelPlan:
    return space().plan(SynthesisSettings(images=images, labels=labels))


@pytest.mark.parametrize("labels", ["even", "distinct", "empirical"])
@pytest.mark.parametrize("images", [1, 7, 499, 500, 10_000, 60_000, 1_000_001, 20_000_001])
def test_quotas_sum_to_m_exactly(labels: str, images: int) -> None:
    found = plan(images, labels)
    assert int(found.quota.sum()) == images
    assert int(found.quota.min()) >= 0
    assert len(found.targets) == len(found.quota) == len(found.pool) == len(found.group)


def test_even_labels_are_evenly_spaced() -> None:
    found = plan(1100, EvenLabels(count=11))
    assert found.targets.tolist() == pytest.approx([k / 10 for k in range(11)])
    assert found.quota.tolist() == [100] * 11
    few = plan(5, EvenLabels(count=11))
    assert few.targets.tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_distinct_labels_get_the_same_number() -> None:
    found = plan(1000, "distinct")
    distinct = sorted(set(UNEVEN.tolist()))
    assert found.targets.tolist() == distinct
    assert {q - 1000 // len(distinct) for q in found.quota.tolist()} <= {0, 1}


def test_empirical_labels_are_as_frequent_as_in_training() -> None:
    found = plan(12_345, "empirical")
    counts = {label: UNEVEN.tolist().count(label) for label in found.targets.tolist()}
    for label, quota in zip(found.targets.tolist(), found.quota.tolist(), strict=True):
        assert abs(quota - Fraction(counts[label] * 12_345, len(UNEVEN))) <= 1, label


def test_pools_are_twentieths_of_the_range_and_the_filter_has_one_group() -> None:
    found = plan(1000, EvenLabels(count=98))  # k / 97 falls on no twentieth between 0 and 1
    assert found.pool.tolist() == [min(20 * k // 97, 19) for k in range(98)]
    assert found.group.tolist() == [0] * 98
    gap = space(torch.tensor([0.0, 0.01, 0.99, 1.0])).plan(SynthesisSettings(images=4, labels="distinct"))
    assert gap.pool.tolist() == [0, 0, 1, 1]  # numbered without holes


@pytest.mark.parametrize("part", ["pool", "group"])
def test_a_total_per_part_is_shared_by_its_labels(part: str) -> None:
    found = plan(1000, EvenLabels(count=101))
    labels = getattr(found, part)
    again = found.with_total_per(labels, 30)
    for number in labels.unique():
        inside = labels == number
        per_label = -(-30 // int(inside.sum()))  # rounded up
        assert again.quota[inside].tolist() == [per_label] * int(inside.sum())


def test_the_filter_is_calibrated_on_labels_as_frequent_as_those_of_the_images() -> None:
    found = plan(5000, "empirical")
    again = found.for_calibration(len(UNEVEN))
    assert again.quota.tolist() == [UNEVEN.tolist().count(label) for label in found.targets.tolist()]
    bins = dataclasses.replace(found, group=(torch.arange(len(found.targets)) > 1).long())
    per_bin = bins.for_calibration(1000).quota
    assert int(per_bin[:2].sum()) == int(per_bin[2:].sum()) == 1000
    assert per_bin[:2].tolist() == [999, 1]  # 701 and 1 of the training labels


def test_where_labels_are_equally_frequent_the_calibration_does_not_depend_on_their_number() -> None:
    quotas = [plan(images, "distinct").for_calibration(1000).quota.tolist() for images in (100, 9999)]
    assert quotas[0] == quotas[1]


def test_fourier_embedding_against_numpy() -> None:
    y = torch.tensor([0.0513, 0.3141, 0.9717])
    angle = np.pi * y.double().numpy()[:, None] * np.arange(1, 65)
    found = FourierEmbedding(128)(y).double().numpy()
    damping = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    damping = (found * damping).sum(axis=0) / (damping**2).sum(axis=0)  # one factor per wave
    assert damping[:64] == pytest.approx(damping[64:], abs=1e-4)
    assert damping[0] == pytest.approx(1.0, abs=1e-5)
    assert (np.diff(damping[:64]) < 0).all()
    waves = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    assert found == pytest.approx(waves * damping, abs=2e-5)


def test_fourier_embedding_tells_labels_apart_and_keeps_their_order() -> None:
    many = FourierEmbedding(128)(torch.linspace(0, 1, 201))
    distance = torch.cdist(many, many)
    assert distance.diagonal(1).min() > 0.01
    assert (distance[0, 1:] >= distance[0, 1]).all()


@pytest.fixture(scope="module")
def trained(fabric: Fabric) -> tuple[ILIEmbedding, list[nn.Module]]:
    """An embedding trained on images whose brightness is the label, and the networks T1 is made of."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.rand(256, generator=rng)
    images = labels[:, None, None, None] * 200 + 40 * torch.rand(256, 1, 16, 16, generator=rng)
    train = ImageSet(images.to(torch.uint8), labels)
    placed: list[nn.Module] = []
    right = inference.place

    def record(network: nn.Module, fabric: Fabric) -> nn.Module:
        placed.append(network)
        return right(network, fabric)

    torch.manual_seed(0)
    embedding = ILIEmbedding(32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "place", record)
        embedding.train_on(Work(fabric), train, Regression(0.0, 1.0), 60, 0)
    return embedding, [*placed, train]


def test_t1_head_reads_the_label_from_t2(trained: tuple[ILIEmbedding, list[nn.Module]]) -> None:
    embedding, (body, head, train) = trained
    y = torch.linspace(0, 1, 51)
    with torch.no_grad():
        h = embedding(y) * embedding.scale + embedding.mean  # what T2 gave before it was standardised
        assert (head(h).squeeze(1) - y).abs().max() < 0.08
        outside = head(embedding(torch.tensor([-0.15, 1.15])) * embedding.scale + embedding.mean).squeeze(1)
        assert (outside - torch.tensor([0.0, 1.0])).abs().max() < 0.03  # the clipped label was the target
        seen = head(body.eval()(train.images.float() / 255)).squeeze(1)
    assert (seen - train.labels).abs().mean() < 0.08  # and it is the label T1 sees in images


def test_the_embedding_is_frozen_standardised_and_tells_labels_apart(
    trained: tuple[ILIEmbedding, list[nn.Module]],
) -> None:
    embedding, _ = trained
    assert not any(parameter.requires_grad for parameter in embedding.parameters())
    vectors = embedding(torch.linspace(0, 1, 1001))
    assert vectors.shape == (1001, 32)
    assert vectors.mean(dim=0).abs().max() < 1e-3
    moving = embedding.scale > 1.01e-2  # below, the scale is floored and the dimension says nothing
    assert int(moving.sum()) >= 8
    assert (vectors.std(dim=0)[moving] - 1).abs().max() < 1e-3
    few = embedding(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    assert torch.pdist(few).min() > 0.5


@pytest.mark.parametrize("dim", [4, 8, 12, 16, 24, 32, 128])
def test_an_embedding_of_any_length_tells_labels_apart(dim: int) -> None:
    # A group of one number is normalised to a constant, a group of two to its sign.
    torch.manual_seed(0)
    vectors = ILIEmbedding(dim)(torch.linspace(0, 1, 101))
    assert len((1e4 * vectors).round().unique(dim=0)) > 80


def test_the_embedding_survives_its_state_dict(trained: tuple[ILIEmbedding, list[nn.Module]]) -> None:
    embedding, _ = trained
    again = ILIEmbedding(32)
    y = torch.linspace(0, 1, 9)
    assert not torch.equal(again(y), embedding(y))
    again.load_state_dict(copy.deepcopy(embedding.state_dict()))
    assert torch.equal(again(y), embedding(y))


# --- naive label input --------------------------------------------------------------------------------------------


def test_nli_is_linear_in_the_scalar_and_learnt() -> None:
    torch.manual_seed(0)
    embedding = NLIEmbedding(6)
    ends = embedding(torch.tensor([0.0, 1.0]))
    between = torch.rand(20)
    expected = ends[0] + between[:, None] * (ends[1] - ends[0])
    assert torch.allclose(embedding(between), expected, atol=1e-5)
    grid = embedding(torch.linspace(0, 1, 10_001)).detach()
    weight = embedding.linear.weight.detach().squeeze(1)
    assert grid.mean(dim=0).abs().max() < 1e-4
    assert torch.allclose(grid.std(dim=0), weight.abs(), rtol=1e-3)  # the scalar itself has unit variance
    assert all(parameter.requires_grad for parameter in embedding.parameters())


@pytest.mark.parametrize(("label_input", "kind"), [("ili", ILIEmbedding), ("nli", NLIEmbedding)])
def test_label_input_chooses_the_embedding_and_only_ili_is_trained_before(
    label_input: str, kind: type[nn.Module], fabric: Fabric
) -> None:
    label = {"kind": "ili", "steps": 2} if label_input == "ili" else label_input
    settings = ScalarLabelSettings(label_input=label)
    task = Regression(0.0, 1.0)
    labels = torch.rand(20)
    embedding = label_embedding(task, settings, 8)
    assert type(embedding) is kind
    before = copy.deepcopy(embedding.state_dict())
    train = ImageSet(torch.zeros(20, 1, 16, 16, dtype=torch.uint8), labels)
    label_space(task, labels, settings).train_embedding(Work(fabric), embedding, train, task, 0)
    changed = any(not torch.equal(value, before[key]) for key, value in embedding.state_dict().items())
    assert changed == (label_input == "ili")


def test_the_density_ratio_s_label_input_is_fixed() -> None:
    embedding, y = ratio_embedding(Regression(0.0, 1.0), 16), torch.linspace(0, 1, 9)
    assert not list(embedding.parameters())
    assert torch.equal(embedding(y), FourierEmbedding(16)(y))


def test_a_killed_label_embedding_goes_on_bit_for_bit(noise, fabric: Fabric, tmp_path: Path) -> None:
    train = noise(30, scalar=True)

    def trained(work: Work) -> ILIEmbedding:
        torch.manual_seed(0)
        embedding = ILIEmbedding(32)
        embedding.train_on(work, train, Regression(0.0, 1.0), 3, 0)
        return embedding

    whole = trained(Work(fabric))
    parts, calls = stopped_at_every_save(fabric, tmp_path, trained)
    assert calls == 7  # three steps from the images, three from the labels
    for name, value in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], value), name
