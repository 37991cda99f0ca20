"""Training batches: images that lie on the device, views that are pure functions of (seed, image, view number).

All images are stored once, padded, as uint8 [N, H + 2p, W + 2p, C] on the device. A batch is one gather: the
shift and the mirror are where the gather starts and in which direction it reads. Which images stand in batch
``step`` depends on the seed and the step alone, so a resumed loop sees the same batches.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cgankd.config.settings import AugmentSettings
from cgankd.core import rng
from cgankd.data.augment import Mixing, RandAugment
from cgankd.data.imageset import TARGET, ImageSet, TrainingImages
from cgankd.tasks import Task


class Views:
    """Augmented views of stored images.

    sets: uint8 [N, C, H, W] each, numbered one after the other. A view is mirrored with probability 1/2 where
    ``flip`` is true, then shifted by up to ``settings.shift`` pixels in each direction; black comes in. Then
    RandAugment, where the settings ask for it; ``geometric``: with operations that move pixels.
    """

    VERSION = 1  # raised where the same settings give other pixels: answers that were kept are of others then

    def __init__(
        self,
        sets: Sequence[Tensor],
        settings: AugmentSettings,
        flip: bool,
        seed: int,
        device: torch.device,
        geometric: bool = False,
    ) -> None:
        self.shift, self.flip, self.seed = settings.shift, flip, seed
        strong = settings.randaugment
        self.randaugment = None if strong is None else RandAugment(strong.operations, strong.magnitude, geometric, seed)
        self.channels, self.height, self.width = sets[0].shape[1:]
        self.pixels = _padded(sets, self.shift, device).flatten(0, 2)  # [N * Hp * Wp, C]
        self._rows = torch.arange(self.height, device=device)
        self._columns = torch.arange(self.width)

    def draw(self, index: Tensor, view: Tensor) -> Tensor:
        """View ``view`` of image ``index``: float32 [B, C, H, W] in [0, 1], channels last, on the device.

        index, view: int64 [B] on the CPU, where all that is random is drawn: a few numbers for each image.
        """
        reach = 2 * self.shift + 1
        down = rng.integers(reach, self.seed, "view/down", index, view)
        right = rng.integers(reach, self.seed, "view/right", index, view)
        columns = self._columns.expand(len(index), -1)
        if self.flip:
            mirrored = rng.integers(2, self.seed, "view/flip", index, view)[:, None] == 1
            columns = torch.where(mirrored, self.width - 1 - columns, columns)
        images = self._gather(index, down, columns + right[:, None])
        return images if self.randaugment is None else self.randaugment(images, index, view)

    def described(self) -> str:
        """How a view is drawn, in words: views of other words are other views."""
        size = f"{self.channels}x{self.height}x{self.width}"
        return f"{self.VERSION} {size} shift={self.shift} flip={self.flip} seed={self.seed} {self.randaugment}"

    def clean(self, index: Tensor) -> Tensor:
        """Image ``index`` (int64 [B], CPU) as it is: float32 [B, C, H, W] in [0, 1]."""
        down = torch.full_like(index, self.shift)
        return self._gather(index, down, self._columns.expand(len(index), -1) + self.shift)

    def _gather(self, index: Tensor, down: Tensor, columns: Tensor) -> Tensor:
        height, width = self.height + 2 * self.shift, self.width + 2 * self.shift
        first = (index * height + down).to(self.pixels.device)
        rows = first[:, None] + self._rows  # [B, H]
        where = (rows * width)[:, :, None] + columns.to(self.pixels.device)[:, None, :]  # [B, H, W]
        pixels = self.pixels.index_select(0, where.flatten()).view(*where.shape, self.channels)
        return pixels.permute(0, 3, 1, 2).float().div_(255.0)


@dataclasses.dataclass(frozen=True)
class Batch:
    """One training batch. index: which stored image; view: which of its views; both int64 [B] on the CPU."""

    images: Tensor  # float32 [B, C, H, W] in [0, 1]
    targets: Tensor  # [B], as the task's loss takes them; [B, C] where labels are mixed or probabilities
    index: Tensor
    view: Tensor
    fake: Tensor  # bool [B], of a mixed image: of the one that it is a view of
    mixed: bool = False  # whether images are mixes of two, so that no view of an image is what is seen


def _padded(sets: Sequence[Tensor], shift: int, device: torch.device) -> Tensor:
    """uint8 [N, Hp, Wp, C] with a black frame, filled block by block: of 100,000 images no further copy is made."""
    channels, height, width = sets[0].shape[1:]
    size = (sum(map(len, sets)), height + 2 * shift, width + 2 * shift, channels)
    padded = torch.zeros(size, dtype=torch.uint8, device=device)
    inside = padded[:, shift : shift + height, shift : shift + width]
    blocks = (block for images in sets for block in images.split(10_000))
    start = 0
    for block in blocks:
        inside[start : start + len(block)] = block.permute(0, 2, 3, 1).to(device)
        start += len(block)
    return padded


class Batches:
    """Batches of real images and, where there are any, fake ones; batch ``step`` is a pure function of the seed.

    Of real and fake images apart, or of all together where ``images.real_share`` is None, every image is seen once
    before any is seen twice.
    """

    def __init__(
        self,
        images: TrainingImages,
        task: Task,
        batch_size: int,
        augment: AugmentSettings,
        seed: int,
        device: torch.device,
    ) -> None:
        real, share = images.real.open(), images.real_share
        fake = None if images.fake is None else images.fake.open()
        sets: Sequence[ImageSet] = [real] if fake is None or not len(fake) else [real, fake]
        # Off unless asked: traffic signs, digits and text are other classes in a mirror, and angles other angles.
        self.views = Views(
            [s.images for s in sets], augment, bool(augment.flip), seed, device, geometric=task.geometry_safe
        )
        self.targets = _targets(sets, task).to(device)
        self.classes = task.num_outputs
        self.mixing = Mixing(augment.mixup, augment.cutmix, seed) if augment.mixes else None
        self.recurring = augment.views  # 0: a view never comes back
        self.count = sum(map(len, sets))
        self.real_count = len(real)
        starts = (0, len(real))
        self.sets = [(start, len(s)) for start, s in zip(starts, sets, strict=False)]  # first image, number of images
        self.seed, self.device = seed, device
        self._orders: dict[tuple[int, int], Tensor] = {}
        self._keys: dict[int, str] = {}
        # first image, number of images, images in a batch
        if len(sets) == 1 or share is None:
            self.streams = [(0, self.count, batch_size)]
        else:
            part = min(max(round(batch_size * share), 1), batch_size - 1)
            self.streams = [(0, len(real), part), (len(real), self.count - len(real), batch_size - part)]

    def at(self, step: int) -> Batch:
        """Batch number ``step``, from 0."""
        index, epoch = (torch.cat(part) for part in zip(*self._positions(step), strict=True))
        view = epoch % self.recurring if self.recurring else epoch
        images, targets = self.views.draw(index, view), self.targets[index.to(self.device)]
        if self.mixing is not None:
            images, targets = self.mixing(images, targets, self.classes, step)
        fake = (index >= self.real_count).to(self.device)
        return Batch(images, targets, index, view, fake, mixed=self.mixing is not None)

    def key(self, number: int) -> str:
        """A hash of all that a set's views depend on: its images as they are stored, and how views are drawn."""
        if number not in self._keys:
            first, count = self.sets[number]
            each = len(self.views.pixels) // self.count
            digest = hashlib.blake2b(f"{first} {self.views.described()} ".encode(), digest_size=16)
            digest.update(self.views.pixels[first * each : (first + count) * each].cpu().numpy().data)
            self._keys[number] = digest.hexdigest()
        return self._keys[number]

    def _positions(self, step: int) -> list[tuple[Tensor, Tensor]]:
        parts = []
        for number, (first, count, size) in enumerate(self.streams):
            place, end = step * size, (step + 1) * size
            while place < end:  # a batch may reach over the end of an epoch, or hold several short ones
                epoch, start = divmod(place, count)
                stop = min(count, start + end - place)
                order = self._order(number, epoch, count)[start:stop]
                parts.append((order + first, torch.full_like(order, epoch)))
                place += stop - start
        return parts

    def _order(self, stream: int, epoch: int, count: int) -> Tensor:
        if (stream, epoch) not in self._orders:
            self._orders = {at: order for at, order in self._orders.items() if at[0] != stream}
            torch_rng = rng.generator("cpu", self.seed, "order", stream, epoch)
            self._orders[stream, epoch] = torch.randperm(count, generator=torch_rng)
        return self._orders[stream, epoch]


def _targets(sets: Sequence[ImageSet], task: Task) -> Tensor:
    """All images' targets, [N]; where a set has probabilities for targets, the others' are one-hot, [N, C]."""
    soft = any(TARGET in s.columns for s in sets)
    hard = [task.to_target(s.labels) for s in sets]
    if not soft:
        return torch.cat(hard)
    return torch.cat(
        [
            s.columns[TARGET] if TARGET in s.columns else F.one_hot(targets, task.num_outputs).float()
            for s, targets in zip(sets, hard, strict=True)
        ]
    )
