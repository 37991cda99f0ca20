"""What a device is set to, so that the same run gives the same numbers."""

from __future__ import annotations

import multiprocessing
import os

import lightning_fabric
import pytest
import torch

from cgankd.core.runtime import (
    BF16,
    CPU,
    FP32,
    OneDevice,
    compute_exactly,
    environment,
    make_fabric,
    plain_torch,
    to_device,
)


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


@pytest.mark.parametrize("precision", [FP32, BF16])
def test_one_process_computes_and_has_keys_as_lightnings_fabric(precision: str) -> None:
    """So a result of one process is found again where several train, and they compute the same."""
    ours = OneDevice(CPU, precision)
    theirs = lightning_fabric.Fabric(accelerator="cpu", devices=1, precision=precision)  # type: ignore[arg-type]
    assert environment(ours) == environment(theirs)
    assert ours.device == theirs.device
    computed = []
    for fabric in (ours, theirs):
        weights = torch.linspace(-1, 1, 12).view(3, 4).requires_grad_()
        with fabric.autocast():
            outputs = torch.nn.functional.linear(torch.ones(2, 4) / 3, weights)
        fabric.backward(outputs.square().sum())
        computed.append((outputs, weights.grad))
    (outputs, gradient), (expected, expected_gradient) = computed
    assert outputs.dtype == expected.dtype == (torch.bfloat16 if precision == BF16 else torch.float32)
    assert outputs.equal(expected)
    assert gradient is not None
    assert expected_gradient is not None
    assert gradient.equal(expected_gradient)


def test_settings_choose_device_and_precision() -> None:
    assert make_fabric("cpu", "bf16") == OneDevice(CPU, BF16)
    assert make_fabric("cpu", "fp32") == OneDevice(CPU, FP32)


def test_the_threads_of_a_run_are_not_those_of_the_program_that_called_it() -> None:
    before = torch.get_num_threads()
    try:
        with plain_torch():
            make_fabric("cpu", threads=before + 1)
            assert torch.get_num_threads() == before + 1
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(before)
