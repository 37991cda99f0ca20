"""What a device is set to, so that the same run gives the same numbers."""

from __future__ import annotations

import os
import subprocess
import sys

import torch

from cgankd.core.runtime import to_device

EXACT = """
import os, torch
from cgankd.core.runtime import compute_exactly
for chosen, expected in ((None, ":4096:8"), (":16:8", ":16:8")):
    if chosen:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = chosen
    compute_exactly()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == expected, os.environ["CUBLAS_WORKSPACE_CONFIG"]
assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
assert not torch.utils.deterministic.fill_uninitialized_memory
assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
"""


def test_a_graphics_card_is_asked_for_exact_numbers_and_a_chosen_workspace_stays() -> None:
    """In a process of its own, because these settings are the whole process's."""
    environment = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    done = subprocess.run([sys.executable, "-c", EXACT], env=environment, capture_output=True, text=True)
    assert done.stderr == ""


def test_nothing_is_pinned_for_a_processor() -> None:
    tensor = torch.arange(3)
    assert to_device(tensor, torch.device("cpu")) is tensor
