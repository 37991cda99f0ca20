"""What a device is set to, so that the same run gives the same numbers."""

from __future__ import annotations

import subprocess
import sys

import torch

from cgankd.core.runtime import to_device

EXACT = """
import os, warnings, torch
from cgankd.core.runtime import compute_exactly
compute_exactly()
assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == EXPECTED, os.environ["CUBLAS_WORKSPACE_CONFIG"]
assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
assert not torch.utils.deterministic.fill_uninitialized_memory
assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
"""


def run(program: str, **environment: str) -> str:
    """In a process of its own, because these settings are the whole process's."""
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    return done.stderr


def test_a_graphics_card_is_asked_for_exact_numbers() -> None:
    assert run(EXACT.replace("EXPECTED", "':4096:8'")) == ""


def test_a_workspace_that_the_user_chose_stays() -> None:
    assert run(EXACT.replace("EXPECTED", "':16:8'"), CUBLAS_WORKSPACE_CONFIG=":16:8") == ""


def test_nothing_is_pinned_for_a_processor() -> None:
    tensor = torch.arange(3)
    assert to_device(tensor, torch.device("cpu")) is tensor
