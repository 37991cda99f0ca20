"""Attention over blocks of filters (NAME+vam): the gate by loops, and a network that is otherwise what it was."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.core.errors import UserError
from cgankd.core.files import save_tensors
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.metrics import cost
from cgankd.nets import zoo
from cgankd.nets.attention import BLOCKS, Gate, add_attention, gates
from cgankd.nets.feature_layers import map_layers
from cgankd.nets.taps import PENULTIMATE, Taps
from cgankd.nets.weights import load_weights
from cgankd.tasks import Classification, Regression
from cgankd.training import scoring

SIZE = (16, 16)


def new(name: str, seed: int = 0, outputs: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return zoo.create(name, 1, outputs, SIZE).eval()


def decided(network: nn.Module, seed: int = 1) -> nn.Module:
    """The same with scores that differ from image to image."""
    rng = torch.Generator().manual_seed(seed)
    for gate in gates(network).values():
        for weight in gate.score.parameters():
            with torch.no_grad():
                weight.copy_(torch.randn(weight.shape, generator=rng))
    return network


def images(count: int = 5, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, *SIZE, generator=torch.Generator().manual_seed(seed))


def shares(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> list[list[float]]:
    """Each image's attention, [B][K], by loops over a map [B, C, H, W]."""
    found = []
    for image in x:
        means = [float(channel.mean()) for channel in image]
        centre = sum(means) / len(means)
        spread = math.sqrt(sum((mean - centre) ** 2 for mean in means) / len(means) + 1e-5)
        scores = [
            sum(w * (mean - centre) / spread for w, mean in zip(row, means, strict=True)) + b
            for row, b in zip(weight, bias, strict=True)
        ]
        powers = [math.exp(score) for score in scores]
        found.append([power / sum(powers) for power in powers])
    return found


@pytest.mark.parametrize("channels", [4, 6, 7, 8])
def test_the_gate_against_loops(channels: int) -> None:
    torch.manual_seed(0)
    gate, x = Gate(channels, "layer"), torch.randn(3, channels, 5, 4)
    nn.init.normal_(gate.score.weight)
    nn.init.normal_(gate.score.bias)
    weight, bias = gate.score.weight.detach()[:, :, 0, 0].double().numpy(), gate.score.bias.detach().numpy()
    right = x.double().numpy().copy()
    per_block = [[c for c in range(channels) if c * 4 // channels == k] for k in range(4)]
    assert [c for inside in per_block for c in inside] == list(range(channels))  # neighbours
    assert max(map(len, per_block)) - min(map(len, per_block)) <= 1
    for image, share in zip(right, shares(right, weight, bias), strict=True):
        assert sum(share) == pytest.approx(1.0)
        for k, inside in enumerate(per_block):
            for c in inside:
                image[c] *= 4 * share[k]
    assert np.allclose(gate(x).detach().numpy(), right, atol=1e-4)


@pytest.mark.parametrize("name", ["cnn8", "resnet8", "wrn_16_1", "vgg8"])
def test_a_new_network_says_what_it_says_without_attention(name: str) -> None:
    plain, gated = new(name), new(f"{name}+vam")
    assert torch.equal(gated(images()), plain(images()))
    assert map_layers(gated, 1, SIZE) == map_layers(plain, 1, SIZE)
    names = [key for key in gated.state_dict() if not key.startswith("vam.")]
    assert names == list(plain.state_dict())
    assert [gate.stage for gate in gates(gated).values()] == map_layers(plain, 1, SIZE)[-2:]
    added = sum(BLOCKS * (len(gate.block) + 1) for gate in gates(gated).values())
    assert cost.parameters(gated) == cost.parameters(plain) + added


def test_what_follows_and_taps_see_the_weighed_map() -> None:
    plain, gated = new("cnn8"), decided(new("cnn8+vam"))
    with Taps(plain, ["layer2", "layer3"]) as before, Taps(gated, ["layer2", "layer3", PENULTIMATE]) as after:
        _, bare = before(images())
        outputs, seen = after(images())
    gate = gates(gated)["vam.0.score"]
    weight, bias = gate.score.weight.detach()[:, :, 0, 0].numpy(), gate.score.bias.detach().numpy()
    share = torch.tensor(shares(bare["layer2"].detach().numpy(), weight, bias))
    right = bare["layer2"] * 4 * share.repeat_interleave(4, dim=1)[:, :, None, None]  # 16 channels
    assert torch.allclose(seen["layer2"], right, atol=1e-5)
    assert not torch.allclose(seen["layer2"], bare["layer2"], atol=1e-2)
    assert torch.allclose(seen["layer3"].mean((2, 3)), seen[PENULTIMATE], atol=1e-6)
    assert torch.allclose(gated.fc(seen[PENULTIMATE]), outputs)


def test_saved_and_loaded_by_its_name(tmp_path: Path) -> None:
    gated, other = decided(new("cnn8+vam")), new("cnn8+vam", seed=5)
    save_tensors(tmp_path / "gated.safetensors", gated.state_dict())
    load_weights(other, tmp_path / "gated.safetensors")
    assert torch.equal(other(images()), gated(images()))
    with pytest.raises(UserError, match=r"key 'vam\.0\.score\.\w+' is not expected"):
        load_weights(new("cnn8"), tmp_path / "gated.safetensors")


def test_weights_without_attention_fill_all_but_the_gates(tmp_path: Path) -> None:
    plain, gated = new("cnn8", seed=3), new("cnn8+vam", seed=4)
    save_tensors(tmp_path / "plain.safetensors", plain.state_dict())
    with pytest.raises(UserError, match=r"key 'vam\.0\.score\.weight' is missing"):
        load_weights(gated, tmp_path / "plain.safetensors")
    load_weights(gated, tmp_path / "plain.safetensors", may_lack="vam.")
    assert torch.equal(gated(images()), plain(images()))
    save_tensors(tmp_path / "gated.safetensors", decided(gated).state_dict())
    other = new("cnn8+vam")
    load_weights(other, tmp_path / "gated.safetensors", may_lack="vam.")  # but has them
    assert torch.equal(other(images()), gated(images()))


def test_a_copy_has_gates_of_its_own() -> None:
    gated = decided(new("cnn8+vam"))
    said, clone = gated(images()), copy.deepcopy(gated)
    decided(clone, seed=9)
    assert torch.equal(gated(images()), said)
    assert not torch.allclose(clone(images()), said)


def test_half_precision_is_near_and_keeps_its_dtype() -> None:
    gated = decided(new("cnn8+vam"))
    with torch.autocast("cpu", torch.bfloat16):
        half = gated(images())
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), gated(images()), atol=0.05)


