"""Training batches: views of images that are pure functions of (seed, image, view number).

Images stay in memory or in a memory-mapped file; the images of a batch are cut out and copied to the device together.
The images of batch ``step`` depend on the seed and the step alone, so a resumed loop sees the same batches.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
import math
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from cgankd.config.settings import AugmentSettings
from cgankd.core import ranks, rng
from cgankd.core.errors import UserError
from cgankd.core.mapped_rows import Images
from cgankd.core.row_file import release_pages
from cgankd.core.runtime import to_device
from cgankd.data.augment import Mixing, RandAugment
from cgankd.data.imageset import TARGET, ImageSet, ImageSource, Together, TrainingImages
from cgankd.data.listing import Ints
from cgankd.tasks import Task


class Views:
    """Augmented views of stored images.

    sets: uint8 [N, C, H, W] each; images are numbered through all sets. A view is mirrored with probability 1/2 where
    ``flip`` is true, then shifted by up to ``settings.shift`` pixels in each direction; the gap is black. Then follows
    RandAugment, if the settings say so; ``geometric``: with operations that move pixels. Raises UserError for a shift
    that is not below the size of the images.
    """

    VERSION = 1  # raise it where the same settings give other pixels, so that cached teacher outputs become stale

    def __init__(
        self,
        sets: Sequence[Images],
        settings: AugmentSettings,
        flip: bool,
        seed: int,
        device: torch.device,
        geometric: bool = False,
    ) -> None:
        self.shift, self.flip, self.seed, self.device = settings.shift, flip, seed, device
        strong = settings.randaugment
        self.randaugment = None if strong is None else RandAugment(strong.operations, strong.magnitude, geometric, seed)
        self.channels, self.height, self.width = sets[0].shape[1:]
        if self.shift >= min(self.height, self.width):
            raise UserError(
                f"augment.shift={self.shift}, but images are {self.width}x{self.height} pixels, so nothing would be "
                f"left of some; allowed: at most {min(self.height, self.width) - 1}"
            )
        self.sets = sets
        self._stored = [_stored(images) for images in sets]
        self._ends = list(itertools.accumulate(map(len, sets)))

    def draw(self, index: Tensor, view: Tensor) -> Tensor:
        """View ``view`` of image ``index``: float32 [B, C, H, W] in [0, 1], channels last, on the device.

        index, view: int64 [B] on the CPU, where the random numbers are drawn, a few for each image.
        """
        reach = 2 * self.shift + 1
        down = rng.integers(reach, self.seed, "view/down", index, view) - self.shift
        right = rng.integers(reach, self.seed, "view/right", index, view) - self.shift
        mirrored = torch.zeros_like(index)
        if self.flip:
            mirrored = rng.integers(2, self.seed, "view/flip", index, view)
        images = self._cut(index, down, right, mirrored)
        return images if self.randaugment is None else self.randaugment(images, index, view)

    def described(self) -> str:
        """All settings of the views as text; another text means other views."""
        size = f"{self.channels}x{self.height}x{self.width}"
        return f"{self.VERSION} {size} shift={self.shift} flip={self.flip} seed={self.seed} {self.randaugment}"

    def clean(self, index: Tensor) -> Tensor:
        """Image ``index`` (int64 [B], CPU) without augmentation: float32 [B, C, H, W] in [0, 1]."""
        still = torch.zeros_like(index)
        return self._cut(index, still, still, still)

    def _cut(self, index: Tensor, down: Tensor, right: Tensor, mirrored: Tensor) -> Tensor:
        """The visible part of each image, whose corner is ``down`` and ``right`` of the image's corner.

        Image by image, so that images in a file are not all read into memory.
        """
        cut = torch.zeros(len(index), self.channels, self.height, self.width, dtype=torch.uint8)
        rows = zip(cut.numpy(), index.tolist(), down.tolist(), right.tolist(), mirrored.tolist(), strict=True)
        for view, number, y, x, flipped in rows:
            target = view[:, :, ::-1] if flipped else view
            target[:, max(0, -y) : self.height - max(0, y), max(0, -x) : self.width - max(0, x)] = self._image(number)[
                :, max(0, y) : self.height + min(0, y), max(0, x) : self.width + min(0, x)
            ]
        release_pages()
        channels_last = torch.stack(cut.unbind(1), dim=-1)  # of bytes, because floats would take twice the time
        return to_device(channels_last, self.device).float().div_(255.0).permute(0, 3, 1, 2)

    def _image(self, number: int) -> npt.NDArray[np.uint8]:
        which = bisect.bisect_right(self._ends, number)
        images, rows = self._stored[which]
        place = number - self._ends[which]  # counted from the end of its set
        return images[place if rows is None else rows[place]]


@dataclasses.dataclass(frozen=True)
class Batch:
    """One training batch. index, view and fake are on the CPU, where they are drawn.

    index: number of the stored image; view: number of its view; both int64 [B]. Where several processes share a batch,
    these are the rows of this process, and ``all`` describes all of them.
    """

    images: Tensor  # float32 [B, C, H, W] in [0, 1]
    targets: Tensor  # [B], for the task's loss; [B, C] where labels are mixed or probabilities
    index: Tensor
    view: Tensor
    fake: Tensor  # bool [B]; for a mixed image: whether image ``index`` is a fake
    mixed: bool = False  # whether images are mixes of two, so that they are not plain views
    number: int | None = None  # of a mixed batch that recurs
    all: BatchRows | None = None  # None: these are all

    def rows(self, part: slice) -> Batch:
        """Some rows of a batch that one process has."""
        images, targets, index, view, fake = self.images, self.targets, self.index, self.view, self.fake
        return Batch(images[part], targets[part], index[part], view[part], fake[part], self.mixed, self.number)

    @property
    def whole(self) -> BatchRows:
        """What is known of all rows of the batch."""
        return self.all or BatchRows(self.targets, self.index, self.view, self.fake)


@dataclasses.dataclass(frozen=True)
class BatchRows:
    """A batch without its images; the fields are those of :class:`Batch`."""

    targets: Tensor
    index: Tensor
    view: Tensor
    fake: Tensor


class Batches:
    """Batches of real images and of fakes, if there are any; batch ``step`` is a pure function of the seed.

    Every image is seen once before any is seen twice: among real images and fakes separately, or among all images
    where ``images.real_share`` is None. With ``augment.views`` above 0 the views of an image recur after so many. With
    ``augment.mixed_views`` above 0 whole batches recur, after so many mixed images for each stored one.
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
        sets = [real, *filter(len, _opened(images.fake))]
        # Flips are off by default, because mirrored traffic signs, digits, text and angles have other labels.
        self.views = Views(
            [s.images for s in sets], augment, bool(augment.flip), seed, device, geometric=task.geometry_safe
        )
        self.classes = task.num_outputs
        self.targets = _targets(sets, task)
        self.mixing = Mixing(augment.mixup, augment.cutmix, seed) if augment.mixes else None
        self.recurring = augment.views  # 0: a view never repeats
        self.count = sum(map(len, sets))
        recurs = self.mixing is not None and augment.mixed_views
        self.period = max(1, augment.mixed_views * self.count // batch_size) if recurs else None  # of mixed batches
        self.real_count = len(real)
        starts = itertools.accumulate(map(len, sets), initial=0)
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
        """Batch number ``step``, from 0; where several processes share it, this one's rows."""
        number = None if self.period is None else step % self.period
        step = step if number is None else number
        index, epoch = (torch.cat(part) for part in zip(*self._positions(step), strict=True))
        view = epoch % self.recurring if self.recurring else epoch
        targets, fake, rows = to_device(self._targets_of(index), self.device), index >= self.real_count, ranks.rows()
        if self.mixing is None:
            images = self.views.draw(index[rows], view[rows])
        else:  # each image is mixed with another one, which may belong to another process
            images, targets = self.mixing(self.views.draw(index, view), targets, self.classes, step)
            images = images[rows]
        whole = BatchRows(targets, index, view, fake) if ranks.share()[1] > 1 else None
        return Batch(
            images, targets[rows], index[rows], view[rows], fake[rows], self.mixing is not None, number, all=whole
        )

    @property
    def recurs(self) -> bool:
        """Whether any image comes back as it was."""
        return bool(self.recurring) if self.mixing is None else self.period is not None

    def seen_once(self, steps: int) -> frozenset[int]:
        """The sets none of whose views is seen twice in so many steps."""
        every = frozenset(range(len(self.sets)))
        if self.mixing is not None:
            return every if self.period is None or steps <= self.period else frozenset()
        if not self.recurring:
            return every
        return frozenset(number for number in every if self.epochs(number, steps) <= self.recurring)

    def epochs(self, number: int, steps: int) -> int:
        """How often images of a set are seen in so many steps, at most."""
        _, count, size = self.streams[min(number, len(self.streams) - 1)]
        return math.ceil(steps * size / count)

    def key(self, number: int) -> str:
        """A hash of everything that a set's views depend on: its stored images and the views' settings."""
        if number not in self._keys:
            first, _ = self.sets[number]
            digest = hashlib.blake2b(f"{first} {self.views.described()} ".encode(), digest_size=16)
            for block in self.views.sets[number].split(10_000):
                digest.update(block.contiguous().numpy().data)
                release_pages()
            self._keys[number] = digest.hexdigest()
        return self._keys[number]

    @property
    def mixed_key(self) -> str:
        """A hash of everything that mixed batches depend on."""
        parts = [*map(self.key, range(len(self.sets))), repr(self.mixing), repr(self.streams), repr(self.period)]
        epochs = max(self.epochs(number, self.period or 0) for number in range(len(self.streams)))
        if 0 < self.recurring < epochs:  # else no view comes twice in a period, and their number does not matter
            parts.append(repr(self.recurring))
        return hashlib.blake2b(" ".join(parts).encode(), digest_size=16).hexdigest()

    def _targets_of(self, index: Tensor) -> Tensor:
        """The targets of images, [B]; probabilities [B, classes] where a set has them, and the others are one-hot."""
        if all(targets.ndim == 1 for targets in self.targets):
            picked = torch.empty(len(index), dtype=self.targets[0].dtype)
        else:
            picked = torch.zeros(len(index), self.classes)
        for (first, count), targets in zip(self.sets, self.targets, strict=True):
            inside = (index >= first) & (index < first + count)
            rows = targets[index[inside] - first]
            picked[inside] = F.one_hot(rows, self.classes).float() if rows.ndim < picked.ndim else rows
        return picked

    def _positions(self, step: int) -> list[tuple[Tensor, Tensor]]:
        parts = []
        for number, (first, count, size) in enumerate(self.streams):
            place, end = step * size, (step + 1) * size
            while place < end:  # a batch may extend past the end of an epoch, or contain several short epochs
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


def in_order(batches: Batches, first: int, end: int) -> Generator[Batch, None, None]:
    """Batches ``first`` to ``end - 1``. A second thread makes the next one while one is used.

    With several processes there is no second thread: which rows belong to a process depends on what it is doing.
    """
    if ranks.share()[1] > 1:
        yield from map(batches.at, range(first, end))
        return
    with ThreadPoolExecutor(1, "batches") as pool:
        ahead = pool.submit(batches.at, first)
        for step in range(first, end):
            batch = ahead.result()
            if step + 1 < end:
                ahead = pool.submit(batches.at, step + 1)
            yield batch


def _opened(images: ImageSource | Together | None) -> list[ImageSet]:
    """The sets of images that are used with the real ones."""
    if isinstance(images, Together):
        return [part.open() for part in images.parts]
    return [] if images is None else [images.open()]


def _stored(images: Images) -> tuple[npt.NDArray[np.uint8], Ints | None]:
    """The array that the images lie in, and their rows in it; None: all, in order."""
    return (images.numpy(), None) if isinstance(images, Tensor) else (images.stored, images.rows)


def _targets(sets: Sequence[ImageSet], task: Task) -> list[Tensor]:
    """The targets of each set: [N], or probabilities [N, classes], which may be mapped from a file, so not copied."""
    return [s.columns[TARGET] if TARGET in s.columns else task.to_target(s.labels) for s in sets]
