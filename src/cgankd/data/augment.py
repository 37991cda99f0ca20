"""Strong augmentation of training images: RandAugment for each view, MixUp and CutMix over a batch.

Images are float32 [B, C, H, W] in [0, 1]. Random numbers are drawn on the CPU, a few per image, so that selecting the
images of an operation never waits for the device. Operations are elementwise, or use extremes and rounded means, so a
view has the same bits in every batch.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from cgankd.core import rng
from cgankd.core.runtime import to_device

LEVELS = 255.0  # stored images are uint8
TURN = math.radians(30.0)  # AutoAugment's ranges (Cubuk et al., arXiv 1805.09501), at strength 1
SHEAR = 0.3  # pixels per pixel
SHIFT = 150.0 / 331.0  # of the side
ENHANCE = 0.9  # brightness, contrast, saturation and sharpness by factors in [0.1, 1.9]
POSTERIZE = 4.0  # bits lost, of 8


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """RandAugment (Cubuk et al., arXiv 1909.13719) as a pure function of (seed, image, view).

    Each of ``count`` rounds draws one operation per view, evenly, and its strength evenly from
    [-magnitude, magnitude]; operations without a direction take its size. A view's geometric operations are
    composed and sampled once, before the others, so pixels are interpolated once at most.
    geometric: also draw operations that move pixels; otherwise only operations that change pixel values.
    """

    count: int
    magnitude: float
    geometric: bool
    seed: int

    def names(self, channels: int) -> list[str]:
        """The operations to draw from; a grey image has no saturation."""
        values = [name for name in VALUES if channels > 1 or name != "saturation"]
        return ["identity", *values, *(GEOMETRY if self.geometric else ())]

    def draw(self, names: list[str], index: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        """Indices into ``names`` and signed strengths, [B, count] each. index, view: int64 [B]."""
        counters = index[:, None], view[:, None], torch.arange(self.count)
        operation = rng.integers(len(names), self.seed, "randaugment/operation", *counters)
        strength = 2.0 * rng.uniform(self.seed, "randaugment/strength", *counters) - 1.0
        return operation, self.magnitude * strength

    def __call__(self, images: Tensor, index: Tensor, view: Tensor) -> Tensor:
        """The changed images, channels last. index, view: int64 [B] on the CPU."""
        names = self.names(images.shape[1])
        operation, strength = self.draw(names, index, view)
        images = images.clone(memory_format=torch.contiguous_format)  # makes reductions over a channel faster
        if self.geometric:
            source = inverse_map(names, operation, strength, images.shape[2], images.shape[3])
            moved = operation >= names.index("rotate")
            _change(images, moved.any(dim=1), warp, source)
        for chosen, amount in zip(operation.unbind(1), strength.unbind(1), strict=True):
            for name, function in VALUES.items():
                if name in names:
                    _change(images, chosen == names.index(name), function, amount[:, None, None, None])
        return images.contiguous(memory_format=torch.channels_last)


def _change(images: Tensor, chosen: Tensor, function: Callable[[Tensor, Tensor], Tensor], amount: Tensor) -> None:
    """Replace the ``chosen`` images (bool [B], CPU) by function(images, amount), in place."""
    rows = chosen.nonzero().squeeze(1)
    if len(rows):
        index = to_device(rows, images.device)
        images[index] = function(images[index], to_device(amount[rows].float(), images.device)).clamp_(0.0, 1.0)


# --- operations on values: images [B, C, H, W], strength [B, 1, 1, 1] in [-1, 1], 0 for no change ----------------


def grey(images: Tensor) -> Tensor:
    """Luma (ITU-R 601), [B, 1, H, W]; a grey image is returned as it is."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def brightness(images: Tensor, strength: Tensor) -> Tensor:
    """Move pixels away from black, or towards it."""
    return images * (1.0 + ENHANCE * strength)


def contrast(images: Tensor, strength: Tensor) -> Tensor:
    """Move pixels away from the image's mean grey, or towards it."""
    mean = grey(images).mean(dim=(2, 3), keepdim=True)
    rounded = (mean * LEVELS).round() / LEVELS  # as in Pillow; this also hides the order of summation
    return images + ENHANCE * strength * (images - rounded)


