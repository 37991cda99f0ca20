"""Counts the operations on which a device's queue would empty, because the program needs the value of a tensor.

That is .item(), float(), bool() and .tolist() of a tensor, nonzero, and indexing with a mask.
"""

from __future__ import annotations

import threading
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
        self.seen = Counter[str]()
        self.off = threading.local()  # a second thread, which makes batches, switches nothing off in the first one

    def without(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose operations are not counted."""

        def uncounted(*args: Any, **kwargs: Any) -> Any:
            before = getattr(self.off, "now", False)
            self.off.now = True
            try:
                return function(*args, **kwargs)
            finally:
                self.off.now = before

        return uncounted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func.overloadpacket)
        masks = name == "aten.index" and any(index is not None and index.dtype == torch.bool for index in args[1])
        if not getattr(self.off, "now", False) and (name in WAITS or masks):
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))
