"""Labels that wrap, as the generator uses them: windows across 0, plans, embeddings, and stored images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from cgankd.config.settings import EvenLabels, HardVicinity, ScalarLabelSettings, SoftVicinity, SynthesisSettings
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.gan.adapters import StoredImages
from cgankd.labels import label_embedding, label_space, ratio_embedding
from cgankd.labels.scalars import ILIEmbedding
from cgankd.labels.vicinity import SOFT_REACH, Vicinity
from cgankd.tasks import CircularRegression
from cgankd.tasks.axis import CIRCLE

TASK = CircularRegression(high=360.0)
LABELS = torch.rand(200, generator=torch.Generator().manual_seed(3))


def away(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.abs(first - second + np.array([[-1.0], [0.0], [1.0]])).min(axis=0)


@pytest.mark.parametrize(
    "settings",
    [
        HardVicinity(noise=0.05), SoftVicinity(noise=0.05), SoftVicinity(noise=0.05, draw="weighted"),
        HardVicinity(width={"kind": "paper", "gaps": 500.0}),
    ],
)  # fmt: skip
def test_windows_pass_zero(settings: HardVicinity | SoftVicinity) -> None:
    vicinity = Vicinity(LABELS, settings, CIRCLE)
    draw = vicinity.draw(20_000, torch.Generator().manual_seed(0))
    target, fake, real = draw.target.numpy(), draw.fake.numpy(), LABELS[draw.real].numpy()
    for values in (target, fake):
        assert values.min() >= 0
        assert values.max() < 1
    reach = vicinity.reach(vicinity.half_width(draw.target)).numpy()
    assert reach.max() <= 0.5
    assert (away(real, target) <= reach + 1e-5).all()
    assert (away(fake, target) <= reach + 1e-5).all()
    near = target < 0.01  # windows that pass 0 hold images and fakes of both sides
    assert (real[near] > 0.5).any()
    assert (fake[near] > 0.9).any()
    if draw.real_weight is not None:
        kappa = vicinity.half_width(draw.target).numpy()
        assert draw.real_weight.numpy() == pytest.approx(np.exp(-((away(real, target) / kappa) ** 2)), abs=1e-4)
        assert draw.fake_weight.numpy() == pytest.approx(np.exp(-((away(fake, target) / kappa) ** 2)), abs=1e-4)


def test_half_widths_count_neighbours_around_the_circle() -> None:
    vicinity = Vicinity(LABELS, HardVicinity(width={"neighbours": 12, "widest": 0.5}), CIRCLE)
    for target in (0.0, 0.004, 0.5, 0.997):
        twelfth = np.sort(away(LABELS.numpy(), np.float32(target)))[11]
        assert float(vicinity.half_width(torch.tensor([target]))) == pytest.approx(twelfth, abs=1e-6)
    # Turned labels have turned windows: nothing is special at 0.
    turned = Vicinity(CIRCLE.wrap(LABELS + 0.37), HardVicinity(width={"neighbours": 12}), CIRCLE)
    points = torch.linspace(0, 0.99, 50)
    other = Vicinity(LABELS, HardVicinity(width={"neighbours": 12}), CIRCLE)
    assert torch.allclose(turned.half_width(CIRCLE.wrap(points + 0.37)), other.half_width(points), atol=1e-5)
    assert turned.noise == pytest.approx(other.noise, rel=1e-4)


def test_the_widest_gap_may_pass_zero() -> None:
    vicinity = Vicinity(torch.tensor([0.3, 0.4, 0.6]), HardVicinity(), CIRCLE)
    assert vicinity.widest_gap == pytest.approx(0.7)
    alone = Vicinity(torch.tensor([0.3, 0.3]), HardVicinity(), CIRCLE)
    assert alone.draw(5, torch.Generator().manual_seed(0)).real.shape == (5,)


def test_a_whole_circle_in_the_window_holds_each_image_once() -> None:
    wide = Vicinity(torch.tensor([0.0, 0.1, 0.5, 0.8]), SoftVicinity(noise=0.0, width={"kind": "paper", "gaps": 9.0}))
    assert wide.reach(wide.half_width(torch.zeros(1))) > SOFT_REACH * 0.9  # a line has no such limit
    vicinity = Vicinity(
        torch.tensor([0.0, 0.1, 0.45, 0.8]), HardVicinity(noise=0.0, width={"kind": "paper", "gaps": 9.0}), CIRCLE
    )
    counts = torch.bincount(vicinity.draw(40_000, torch.Generator().manual_seed(1)).real)
    assert (counts / 10_000).tolist() == pytest.approx([1, 1, 1, 1], abs=0.05)


def test_plans_and_nearness() -> None:
    space = label_space(TASK, LABELS, ScalarLabelSettings())
    plan = space.plan(SynthesisSettings(images=80, labels=EvenLabels(count=8)))
    assert plan.targets.tolist() == [k / 8 for k in range(8)]  # 1 would be 0 again
    assert plan.quota.tolist() == [10] * 8
    gap = space.vicinity.widest_gap
    near = space.near(torch.tensor([0.999, 0.5]), torch.tensor([0.001, 0.001]), 0.003 / gap)
    assert near.tolist() == [True, False]


@pytest.mark.parametrize("kind", ["ili", "nli", "ratio"])
def test_embeddings_have_the_labels_period(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "ratio":
        embedding = ratio_embedding(TASK, 64)
    else:
        embedding = label_embedding(TASK, ScalarLabelSettings(label_input={"kind": kind}), 32)
    ends = embedding(torch.tensor([0.0, 0.9999, 0.5])).detach()
    across, half = (ends[0] - ends[1]).norm(), (ends[0] - ends[2]).norm()
    assert across < 0.02 * half
    assert torch.allclose(embedding(torch.tensor([0.25])), embedding(torch.tensor([1.25])), atol=1e-3)


def test_label_input_is_learnt_on_the_circle(fabric: Fabric) -> None:
    # Images whose two halves are as bright as the label's cosine and sine.
    targets = torch.rand(300, generator=torch.Generator().manual_seed(0))
    bright = (127 + 120 * CIRCLE.coordinates(targets)).to(torch.uint8)
    images = bright.repeat_interleave(8, dim=1)[:, None, None, :].expand(-1, 1, 16, 16).contiguous()
    embedding = ILIEmbedding(32, CIRCLE)
    embedding.train_on(Work(fabric), ImageSet(images, TASK.from_target(targets)), TASK, 60, 0)
    grid = embedding(torch.linspace(0, 1, 101))
    assert grid.mean(dim=0).abs().max() < 0.1
    steps = (grid[1:] - grid[:-1]).norm(dim=1)
    assert (grid[0] - grid[-1]).norm() < 1e-3
    assert steps.min() > 0.02 * steps.mean()  # no two labels have one code


def test_stored_images_are_nearest_around_the_circle() -> None:
    labels = torch.tensor([2.0, 100.0, 200.0, 355.0])
    images = ImageSet(torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 1, 16, 16).contiguous(), labels)
    sampler = StoredImages(images, TASK)
    targets = TASK.to_target(torch.tensor([359.0] * 4 + [1.0] * 4 + [150.0] * 4))
    grey = sampler.sample(targets, torch.arange(4).repeat(3), 0)[:, 0, 0, 0].view(3, 4).tolist()
    assert grey == [[0, 3, 1, 2], [0, 3, 1, 2], [1, 2, 0, 3]]  # 359: 2 is 3 away, 355 is 4 away
    assert sampler.available(targets).tolist() == [1] * 12