def test_it_can_be_exported() -> None:
    gated = decided(new("cnn8+vam"))
    program = torch.export.export(gated, (images(),))
    assert torch.allclose(program.module()(images(seed=2)), gated(images(seed=2)), atol=1e-6)


class Shared(nn.Module):
    """Its last map is made by a layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.third, self.relu, self.fc = nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.second(self.first(x)))
        return self.fc(self.relu(self.third(x)).mean((2, 3)))


def test_a_layer_that_runs_twice_is_passed_over() -> None:
    network = Shared()
    assert map_layers(network, 1, SIZE) == ["second", "relu"]
    assert [gate.stage for gate in gates(add_attention(network, 1, SIZE)).values()] == ["second"]


def test_a_sequence_of_layers_may_have_it() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    ).eval()
    said = network(images())
    assert torch.equal(add_attention(network, 1, SIZE)(images()), said)
    assert not torch.allclose(decided(network)(images()), said)


def test_what_cannot_have_it_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"'flat' has no feature maps .* flat\+vam can't be made; allowed: a network with"
    ):
        add_attention(nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), 1, SIZE, "flat")
    narrow = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    with pytest.raises(UserError, match="'Sequential' has no feature maps"):
        add_attention(narrow, 1, SIZE)
    with pytest.raises(UserError, match="has a submodule named 'vam' already"):
        add_attention(new("cnn8+vam"), 1, SIZE)
    for name in ("cnn8+van", "cnn8+vam+vam", "cnn8+"):
        with pytest.raises(UserError, match=r"the suffix \+.* is not known; allowed: cnn8\+vam"):
            new(name)
    with pytest.raises(UserError, match="network 'cnn9' is not known"):
        new("cnn9+vam")


@pytest.mark.parametrize("task", [Classification(("a", "b", "c", "d")), Regression(0.0, 50.0)])
def test_the_attention_of_each_bin_against_loops(task, fabric: Fabric) -> None:
    network = decided(new("cnn8+vam"))
    pixels = torch.randint(0, 256, (9, 1, *SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(9) % 3 if not task.continuous else 5.5 * torch.arange(9.0)
    found = scoring.attention_per_bin(Work(fabric), network, ImageSet(pixels, labels), task)
    names, place = task.bins(labels)
    with Taps(new("cnn8"), ["layer2"]) as taps:
        maps = taps(pixels / 255)[1]["layer2"].detach().numpy()
    score = gates(network)["vam.0.score"].score
    each = shares(maps, score.weight.detach()[:, :, 0, 0].numpy(), score.bias.detach().numpy())
    assert found["mean"].shape == (len(names), 2, 4)
    for where in range(len(names)):
        inside = [share for share, at in zip(each, place.tolist(), strict=True) if at == where]
        assert int(found["images"][where]) == len(inside)
        if inside:
            assert np.allclose(found["mean"][where, 0], np.mean(inside, axis=0), atol=1e-5)
        else:
            assert found["mean"][where].isnan().all()
    entropy = np.mean([-sum(a * math.log(a) for a in share) for share in each])
    assert float(found["decided"][0]) == pytest.approx(1 - entropy / math.log(4), abs=1e-5)
