"""How an image of any size, shape and mode becomes uint8 [C, H, W].

The steps, in this order: apply the EXIF orientation; reduce 16 bits to 8; put transparent images on black; convert to
grey or colour; resize. ``crop`` scales the short side to the size and crops the centre, ``pad`` scales the long side to
the size and centres the image on black; a target that is not square (of a student whose images had one size) is filled
or fitted likewise. Resampling is Pillow's bilinear, which averages over all pixels (antialias)
when it reduces. Of animated images the first frame is used.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data.depth import largest, to_eight
from cgankd.data.listing import Ints, Kind, Peak, Plan
from cgankd.data.showing import picture

Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")
ONE = {"were": "was", "have": "has", "are": "is"}  # verbs of notes on a single image
SMALLEST = 16
BLOCK = 64  # images per unit of parallel work
CHUNK = 1024  # images of an array that are read at once
GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"}
DEEP_MODES = {"I", "I;16", "I;16B", "I;16L", "I;16N"}


def plan(kinds: Counter[Kind], settings: DataSettings, where: str, bits: int = 16) -> tuple[Plan, tuple[str, ...]]:
    """The target shape for images of these kinds, and one sentence for each conversion.

    bits: how many bits the 16-bit images use. Raises UserError where images differ in size and no size is set, or are
    too small.
    """
    total = sum(kinds.values())
    shapes = Counter[tuple[int, int]]()
    for kind, count in kinds.items():
        shapes[kind.height, kind.width] += count
    if settings.size is not None:
        height = width = settings.size
    elif len(shapes) == 1:
        height, width = next(iter(shapes))
    else:
        (high, wide), common = shapes.most_common(1)[0]
        raise UserError(
            f"{where}: images come in {len(shapes)} sizes (most often {wide}x{high}, {common} of {total}); "
            "needed: a side to which all are resized, such as data.size=64, or images of one size"
        )
    if min(height, width) < SMALLEST:
        raise UserError(
            f"{where}: images are {width}x{height} pixels; allowed: {SMALLEST} or more on each side, "
            f"and data.size={SMALLEST} or more enlarges them"
        )
    colour = sum(count for kind, count in kinds.items() if kind.mode not in GREY_MODES)
    channels = settings.channels or (3 if colour else 1)

    notes = []

    def note(count: int, text: str) -> None:
        if count:
            verb, _, rest = text.partition(" ")
            notes.append(f"{count:,} of {total:,} images {ONE[verb] if count == 1 else verb} {rest}")

    note(sum(n for kind, n in kinds.items() if kind.turned), "were rotated by their EXIF orientation")
    note(sum(n for kind, n in kinds.items() if kind.frames), "have several frames, of which the first was used")
    note(sum(n for kind, n in kinds.items() if kind.bits == 16), "were converted from 16 bits to 8")
    note(sum(n for kind, n in kinds.items() if kind.alpha), "are transparent; black was put behind")
    note(sum(n for kind, n in kinds.items() if kind.mode == "CMYK"), "were converted from CMYK to RGB")
    if channels == 3:
        note(total - colour, "are grey and got three equal channels")
    else:
        note(colour, "were converted from colour to grey (ITU-R 601 luma)")
    how = {
        "crop": "short side to the size, centre crop",
        "pad": "long side to the size, centred on black",
    }[settings.shape]
    note(
        total - shapes[height, width],
        f"were resized to {width}x{height} pixels (bilinear with antialias; {how})",
    )
    return Plan(height, width, channels, settings.shape, bits), tuple(notes)


def convert_image(image: Image.Image, plan: Plan) -> Pixels:
    """Convert a decoded upright image to uint8 [C, H, W] by the plan."""
    if image.mode in DEEP_MODES:
        image = Image.fromarray(to_eight(np.asarray(image), plan.bits))
    elif has_alpha(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    if image.mode == "CMYK" or plan.channels == 3:
        image = image.convert("RGB")
    if plan.channels == 1:
        image = image.convert("L")
    image = _resize(image, plan)
    pixels = np.asarray(image)
    return pixels[None] if plan.channels == 1 else pixels.transpose(2, 0, 1)


def has_alpha(image: Image.Image) -> bool:
    """Whether parts of the image may be transparent."""
    return image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info


def _resize(image: Image.Image, plan: Plan) -> Image.Image:
    width, height = image.size
    if (width, height) == (plan.width, plan.height):
        return image
    if plan.shape == "crop":
        wide, high = float(width), float(height)  # the largest part of the plan's shape
        if width * plan.height > height * plan.width:
            wide = height * plan.width / plan.height
        else:
            high = width * plan.height / plan.width
        left, top = (width - wide) / 2, (height - high) / 2
        box = (left, top, left + wide, top + high)
        return image.resize((plan.width, plan.height), Image.Resampling.BILINEAR, box=box)
    scale = min(plan.width / width, plan.height / height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = Image.new(image.mode, (plan.width, plan.height))
    place = ((plan.width - inner[0]) // 2, (plan.height - inner[1]) // 2)
    canvas.paste(image.resize(inner, Image.Resampling.BILINEAR), place)
    return canvas


@contextmanager
def in_parallel(function: Callable[[Sequence[int]], T], count: int) -> Iterator[Iterator[tuple[Sequence[int], T]]]:
    """Yields an iterator of (range, function(range)) over ranges that cover 0..count, in order, computed by threads.

    The first error, in order, is raised; ranges that have not started by then are dropped.
    """
    blocks = [range(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]
    executor = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        yield zip(blocks, executor.map(function, blocks), strict=True)
    finally:
        executor.shutdown(cancel_futures=True)


class ArrayPictures:
    """Images in arrays (NumPy or HDF5), one after the other: each NCHW, NHWC or NHW, uint8 or uint16.

    file: that they are in; None where there is none. kept: rows; None means all.
    """

    def __init__(
        self, arrays: Sequence[Any], names: Sequence[str], file: Path | None = None, kept: Ints | None = None
    ) -> None:
        self._arrays, self._names, self._file, self._kept = list(arrays), list(names), file, kept
        self._orders = [_layout(array, name) for array, name in zip(arrays, names, strict=True)]
        self._starts = np.cumsum([0, *(len(array) for array in arrays)])

    def keep(self, rows: Ints) -> ArrayPictures:
        kept = rows if self._kept is None else self._kept[rows]
        return ArrayPictures(self._arrays, self._names, self._file, kept)

    def origins(self) -> Iterator[tuple[Path | None, str]]:
        kept = "" if self._kept is None else hashlib.blake2b(self._kept.tobytes(), digest_size=16).hexdigest()
        for name, array, order in zip(self._names, self._arrays, self._orders, strict=True):
            yield self._file, f"{name} {order} {list(array.shape)} {array.dtype} {kept}"

    def kinds(self) -> Counter[Kind]:
        kinds = Counter[Kind]()
        kept = np.arange(self._starts[-1]) if self._kept is None else self._kept
        counts = np.histogram(kept, self._starts)[0].tolist()
        for array, order, count in zip(self._arrays, self._orders, counts, strict=True):
            height, width = array.shape[order.index("H")], array.shape[order.index("W")]
            channels = array.shape[order.index("C")] if "C" in order else 1
            if count:
                mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
                kinds[Kind(width, height, mode, alpha=channels == 4, bits=8 * array.dtype.itemsize)] += count
        return kinds

    def peak(self) -> Peak:
        """The largest value of the arrays of 16 bits."""
        peaks = []
        for array, order, name in zip(self._arrays, self._orders, self._names, strict=True):
            for first in range(0, len(array) if array.dtype.itemsize == 2 else 0, CHUNK):
                block = _nchw(self._block(array, first, name), order)
                peaks.append(Peak(int(block[:, :3].max(initial=0)), name))  # the fourth channel is not a colour
        return largest(peaks)

    def read(self, rows: Ints, plan: Plan, done: Callable[[int], None], out: Pixels | None = None) -> Tensor:
        out = np.empty((len(rows), plan.channels, plan.height, plan.width), np.uint8) if out is None else out
        if self._kept is not None:
            rows = self._kept[rows]
        for start, array, order, name in zip(self._starts, self._arrays, self._orders, self._names, strict=False):
            target = np.full(len(array), -1)  # the place in ``out`` of each of this array's images; -1: not wanted
            places = np.flatnonzero((rows >= start) & (rows < start + len(array)))
            target[rows[places] - start] = places
            for first in range(0, len(array), CHUNK):  # so an HDF5 file is read once, in small parts
                part = target[first : first + CHUNK]
                if (part >= 0).any():
                    block = _nchw(self._block(array, first, name)[part >= 0], order)
                    if block.dtype.itemsize == 2:
                        block = _eight_bits(block, plan.bits)
                    out[part[part >= 0]] = _convert_all(block, plan)
                    done(len(block))
        return torch.from_numpy(out)

    @staticmethod
    def _block(array: Any, first: int, name: str) -> npt.NDArray[Any]:
        try:
            return np.asarray(array[first : first + CHUNK])
        except OSError as error:
            raise UserError(f"{name} can't be read from row {first} on ({error})") from None


def _layout(array: Any, name: str) -> str:
    shape = tuple(array.shape)
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        hint = "; scale decimals to 0..255 first" if np.issubdtype(array.dtype, np.floating) else ""
        raise UserError(f"{name} holds {array.dtype}; allowed: images as uint8 or uint16{hint}")
    if 0 in shape[1:]:
        raise UserError(f"{name} has shape {list(shape)}; allowed: 1 or more pixels on each side")
    if len(shape) == 3:
        return "NHW"
    if len(shape) == 4 and shape[1] in (1, 3, 4):
        return "NCHW"
    if len(shape) == 4 and shape[3] in (1, 3, 4):
        return "NHWC"
    raise UserError(f"{name} has shape {list(shape)}; allowed: [N, C, H, W], [N, H, W, C] or [N, H, W], C 1, 3 or 4")


def _eight_bits(block: npt.NDArray[Any], bits: int) -> Pixels:
    """uint16 [B, C, H, W] -> uint8; a fourth channel is opacity, which always uses 16 bits."""
    out = to_eight(block, bits)
    if block.shape[1] == 4:
        out[:, 3] = to_eight(block[:, 3], 16)
    return out


def _nchw(block: npt.NDArray[Any], order: str) -> npt.NDArray[Any]:
    if order == "NHW":
        return block[:, None]
    return block if order == "NCHW" else block.transpose(0, 3, 1, 2)


def _convert_all(block: Pixels, plan: Plan) -> Pixels:
    """uint8 [B, C, H, W] -> uint8 [B, C, H, W] of the plan's shape."""
    if block.shape[1:] == (plan.channels, plan.height, plan.width):
        return block
    if block.shape[1:] == (1, plan.height, plan.width):
        return np.broadcast_to(block, (len(block), plan.channels, plan.height, plan.width))
    out = np.empty((len(block), plan.channels, plan.height, plan.width), np.uint8)

    def work(places: Sequence[int]) -> None:
        for place in places:
            out[place] = convert_image(picture(block[place]), plan)

    with in_parallel(work, len(block)) as results:
        for _ in results:
            pass
    return out
