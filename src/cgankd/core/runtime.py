"""Device, precision and threads: makes a Fabric from the settings, and says which of them are part of a key."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from cgankd.core.errors import UserError


def make_fabric(device: str = "auto", precision: str = "auto", threads: int | None = None) -> Fabric:
    """One device at one precision, as the settings of the same names in ``runtime`` say.

    Raises UserError where the machine does not have the device.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = "cuda" if available["cuda"] else "cpu"
    if not available[device]:
        present = ", ".join(name for name, usable in available.items() if usable)
        raise UserError(f"runtime.device = {device}, but this machine has no such device; found: {present}")
    if threads:
        torch.set_num_threads(threads)
    if device == "cuda":
        compute_exactly()
    if precision == "auto":
        precision = "bf16" if has_bf16(device) else "fp32"
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it logs its precision at every start
    return Fabric(accelerator=device, devices=1, precision="bf16-mixed" if precision == "bf16" else "32-true")


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

    The number of threads is not among them, although it changes the last bits, because results are reused on other
    machines.
    """
    return {
        "torch": torch.__version__,
        "device": fabric.device.type,
        "precision": fabric.strategy.precision.precision,
    }
