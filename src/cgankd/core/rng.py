"""Random numbers as a pure function of (seed, stream, counters): augmented views, latents, accept draws.

Such a number depends on its purpose, not on when it is drawn. So resuming is exact, and results don't depend on the
batch size or the number of processes. The mixing function is the finaliser of SplitMix64 (Steele, Lea and Flood,
OOPSLA 2014), applied once per counter.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The int64 that has the same 64 bits as the unsigned ``value``."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # torch's >> copies the sign bit; a hash needs zeros


def _mix(x: Tensor) -> Tensor:
    x = x + _GOLDEN  # int64 tensor arithmetic wraps modulo 2**64
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def key(seed: int, stream: str, *counters: int) -> int:
    """An int64 hash of (seed, stream, counters); the same in every process and on every machine."""
    text = ":".join([str(seed), stream, *map(str, counters)])
    return _signed(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def bits(seed: int, stream: str, *counters: Tensor) -> Tensor:
    """64 random bits as int64 for every element of the broadcast integer ``counters``."""
    if not counters:
        raise ValueError("at least one counter tensor is needed")
    state = torch.full((), key(seed, stream), dtype=torch.int64, device=counters[0].device)
    for counter in counters:
        state = _mix(state ^ _mix(counter.to(torch.int64)))
    return state


def uniform(seed: int, stream: str, *counters: Tensor) -> Tensor:
    """float64 in [0, 1) for every element of the broadcast integer ``counters``.

    >>> a = uniform(0, "accept", torch.arange(4))
    >>> bool((a == uniform(0, "accept", torch.arange(4))).all()), bool((a < 1).all())
    (True, True)
    """
    return _shift_right(bits(seed, stream, *counters), 11).to(torch.float64) * 2.0**-53


def normal(seed: int, stream: str, *counters: Tensor, width: int) -> Tensor:
    """Standard normal float32, the broadcast shape of ``counters`` followed by ``width`` (Box-Muller)."""
    half = torch.arange((width + 1) // 2, device=counters[0].device)
    expanded = [counter.unsqueeze(-1) for counter in counters]
    radius = (-2.0 * (1.0 - uniform(seed, stream + "/radius", *expanded, half)).log()).sqrt()
    angle = 2.0 * math.pi * uniform(seed, stream + "/angle", *expanded, half)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1)[..., :width].to(torch.float32)


def integers(high: int, seed: int, stream: str, *counters: Tensor) -> Tensor:
    """int64 in [0, high) for every element of the broadcast integer ``counters``."""
    return (uniform(seed, stream, *counters) * high).to(torch.int64)


def generator(device: torch.device | str, seed: int, stream: str, *counters: int) -> torch.Generator:
    """A torch.Generator seeded from (seed, stream, counters), for draws that belong to one step."""
    return torch.Generator(device=device).manual_seed(key(seed, stream, *counters) & ((1 << 63) - 1))
