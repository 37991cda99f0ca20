"""RandAugment's operations against Pillow's, CutMix against the paper's loop and plain counting of pixels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats
from torch import Tensor

from cgankd.config.settings import AugmentSettings
from cgankd.core import rng
from cgankd.data.augment import GEOMETRY, VALUES, Mixing, RandAugment, inverse_map, warp
from cgankd.data.batches import Batches
from cgankd.data.imageset import TrainingImages
from cgankd.tasks import Classification, Regression, Task

STRENGTHS = (-1.0, -0.62, -0.25, 0.1, 0.45, 0.81, 1.0)
ENHANCED = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
    "sharpness": ImageEnhance.Sharpness,
}


def pictures(count: int, channels: int, height: int, width: int, border: int = 0, waves: int = 4) -> Tensor:
    """Smooth uint8 images [N, C, H, W] with values in 20 .. 225, inside a black border."""
    torch_rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, waves, waves, generator=torch_rng)
    inner = (height - 2 * border, width - 2 * border)
    smooth = torch.nn.functional.interpolate(coarse, size=inner, mode="bicubic", align_corners=True).clamp(0, 1)
    images = torch.zeros(count, channels, height, width)
    images[:, :, border : height - border, border : width - border] = 20 + 205 * smooth
    return images.round().to(torch.uint8)


def pillow(image: Tensor) -> Image.Image:
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def array(image: Image.Image) -> np.ndarray:
    """[C, H, W]"""
    found = np.asarray(image)
    return found[None] if found.ndim == 2 else found.transpose(2, 0, 1)


def amount(strength: float, count: int) -> Tensor:
    return torch.full((count, 1, 1, 1), strength)


def levels(images: Tensor) -> np.ndarray:
    return 255.0 * images.clamp(0.0, 1.0).numpy()


# --- operations on values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", list(VALUES))
def test_operations_on_values_are_pillows(name: str, channels: int) -> None:
    images = pictures(4, channels, 20, 17, waves=9)
    for strength in STRENGTHS:
        found = levels(VALUES[name](images / 255.0, amount(strength, 4)))
        for image, mine in zip(images, found, strict=True):
            whole = pillow(image)
            # Pillow rounds to whole levels: after blending, and before it in its grey, its mean or its smoothing
            tolerance = 2.0 if name in ENHANCED else 1.0 if name == "autocontrast" else 0.01
            if name in ENHANCED:
                right = ENHANCED[name](whole).enhance(1.0 + 0.9 * strength)
            elif name == "posterize":
                right = ImageOps.posterize(whole, 8 - round(4 * abs(strength)))
            elif name == "solarize":
                right = ImageOps.solarize(whole, math.floor(255 * (1.0 - abs(strength))) + 1)
            else:
                right = {"autocontrast": ImageOps.autocontrast, "equalize": ImageOps.equalize}[name](whole)
            assert np.abs(array(right) - mine).max() <= tolerance
    if name != "saturation" or channels == 3:
        assert np.abs(found - images.numpy()).max() > 10  # at full strength it shows


@pytest.mark.parametrize("name", sorted(set(VALUES) - {"autocontrast", "equalize"}))
def test_at_zero_strength_values_stay(name: str) -> None:
    every = torch.arange(256).repeat(3).view(1, 3, 16, 16) / 255.0
    images = torch.cat([every, pictures(3, 3, 16, 16) / 255.0, torch.ones(1, 3, 16, 16)])
    assert torch.equal(VALUES[name](images, amount(0.0, 5)), images)


@pytest.mark.parametrize("name", ["autocontrast", "equalize", "contrast"])
def test_an_image_of_one_level_stays(name: str) -> None:
    flat = torch.full((2, 1, 16, 16), 77 / 255.0)
    assert torch.allclose(VALUES[name](flat, amount(1.0, 2)), flat, atol=1e-6)


# --- operations on places ----------------------------------------------------------------------------------------


def affine(name: str, strength: float, height: int, width: int) -> tuple[float, ...]:
    """Pillow's six numbers: the source of an output place, in pixels from the upper left corner."""
    if name == "shear_x":
        return 1, 0.3 * strength, -0.3 * strength * height / 2, 0, 1, 0
    if name == "shear_y":
        return 1, 0, 0, 0.3 * strength, 1, -0.3 * strength * width / 2
    if name == "translate_x":
        return 1, 0, strength * width * 150 / 331, 0, 1, 0
    return 1, 0, 0, 0, 1, strength * height * 150 / 331


