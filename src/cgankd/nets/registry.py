"""The table from a network's name to what builds it; the families fill it in, zoo.py reads it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Builder = Callable[..., nn.Module]  # called with in_channels=, num_outputs=, image_size=
AnyBuilder = TypeVar("AnyBuilder", bound=Builder)

BUILDERS: dict[str, functools.partial[nn.Module]] = {}
VERSIONS: dict[str, int] = {}  # of the networks whose numbers have changed: what was trained before is stale


def register(name: str, version: int = 1, **fixed: Any) -> Callable[[AnyBuilder], AnyBuilder]:
    """Class or function decorator: ``name`` stands for the decorated builder with ``fixed`` keyword arguments.

    A family takes one decorator per name. The builder is called with the keyword arguments in_channels,
    num_outputs, image_size and ``fixed``. ``version`` is raised where the same seed gives other weights, or
    the same weights other outputs. Raises ValueError where the name is taken.
    """
    if name in BUILDERS:
        raise ValueError(f"a network named {name!r} is registered already")

    def add(builder: AnyBuilder) -> AnyBuilder:
        BUILDERS[name] = functools.partial(builder, **fixed)
        if version > 1:
            VERSIONS[name] = version
        return builder

    return add
