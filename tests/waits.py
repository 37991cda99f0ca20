"""A processor that plays an accelerator: it tells where a program would wait for one, which no CI machine has.

``DEVICE`` is the processor under another name. Tensors that are moved there or made there, and all that is computed
from them, count as lying on the accelerator. It is waited for where the program needs their values: ``.item()``,
``float()``, ``bool()``, ``.tolist()``, ``nonzero``, a mask as an index, ``torch.equal``, a copy to the processor. It is
also waited for at a copy to the accelerator, if it is not made by :func:`cgankd.core.runtime.to_device`, which pins the
memory. Not known here: what an accelerator's own kernels wait for, and one that several processes use.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from cgankd.core import runtime
from cgankd.core.progress import Bar, Progress

DEVICE = torch.device("cpu", 0)  # tensors on the processor have the device "cpu", without a number
HOST = torch.device("cpu")

NEEDS_VALUES = {
    f"aten.{name}"
    for name in (
        *("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "nonzero_numpy", "masked_select", "bincount"),
        *("_unique", "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave", "_linalg_check_errors"),
    )
}
INDEXING = {"aten.index", "aten.index_put", "aten.index_put_", "aten._index_put_impl_", "aten._unsafe_index"}
GROUPING = ("torch.nn.utils", "torch.optim")  # they group tensors by device, without asking for ``.device``
DEVICE_OF = Tensor.device.__get__  # type: ignore[attr-defined]
FROM_DATA = {torch.tensor, torch.as_tensor, Tensor.new_tensor}


def accelerated() -> Fabric:
    """One accelerator at full precision."""
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    fabric.strategy._root_device = DEVICE  # type: ignore[attr-defined]
    return fabric


class Waits:
    """Counts the waits in its block, by operation and place in the program, in :attr:`seen`."""

    def __init__(self) -> None:
        self.seen = Counter[str]()
        self.there = dict[int, StorageWeakRef]()  # storages on the accelerator; held, an address is not used again
        self.modes = contextlib.ExitStack()

    def __enter__(self) -> Waits:
        self.modes.enter_context(_Computed(self))
        self.modes.enter_context(_Moved(self))
        return self

    def __exit__(self, *error: Any) -> None:
        self.modes.close()

    def holds(self, value: Any) -> bool:
        """Whether a value is a tensor on the accelerator."""
        return isinstance(value, Tensor) and value.untyped_storage()._cdata in self.there

    def put(self, value: Any) -> None:
        """The tensors in a value lie on the accelerator from now on."""
        for tensor in _tensors(value):
            if not self.holds(tensor):
                storage = tensor.untyped_storage()
                self.there[storage._cdata] = StorageWeakRef(storage)

    def count(self, operation: str) -> None:
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and "cgankd" not in frame.f_globals.get("__name__", ""):
            frame = frame.f_back
        place = "" if frame is None else f" at {frame.f_globals['__name__']}:{frame.f_lineno}"
        self.seen[operation + place] += 1


class Watched(Progress):
    """Notes what has been waited for whenever a step of a loop is done. passes: titles of what is no training."""

    def __init__(self, waits: Waits, *passes: str) -> None:
        self.waits, self.passes, self.loops = waits, passes, list[list[Counter[str]]]()

    @contextlib.contextmanager
    def bar(self, title: str, total: float) -> Iterator[Bar]:
        seen = list[Counter[str]]()
        if title not in self.passes:
            self.loops.append(seen)
        bar = Bar()
        bar.to = lambda done, note="": seen.append(self.waits.seen.copy())  # type: ignore[method-assign]
        yield bar

    def after(self, first: int) -> Counter[str]:
        """The waits of each loop between its step ``first`` and the last but one; the last one reads the history."""
        return sum((seen[-2] - seen[first - 1] for seen in self.loops), Counter[str]())


class _Moved(TorchFunctionMode):
    """What names a device: copies, new tensors, and the question where a tensor lies."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, waits = kwargs or {}, self.waits
        if func == DEVICE_OF:
            return DEVICE if waits.holds(args[0]) else HOST
        if func in (Tensor.tolist, Tensor.numpy) and waits.holds(args[0]):
            waits.count(func.__name__)
        if func is F.one_hot:  # on a processor, it always looks at the classes
            if len(args) + len(kwargs) == 1 and waits.holds(args[0]):
                waits.count("one_hot")
            with _disable_current_modes():
                result = func(*args, **kwargs)
            waits.put(result if waits.holds(args[0]) else ())
            return result
        device, before = self._device(func, args, kwargs), waits.holds(args[0]) if args else False
        result = func(*args, **kwargs)
        if device is None or (device == (DEVICE if before else HOST) and func not in FROM_DATA):
            return result
        if device == HOST:
            if not before or sys._getframe(1).f_globals["__name__"].startswith(GROUPING):
                return result
            waits.count("copy to the processor")
            with _disable_current_modes():
                return result.clone()
        if func in (Tensor.to, *FROM_DATA):
            there = before and func is not Tensor.new_tensor  # as torch.as_tensor's argument may be
            if (
                not there
                and not kwargs.get("non_blocking")
                and sys._getframe(1).f_code is not runtime.to_device.__code__
            ):
                waits.count("copy to the device")
            with _disable_current_modes():
                result = result.clone() if func is Tensor.to else result
        waits.put(result)
        return result

    def _device(self, func: Any, args: Any, kwargs: Any) -> torch.device | None:
        """The device that the call names."""
        if func is Tensor.cpu:
            return HOST
        if func is Tensor.new_tensor and "device" not in kwargs:
            return DEVICE if self.waits.holds(args[0]) else HOST
        named = kwargs.get("device")
        if func is Tensor.to and len(args) > 1:
            named = args[1]
            if isinstance(named, Tensor):
                return DEVICE if self.waits.holds(named) else HOST
        return torch.device(named) if isinstance(named, torch.device | str) else None


class _Computed(TorchDispatchMode):
    """All operations, those of the backward pass among them."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, waits, name = kwargs or {}, self.waits, str(func.overloadpacket)
        there = any(map(waits.holds, _tensors((args, kwargs))))
        if there and name in NEEDS_VALUES:
            waits.count(name)
        if there and name in INDEXING and waits.holds(args[0]):
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) or not waits.holds(index) for index in indices):
                waits.count(name)
        if name == "aten.copy_" and waits.holds(args[0]) != waits.holds(args[1]) and not any(args[2:]):
            waits.count(name)
            there = waits.holds(args[0])
        result = func(*args, **kwargs)
        if there:
            waits.put(result)
        return result


def _tensors(value: Any) -> list[Tensor]:
    """Those in a value of nested lists, tuples and dicts."""
    parts, tensors = [value], list[Tensor]()
    while parts:
        part = parts.pop()
        if isinstance(part, Tensor):
            tensors.append(part)
        elif isinstance(part, list | tuple):
            parts.extend(part)
        elif isinstance(part, dict):
            parts.extend(part.values())
    return tensors