def saturation(images: Tensor, strength: Tensor) -> Tensor:
    """Move pixels away from their own grey, or towards it."""
    return images + ENHANCE * strength * (images - grey(images))


def sharpness(images: Tensor, strength: Tensor) -> Tensor:
    """Move pixels away from the smoothed image ((3x3 box + 4 centre) / 13), or towards it; border pixels stay."""
    columns = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    box = columns[..., :-2] + columns[..., 1:-1] + columns[..., 2:]
    inner = images[:, :, 1:-1, 1:-1]
    changed = images.clone()
    changed[:, :, 1:-1, 1:-1] += ENHANCE * strength * (inner - (box + 4.0 * inner) / 13.0)
    return changed


def posterize(images: Tensor, strength: Tensor) -> Tensor:
    """Reduce the bits per value."""
    step = torch.exp2((POSTERIZE * strength.abs()).round())
    return ((images * LEVELS).round() / step).floor() * step / LEVELS


def solarize(images: Tensor, strength: Tensor) -> Tensor:
    """Invert pixels that are brighter than 1 - strength."""
    return torch.where(images > 1.0 - strength.abs(), 1.0 - images, images)


def autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    """Stretch each channel to the whole range; ``strength`` has no effect."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)


def equalize(images: Tensor, strength: Tensor) -> Tensor:
    """Equalise each channel's histogram by Pillow's integer rule; ``strength`` has no effect."""
    level = (images * LEVELS).round().to(torch.int64).flatten(2)  # [B, C, H W]
    histogram = level.new_zeros(*level.shape[:2], 256).scatter_add_(2, level, torch.ones_like(level))
    brightest = histogram.gather(2, level.amax(dim=2, keepdim=True))
    step = (level.shape[2] - brightest) // 255  # [B, C, 1]; 0 where nearly all pixels are equal: no change
    darker = histogram.cumsum(2) - histogram
    table = ((darker + step // 2) // step.clamp(min=1)).clamp(max=255)
    equalized = (table.gather(2, level) / LEVELS).view_as(images)
    return torch.where(step[..., None] > 0, equalized, images)


VALUES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    function.__name__: function
    for function in (
        brightness, contrast, saturation, sharpness, posterize, solarize, autocontrast, equalize,
    )
}  # fmt: skip


# --- operations on positions --------------------------------------------------------------------------------------

GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def inverse_map(names: list[str], operation: Tensor, strength: Tensor, height: int, width: int) -> Tensor:
    """Maps pixel positions of the view to those of the image, all rounds composed: float64 [B, 3, 3].

    Positions are in pixels from the centre. operation, strength: [B, rounds], from :meth:`RandAugment.draw`; the last
    round's operation is done last, so its map is inverted first.
    """

    def amount(name: str, largest: float) -> Tensor:
        return largest * strength * (operation == names.index(name))

    angle = amount("rotate", TURN)
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    entries = [
        cos, amount("shear_x", SHEAR) - sin, amount("translate_x", SHIFT * width),
        amount("shear_y", SHEAR) + sin, cos, amount("translate_y", SHIFT * height),
        zero, zero, one,
    ]  # fmt: skip
    maps = torch.stack(entries, dim=-1).unflatten(-1, (3, 3))  # [B, rounds, 3, 3]
    return functools.reduce(torch.matmul, maps.unbind(1))


def warp(images: Tensor, source: Tensor) -> Tensor:
    """Take each pixel from the position that ``source`` [B, 3, 3] maps it to, bilinear; outside is black."""
    height, width = images.shape[2:]
    y = torch.arange(height, device=images.device)[:, None] - (height - 1) / 2
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    across, down, _ = source[..., None, None].unbind(1)  # [B, 3, 1, 1]
    places = [line[:, 0] * x + line[:, 1] * y + line[:, 2] for line in (across, down)]  # [B, H, W]
    grid = torch.stack([places[0] * (2.0 / width), places[1] * (2.0 / height)], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


# --- CutMix -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Mixing:
    """MixUp and CutMix over a batch, as a pure function of (seed, step). a of Beta(a, a); 0: not used.

    Where both are used, one of them is drawn for each image.
    """

    mixup: float
    cutmix: float
    seed: int

    def __call__(self, images: Tensor, targets: Tensor, classes: int, step: int) -> tuple[Tensor, Tensor]:
        """The mixed images [B, C, H, W] and their targets.

        targets: int64 [B] or probabilities [B, classes], which become probabilities; or scalars [B], which become NaN:
        a mix of two angles has no angle, so a loss must not use it unnoticed.
        """
        count = len(images)
        mixed, shares = images, torch.zeros(count, dtype=torch.float64)  # the share of each image's partner
        partner = rng.order(count, self.seed, "cutmix/partner", step)
        if self.mixup:
            mixed, shares = mixup(images, partner, a=self.mixup, seed=self.seed, step=step)
        if self.cutmix:
            cut, covered = cutmix(images, partner, a=self.cutmix, seed=self.seed, step=step)
            chosen = torch.ones(count, dtype=torch.bool)
            if self.mixup:
                chosen = rng.integers(2, self.seed, "mix/kind", torch.tensor(step), torch.arange(count)) == 1
            by_image = to_device(chosen, images.device)[:, None, None, None]
            mixed, shares = torch.where(by_image, cut, mixed), torch.where(chosen, covered, shares)
        if targets.ndim == 1 and targets.is_floating_point():
            return mixed, torch.full_like(targets, math.nan)
        labels = targets if targets.is_floating_point() else F.one_hot(targets, classes).to(torch.float32)
        share = to_device(shares[:, None].float(), images.device)
        return mixed, labels.lerp(labels[to_device(partner, images.device)], share)


def mixup(images: Tensor, partner: Tensor, *, a: float, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """MixUp (Zhang et al., arXiv 1710.09412): each image [B, C, H, W] becomes a weighted mean with its partner.

    Returns the images and the share of the partner, float64 [B]: 1 - lambda, lambda ~ Beta(a, a) for each image.
    partner: int64 [B], on the CPU.
    """
    draws = rng.uniform(seed, "mixup/share", torch.tensor(step), torch.arange(len(images)))
    shares = _beta(a, draws)
    weight = to_device(shares.to(images.dtype), images.device)[:, None, None, None]
    return images.lerp(images[to_device(partner, images.device)], weight), shares


def _beta(a: float, draws: Tensor) -> Tensor:
    """Draws of Beta(a, a), float64, from as many uniform ones."""
    if a == 1:  # the uniform distribution itself: scipy would take half a second to be imported
        return draws
    from scipy import special

    return torch.from_numpy(special.betaincinv(a, a, draws.numpy()))


def cutmix(images: Tensor, partner: Tensor, *, a: float, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """CutMix (Yun et al., arXiv 1905.04899): a box of each image [B, C, H, W] is replaced by its partner's pixels.

    Returns the images and the share of their pixels that the box covers, float64 [B]. A box has 1 - lambda of the area,
    lambda ~ Beta(a, a) for each image; its centre is anywhere in the image, and it ends at the image's border.
    partner: int64 [B], on the CPU.
    """
    count, _, height, width = images.shape
    counters = torch.tensor(step), torch.arange(count)
    share = _beta(a, rng.uniform(seed, "cutmix/share", *counters))
    side = (1.0 - share).sqrt()  # of the box, as a share of the image's side

    def inside(stream: str, length: int) -> Tensor:
        """Which rows (or columns) the box covers, bool [B, length]."""
        box = (side * length).to(torch.int64)
        first = rng.integers(length, seed, stream, *counters) - box // 2
        place = torch.arange(length) - first[:, None]
        return (place >= 0) & (place < box[:, None])

    rows, columns = inside("cutmix/down", height), inside("cutmix/right", width)
    covered = rows.sum(1) * columns.sum(1) / (height * width)
    box = to_device(rows[:, None, :, None] & columns[:, None, None, :], images.device)
    return torch.where(box, images[to_device(partner, images.device)], images), covered.double()
