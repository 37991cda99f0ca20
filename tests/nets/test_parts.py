"""Networks whose weights lie in parts in two processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from cgankd.core import ranks
from cgankd.core.errors import LostProcess, UserError
from cgankd.core.runtime import make_fabric
from cgankd.core.shared_weights import own_part
from cgankd.nets import parts, zoo
from works import in_processes, torch_has_parts

SIZE = (16, 16)
needs_parts = pytest.mark.skipif(not torch_has_parts(), reason="this torch is too old")


class ReadsAWeight(nn.Module):
    """The weight of a block is read without a call of the block."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(256, 256, bias=False)) for _ in range(2)])

    def forward(self, images: Tensor) -> Tensor:
        values = self.blocks[0](images.flatten(1))
        return values @ self.blocks[0][0].weight + self.blocks[1](values)


class Residual(nn.Module):
    """Two layers in sequence, each as ``change`` says, and a count of the images that it has seen in training."""

    def __init__(self, change: Callable[[nn.Module, nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(change) for _ in range(2)))
        self.register_buffer("seen", torch.zeros(()))

    seen: Tensor

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images) * self.training
        return self.blocks(images.flatten(1))


class Block(nn.Module):
    def __init__(self, change: Callable[[nn.Module, nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.change = nn.Linear(256, 256), change

    def forward(self, values: Tensor) -> Tensor:
        return self.change(self, self.layer, values)


class Experts(nn.Module):
    """An image is for the block that its first pixel names."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(256, 256)) for _ in range(2)])

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([self.blocks[int(image[0, 0, 0] > 0.5)](image.flatten()) for image in images])


class Shared(nn.Module):
    """Both lists have the same block."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Linear(256, 256)
        self.first, self.second = nn.Sequential(block), nn.Sequential(block)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images.flatten(1)))


def fails_in_training(block: nn.Module, layer: nn.Module, values: Tensor) -> Tensor:
    if block.training:
        raise RuntimeError("has no such layer in training")
    return layer(values)


class InPlace(Residual):
    """Layers whose outputs the next one changes, as in torchvision's VGG."""

    def __init__(self) -> None:
        super().__init__(lambda block, layer, values: F.relu_(layer(values)))
        self.blocks = nn.Sequential(nn.Linear(256, 256), nn.ReLU(inplace=True), nn.Linear(256, 256))


REFUSED: dict[str, Callable[[], nn.Module]] = {
    "mixed torch.Tensor and DTensor": ReadsAWeight,
    # only where gradients are computed
    "is being modified inplace": lambda: Residual(lambda block, layer, values: values + layer(F.relu_(values))),
    "has no such layer in training": lambda: Residual(fails_in_training),
}
ALLOWED: dict[str, Callable[[], nn.Module]] = {
    "nan for a grey image": lambda: Residual(lambda block, layer, values: layer(values / values.std(1, keepdim=True))),
    "the same block in two lists": Shared,
    "changes the outputs of layers in place": lambda: InPlace(),
    "random in eval mode": lambda: Residual(lambda block, layer, values: layer(F.dropout(values))),
}


def divide(folder: str, devices: str) -> None:
    fabric = make_fabric("cpu", "fp32", 1, int(devices), strategy="fsdp")

    def check() -> None:
        torch.manual_seed(0)
        network = zoo.create("resnet20", 3, 10, SIZE)
        whole = {name: value.clone() for name, value in network.state_dict().items()}
        split = parts.in_parts(network, fabric, 3, SIZE)
        held = sum(own_part(weight).numel() for weight in split.parameters())
        assert 0.45 < held / sum(weight.numel() for weight in network.parameters()) < 0.55
        with torch.no_grad():
            for weight in network.parameters():
                weight.zero_()
        parts.put_together(split, network)
        assert all(torch.equal(value, whole[name]) for name, value in network.state_dict().items())
        for reason, make in REFUSED.items():
            with pytest.raises(UserError, match=reason) as refused:
                parts.in_parts(make(), fabric, 1, SIZE)
            assert str(refused.value).startswith("runtime.strategy = fsdp: this network can't be trained in parts (")
            assert str(refused.value).endswith("); allowed: runtime.strategy = ddp")
        for make in ALLOWED.values():
            split = parts.in_parts(make(), fabric, 1, SIZE)
            assert all(buffer == 0 for buffer in split.buffers())
            assert all(weight.grad is None for weight in split.parameters())
        split = parts.in_parts(Experts(), fabric, 1, SIZE)
        number, count = ranks.share()
        with pytest.raises(UserError, match="which blocks it calls depends on the images"):
            split(torch.full((1, 1, *SIZE), number / (count - 1)))

    ranks.together(check, check)


def lose(folder: str, devices: str) -> None:
    fabric = make_fabric("cpu", "fp32", 1, int(devices), strategy="fsdp")

    def call() -> None:
        split = parts.in_parts(zoo.create("cnn8", 1, 10, SIZE), fabric, 1, SIZE)
        if not ranks.is_first():
            os.kill(os.getpid(), signal.SIGKILL)
        split(torch.zeros(2, 1, *SIZE))

    try:
        ranks.together(call, call)
    except LostProcess as error:
        print(error, file=sys.stderr)


@needs_parts
def test_each_of_two_processes_holds_half_of_a_network_or_says_why_it_cant(tmp_path: Path) -> None:
    assert in_processes(2, divide, tmp_path, []) == ""


@needs_parts
def test_a_process_that_ends_is_noticed_where_a_network_is_put_together(tmp_path: Path) -> None:
    said = in_processes(2, lose, tmp_path, [])
    assert said.startswith("process 1 of 2 stopped, because another one has ended or can't be reached (")


def test_a_torch_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(FSDPModule, "set_reduce_scatter_unused_params", raising=False)
    with pytest.raises(UserError, match=r"^runtime\.strategy = fsdp needs a newer torch than "):
        make_fabric("cpu", "fp32", None, 2, strategy="fsdp")
