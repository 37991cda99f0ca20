"""Device, precision and threads: how a Fabric is made from settings, and what of it belongs in a key."""

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
        present = ", ".join(name for name, there in available.items() if there)
        raise UserError(f"runtime.device = {device}, but this machine has no such device; found: {present}")
    if threads:
        torch.set_num_threads(threads)
    if device == "cuda":
        compute_exactly()
    if precision == "auto":
        precision = "bf16" if has_bf16(device) else "fp32"
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells of its precision at every start
    return Fabric(accelerator=device, devices=1, precision="bf16-mixed" if precision == "bf16" else "32-true")


def compute_exactly() -> None:
    """Have a graphics card give the same numbers every time, and all digits of a float32.

    An operation that has no exact form, which a user's own network may hold, warns and goes on.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the card is first used
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling new memory finds faults in programs, and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; a graphics card fetches it while the program goes on."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def has_bf16(device: str) -> bool:
    """Whether the processor computes bfloat16 faster than float32."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if device == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported())
    return False


def environment(fabric: Fabric) -> dict[str, Any]:
    """What, beside settings and inputs, is in every result's key.

    The number of threads is not, though last bits depend on it: results are used again on another machine.
    """
    return {
        "torch": torch.__version__,
        "device": fabric.device.type,
        "precision": fabric.strategy.precision.precision,
    }
