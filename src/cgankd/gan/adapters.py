"""Generators other than the trained GAN: a function, an ONNX file, or ready images."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgankd.core import rng
from cgankd.core.errors import UserError
from cgankd.core.hashing import content_key
from cgankd.core.paths import IMAGE_FILES, expanded
from cgankd.core.plugins import code_key, is_function_name, load_function, onnx_key, open_onnx, tried
from cgankd.core.progress import SILENT, Progress
from cgankd.data import sources
from cgankd.data.imageset import ImageSet
from cgankd.data.remote import at_hand
from cgankd.gan.generator import Sampler, latents, to_uint8
from cgankd.tasks import Task

Function = Callable[[Tensor, Tensor, int], Tensor]
SEEDS = 2**32  # numpy's generators take no others
REPEATS_WITHIN = 2.0  # mean difference in grey levels of an image drawn twice; low precision is not exact


def open_source(
    source: str,
    task: Task,
    channels: int,
    size: tuple[int, int],
    label_column: str | None = None,
    progress: Progress = SILENT,
) -> Sampler:
    """The generator that ``generator.source`` names: module:function, an .onnx file, or ready images with labels.

    The file or folder may be at an address; ``progress`` shows how it is copied. label_column: the column of ready
    images with the labels, if they have such a column; else ``label``. A function and an ONNX file are tried on two
    labels. Raises UserError where the source does not exist, can't be opened, or does not give uint8 images
    [B, channels, height, width].
    """
    with at_hand(source, progress) as local:
        return _open(local, task, channels, size, label_column, progress)


def _open(
    source: str, task: Task, channels: int, size: tuple[int, int], label_column: str | None, progress: Progress
) -> Sampler:
    path = expanded(source)
    shape = (channels, *size)
    if is_function_name(source) and not path.exists():
        function = load_function(source, "generator.source")
        key = content_key(code_key(source), SEEDS)  # its images depend on which seeds it gets
        sampler: Sampler = CallableSampler(function, shape, source, key)
    elif path.suffix.lower() == ".onnx" and path.is_file():
        sampler = OnnxSampler(path, shape)
    elif path.is_dir() or path.suffix.lower() in IMAGE_FILES:
        images = sources.load_whole(str(path), task, channels, size, "generator.source", label_column, progress)
        return StoredImages(images, task)
    else:
        raise UserError(
            f"generator.source {source!r} is {'a file of another kind' if path.is_file() else 'not there'}; "
            "allowed: module:function, an .onnx file, a folder, an .npz, an .h5, a .parquet or a .tar file, or the "
            "address of one"
        )
    targets = task.to_target(task.from_target(torch.tensor([0.0, 1.0])))
    with tried(
        f"generator.source {source!r}: drawing two images failed",
        f"a function takes (targets, indices, seed) and gives uint8 images [B, {channels}, {size[0]}, {size[1]}]",
    ):
        check_repeats(sampler, targets, f"generator.source {source!r}")
    return sampler


def check_repeats(sampler: Sampler, targets: Tensor, where: str) -> None:
    """UserError where an image depends on its place in the batch or differs in the next call; targets [2].

    Then results would depend on the batch size, and a function that seeds its random numbers once per call would give
    the same few images in each batch.
    """
    indices = torch.arange(2)
    first, turned = sampler.sample(targets, indices, 0), sampler.sample(targets.flip(0), indices.flip(0), 0)
    if float((first.float() - turned.flip(0).float()).abs().mean()) > REPEATS_WITHIN:
        raise UserError(
            f"{where}: gives other images for the same (target, index, seed) in another order; needed: the same image, "
            "in every batch (so random numbers are seeded for each image, with its index)"
        )


class CallableSampler(Sampler):
    """Any function ``(targets, indices, seed) -> uint8 images``; seed: 0 to 2**32 - 1.

    shape: (C, H, W) that the images must have; None: any. Raises UserError for images of another shape.
    content_key: identifies the function where results are stored.
    """

    def __init__(
        self,
        function: Function,
        shape: tuple[int, int, int] | None = None,
        name: str = "the function",
        content_key: str = "",
    ) -> None:
        self.function, self.shape, self.name, self.content_key = function, shape, name, content_key

    def sample(self, targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        shape = "C, H, W" if self.shape is None else ", ".join(map(str, self.shape))
        with tried(
            f"generator {self.name}: drawing {len(targets)} images failed",
            f"a function takes (targets, indices, seed) and gives uint8 images [B, {shape}]",
        ):
            # copies, because it may change them in place
            images = self.function(targets.clone(), indices.clone(), seed % SEEDS)
        if self.shape is not None:
            _check(images, (len(targets), *self.shape), f"generator {self.name}")
        return images.cpu()


class OnnxSampler(Sampler):
    """A generator in an ONNX file, run by onnxruntime on the CPU.

    The inputs are recognised by their shapes: the latent, float32 [B, Z], and the label, [B]: int64 (class index) or
    float32 (class index, or the scalar mapped to [0, 1] by the label range). The first output is images
    [B, C, H, W]: uint8, or floats in [-1, 1]. B must be a free dimension and Z a number. z is standard normal, and
    the same as a trained GAN's for the same (seed, label, index). Raises UserError for any other file.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self.session = open_onnx(path, "generator.source")
        self.path, self.shape, self.content_key = path, shape, onnx_key(path)
        match sorted(self.session.get_inputs(), key=lambda node: len(node.shape)):
            case [label, latent] if _fits(label, latent):
                self.latent, self.latent_name = latent.shape[1], latent.name
                self.label_name, self.label_dtype = label.name, _LABEL_TYPES[label.type]
            case nodes:
                inputs = ", ".join(f"{node.name} {node.type} {node.shape}" for node in nodes)
                raise UserError(
                    f"generator.source {path}: has inputs {inputs}; needed: a latent tensor(float) ['B', Z] and a "
                    "label tensor(int64) or tensor(float) ['B'], B free and Z a number"
                )

    def sample(self, targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        if targets.is_floating_point() and not self.label_dtype.is_floating_point:
            raise UserError(
                f"generator.source {self.path}: its label input is int64, for classes; scalar labels need float32"
            )
        feed = {
            self.latent_name: latents(targets, indices, seed, self.latent).numpy(),
            self.label_name: targets.to(self.label_dtype).numpy(),
        }
        images = torch.from_numpy(self.session.run(None, feed)[0])
        if images.is_floating_point():
            images = to_uint8(images.float())
        _check(images, (len(targets), *self.shape), f"generator.source {self.path}")
        return images


_LABEL_TYPES = {"tensor(int64)": torch.int64, "tensor(float)": torch.float32}


def _fits(label: Any, latent: Any) -> bool:
    shaped = len(label.shape) == 1 and len(latent.shape) == 2 and isinstance(latent.shape[1], int)
    free = shaped and not isinstance(label.shape[0], int) and not isinstance(latent.shape[0], int)
    return free and latent.type == "tensor(float)" and label.type in _LABEL_TYPES


class StoredImages(Sampler):
    """Ready images with labels. The seed sets the order in which the images of a label are used.

    Class labels: image j is the j-th image of the class; no image is repeated before all were used. Scalar labels:
    image j is the one with the j-th nearest label; the seed orders images with equal labels.

    targets: the distinct labels as targets, sorted, [L]. counts: how many images each has, int64 [L]. A plan that
    asks for these labels and these counts gets every image once.
    """

    def __init__(self, images: ImageSet, task: Task) -> None:
        self.images, self.labels = images.images, images.labels
        self.content_key = images.content_key
        self._labels = task.to_target(images.labels)
        self.held = self.targets, self.counts = self._labels.unique(return_counts=True)
        unrolled = task.axis.unrolled if task.continuous else Tensor.clone  # as they lie around a target
        self._sorted, self._distinct = unrolled(self._labels.sort().values), unrolled(self.targets)
        self._order = functools.lru_cache(maxsize=8)(self._new_order)

    def available(self, targets: Tensor) -> Tensor:
        """The number of images at the label, or at the nearest label that has any; int64 [B]."""
        above = torch.searchsorted(self._distinct, targets).clamp(max=len(self._distinct) - 1)
        below = (above - 1).clamp(min=0)
        nearer = (targets - self._distinct[below]).abs() < (self._distinct[above] - targets).abs()
        return self.counts[torch.where(nearer, below, above) % len(self.counts)]

    def sample(self, targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        if targets.is_floating_point():
            place = _nearest(self._sorted, targets, indices % len(self._labels)) % len(self._labels)
        else:
            place = torch.searchsorted(self._sorted, targets) + indices % self.available(targets)
        return self.images[self._order(seed)[place]]

    def _new_order(self, seed: int) -> Tensor:
        """Rows sorted by label, those of one label shuffled, int64 [N]."""
        shuffled = rng.order(len(self._labels), seed, "stored images")
        return shuffled[self._labels[shuffled].argsort(stable=True)]


def _nearest(labels: Tensor, target: Tensor, rank: Tensor) -> Tensor:
    """The place in sorted ``labels`` [N] of the label with rank ``rank`` (from 0) by distance to the target; int64 [B].

    The ``rank`` nearest labels form a window of the sorted labels, and so do the ``rank + 1`` nearest. The result is
    the label that only the larger window holds. Of two labels at equal distance the smaller counts as nearer.
    """
    first, before = _window(labels, target, rank + 1), _window(labels, target, rank)
    return torch.where(first < before, first, first + rank)


def _window(labels: Tensor, target: Tensor, count: Tensor) -> Tensor:
    """Where the window of the ``count`` sorted labels nearest to the target begins, by bisection; int64 [B]."""
    low, high = torch.zeros_like(count), len(labels) - count
    while bool((low < high).any()):
        middle = (low + high) // 2
        outside = labels[(middle + count).clamp(max=len(labels) - 1)]
        right = (target - labels[middle.clamp(max=len(labels) - 1)] > outside - target) & (low < high)
        low, high = torch.where(right, middle + 1, low), torch.where(right, high, torch.minimum(middle, high))
    return low


def _check(images: Any, needed: tuple[int, ...], where: str) -> None:
    if not isinstance(images, Tensor):
        raise UserError(f"{where}: gives {type(images).__name__}; needed: a tensor uint8 {list(needed)}")
    if images.dtype != torch.uint8 or tuple(images.shape) != needed:
        raise UserError(f"{where}: gives {images.dtype} {list(images.shape)}; needed: uint8 {list(needed)}")
