"""Arrays and tensors of a user's program as an ImageSet with its task."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cgankd.core.errors import UserError
from cgankd.core.mapped_rows import Images
from cgankd.core.numbers import counted
from cgankd.data.imageset import ImageSet, UnlabelledImages
from cgankd.tasks import Classification, Regression, Task
from cgankd.tasks.regression import fits_float32

MOST_CLASSES = 100_000  # without a task; larger numbers are ids, and a name for each would not fit into memory


def image_set(
    images: npt.ArrayLike | Tensor, labels: npt.ArrayLike | Tensor, task: Task | None = None
) -> tuple[ImageSet, Task]:
    """Arrays as an ImageSet, and the task of their labels: integers are classes, decimals are a scalar."""
    labelled = arrays(images, labels, task)
    if task is not None:
        return labelled, task
    if labelled.labels.is_floating_point():
        return labelled, Regression(float(labelled.labels.min()), float(labelled.labels.max()))
    return labelled, Classification(tuple(str(number) for number in range(_classes(labelled.labels))))


def _classes(labels: Tensor) -> int:
    """The number of classes of whole numbers. UserError for numbers that can't be classes, such as times or ids."""
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < MOST_CLASSES:
        return high + 1
    wrong = low if low < 0 else high
    row = int((labels == wrong).nonzero()[0])
    raise UserError(
        f"labels: label {wrong} at row {row} is not a class; allowed: whole numbers, 0 to {MOST_CLASSES - 1}, or "
        "decimals (a scalar)"
    )


def arrays(images: npt.ArrayLike | Tensor, labels: npt.ArrayLike | Tensor, task: Task | None = None) -> ImageSet:
    """Images [N, H, W], [N, H, W, C] or [N, C, H, W] and labels [N] as an ImageSet. Raises UserError for others.

    They are copied, because results are kept under what they hold now, unless the array is read-only.
    Scalars are as precise as the task has them; without a task, as their own range needs it.
    """
    pixels, values = _stacked(images, "images"), as_tensor(labels, "labels").flatten().clone()
    pixels = pixels.contiguous() if _is_read_only(images) else pixels.clone(memory_format=torch.contiguous_format)
    if not len(values):
        raise UserError("labels: there are none; needed: one per image")
    if values.is_floating_point() and not torch.isfinite(values).all():
        row = int((~torch.isfinite(values)).nonzero()[0])
        raise UserError(f"labels: found {values[row].item()} at row {row}; finite numbers are needed")
    if task is not None and task.continuous:
        return ImageSet(pixels, values.to(task.label_dtype))
    if not values.is_floating_point():
        return ImageSet(pixels, values.long())
    if task is not None:  # tables hold whole numbers as decimals where a row had none
        if (part := values.frac() != 0).any():
            row = int(part.nonzero()[0])
            raise UserError(f"labels: found {values[row].item():g} at row {row}; needed: whole numbers, for classes")
        return ImageSet(pixels, values.long())
    single = fits_float32(float(values.min()), float(values.max()))
    return ImageSet(pixels, values.float() if single else values.double())


def _is_read_only(images: npt.ArrayLike | Tensor) -> bool:
    """Such as a memory-mapped file, which may be larger than the memory."""
    return isinstance(images, np.ndarray) and not images.flags.writeable


def unlabelled_images(images: npt.ArrayLike | Tensor, labelled: Images) -> UnlabelledImages:
    """Images without labels, as :func:`arrays`. UserError where they are not of the labelled ones' shape."""
    pixels = _stacked(images, "unlabelled").contiguous()
    if pixels.dtype != torch.uint8 or pixels.shape[1:] != labelled.shape[1:] or not len(pixels):
        found, needed = (f"{part.dtype} {list(part.shape)}" for part in (pixels, labelled))
        raise UserError(
            f"unlabelled images are {found}; needed: one or more of the shape of the labelled ones, {needed}"
        )
    return UnlabelledImages(pixels)


def _stacked(images: npt.ArrayLike | Tensor, what: str) -> Tensor:
    """Images [N, H, W], [N, H, W, C] or [N, C, H, W] as [N, C, H, W]."""
    pixels = as_tensor(images, what)
    if pixels.ndim == 3:
        return pixels.unsqueeze(1)
    if pixels.ndim == 4 and pixels.shape[1] not in (1, 3) and pixels.shape[3] in (1, 3):
        return pixels.permute(0, 3, 1, 2)
    return pixels


def as_tensor(array: npt.ArrayLike | Tensor, what: str) -> Tensor:
    """An array of any byte order and strides (``pixels[..., ::-1]``) as a tensor; UserError for one without numbers."""
    if isinstance(array, Tensor):
        return array.detach().cpu()
    if isinstance(array, Dataset | DataLoader):  # numpy would read its items, pairs of image and label
        raise UserError(f"{what} are a {type(array).__name__}; needed: images as one array, labels as another")
    if np.ma.is_masked(array):  # numpy's asarray would give what lies under the mask
        masked = counted(int(np.ma.count_masked(array)), "masked value", "masked values")
        raise UserError(f"{what} have {masked}; needed: none, so leave these images out")
    try:
        numbers = np.asarray(array)
    except ValueError:  # of images of several sizes
        raise UserError(f"{what} are a {type(array).__name__} of several shapes; needed: one shape for all") from None
    if numbers.dtype.kind not in "biuf":
        raise UserError(f"{what} are {numbers.dtype}; allowed: numbers")
    if numbers.dtype.itemsize > 8:  # torch has no longer floats
        numbers = numbers.astype(np.float64)
    return from_numpy(np.ascontiguousarray(numbers, numbers.dtype.newbyteorder("=")))


def from_numpy(array: npt.NDArray[Any]) -> Tensor:
    """As torch's, without its warning for an array that is read-only: images and labels are never changed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)
