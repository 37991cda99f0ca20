"""Device, precision and threads: makes a Fabric from the settings, and says which of them are part of a key."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from cgankd.core import connections, ranks, starting
from cgankd.core.errors import UserError

if TYPE_CHECKING:
    import lightning_fabric
    from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
    from torch.distributed.device_mesh import DeviceMesh

CPU = torch.device("cpu")
FP32, BF16 = "32-true", "bf16-mixed"  # as Lightning names them; they are in the keys of results


class Fabric(Protocol):
    """Where a computation runs, and at which precision: what is used of Lightning's Fabric."""

    @property
    def device(self) -> torch.device:
        """The device of this process."""

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which networks are called."""

    def backward(self, tensor: Tensor) -> None:
        """Add the gradients of a loss."""


@dataclasses.dataclass(frozen=True)
class OneDevice:
    """A :class:`Fabric` of one process. Lightning's takes as long to import as torch, and is for several processes."""

    device: torch.device = CPU
    precision: str = FP32
    mesh: DeviceMesh | None = None  # only of one process of several, as in :func:`in_float32`

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """As of :class:`Fabric`."""
        lower = self.precision == BF16
        return torch.autocast(self.device.type, torch.bfloat16) if lower else contextlib.nullcontext()

    def backward(self, tensor: Tensor) -> None:
        """As of :class:`Fabric`."""
        tensor.backward()  # type: ignore[no-untyped-call]


def fused(device: torch.device) -> bool:
    """Whether an optimizer's fused steps, which are faster, exist there."""
    return device.type in {"cpu", "cuda"}


def make_fabric(
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    devices: int = 1,
    nodes: int = 1,
    strategy: str = "ddp",
) -> Fabric:
    """One device for each process, at one precision, as the settings of the same names in ``runtime`` say.

    With several devices or nodes, this program is started again for each further device of this machine, unless
    torchrun or srun started the processes. Raises UserError where the machine does not have the devices.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = "cuda" if available["cuda"] else "cpu"
    if not available[device]:
        present = ", ".join(name for name, usable in available.items() if usable)
        raise UserError(f"runtime.device = {device}, but this machine has no such device; found: {present}")
    if devices * nodes > 1:
        _check_several(device, devices)
    if device == "cuda":
        compute_exactly()
    if precision == "auto":
        precision = "bf16" if has_bf16(device) else "fp32"
    precision = BF16 if precision == "bf16" else FP32
    fabric = (
        _joined(device, precision, devices, nodes, strategy)
        if devices * nodes > 1
        else OneDevice(CPU if device == "cpu" else torch.device(device, 0), precision)
    )
    if threads:
        torch.set_num_threads(threads)  # after the start, where Fabric shares the cores among the processes
    return fabric


def _joined(device: str, precision: str, devices: int, nodes: int, strategy: str) -> lightning_fabric.Fabric:
    """Lightning's Fabric, after its processes have met."""
    import lightning_fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it logs its precision at every start
    fabric = lightning_fabric.Fabric(
        accelerator=device, devices=devices, num_nodes=nodes, precision=precision,  # type: ignore[arg-type]
        strategy=DDPStrategy() if strategy == "ddp" else _in_parts(devices * nodes),
        plugins=[starting.starter(devices, nodes)],
    )  # fmt: skip
    if nodes > 1 and not ranks.environment_of(fabric).creates_processes_externally:
        connections.check_variables(nodes)
    try:
        ranks.join(fabric)
    except ValueError:
        raise UserError(
            f"runtime.devices = {devices} and runtime.nodes = {nodes}, but torchrun or srun started another number of "
            "processes; needed: the number for each machine, and the number of machines"
        ) from None
    return fabric


def _in_parts(count: int) -> ModelParallelStrategy:
    """Lightning's strategy for networks in parts; nets/parts.py divides them, because some stay whole."""
    from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
    from torch.distributed.fsdp import FSDPModule

    if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):  # the newest of what nets/parts.py calls
        raise UserError(
            f"runtime.strategy = fsdp needs a newer torch than {torch.__version__}, the one installed here; allowed "
            "with this one: runtime.strategy = ddp"
        )
    return ModelParallelStrategy(lambda network, mesh: network, data_parallel_size=count, tensor_parallel_size=1)


def in_float32(fabric: Fabric) -> Fabric:
    """The device of ``fabric`` at full precision."""
    return OneDevice(fabric.device, mesh=weights_mesh(fabric))


def weights_mesh(fabric: Fabric) -> DeviceMesh | None:
    """The processes among which the weights of a network are divided; None: each process holds whole networks."""
    if isinstance(fabric, OneDevice):
        return fabric.mesh
    return getattr(fabric.strategy, "device_mesh", None)  # type: ignore[attr-defined]


def _check_several(device: str, devices: int) -> None:
    """UserError where several processes can't be used."""
    if device == "mps":
        raise UserError("runtime.device = mps is one device; allowed with it: runtime.devices = 1, runtime.nodes = 1")
    if device == "cuda" and devices > (count := torch.cuda.device_count()):
        raise UserError(f"runtime.devices = {devices}, but this machine has {count} CUDA devices")
    if hasattr(sys, "ps1"):
        raise UserError("runtime.devices is for commands and scripts, because a notebook can't be started again")


def compute_exactly() -> None:
    """Make a GPU give the same numbers every time, with full float32 precision.

    An operation without a deterministic form, which a user's own network may contain, only warns.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the GPU is first used
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling new memory only helps to find bugs, and it takes time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """In this block, or function, torch computes as in a new program; afterwards the caller's modes are back.

    Inside no_grad or inference_mode nothing could be trained. Autocast, and another default type or device of new
    tensors, would change results, whose keys do not depend on them. A recipe's number of threads is for its run alone.
    """
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    with contextlib.ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        inside = torch.autocast_increment_nesting() > 1  # type: ignore[no-untyped-call]
        torch.autocast_decrement_nesting()  # type: ignore[no-untyped-call]
        if inside:  # its cache of weights would outlive the blocks of autocast of a training, and keep old weights
            for device in ("cpu", "cuda"):
                modes.enter_context(torch.autocast(device, enabled=False, cache_enabled=False))
        # torch.get_default_device() of torch 2.6 does not know of `with torch.device(..)`
        if torch.empty(0).device != CPU:  # only then, because this mode slows every operation down
            modes.enter_context(CPU)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; a copy to a GPU does not block the program."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def has_bf16(device: str) -> bool:
    """Whether the device computes bfloat16 faster than float32."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if device == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported())
    return False


def environment(fabric: Fabric) -> dict[str, Any]:
    """The parts of every result's key beside settings and inputs.

    The numbers of threads and of processes are not among them, although they change the last bits, because results are
    reused on other machines.
    """
    return {
        "torch": torch.__version__,
        "device": fabric.device.type,
        "precision": fabric.precision if isinstance(fabric, OneDevice) else fabric.strategy.precision.precision,  # type: ignore[attr-defined]
    }
