"""Random numbers as a pure function of (seed, stream, counters): augmented views, latents, accept draws.

Such a number depends on its purpose, not on when it is drawn. So resuming is exact, and results don't depend on the
batch size or the number of processes. The mixing function is the finaliser of SplitMix64 (Steele, Lea and Flood,
OOPSLA 2014), applied once per counter.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cgankd.core.runtime import CPU


def _signed(value: int) -> int:
    """The int64 that has the same 64 bits as the unsigned ``value``."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_alone = threading.RLock()
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_UNSIGNED = np.array([_GOLDEN, _MIX_1, _MIX_2, 30, 27, 31], dtype=np.uint64)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """On the CPU by numpy, because its operations on a batch's counters take a fifth of the time of torch's."""
    golden, mix_1, mix_2, first, second, last = _UNSIGNED
    x = x + golden  # unsigned arithmetic wraps modulo 2**64
    x = (x ^ (x >> first)) * mix_1
    x = (x ^ (x >> second)) * mix_2
    return x ^ (x >> last)


def _mix_on_device(x: Tensor) -> Tensor:
    """The same for int64 tensors on any device."""
    x = x + _signed(_GOLDEN)
    x = (x ^ _shift_right(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shift_right(x, 27)) * _signed(_MIX_2)
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # torch's >> copies the sign bit; a hash needs zeros


def key(seed: int, stream: str, *counters: int) -> int:
    """An int64 hash of (seed, stream, counters); the same in every process and on every machine."""
    text = ":".join([str(seed), stream, *map(str, counters)])
    return _signed(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def bits(seed: int, stream: str, *counters: Tensor) -> Tensor:
    """64 random bits as int64 for every element of the broadcast integer ``counters``."""
    if not counters:
        raise ValueError("at least one counter tensor is needed")
    first = key(seed, stream)
    if any(counter.device.type != "cpu" for counter in counters):
        state = torch.full((), first, dtype=torch.int64, device=counters[0].device)
        for counter in counters:
            state = _mix_on_device(state ^ _mix_on_device(counter.to(torch.int64)))
        return state
    mixed = np.array(first, dtype=np.int64).view(np.uint64)
    with np.errstate(over="ignore"):  # numpy warns of a wrapped scalar, not of a wrapped array
        for counter in counters:
            mixed = _mix(mixed ^ _mix(counter.to(torch.int64).numpy().view(np.uint64)))
    return torch.from_numpy(np.asarray(mixed).view(np.int64))


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


def order(count: int, seed: int, stream: str, *counters: int) -> Tensor:
    """A random order of ``count`` rows, int64 [count]."""
    return bits(seed, stream, *(torch.tensor(counter) for counter in counters), torch.arange(count)).argsort()


def label_counters(targets: Tensor) -> Tensor:
    """Targets [B] as counters: class numbers as they are, and for scalars the bits of their float32."""
    return targets.float().view(torch.int32) if targets.is_floating_point() else targets


def generator(device: torch.device | str, seed: int, stream: str, *counters: int) -> torch.Generator:
    """A torch.Generator seeded from (seed, stream, counters), for draws that belong to one step."""
    return torch.Generator(device=device).manual_seed(key(seed, stream, *counters) & ((1 << 63) - 1))


@contextmanager
def restored(*devices: torch.device) -> Iterator[None]:
    """A block that may use torch's global generators, of the CPU and of ``devices``; afterwards they are as before.

    Threads of a process share these generators, so one of them waits here until another has left its block.
    """
    with _alone, torch.random.fork_rng([device for device in devices if device.type == "cuda"]):
        yield


@contextmanager
def seeded(seed: int, stream: str, device: torch.device = CPU) -> Iterator[None]:
    """The same, seeded from (seed, stream): for initial weights, which are drawn without a generator of their own."""
    with restored(device):
        # for the CPU not torch.manual_seed, which seeds GPUs too: they are not restored then
        manual_seed = torch.manual_seed if device.type == "cuda" else torch.default_generator.manual_seed
        manual_seed(key(seed, stream))
        yield


def seed_torch(value: int, device: torch.device) -> None:
    """Seed the generators that a step on ``device`` draws from without naming one, such as dropout's.

    ``torch.manual_seed`` in a loop costs a millisecond a step, and memory: while a kind of device is not in use, it
    keeps the call, with its traceback, for the day it is.
    """
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.manual_seed(value)
