"""Compiled passes of a network: the same outputs, and the network itself where they are not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.core.runtime import make_fabric
from cgankd.nets import compiled, zoo
from cgankd.nets.compiled import Compiled
from cgankd.nets.precision import MixedPrecision

IMAGES = torch.rand(4, 1, 16, 16)


def small(fabric: Fabric) -> tuple[nn.Module, MixedPrecision, Compiled]:
    network = zoo.create("cnn8", 1, 3, (16, 16)).eval()
    precision = MixedPrecision(network, fabric, 1, (16, 16))
    return network, precision, Compiled(network, precision)


def test_it_pays_from_2000_steps_on_a_cpu_with_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_compiler", lambda: "g++")
    cpu = torch.device("cpu")
    assert [compiled.pays(cpu, 1999), compiled.pays(cpu, 2000), compiled.pays(torch.device("cuda"), 2000)] == [
        False, True, False
    ]  # fmt: skip
    monkeypatch.setattr(compiled, "_compiler", lambda: None)
    assert not compiled.pays(cpu, 2000)


@pytest.mark.parametrize("wrong", [lambda outputs: outputs + 1.0, lambda outputs: torch.full_like(outputs, torch.nan)])
def test_other_outputs_are_not_used(monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    monkeypatch.setattr(torch, "compile", lambda network, **_: lambda images: wrong(network(images)))
    network, _, call = small(Fabric(accelerator="cpu"))
    with torch.no_grad():
        assert torch.equal(call(IMAGES), network(IMAGES))
    assert call.call is network


def test_a_compiler_that_fails_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(network: nn.Module, **_: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", fails)
    network, _, call = small(Fabric(accelerator="cpu"))
    with torch.no_grad():
        assert torch.equal(call(IMAGES), network(IMAGES))


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_the_copy_to_compile_does_what_the_network_does(precision: Any) -> None:
    network, mixed, _ = small(Fabric(accelerator="cpu", precision=precision))
    copied = mixed.copy()
    with torch.no_grad(), mixed.autocast():
        expected: Tensor = network(IMAGES)
        assert expected.dtype == torch.float32
        assert torch.equal(copied(IMAGES), expected)
    mixed.close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in copied.modules())


def test_a_network_that_cannot_be_copied_keeps_its_float32_head(monkeypatch: pytest.MonkeyPatch) -> None:
    network, mixed, call = small(Fabric(accelerator="cpu", precision="bf16-mixed"))
    monkeypatch.setattr(type(network), "__deepcopy__", lambda network, memo: 1 / 0, raising=False)
    with torch.no_grad(), mixed.autocast():
        assert call(IMAGES).dtype == torch.float32
    assert call.call is network


@pytest.mark.long
@pytest.mark.skipif(compiled._compiler() is None, reason="there is no C++ compiler")
def test_a_compiled_network_has_the_same_outputs() -> None:
    network, precision, call = small(make_fabric("cpu"))
    with torch.no_grad(), precision.autocast():
        torch.testing.assert_close(call(IMAGES), network(IMAGES), atol=1e-3, rtol=1e-2)
    assert call.call is not network, "it was not compiled"
    call.close()
