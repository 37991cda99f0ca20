"""The density ratio: its loss by hand, and two pairs of normal distributions whose ratio is known.

The loss's gradient fades for ratios above 4, so the true ratio stays below (it is at most 1.594).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from scipy import integrate, stats
from scipy.special import expit
from torch import Tensor, nn

from cgankd.config.settings import RatioSettings, ScalarLabelSettings
from cgankd.core.errors import UserError
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.gan.adapters import CallableSampler
from cgankd.labels import ScalarLabels, ratio_embedding
from cgankd.labels.scalars import FourierEmbedding
from cgankd.synthesis import density_ratio
from cgankd.synthesis.density_ratio import (
    Pairs,
    RatioNetwork,
    Reader,
    fakes_at_labels,
    ratio_loss,
    real_and_fakes,
    train_ratio,
)
from cgankd.tasks import Classification, Regression
from waits import Waits, Watched, accelerated
from works import stopped_at_every_save

LONG = RatioSettings(hidden=(64, 64), dropout=0.0, steps=900, batch_size=512, learning_rate=3e-3, weight_decay=0.0)
QUICK = LONG.model_copy(update={"steps": 500, "batch_size": 256})


@pytest.mark.parametrize("penalty", [0.0, 0.01, 1.0])
def test_loss_against_numpy(penalty: float) -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.gamma(2, 1, 50), rng.gamma(1, 1, 60)
    divergence = (expit(fake) * fake - np.logaddexp(0, fake)).mean() - expit(real).mean()
    expected = divergence + penalty * (fake.mean() - 1) ** 2
    assert float(ratio_loss(torch.tensor(real), torch.tensor(fake), penalty)) == pytest.approx(expected, rel=1e-9)


def test_loss_by_hand() -> None:
    # h = 0 on both: s = 1/2, softplus = ln 2, so L = -ln 2 - 1/2 + lambda
    zero = torch.zeros(4, dtype=torch.float64)
    assert float(ratio_loss(zero, zero, 0.25)) == pytest.approx(-np.log(2) - 0.5 + 0.25)


def test_the_loss_is_least_at_the_true_ratio() -> None:
    # Two cells with p_real = (3/4, 1/4) and p_fake = (1/4, 3/4): the ratio is (3, 1/3), its fake mean is 1.
    def loss(h: tuple[float, float]) -> float:
        a, b = h
        return float(ratio_loss(torch.tensor([a, a, a, b]), torch.tensor([a, b, b, b]), 0.01))

    best = loss((3.0, 1 / 3))
    for other in [(2.5, 1 / 3), (3.5, 1 / 3), (3.0, 0.2), (3.0, 0.5), (1.0, 1.0), (1 / 3, 3.0)]:
        assert loss(other) > best


def mean_of_fake(targets: Tensor) -> Tensor:
    """From 0.5 at target 0 to -0.5 at target 1."""
    return 0.5 - targets.float()


def learnt(scalar: bool, settings: RatioSettings, fabric: Fabric) -> tuple[RatioNetwork, Pairs]:
    """h for real N(0, 1), fake N(0.5 - y, 1.2^2); features are 3 + 2 x, so that standardising matters."""
    rng = torch.Generator().manual_seed(0)
    targets = torch.arange(6000) % 5 / 4 if scalar else torch.arange(6000) % 2
    real = torch.randn(6000, 1, generator=rng)
    fake = mean_of_fake(targets)[:, None, None] + 1.2 * torch.randn(6000, 4, 1, generator=rng)
    torch.manual_seed(0)
    embedding = FourierEmbedding(128) if scalar else nn.Embedding(2, 128)
    pairs = Pairs(3 + 2 * real, targets, 3 + 2 * fake, torch.ones(6000, 4, dtype=torch.bool))
    network, history = train_ratio(Work(fabric), pairs, embedding, settings, seed=0)
    assert history[-1]["step"] == settings.steps
    return network, pairs


@pytest.mark.long
@pytest.mark.parametrize("scalar", [False, True])
def test_learnt_ratio_is_the_true_one(scalar: bool, fabric: Fabric) -> None:
    network, _ = learnt(scalar, LONG, fabric)
    x = torch.linspace(-2, 2, 81)
    found, true = [], []
    for target in (0.0, 0.5, 1.0) if scalar else (0, 1):
        targets = torch.full((81,), target)
        with torch.no_grad():
            found.append(network(3 + 2 * x[:, None], targets).numpy())
        mean = float(mean_of_fake(targets)[0])
        true.append(stats.norm.pdf(x.numpy()) / stats.norm.pdf(x.numpy(), mean, 1.2))
    found, true = np.stack(found), np.stack(true)
    assert true.max() < 4
    assert np.abs(found - true).mean() < 0.1
    assert np.corrcoef(found.ravel(), true.ravel())[0, 1] > 0.98
    swapped = np.abs(found - true[::-1]).mean()
    assert swapped > 0.2  # the label counts


@pytest.mark.parametrize("scalar", [False, pytest.param(True, marks=pytest.mark.long)])
def test_mean_ratio_is_one_on_fakes_and_larger_on_real(scalar: bool, fabric: Fabric) -> None:
    network, pairs = learnt(scalar, QUICK, fabric)
    assert not network.training
    on_real, on_fakes = network.values(pairs)
    assert on_real.shape == (6000,)
    assert on_fakes.shape == (6000, 4)
    assert float(on_fakes.mean()) == pytest.approx(1.0, abs=0.08)
    # E_real[h] = E_fake[h^2], by quadrature
    x = np.linspace(-9, 9, 4001)
    expected = []
    for target in np.linspace(0, 1, 5) if scalar else (0, 1):
        ratio = stats.norm.pdf(x) / stats.norm.pdf(x, 0.5 - target, 1.2)
        expected.append(integrate.trapezoid(ratio * stats.norm.pdf(x), x))
    assert float(on_real.mean()) == pytest.approx(np.mean(expected), abs=0.08)


def test_weights_are_the_same_for_the_same_seed(fabric: Fabric) -> None:
    real, targets = torch.randn(40, 3), torch.arange(40) % 2
    fake = torch.randn(40, 2, 3)
    settings = RatioSettings(hidden=(32,), steps=5, batch_size=8)

    def weights(seed: int) -> Tensor:
        torch.manual_seed(7)
        embedding = nn.Embedding(2, 128)
        pairs = Pairs(real, targets, fake, torch.ones(40, 2, dtype=torch.bool))
        network, _ = train_ratio(Work(fabric), pairs, embedding, settings, seed=seed)
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def normals(count: int, seed: int) -> Pairs:
    """Real N(0, 1), labels that are seen once each, and four fakes N(0.5 - y, 1.2^2) at each."""
    rng = torch.Generator().manual_seed(seed)
    targets, real = torch.rand(count, generator=rng), torch.randn(count, 1, generator=rng)
    fake = mean_of_fake(targets)[:, None, None] + 1.2 * torch.randn(count, 4, 1, generator=rng)
    return Pairs(real, targets, fake, torch.ones(count, 4, dtype=torch.bool))


@pytest.fixture(scope="module")
def short_of_data(fabric: Fabric) -> tuple[RatioNetwork, list[dict[str, float]]]:
    settings = RatioSettings(hidden=(128, 64), steps=200, learning_rate=2e-3, penalty=0.01)
    held_out = normals(200, 1)
    return train_ratio(Work(fabric), normals(500, 0), FourierEmbedding(128), settings, seed=0, held_out=held_out)


def test_labels_seen_once_are_not_learnt_by_heart(
    short_of_data: tuple[RatioNetwork, list[dict[str, float]]],
) -> None:
    network, _ = short_of_data
    x = np.linspace(-2, 2, 41)
    errors = []
    for target in (0.1, 0.3, 0.5, 0.7, 0.9):
        with torch.no_grad():
            found = network(torch.from_numpy(x).float()[:, None], torch.full((41,), target)).numpy()
        errors.append(np.abs(found - stats.norm.pdf(x) / stats.norm.pdf(x, 0.5 - target, 1.2)).mean())
    assert np.mean(errors) < 0.25


def test_the_weights_of_lowest_held_out_loss_are_kept(
    short_of_data: tuple[RatioNetwork, list[dict[str, float]]],
) -> None:
    network, history = short_of_data
    pairs = normals(200, 1)
    with torch.no_grad():
        h_real = network(pairs.real, pairs.targets).double().numpy()
        h_fake = network(pairs.fake.flatten(0, 1), pairs.targets.repeat_interleave(4)).double().numpy()
    loss = (expit(h_fake) * h_fake - np.logaddexp(0, h_fake)).mean() - expit(h_real).mean()
    loss += 0.01 * (h_fake.mean() - 1) ** 2
    losses = [entry["held_out"] for entry in history]
    assert loss == pytest.approx(min(losses), abs=1e-6)
    assert losses[-1] > min(losses)  # here the last weights were not the best


def test_h_is_never_negative_and_starts_near_one() -> None:
    means = []
    for seed in range(20):
        torch.manual_seed(seed)
        network = RatioNetwork(5, nn.Embedding(2, 128), (64, 64), 0.5).eval()
        with torch.no_grad():
            h = network(torch.randn(200, 5), torch.arange(200) % 2)
        assert h.shape == (200,)
        assert h.min() >= 0
        assert (h > 0).any()
        means.append(float(h.mean()))
    assert np.mean(means) == pytest.approx(1.0, abs=4 * 0.41 / np.sqrt(20))


def test_fakes_at_labels_are_where_they_belong(fabric: Fabric) -> None:
    # The image tells its label and index; two images that share a label must get different fakes.
    asked: list[tuple[int, int]] = []

    def sample(targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        asked.extend(zip(targets.tolist(), indices.tolist(), strict=True))
        images = torch.zeros(len(targets), 1, 16, 16, dtype=torch.uint8)
        images[:, 0, 0, 0] = targets.to(torch.uint8)
        return images

    def extractor(images: Tensor) -> tuple[Tensor, Tensor]:
        return images[:, 0, 0, :1].float(), images[:, 0, 0, :2].float()

    targets = torch.tensor([4, 9, 4, 1]).repeat(200)
    reader = Reader(CallableSampler(sample), extractor, {})
    seen: list[bool] = []

    def counts(outputs: Tensor, asked: Tensor) -> Tensor:
        seen.append(torch.equal(outputs[:, 0], asked.float()))
        return asked != 9

    found, valid = fakes_at_labels(Work(fabric), reader, targets, 3, seed=0, counts=counts)
    assert all(seen)
    assert torch.equal(valid, (targets != 9)[:, None].expand(-1, 3))
    assert found.shape == (800, 3, 2)
    assert torch.equal(found[:, :, 0], targets[:, None].expand(-1, 3).float())
    assert len(set(asked)) == len(asked) == 2400


def test_outputs_for_fakes_are_not_stored(fabric: Fabric, tmp_path: Path) -> None:
    # With 1,000 classes and 100,000 labels with ten fakes each they would take 4 GB of the disk.
    def extractor(images: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(images), 1000), torch.zeros(len(images), 2)

    sampler = CallableSampler(lambda targets, indices, seed: torch.zeros(len(targets), 1, 16, 16, dtype=torch.uint8))
    fakes_at_labels(Work(fabric, folder=tmp_path), Reader(sampler, extractor, {}), torch.arange(40), 2, seed=0)
    stored = sum(path.stat().st_size for path in tmp_path.rglob("*.rows"))
    assert stored == 40 * 2 * (2 * 4 + 1)


# --- fakes that are left out --------------------------------------------------------------------------------------


def pairs_of(valid: list[list[int]]) -> Pairs:
    mask = torch.tensor(valid).bool()
    fake = torch.arange(mask.numel(), dtype=torch.float32).view(*mask.shape, 1)
    return Pairs(torch.arange(len(mask))[:, None].float(), torch.arange(len(mask)), fake, mask)


def test_fakes_are_drawn_evenly_among_those_that_count() -> None:
    pairs = pairs_of([[1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]])
    assert pairs.left_out == pytest.approx(4 / 12)
    row, which = pairs.draw(24_000, torch.Generator().manual_seed(0))
    counts = torch.zeros(3, 4).index_put_((row, which), torch.ones(24_000), accumulate=True)
    expected = 8000 * pairs.valid / pairs.valid.sum(dim=1, keepdim=True)
    assert (counts[~pairs.valid] == 0).all()
    assert (counts - expected).abs().max() < 5 * 8000**0.5


def test_rows_without_a_fake_are_left_out() -> None:
    pairs = pairs_of([[1, 0], [0, 0], [1, 1]])
    assert pairs.usable.tolist() == [0, 2]
    row, which = pairs.draw(3000, torch.Generator().manual_seed(0))
    drawn = set(zip(row.tolist(), which.tolist(), strict=True))
    assert drawn == {(0, 0), (2, 0), (2, 1)}
    assert int((row == 0).sum()) == pytest.approx(1500, abs=150)


def test_the_held_out_loss_is_of_the_fakes_that_count(fabric: Fabric) -> None:
    pairs = normals(30, 0)
    network = RatioNetwork(1, FourierEmbedding(128), (32,), 0.0).eval()
    valid = torch.arange(4).expand(30, 4) % 3 == 0
    less = Pairs(pairs.real, pairs.targets, pairs.fake[:, [0, 3]], torch.ones(30, 2, dtype=torch.bool))
    expected = network.loss(less, 1.0)
    spoilt = pairs.fake.masked_fill(~valid[..., None], 99.0)
    assert network.loss(Pairs(pairs.real, pairs.targets, spoilt, valid), 1.0) == pytest.approx(expected, rel=1e-6)


def test_in_the_held_out_loss_all_real_images_with_a_fake_count_the_same() -> None:
    pairs = pairs_of([[1, 0, 1, 1, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    network = RatioNetwork(1, FourierEmbedding(128), (32,), 0.0).eval()
    h_real, h_fake = (h.double().numpy() for h in network.values(pairs))
    s = lambda h: 1 / (1 + np.exp(-h))  # noqa: E731
    rows, fakes = [0, 1, 3], {0: [0, 0, 2, 3, 4], 1: [3], 3: [0, 1, 2, 3, 4]}  # row 0 repeats its first valid one
    over = {k: np.mean([np.mean(f(h_fake[row][fakes[row]])) for row in rows]) for k, f in {
        "divergence": lambda h: s(h) * h - np.log1p(np.exp(h)), "h": lambda h: h,
    }.items()}  # fmt: skip
    expected = over["divergence"] - s(h_real[rows]).mean() + 0.3 * (over["h"] - 1) ** 2
    assert network.loss(pairs, 0.3) == pytest.approx(expected, rel=1e-5)


def grey_world(fabric: Fabric, labels: list[float], gaps: float | None) -> tuple[Pairs, list[float]]:
    """A generator that misses the label by +-0.3, or not, and a teacher that reads it from the grey."""
    task, y = Regression(0.0, 10.0), torch.tensor(labels)
    space = ScalarLabels(task.to_target(y), ScalarLabelSettings())

    def sample(targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        miss = torch.tensor([0.0, 0.3, -0.3])[indices % 3]
        grey = (255 * (targets + miss)).round().clamp(0, 255).to(torch.uint8)
        return grey[:, None, None, None].expand(-1, 1, 16, 16)

    class Seeing:
        def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
            grey = images.float()[:, 0, 0, :1] / 255
            return grey, torch.cat([grey, 1 - grey], dim=1)

    images = ImageSet(torch.zeros(len(y), 1, 16, 16, dtype=torch.uint8), y)
    settings = RatioSettings(fakes_per_image=3, vicinity_gaps=gaps)
    reader = Reader(CallableSampler(sample), Seeing(), {"train": images})
    pairs = real_and_fakes(Work(fabric), reader, "train", task, space, settings, 0)
    return pairs, (y / 10).tolist()


@pytest.mark.parametrize("gaps", [None, 0.5, 2.0])
def test_fakes_far_from_the_label_by_a_plain_loop(gaps: float | None, fabric: Fabric) -> None:
    # The widest gap is 0.2. At the ends of the range, the teacher's word is clipped to it.
    labels = [0.0, 2.0, 4.0, 5.0, 6.0, 7.0, 9.0, 10.0]
    pairs, y = grey_world(fabric, labels, gaps)
    for row, target in enumerate(y):
        for number, miss in enumerate((0.0, 0.3, -0.3)):
            grey = min(max(round(255 * (target + miss)), 0), 255) / 255
            assert float(pairs.fake[row, number, 0]) == pytest.approx(grey, abs=2 / 255)
            near = gaps is None or abs(grey - target) <= gaps * 0.2
            assert bool(pairs.valid[row, number]) == near, (target, miss)
    assert pairs.left_out == pytest.approx({None: 0.0, 0.5: 14 / 24, 2.0: 0.0}[gaps], abs=1e-6)


def test_no_fake_near_any_label_is_the_users_to_mend(fabric: Fabric) -> None:
    with pytest.raises(UserError, match=r"ratio.vicinity_gaps = 0.0001 leaves no fake"):
        grey_world(fabric, [1.01, 2.03, 5.1], 1e-4)


def test_fakes_at_one_label_alone_are_the_users_to_mend(fabric: Fabric) -> None:
    pairs = pairs_of([[1, 1], [0, 0], [0, 0]])
    with pytest.raises(UserError, match="only one training image has generated images that count at its label"):
        train_ratio(Work(fabric), pairs, FourierEmbedding(128), RatioSettings(steps=2, hidden=(32,)), seed=0)


def test_a_shelf_is_asked_for_what_it_holds(fabric: Fabric) -> None:
    held, asked = {4: 5, 9: 100, 1: 0}, set()

    class Shelf:
        def sample(self, targets: Tensor, indices: Tensor, seed: int) -> Tensor:
            asked.update(zip(targets.tolist(), indices.tolist(), strict=True))
            return targets.to(torch.uint8)[:, None, None, None].expand(-1, 1, 16, 16)

        def available(self, targets: Tensor) -> Tensor:
            return torch.tensor([held[int(target)] for target in targets])

    def extractor(images: Tensor) -> tuple[Tensor, Tensor]:
        return images[:, 0, 0, :1].float(), images[:, 0, 0, :2].float()

    targets = torch.tensor([4, 9, 4, 1, 4, 9])
    features, there = fakes_at_labels(Work(fabric), Reader(Shelf(), extractor, {}), targets, 3, seed=0)
    nine = [(9, index) for index in (3, 4, 5, 15, 16, 17)]  # as if there were no end of them
    assert asked == {*((4, index) for index in range(5)), *nine}  # every image before any comes again
    assert there.tolist() == [[target != 1] * 3 for target in targets.tolist()]
    assert torch.equal(features[..., 0], torch.where(there, targets[:, None], 0).float())


# --- a killed loop goes on ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("held_out", [False, True])
def test_a_killed_training_goes_on_bit_for_bit(held_out: bool, fabric: Fabric, tmp_path: Path) -> None:
    settings = RatioSettings(steps=6, batch_size=16, hidden=(32, 32), dropout=0.5, learning_rate=0.05)

    def trained(work: Work) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        network, history = train_ratio(
            work,
            normals(30, 0),
            FourierEmbedding(128),
            settings,
            seed=1,
            held_out=normals(12, 1) if held_out else None,
        )
        return network.state_dict(), history

    whole, history = trained(Work(fabric))
    (parts, resumed), calls = stopped_at_every_save(fabric, tmp_path, trained)
    assert calls == 7
    assert resumed == history
    for name, value in whole.items():
        assert torch.equal(parts[name], value), name


def test_a_killed_look_at_fakes_goes_on(fabric: Fabric, tmp_path: Path) -> None:
    asked: list[int] = []

    def sample(targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        asked.append(len(targets))
        return (7 * targets + indices).to(torch.uint8)[:, None, None, None].expand(-1, 1, 16, 16)

    def extractor(images: Tensor) -> tuple[Tensor, Tensor]:
        return images[:, 0, 0, :1].float(), images[:, 0, 0, :2].float()

    targets = torch.arange(30)

    def look(work: Work) -> tuple[Tensor, ...]:
        return fakes_at_labels(work, Reader(CallableSampler(sample), extractor, {}), targets, 3, seed=0)

    whole = look(Work(fabric))
    asked.clear()
    parts, calls = stopped_at_every_save(fabric, tmp_path, look)
    assert sum(asked) == 90  # none is asked for twice
    assert calls == len(asked) + 1 == 4
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("scalar", [False, True])
def test_no_step_waits_for_the_device(scalar: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density_ratio, "LOG_POINTS", 1)
    pairs = normals(50, 0)
    pairs = pairs if scalar else dataclasses.replace(pairs, targets=torch.arange(50) % 2)
    embedding = ratio_embedding(Regression(0.0, 1.0) if scalar else Classification(("a", "b")), 128)
    with Waits() as mode:
        progress = Watched(mode)
        settings = RatioSettings(hidden=(32,), steps=3)
        train_ratio(Work(accelerated(), progress), pairs, embedding, settings, seed=0, held_out=pairs)
    assert [len(seen) for seen in progress.loops] == [3]
    assert progress.after(1) == Counter()
