"""The table from a network's name to its builder. The families fill it in, and zoo.py reads it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Builder = Callable[..., nn.Module]  # called with in_channels=, num_outputs=, image_size=
AnyBuilder = TypeVar("AnyBuilder", bound=Builder)

BUILDERS: dict[str, functools.partial[nn.Module]] = {}
VERSIONS: dict[str, int] = {}  # above 1: the network has changed, so artifacts of older versions are not reused


def register(name: str, version: int = 1, **fixed: Any) -> Callable[[AnyBuilder], AnyBuilder]:
    """Class or function decorator: registers the builder with ``fixed`` keyword arguments under ``name``.

    A family has one decorator per name. The builder is called with the keyword arguments in_channels, num_outputs,
    image_size and ``fixed``. Raise ``version`` when a change gives other weights for the same seed, or other outputs
    for the same weights. Raises ValueError if the name exists.
    """
    if name in BUILDERS:
        raise ValueError(f"a network named {name!r} is registered already")

    def add(builder: AnyBuilder) -> AnyBuilder:
        BUILDERS[name] = functools.partial(builder, **fixed)
        if version > 1:
            VERSIONS[name] = version
        return builder

    return add
