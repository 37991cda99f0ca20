"""Stages: one map per resolution, declared by the zoo and found in anything else, with nothing left behind."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cgankd.core.errors import UserError
from cgankd.nets import zoo
from cgankd.nets.feature_layers import map_layers
from cgankd.nets.taps import PENULTIMATE, Taps, feature_shapes

torch.set_num_threads(1)

SMALL = ["resnet8", "wrn_16_1", "cnn8", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2", "efficientnet_b0"]


def new(name, size=(32, 32)):
    torch.manual_seed(0)
    return zoo.create(name, 3, 10, size)


# channels and side of each stage's map at 32 pixels, from the papers' tables
@pytest.mark.parametrize(
    ("name", "maps", "penultimate"),
    [
        ("resnet8", [(16, 32), (32, 16), (64, 8)], 64),
        ("resnet8x4", [(64, 32), (128, 16), (256, 8)], 256),
        ("resnet18", [(64, 32), (128, 16), (256, 8), (512, 4)], 512),
        ("resnet50", [(256, 32), (512, 16), (1024, 8), (2048, 4)], 2048),
        ("wrn_16_2", [(32, 32), (64, 16), (128, 8)], 128),
        ("vgg8", [(64, 32), (128, 16), (256, 8), (512, 4)], 512),
        ("vgg19", [(64, 32), (128, 16), (256, 8), (512, 4)], 512),
        ("mobilenetv2", [(12, 16), (16, 8), (48, 4), (160, 2)], 1280),
        ("mobilenetv2_full", [(24, 16), (32, 8), (96, 4), (320, 2)], 1280),
        ("shufflenetv1", [(240, 16), (480, 8), (960, 4)], 960),
        ("shufflenetv2", [(116, 16), (232, 8), (464, 4)], 1024),
        ("densenet121", [(256, 32), (512, 16), (1024, 8), (1024, 4)], 1024),
        ("efficientnet_b0", [(16, 32), (24, 16), (40, 8), (112, 4), (320, 2)], 1280),
        ("efficientnet_lite0", [(16, 32), (24, 16), (40, 8), (112, 4), (320, 2)], 1280),  # of 64x64 pixels
        ("cnn8", [(8, 16), (16, 8), (32, 4)], 32),
        ("cnn16_grid", [(16, 16), (32, 8), (64, 4)], 256),
        ("lenet5", [(6, 28), (16, 14)], 84),  # of 32x32 pixels, of which the first convolution takes four
        ("lenet5_half", [(3, 28), (8, 14)], 84),
        ("alexnet", [(48, 32), (128, 15), (128, 7)], 256),
        ("alexnet_half", [(24, 32), (64, 15), (64, 7)], 128),
    ],
)
def test_declared_map_layers_are_those_of_the_papers(name, maps, penultimate):
    network = new(name)
    names = map_layers(network, 3, (32, 32))
    shapes = feature_shapes(network, [*names, PENULTIMATE], 3, (32, 32))
    assert [shapes[name] for name in names] == [(channels, side, side) for channels, side in maps]
    assert shapes[PENULTIMATE] == (penultimate,)


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (20, 37)])
@pytest.mark.parametrize("name", SMALL)
def test_maps_fall_with_each_stage(name, size):
    network = new(name, size)
    names = map_layers(network, 3, size)
    areas = [height * width for _, height, width in feature_shapes(network, names, 3, size).values()]
    assert areas == sorted(set(areas), reverse=True)
    assert len(names) == 5 if name == "vgg8" and size == (64, 64) else len(names) >= 3


class Undeclared(nn.Module):
    """A network that declares no map layers."""

    def __init__(self, name):
        super().__init__()
        self.inside = new(name)
        self.layers = nn.ModuleDict(self.inside.named_children())

    def forward(self, images):
        return self.inside(images)


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "cnn8", "vgg8"])
def test_map_layers_found_are_those_declared(name):
    declared = map_layers(new(name), 3, (32, 32))
    assert map_layers(Undeclared(name), 3, (32, 32)) == [f"inside.{name}" for name in declared]


@pytest.mark.parametrize("name", ["wrn_16_1", "mobilenetv2", "efficientnet_b0"])
def test_map_layers_found_end_with_what_follows_the_last_block(name):
    declared = map_layers(new(name), 3, (32, 32))
    found = map_layers(Undeclared(name), 3, (32, 32))
    assert found[:-1] == [f"inside.{name}" for name in declared[:-1]]
    assert found[-1] == ("inside.bn1" if name == "wrn_16_1" else "inside.conv2")


def conv(inputs, outputs, stride=1):
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


def test_of_a_chain_the_last_layer_before_each_pool_is_taken():
    network = nn.Sequential(
        nn.Identity(), conv(3, 4), nn.ReLU(inplace=True), nn.MaxPool2d(2), conv(4, 8), nn.BatchNorm2d(8), nn.ReLU(),
        nn.MaxPool2d(2), conv(8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip
    assert map_layers(network, 3, (16, 16)) == ["2", "6", "9"]


def test_a_block_that_pools_at_its_end_still_shows_its_larger_map():
    first = nn.Sequential(conv(3, 4), nn.ReLU(), nn.MaxPool2d(2))
    second = nn.Sequential(conv(4, 4), nn.ReLU())
    network = nn.Sequential(first, second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert map_layers(network, 3, (16, 16)) == ["0.1", "1"]


class Odd(nn.Module):
    """A shared layer, one that is overwritten in place, a gate, a side branch, a decoder and two outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = conv(3, 4), conv(4, 4, stride=2), conv(4, 4, stride=2)
        self.relu = nn.ReLU()
        self.bn = nn.BatchNorm2d(4)
        self.in_place = nn.ReLU(inplace=True)
        self.side = conv(4, 4)
        self.up = nn.Upsample(scale_factor=2)
        self.gate = nn.Conv2d(4, 4, 1)
        self.pair = nn.LSTM(4, 4)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 2)

    def forward(self, images):
        wide = self.relu(self.first(images))
        half = self.relu(self.second(wide))
        self.side(wide)  # larger than what came before
        half = half * self.gate(half.mean((2, 3), keepdim=True)).sigmoid()
        quarter = self.in_place(self.bn(self.third(half)))
        self.up(quarter)
        return self.fc(self.dropout(self.pair(quarter.mean((2, 3)))[0]))


