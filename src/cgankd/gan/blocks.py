"""Building blocks of the GAN networks: sizes and widths of the maps, conditional norm, residual blocks, attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from cgankd.core.errors import UserError

Wrap = Callable[[nn.Module], nn.Module]  # what is applied to a layer: spectral_norm or unwrapped


def unwrapped(layer: nn.Module) -> nn.Module:
    """The layer as it is."""
    return layer


# --- sizes and widths of the maps ---------------------------------------------------------------------------------
# Level 0 is as large as the image, each further level half as large. G starts at level ``up_blocks(size)``.


def up_blocks(size: tuple[int, int]) -> int:
    """How often a first map with sides of 4 or more pixels is doubled: 2 times for 16, 3 for 32, 4 for 64 pixels."""
    blocks = 0
    while min(size) >= 4 * 2 ** (blocks + 1):
        blocks += 1
    return blocks


def start_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the generator's first map; doubled ``up_blocks`` times, it covers the image."""
    ups = up_blocks(size)
    return -(-size[0] // 2**ups), -(-size[1] // 2**ups)


def map_widths(size: tuple[int, int], channels: int, multipliers: Sequence[int] | None = None) -> list[int]:
    """Channels of the maps from the largest to the smallest; the last level, which is left out, has as many as the
    one before it.

    Raises UserError where the number of multipliers is not ``up_blocks(size)``.

    >>> map_widths((32, 32), 8)
    [8, 16, 32]
    """
    ups = up_blocks(size)
    if multipliers is None:
        multipliers = [min(2**power, 4) for power in range(ups)]
    if len(multipliers) != ups:
        raise UserError(
            f"generator.multipliers has {len(multipliers)} numbers; images of {size[1]}x{size[0]} pixels need {ups}"
        )
    return [channels * multiplier for multiplier in multipliers]


def attention_level(size: tuple[int, int], side: int | None) -> int:
    """The level whose maps get self-attention. side: the shorter side of the generator's map, in pixels.

    None: level 1, half the image. Level 0 is not allowed: its maps are the largest, and discriminators have no
    map there. Raises UserError for a side that no level has.
    """
    ups, start = up_blocks(size), min(start_size(size))
    sides = {start * 2 ** (ups - level): level for level in range(1, ups + 1)}
    if side is None:
        return 1
    if side not in sides:
        raise UserError(
            f"generator.network.attention is {side}; images of {size[1]}x{size[0]} pixels have maps with sides of "
            f"{', '.join(map(str, sides))}"
        )
    return sides[side]


# --- layers -------------------------------------------------------------------------------------------------------


class ConditionalNorm(nn.Module):
    """Batch norm whose scale and shift are linear in a condition vector."""

    def __init__(self, width: int, condition_dim: int, wrap: Wrap = unwrapped) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False)
        scale_shift = nn.Linear(condition_dim, 2 * width)
        nn.init.normal_(scale_shift.weight, std=0.02)
        nn.init.zeros_(scale_shift.bias)
        self.scale_shift = wrap(scale_shift)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.scale_shift(condition)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, self.norm(x), 1.0 + scale)


class UpBlock(nn.Module):
    """Doubles the side: norm, ReLU, upsampling, conv, norm, ReLU, conv, plus an upsampled 1x1 shortcut.

    wrap: of the convolutions. wrap_norm: of the linear layers on the condition.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        condition_dim: int,
        wrap: Wrap = unwrapped,
        wrap_norm: Wrap = unwrapped,
    ) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(width_in, condition_dim, wrap_norm)
        self.norm2 = ConditionalNorm(width_out, condition_dim, wrap_norm)
        self.conv1 = wrap(nn.Conv2d(width_in, width_out, 3, padding=1))
        self.conv2 = wrap(nn.Conv2d(width_out, width_out, 3, padding=1))
        self.shortcut = wrap(nn.Conv2d(width_in, width_out, 1))

    def forward(self, x: Tensor, condition1: Tensor, condition2: Tensor) -> Tensor:
        """x [B, C, H, W]; one condition [B, D] for each of the two norms."""
        h = F.interpolate(F.relu(self.norm1(x, condition1)), scale_factor=2.0, mode="nearest")
        h = self.conv2(F.relu(self.norm2(self.conv1(h), condition2)))
        return h + F.interpolate(self.shortcut(x), scale_factor=2.0, mode="nearest")


class DownBlock(nn.Module):
    """ReLU (unless ``on_image``), conv, ReLU, conv, average pooling (if ``down``), plus a 1x1 shortcut."""

    def __init__(self, width_in: int, width_out: int, down: bool, on_image: bool = False) -> None:
        super().__init__()
        self.conv1 = spectral_norm(nn.Conv2d(width_in, width_out, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(width_out, width_out, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv2d(width_in, width_out, 1))
        self.down, self.on_image = down, on_image

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x if self.on_image else F.relu(x))))
        if self.down:  # pooling before the 1x1 shortcut gives the same as after it, and is cheaper
            return F.avg_pool2d(h, 2, ceil_mode=True) + self.shortcut(F.avg_pool2d(x, 2, ceil_mode=True))
        return h + self.shortcut(x)


class SelfAttention(nn.Module):
    """x + gamma v(sum_i softmax_i(f(x_j) . g(x_i)) h(x_i)), gamma 0 at first: x [B, C, H, W] -> the same shape.

    Zhang et al., "Self-Attention Generative Adversarial Networks" (arXiv 1805.08318), section 3: f and g have C / 8
    channels, h has C / 2, all are 1x1 convolutions with spectral norm. As in the authors' code g and h are
    max-pooled 2x2, which makes it four times cheaper. torch's fused attention is not used, because R1 needs a second
    derivative.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow, half = max(1, width // 8), max(1, width // 2)
        self.f = spectral_norm(nn.Conv2d(width, narrow, 1, bias=False))
        self.g = spectral_norm(nn.Conv2d(width, narrow, 1, bias=False))
        self.h = spectral_norm(nn.Conv2d(width, half, 1, bias=False))
        self.v = spectral_norm(nn.Conv2d(half, width, 1, bias=False))
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        query = self.f(x).flatten(2)  # [B, C / 8, J]
        key = F.max_pool2d(self.g(x), 2, ceil_mode=True).flatten(2)  # [B, C / 8, I]
        value = F.max_pool2d(self.h(x), 2, ceil_mode=True).flatten(2)  # [B, C / 2, I]
        weight = torch.softmax(query.transpose(1, 2) @ key, dim=2)  # [B, J, I]
        attended = (value @ weight.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.gamma * self.v(attended)


def initialise(network: nn.Module, weights: Callable[[Tensor], Tensor], *kinds: type[nn.Module]) -> None:
    """Initialise the weights of all layers of ``kinds``, also under a spectral norm, and set their biases to 0."""
    for module in network.modules():
        if isinstance(module, kinds):
            if parametrize.is_parametrized(module, "weight"):
                weights(module.parametrizations.weight.original)  # type: ignore[union-attr, arg-type]
            else:
                weights(module.weight)  # type: ignore[arg-type]
            if isinstance(module.bias, Tensor):
                nn.init.zeros_(module.bias)
