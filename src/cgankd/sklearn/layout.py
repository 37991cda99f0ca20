"""How an array X holds images: the shapes and ranges that estimators take, and the way back to them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from cgankd.core.errors import UserError
from cgankd.data.given import from_numpy
from cgankd.data.importing import SMALLEST

Order = Literal["flat", "NHW", "NHWC", "NCHW"]
ALLOWED = "uint8 or floats in [0, 1], as [N, H, W], [N, H, W, C] or [N, C, H, W] with C 1 or 3, or [N, S * S]"


class NotImages(UserError, ValueError):
    """An X or y that holds no images or labels. A ValueError, because scikit-learn's tools expect one."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """The shape and range of X. height, width: in pixels, as in X. floats: whether pixels are floats in [0, 1].

    Networks need sides of at least 16 pixels, so smaller images are enlarged by a whole factor, bilinearly.
    """

    order: Order
    floats: bool
    channels: int
    height: int
    width: int

    @classmethod
    def of(cls, X: npt.NDArray[Any]) -> Layout:
        """The layout of an array. Raises NotImages for one that holds no images."""
        shape = X.shape
        if X.dtype != np.uint8 and not np.issubdtype(X.dtype, np.floating):
            raise NotImages(f"X holds {X.dtype}; allowed: {ALLOWED}")
        floats = X.dtype != np.uint8
        if len(shape) == 2 and math.isqrt(shape[1]) ** 2 == shape[1]:
            side = math.isqrt(shape[1])
            return cls("flat", floats, 1, side, side)
        if len(shape) == 2:
            raise NotImages(f"X has {shape[1]} features, which is no square, so they are no image; allowed: {ALLOWED}")
        if len(shape) == 3:
            return cls("NHW", floats, 1, shape[1], shape[2])
        first, last = len(shape) == 4 and shape[1] in (1, 3), len(shape) == 4 and shape[3] in (1, 3)
        if first and last:
            raise NotImages(f"X is {list(shape)}, which may be [N, C, H, W] or [N, H, W, C]; give wider images")
        if first:
            return cls("NCHW", floats, shape[1], shape[2], shape[3])
        if last:
            return cls("NHWC", floats, shape[3], shape[1], shape[2])
        raise NotImages(f"X is {list(shape)}; allowed: {ALLOWED}")

    @property
    def scale(self) -> int:
        """The factor by which images are enlarged."""
        return max(1, math.ceil(SMALLEST / min(self.height, self.width)))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that the networks see."""
        return self.height * self.scale, self.width * self.scale

    def images(self, X: npt.NDArray[Any]) -> Tensor:
        """X as uint8 [N, C, H, W] of ``size``. Raises NotImages where it has another layout, or another range."""
        self._check(X)
        known = X.dtype.newbyteorder("=") if X.dtype.itemsize <= 8 else np.float64  # torch reads no other floats
        pixels = from_numpy(np.ascontiguousarray(X, known))
        pixels = pixels.permute(0, 3, 1, 2) if self.order == "NHWC" else pixels
        pixels = pixels.reshape(-1, self.channels, self.height, self.width)
        if self.floats:
            pixels = (pixels * 255.0).round().to(torch.uint8)
        if self.scale == 1:
            return pixels.contiguous()
        large = F.interpolate(pixels.float(), size=self.size, mode="bilinear", align_corners=False)
        return large.round().to(torch.uint8)

    def arrays(self, images: Tensor) -> npt.NDArray[Any]:
        """The way back: float images [B, C, H, W] in [0, 1], of ``size``, as an X of this layout.

        Exact for what :meth:`images` gives, up to its rounding; for other images the nearest by least squares.
        """
        pixels = images.detach().float().cpu()
        if self.scale > 1:
            pixels = (_reducing(self.height, self.scale) @ pixels @ _reducing(self.width, self.scale).T).clamp(0.0, 1.0)
        if not self.floats:
            pixels = (pixels * 255.0).round().to(torch.uint8)
        if self.order == "NHWC":
            return pixels.permute(0, 2, 3, 1).numpy()
        shape = {"flat": (len(pixels), -1), "NHW": (len(pixels), *pixels.shape[2:])}.get(self.order, pixels.shape)
        return pixels.reshape(shape).numpy()

    def _check(self, X: npt.NDArray[Any]) -> None:
        other = Layout.of(X)
        if other != self:
            raise NotImages(f"X is {_said(other)}; fit saw {_said(self)}")
        low, high = (float(X.min()), float(X.max())) if self.floats and X.size else (0.0, 1.0)
        if round(low * 255.0) < 0 or round(high * 255.0) > 255:  # less is the rounding of an earlier computation
            raise NotImages(f"pixels of X go from {low:.4g} to {high:.4g}; allowed: floats in [0, 1], or uint8")


def _reducing(side: int, scale: int) -> Tensor:
    """The matrix [side, side * scale] that takes back the bilinear enlarging of one side. A mean would blur."""
    enlarged = F.interpolate(torch.eye(side, dtype=torch.float64)[None], scale_factor=scale, mode="linear")
    return torch.linalg.pinv(enlarged[0].T).float()


def _said(layout: Layout) -> str:
    kind = "floats" if layout.floats else "uint8"
    return f"{kind} {layout.order} with {layout.channels} channel(s) of {layout.height}x{layout.width} pixels"
