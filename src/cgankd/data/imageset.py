"""ImageSet and Splits: the stored images with their labels."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cgankd.core.errors import UserError
from cgankd.core.hashing import tensor_key
from cgankd.core.mapped_rows import Images, blocks, joined, taken
from cgankd.core.run_text import digits_for, rounded
from cgankd.data import showing
from cgankd.data.listing import Plan, Rejected
from cgankd.data.torch_dataset import ImageDataset
from cgankd.tasks import Task

TARGET = "target"  # a column that replaces the labels in training: probabilities float32 [N, C]

DIGEST = 16  # bytes of the hash of an image
LABEL_DTYPES = (torch.int64, torch.float32, torch.float64)


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images with one label each.

    images: uint8 [N, C, H, W], C 1 or 3, H and W at least 16; of large sets they are in a file, and
    ``images[rows]`` reads some. labels: int64 [N] (classes), or float32 or
    float64 [N] (in the user's own unit). columns: further tensors whose first dimension is N, by name (group,
    teacher output, ratio). names: of the classes, only to show them. files: of the images, only to show them, or
    none; they are no part of the key. A notebook shows a grid of samples.
    """

    images: Images
    labels: Tensor
    columns: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    names: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if self.images.dtype != torch.uint8 or len(shape) != 4 or shape[1] not in (1, 3):
            raise UserError(
                f"images are {self.images.dtype} {list(shape)}; allowed: uint8 [N, C, H, W] with 1 or 3 channels"
            )
        if min(shape[2:]) < 16:
            raise UserError(f"images are {shape[2]}x{shape[3]} pixels; allowed: 16 or more on each side")
        if self.labels.shape != shape[:1] or self.labels.dtype not in LABEL_DTYPES:
            raise UserError(
                f"labels are {self.labels.dtype} {list(self.labels.shape)}; "
                f"allowed: int64, float32 or float64 [{shape[0]}], one per image"
            )
        for name, column in self.columns.items():
            if column.shape[:1] != shape[:1]:
                raise UserError(f"column {name!r} has {len(column)} rows, but there are {shape[0]} images")

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def __repr__(self) -> str:
        height, width = self.size
        labels = self.labels.unique()
        ends = ""
        if len(labels):
            ends = f" {self._text(labels[0])}" + f" to {self._text(labels[-1])}" * (len(labels) > 1)
        kind = f"{len(labels)} labels" if self.labels.is_floating_point() else f"{len(labels)} classes"
        columns = f", columns {', '.join(self.columns)}" if self.columns else ""
        return f"ImageSet({len(self):,} images of {width}x{height}x{self.channels}, {kind}{ends}{columns})"

    def _repr_html_(self) -> str:
        rows = torch.tensor(showing.evenly(len(self)), dtype=torch.int64)
        return showing.grid_html(self.images[rows], [self._text(label) for label in self.labels[rows]], repr(self))

    def _repr_png_(self) -> bytes:
        return showing.grid_png(self.images[torch.tensor(showing.evenly(len(self)), dtype=torch.int64)])

    def _text(self, label: Tensor) -> str:
        if label.is_floating_point():
            return rounded(float(label), self._digits)
        return self.names[int(label)] if self.names else str(int(label))

    @functools.cached_property
    def _digits(self) -> int:
        return digits_for(float(self.labels.min()), float(self.labels.max()))

    @property
    def channels(self) -> int:
        return int(self.images.shape[1])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.images.shape[2]), int(self.images.shape[3])

    def take(self, rows: Tensor) -> ImageSet:
        """The images at ``rows`` (int64 [M]), in that order."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        files = tuple(self.files[row] for row in rows.tolist()) if self.files else ()
        return ImageSet(taken(self.images, rows), self.labels[rows], columns, self.names, files)

    def joined(self, more: ImageSet) -> ImageSet:
        """These images and then ``more``, of the same source."""
        columns = {name: torch.cat([column, more.columns[name]]) for name, column in self.columns.items()}
        labels, files = torch.cat([self.labels, more.labels]), self.files + more.files
        return ImageSet(joined(self.images, more.images), labels, columns, self.names, files)

    def dataset(self, transform: Callable[[Tensor], Tensor] | None = None) -> ImageDataset:
        """For a ``DataLoader``: (float image [C, H, W] in [0, 1], label); or probabilities in place of a label."""
        return ImageDataset(self.images, self.columns.get(TARGET, self.labels), transform)

    def few(self, count: int) -> ImageSet:
        """At most ``count`` of the images, evenly spread."""
        return self.take(torch.linspace(0, len(self) - 1, min(count, len(self))).round().to(torch.int64))

    @functools.cached_property
    def pixel_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (N - 1) of each channel, [C] each, with pixels in [0, 1].

        Pixel values are counted in blocks, so that no copy of all images is made and the order of summation has no
        effect.
        """
        if isinstance(self.images, Tensor):
            counts = _pixel_counts(self.images)
        else:
            images = self.images
            kept = images.remembered("pixel_counts", lambda: _pixel_counts(images).numpy().tobytes())
            counts = torch.frombuffer(bytearray(kept), dtype=torch.float64).view(self.channels, 256)
        values, total = torch.arange(256, dtype=torch.float64) / 255.0, counts.sum(dim=1)
        mean = (counts @ values) / total
        spread = (counts * (values - mean[:, None]).square()).sum(dim=1) / (total - 1).clamp(min=1)
        return mean.float(), spread.sqrt().float()

    def open(self) -> ImageSet:
        """Itself: an :class:`ImageSource` that is open already."""
        return self

    @functools.cached_property
    def content_key(self) -> str:
        """A hash of images, labels and columns."""
        if isinstance(self.images, Tensor):
            return self._key(self.images)
        images, others = self.images, self._key(self.images[:0])
        return images.remembered(f"content_key {others}", lambda: self._key(images).encode()).decode()

    def _key(self, images: Images) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in [("images", images), ("labels", self.labels), *sorted(self.columns.items())]:
            digest.update(f"{name}:{tensor.dtype}:{list(tensor.shape)};".encode())
            for block in [tensor] if isinstance(tensor, Tensor) else blocks(tensor):
                digest.update(np.ascontiguousarray(block.numpy()).data)
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class UnlabelledImages:
    """Images without labels. images: uint8 [N, C, H, W]. of_pool: whether some are in the pool, where they have one."""

    images: Images
    of_pool: bool = False

    def __len__(self) -> int:
        return len(self.images)

    @functools.cached_property
    def content_key(self) -> str:
        """A hash of the images."""
        return tensor_key(self.images) if isinstance(self.images, Tensor) else self.images.tensor_key