def test_what_is_no_stage_is_passed_over_and_nothing_is_left_behind():
    torch.manual_seed(0)
    network = Odd()
    before, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    torch.manual_seed(7)
    found = map_layers(network, 3, (16, 16))
    drawn = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), drawn)
    assert found == ["first", "relu", "in_place"]  # of the shared ReLU, which runs twice, taps show the last call
    assert [shape[1] for shape in feature_shapes(network, found, 3, (16, 16)).values()] == [16, 8, 4]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert not any(module._forward_hooks for module in network.modules())


def test_hooks_go_after_an_error_too():
    network = nn.Sequential(conv(5, 4), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(RuntimeError):
        map_layers(network, 3, (16, 16))
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_may_declare_its_own_and_wrong_ones_are_refused():
    network = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 4, stride=2), nn.Flatten(), nn.LazyLinear(2))
    network.stage_names = ("1", "3")
    network(torch.rand(2, 3, 16, 16))
    assert map_layers(network, 3, (16, 16)) == ["1"]  # a flat feature is no map
    network.stage_names = ("1", "absent")
    with pytest.raises(UserError, match="has no layer 'absent'"):
        map_layers(network, 3, (16, 16))


@pytest.mark.parametrize("network", [nn.Sequential(nn.Flatten(), nn.Linear(768, 2)), nn.Conv2d(3, 2, 16)])
def test_a_network_without_maps_has_no_map_layers(network):
    assert map_layers(network, 3, (16, 16)) == []


def test_map_layers_feed_taps_of_a_compiled_or_wrapped_network():
    fabric = pytest.importorskip("lightning_fabric")
    wrapped = fabric.Fabric(accelerator="cpu", devices=1).setup(new("resnet8"))
    names = map_layers(wrapped, 3, (16, 16))
    with Taps(wrapped.eval(), [*names, PENULTIMATE]) as taps, torch.no_grad():
        _, features = taps(torch.rand(2, 3, 16, 16))
    assert torch.allclose(F.adaptive_avg_pool2d(features[names[-1]], 1).flatten(1), features[PENULTIMATE], atol=1e-6)
