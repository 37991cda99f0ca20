"""Networks whose weights lie in parts in two processes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from cgankd.core import ranks
from cgankd.core.errors import UserError
from cgankd.core.runtime import make_fabric
from cgankd.core.shared_weights import own_part
from cgankd.nets import parts, zoo
from works import in_processes

SIZE = (16, 16)


class ReadsAWeight(nn.Module):
    """The weight of a block is read without a call of the block."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(256, 256, bias=False) for _ in range(2)])

    def forward(self, images: Tensor) -> Tensor:
        values = self.blocks[0](images.flatten(1))
        return values @ self.blocks[0].weight + self.blocks[1](values)


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
        try:
            parts.in_parts(ReadsAWeight(), fabric, 1, SIZE)
        except UserError as error:
            if ranks.is_first():
                print(error, file=sys.stderr)

    ranks.together(check, check)


def test_each_of_two_processes_holds_half_of_a_network(tmp_path: Path) -> None:
    said = in_processes(2, divide, tmp_path, [])
    assert said.startswith("runtime.strategy = fsdp: this network can't be trained in parts (")
    assert said.endswith("); allowed: runtime.strategy = ddp\n")
