"""Counts the operations on which a device's queue would empty, because the program needs the value of a tensor.

That is .item(), float(), bool() and .tolist() of a tensor, nonzero, and indexing with a mask.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = {"aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.is_nonzero", "aten.equal"}


class Waits(TorchDispatchMode):
    """Counts the operations that wait, while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.on, self.seen = True, Counter[str]()

    def without(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose operations are not counted."""

        def uncounted(*args: Any, **kwargs: Any) -> Any:
            self.on, before = False, self.on
            try:
                return function(*args, **kwargs)
            finally:
                self.on = before

        return uncounted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func.overloadpacket)
        masks = name == "aten.index" and any(index is not None and index.dtype == torch.bool for index in args[1])
        if self.on and (name in WAITS or masks):
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))
