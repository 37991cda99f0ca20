"""What a device is set to, so that the same run gives the same numbers."""

from __future__ import annotations

import multiprocessing
import os

import torch

from cgankd.core.runtime import compute_exactly, to_device


def ask_for_exact_numbers() -> None:
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    for chosen, expected in ((None, ":4096:8"), (":16:8", ":16:8")):
        if chosen:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = chosen
        compute_exactly()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == expected
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_a_graphics_card_is_asked_for_exact_numbers_and_a_chosen_workspace_stays() -> None:
    """In a copy of this process, because these settings are the whole process's."""
    before = torch.are_deterministic_algorithms_enabled()
    other = multiprocessing.get_context("fork").Process(target=ask_for_exact_numbers)
    other.start()
    other.join()
    assert other.exitcode == 0
    assert torch.are_deterministic_algorithms_enabled() == before


def test_nothing_is_pinned_for_a_processor() -> None:
    tensor = torch.arange(3)
    assert to_device(tensor, torch.device("cpu")) is tensor