class ImageSource(Protocol):
    """Images that are opened when they are needed, such as generated images in a file."""

    @property
    def content_key(self) -> str:
        """A hash of the images and their labels."""

    def open(self) -> ImageSet: ...


@dataclasses.dataclass(frozen=True)
class TrainingImages:
    """The images that a network is trained and validated on.

    fake: generated images, or other images used with the ``real`` ones; :class:`Together`: several kinds. real_share:
    share of ``real`` images in each batch; None: all images are shuffled together, so each is seen equally often.
    validation: scored during training.
    """

    real: ImageSource
    fake: ImageSource | Together | None = None
    real_share: float | None = None
    validation: ImageSource | None = None


@dataclasses.dataclass(frozen=True)
class Together:
    """Images of several kinds, which are shuffled together."""

    parts: tuple[ImageSource, ...]


def together(parts: Sequence[ImageSource]) -> ImageSource | Together | None:
    """All parts; the part itself where there is one, so that its key stays, and None where there is none."""
    if len(parts) > 1:
        return Together(tuple(parts))
    return parts[0] if parts else None


def as_bytes(images: Tensor) -> Tensor:
    """Float images [B, C, H, W] in [0, 1], rounded to uint8, on the CPU."""
    return (images.detach().float() * 255.0).round().clamp(0, 255).to(torch.uint8).cpu()


def _pixel_counts(images: Images) -> Tensor:
    """How often each channel has each value, float64 [C, 256]."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.float64)
    for block in blocks(images):
        for channel in range(len(counts)):
            counts[channel] += block[:, channel].flatten().bincount(minlength=256)
    return counts


def contents(images: Images) -> list[bytes]:
    """A hash of each image's pixels; uint8 [N, C, H, W], on the CPU."""

    def digests() -> list[bytes]:
        parts = (block.contiguous().numpy() for block in blocks(images))
        return [hashlib.blake2b(image.data, digest_size=DIGEST).digest() for part in parts for image in part]

    if isinstance(images, Tensor):
        return digests()
    joined = images.remembered("contents", lambda: b"".join(digests()))
    return [joined[start : start + DIGEST] for start in range(0, len(joined), DIGEST)]


@dataclasses.dataclass(frozen=True)
class Splits:
    """One data set, split.

    train: the labelled images. pool: all training images except validation, in the order of the source; a strong
    teacher may be trained on it. labelled: the rows of ``pool`` that are in ``train``; None: all. val: for every choice
    during a run. test: for the table only.
    """

    name: str
    task: Task
    train: ImageSet
    pool: ImageSet
    val: ImageSet
    test: ImageSet
    notes: tuple[str, ...] = ()  # sentences for the user: what was done to the images on import
    plan: Plan | None = None  # the shape that images were brought to; None where they were given as tensors
    rejected: tuple[Rejected, ...] = ()  # images that can't be read and were left out, by data.skip_bad
    labelled: Tensor | None = None  # int64
    further: UnlabelledImages | None = None  # of data.unlabelled

    def with_validation(self) -> Splits:
        """The same, with the images of ``val`` among the labelled ones: for a training after all choices."""
        train = self.train.joined(self.val)
        return dataclasses.replace(self, train=train, pool=train if self.labelled is None else self.pool)

    @functools.cached_property
    def unlabelled(self) -> UnlabelledImages:
        """The images of ``data.unlabelled``, or else those of the pool that are not in train, whose labels are not
        used."""
        if self.further is not None:
            return self.further
        further = torch.ones(len(self.pool), dtype=torch.bool)
        further[slice(None) if self.labelled is None else self.labelled] = False
        return UnlabelledImages(taken(self.pool.images, further), of_pool=True)