@pytest.mark.parametrize("size", [(20, 20), (24, 17)])
@pytest.mark.parametrize("name", GEOMETRY)
def test_operations_on_places_are_pillows(name: str, size: tuple[int, int]) -> None:
    images = pictures(3, 3, *size, border=3)  # at the very border Pillow and torch interpolate differently
    for strength in STRENGTHS:
        source = inverse_map(
            list(GEOMETRY), torch.full((3, 1), GEOMETRY.index(name)), torch.full((3, 1), strength), *size
        )
        found = levels(warp(images / 255.0, source.to(torch.float32)))
        for image, mine in zip(images, found, strict=True):
            whole = pillow(image)
            if name == "rotate":
                right = whole.rotate(30.0 * strength, Image.Resampling.BILINEAR)
            else:
                data = affine(name, strength, *size)
                right = whole.transform(whole.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
            assert np.abs(array(right) - mine).max() <= 1.1  # Pillow rounds
            assert np.abs(array(whole) - mine).max() > 10


def test_at_zero_strength_places_stay() -> None:
    operation = torch.arange(len(GEOMETRY))[:, None].expand(-1, 2)
    source = inverse_map(list(GEOMETRY), operation, torch.zeros(operation.shape), 24, 17)
    assert torch.equal(source, torch.eye(3).expand(len(GEOMETRY), 3, 3).to(source))
    images = pictures(5, 1, 24, 17) / 255.0
    assert torch.allclose(warp(images, source.to(torch.float32)), images, atol=1e-5)


def test_rounds_are_composed_in_their_order() -> None:
    images = pictures(4, 1, 48, 48, border=8) / 255.0
    operation = torch.tensor([[0, 3], [3, 0], [1, 2], [0, 1]])  # of GEOMETRY
    strength = torch.tensor([[0.9, 0.5], [0.5, 0.9], [0.8, -0.7], [-0.9, 0.9]])
    both = warp(images, inverse_map(list(GEOMETRY), operation, strength, 48, 48).float())
    one_by_one, other_way = images, images
    for round_ in (0, 1):
        single, reverse = (
            inverse_map(list(GEOMETRY), operation[:, [at]], strength[:, [at]], 48, 48).float()
            for at in (round_, 1 - round_)
        )
        one_by_one, other_way = warp(one_by_one, single), warp(other_way, reverse)
    # interpolated once or twice: the same but for a little blur, which the border's step shows most
    near = (both - one_by_one).abs().mean(dim=(1, 2, 3))
    assert near.max() < 0.01
    assert ((both - other_way).abs().mean(dim=(1, 2, 3)) > 5 * near).all()


# --- RandAugment -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "geometric"), [(1, False), (3, False), (1, True), (3, True)])
def test_a_view_is_its_own_operations_one_after_another(channels: int, geometric: bool) -> None:
    images = pictures(40, channels, 18, 21) / 255.0
    index, view = torch.arange(40), torch.arange(40) % 7
    made = RandAugment(3, 0.8, geometric, seed=11)(images, index, view)
    names = ["identity", *(name for name in VALUES if channels == 3 or name != "saturation")]
    names += list(GEOMETRY) if geometric else []
    for row in range(40):
        drawn = []
        for round_ in range(3):
            counters = [torch.tensor([number]) for number in (row, row % 7, round_)]
            operation = rng.integers(len(names), 11, "randaugment/operation", *counters)
            strength = 0.8 * (2 * rng.uniform(11, "randaugment/strength", *counters) - 1)
            drawn.append((names[int(operation)], operation[:, None], strength[:, None]))
        image = images[row : row + 1]
        moves = [(operation, strength) for name, operation, strength in drawn if name in GEOMETRY]
        if moves:
            operation, strength = (torch.cat(part, dim=1) for part in zip(*moves, strict=True))
            image = warp(image, inverse_map(names, operation, strength, 18, 21).float()).clamp(0, 1)
        for name, _, strength in drawn:
            if name in VALUES:
                image = VALUES[name](image, strength.float()[:, :, None, None]).clamp(0, 1)
        assert torch.allclose(made[row], image[0], atol=1e-6)


def test_a_view_is_the_same_in_whatever_batch() -> None:
    images = pictures(60, 3, 16, 16).float() / 255.0
    index, view = torch.arange(60), torch.arange(60) // 7
    augment = RandAugment(2, 1.0, True, seed=3)
    whole = augment(images, index, view)
    for rows in (torch.arange(59, -1, -1), torch.randperm(60)[:13], torch.tensor([5]), torch.tensor([8, 8, 2])):
        assert torch.equal(augment(images[rows], index[rows], view[rows]), whole[rows])
    assert torch.equal(images, pictures(60, 3, 16, 16).float() / 255.0)  # what it is given stays
    assert whole.is_contiguous(memory_format=torch.channels_last)
    assert 0.0 <= float(whole.min()) < float(whole.max()) <= 1.0
    for other in (RandAugment(2, 1.0, True, seed=4)(images, index, view), augment(images, index, view + 1)):
        assert ((other - whole).abs().amax(dim=(1, 2, 3)) > 0).float().mean() > 0.5


@pytest.mark.parametrize(("channels", "geometric", "number"), [(3, True, 14), (1, True, 13), (3, False, 9)])
def test_operations_and_strengths_come_evenly(channels: int, geometric: bool, number: int) -> None:
    augment = RandAugment(2, 0.6, geometric, seed=0)
    names = augment.names(channels)
    index, view = torch.arange(3000), torch.arange(3000) // 100
    operation, strength = augment.draw(names, index, view)
    assert len(names) == len(set(names)) == number
    assert stats.chisquare(list(Counter(operation.flatten().tolist()).values())).pvalue > 0.01
    assert len(Counter(operation.flatten().tolist())) == number
    assert stats.kstest(strength.flatten().numpy(), stats.uniform(-0.6, 1.2).cdf).pvalue > 0.01
    assert abs(np.corrcoef(operation[:, 0], operation[:, 1])[0, 1]) < 0.05  # rounds don't repeat each other


@pytest.mark.parametrize(
    ("task", "moves"), [(Classification(("a", "b")), True), (Regression(0.0, 90.0, "degrees"), False)]
)
def test_pixels_move_only_where_the_label_allows_it(task: Task, moves: bool, noise: Callable) -> None:
    images = noise(4, scalar=task.continuous, classes=2)
    made = Batches(TrainingImages(images), task, 4, AugmentSettings(randaugment=1), 0, torch.device("cpu"))
    assert set(GEOMETRY) & set(made.views.randaugment.names(1)) == (set(GEOMETRY) if moves else set())


# --- MixUp and CutMix -------------------------------------------------------------------------------------------


def flat(count: int, channels: int = 1, size: tuple[int, int] = (16, 16)) -> Tensor:
    """Image i is of the one value i / 255."""
    return (torch.arange(count) / 255.0)[:, None, None, None].expand(-1, channels, *size).contiguous()


def cutmix(images: Tensor, targets: Tensor, classes: int, *, a: float, seed: int, step: int) -> tuple[Tensor, Tensor]:
    return Mixing(0.0, a, seed)(images, targets, classes, step)


@pytest.mark.parametrize("classes", [2, 1000])
@pytest.mark.parametrize("a", [0.2, 1.0, 30.0])
def test_labels_are_mixed_by_the_pixels_that_are_seen(classes: int, a: float) -> None:
    images, targets = flat(100, size=(16, 21)), (torch.arange(100) * 37) % classes
    mixed, labels = cutmix(images, targets, classes, a=a, seed=0, step=7)
    assert labels.shape == (100, classes)
    for row in range(100):
        owner = (mixed[row, 0] * 255).round().to(torch.int64)  # which image each pixel is of
        expected = np.zeros(classes)
        for image, pixels in Counter(owner.flatten().tolist()).items():
            expected[int(targets[image])] += pixels / (16 * 21)
        assert labels[row].numpy() == pytest.approx(expected, abs=1e-6)
        other = owner != row
        assert int(other.sum()) == int(other.any(1).sum()) * int(other.any(0).sum())  # one box


@pytest.mark.parametrize("a", [0.3, 1.0, 5.0])
def test_boxes_are_the_papers(a: float) -> None:
    height, width, count = 20, 33, 64
    images = flat(count, channels=3, size=(height, width))
    mixed, _ = cutmix(images, torch.zeros(count, dtype=torch.int64), 2, a=a, seed=5, step=2)
    step = torch.tensor(2)
    partners = rng.bits(5, "cutmix/partner", step, torch.arange(count)).argsort().tolist()
    cut = 0
    for row in range(count):
        place = torch.tensor(row)
        share = stats.beta(a, a).ppf(float(rng.uniform(5, "cutmix/share", step, place)))
        expected = images[row].clone()
        box = []
        for stream, length in (("cutmix/down", height), ("cutmix/right", width)):
            side = int(length * math.sqrt(1 - share))
            start = int(rng.integers(length, 5, stream, step, place)) - side // 2
            box.append(slice(max(start, 0), min(max(start + side, 0), length)))
        expected[:, box[0], box[1]] = images[partners[row]][:, box[0], box[1]]
        assert torch.equal(mixed[row], expected)
        cut += box[0].stop > box[0].start
    assert cut > count // 2
    assert sorted(partners) == list(range(count))  # every image is also seen in another's box


def test_mixed_labels_mix_again() -> None:
    probabilities = torch.softmax(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    mixed, labels = cutmix(flat(8), probabilities, 5, a=1.0, seed=0, step=0)
    for row in range(8):
        owner = (mixed[row, 0] * 255).round().to(torch.int64).flatten()
        assert torch.allclose(labels[row], probabilities[owner].mean(dim=0), atol=1e-6)


def test_the_loss_of_a_mixed_picture_is_the_mixture_of_both_losses() -> None:
    task, targets = Classification(tuple("abcde")), torch.arange(8) % 5
    outputs = 2 * torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    mixed, labels = cutmix(flat(8), targets, 5, a=1.0, seed=1, step=0)
    owner = (mixed * 255).round().to(torch.int64).flatten(1)  # [B, pixels]
    every = [
        float(torch.nn.functional.cross_entropy(outputs[row : row + 1], targets[image : image + 1]))
        for row in range(8)
        for image in owner[row].tolist()
    ]
    assert float(task.loss(outputs, labels)) == pytest.approx(np.mean(every), rel=1e-5)


@pytest.mark.parametrize("a", [1e-3, 1e4])
def test_extreme_shares_stay_shares(a: float) -> None:
    _, labels = cutmix(flat(100), torch.arange(100) % 3, 3, a=a, seed=0, step=0)
    assert torch.allclose(labels.sum(dim=1), torch.ones(100))
    assert float(labels.min()) >= 0.0


def test_boxes_differ_from_step_to_step() -> None:
    images, targets = flat(32), torch.arange(32) % 3
    first, again, second = (cutmix(images, targets, 3, a=1.0, seed=0, step=step)[0] for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("a", [0.2, 1.0, 5.0])
def test_mixup_is_a_weighted_mean_with_a_share_for_each_image(a: float) -> None:
    images, targets, step = flat(64, channels=3), torch.arange(64) % 3, torch.tensor(4)
    mixed, labels = Mixing(a, 0.0, 5)(images, targets, 3, 4)
    partners = rng.bits(5, "cutmix/partner", step, torch.arange(64)).argsort().tolist()
    shares = []
    for row, partner in enumerate(partners):
        draw = float(rng.uniform(5, "mixup/share", step, torch.tensor(row)))
        share = stats.beta(a, a).ppf(draw)
        expected = (1 - share) * images[row] + share * images[partner]
        assert torch.allclose(mixed[row], expected, atol=1e-5)
        label = np.zeros(3)
        label[int(targets[row])] += 1 - share
        label[int(targets[partner])] += share
        assert labels[row].numpy() == pytest.approx(label, abs=1e-5)
        shares.append(share)
    assert np.std(shares) > 0.05


def test_with_both_each_image_is_mixed_in_one_way() -> None:
    images, targets = flat(100), torch.arange(100) % 3
    both, labels = Mixing(1.0, 1.0, 0)(images, targets, 3, 2)
    ways = [Mixing(1.0, 0.0, 0)(images, targets, 3, 2), Mixing(0.0, 1.0, 0)(images, targets, 3, 2)]
    which = [
        [torch.equal(both[row], way[row]) and torch.equal(labels[row], way_labels[row]) for way, way_labels in ways]
        for row in range(100)
    ]
    assert all(any(equal) for equal in which)
    assert 30 < sum(equal[0] for equal in which) < 70


def test_a_mix_of_two_scalars_has_no_label() -> None:
    mixed, labels = Mixing(1.0, 0.0, 0)(flat(8), torch.rand(8), 1, 0)
    assert not torch.equal(mixed, flat(8))
    assert torch.isnan(labels).all()
