"""Taps: the features are the network's own, nothing of them stays behind, and what isn't there is refused."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cgankd.core.errors import UserError
from cgankd.nets import zoo
from cgankd.nets.taps import PENULTIMATE, Taps, feature_shapes, undisturbed

torch.set_num_threads(1)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return zoo.create("resnet8", 3, 10, (16, 16))


@pytest.fixture
def images():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def hooks_on(network):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


class TwoHeads(nn.Module):
    """Linear layers are defined in another order than they run in; one runs in training only, one never."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(6, 2)
        self.first = nn.Linear(4, 6)
        self.dropout = nn.Dropout(0.5)
        self.bn = nn.BatchNorm1d(6)
        self.auxiliary = nn.Linear(2, 2)
        self.never = nn.Linear(2, 2)

    def forward(self, x):
        x = self.dropout(F.relu(self.bn(self.first(x.mean((2, 3))))))
        outputs = self.last(input=x)  # by keyword, as some networks do
        return outputs + self.auxiliary(outputs) if self.training else outputs


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "resnet8",
        "wrn_16_1",
        "vgg8",
        "mobilenetv2",
        "cnn8",
        "cnn16_grid",
        "shufflenetv1",
        "shufflenetv2",
        "efficientnet_b0",
        "efficientnet_lite0",
        "resnet18",
        "densenet121",
    ],
)
def test_the_last_layer_of_the_penultimate_feature_gives_the_outputs(name, training, images):
    torch.manual_seed(0)
    network = zoo.create(name, 3, 10, (16, 16)).train(training)
    with Taps(network, [PENULTIMATE]) as taps, torch.no_grad():
        outputs, features = taps(images)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    assert list(features) == [PENULTIMATE]
    assert torch.equal(last(features[PENULTIMATE]), outputs)
    assert feature_shapes(network, [PENULTIMATE], 3, (16, 16)) == {PENULTIMATE: (last.in_features,)}


def test_penultimate_is_the_mean_of_the_last_map_and_outputs_are_unchanged(network, images):
    network.eval()
    with torch.no_grad():
        plain = network(images)
    with Taps(network, [PENULTIMATE, "layer3", "layer1.0.conv1"]) as taps, torch.no_grad():
        outputs, features = taps(images)
    assert list(features) == [PENULTIMATE, "layer3", "layer1.0.conv1"]
    assert features["layer3"].shape == (4, 64, 4, 4)
    assert torch.allclose(features[PENULTIMATE], features["layer3"].mean((2, 3)))
    stem = F.relu(network.bn1(network.conv1((images - 0.5) / 0.25)))
    assert torch.allclose(features["layer1.0.conv1"], network.layer1[0].conv1(stem))
    assert torch.equal(outputs, plain)


def test_penultimate_is_of_the_layer_that_runs_last_in_eval_mode(images):
    torch.manual_seed(0)
    network = TwoHeads()
    images = torch.cat([images, images[:, :1]], dim=1)
    with Taps(network, [PENULTIMATE, "dropout"]) as taps:
        _, features = taps(images)
    assert features[PENULTIMATE] is features["dropout"]


def test_finding_the_penultimate_layer_leaves_no_trace(images):
    torch.manual_seed(0)
    network = TwoHeads()
    network.bn.eval()  # a layer that its owner froze must stay frozen, the rest in training mode
    images = torch.cat([images, images[:, :1]], dim=1)
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    torch.manual_seed(7)
    assert feature_shapes(network, [PENULTIMATE], 4, (16, 16)) == {PENULTIMATE: (6,)}
    after_dry_run = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), after_dry_run)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert hooks_on(network) == 0


def test_the_first_call_counts_once_in_batch_normalisation(network, images):
    network.train()
    expected = copy.deepcopy(network)
    expected(images)
    with Taps(network, [PENULTIMATE]) as taps:
        taps(images)
    assert network.bn1.num_batches_tracked == 1
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), expected.buffers(), strict=True))


def test_undisturbed_puts_things_back_after_an_error_too():
    network = nn.Sequential(nn.Dropout(), nn.Linear(2, 2)).train()
    torch.manual_seed(3)
    seen = []

    def watch(layer, args):
        seen.append((layer.training, torch.is_grad_enabled()))
        torch.rand(5)

    network[1].register_forward_pre_hook(watch)
    with pytest.raises(RuntimeError), undisturbed(network):
        network(torch.rand(2, 3))
    assert seen == [(False, False)]
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    assert network.training
    assert network[0].training


def test_hooks_go_with_close_and_do_nothing_between_calls(network, images):
    taps = Taps(network, ["layer1", "layer2", PENULTIMATE])
    taps(images)
    assert hooks_on(network) == 3
    network(images)
    assert taps._features is None  # nothing is kept alive by a call from elsewhere
    taps.close()
    taps.close()
    assert hooks_on(network) == 0
    with pytest.raises(RuntimeError, match="closed"):
        taps(images)


def test_hooks_go_when_the_block_ends_in_an_error(network):
    with pytest.raises(RuntimeError), Taps(network, ["layer1", PENULTIMATE]) as taps:
        taps(torch.rand(2, 5, 16, 16))
    assert hooks_on(network) == 0


def test_a_copy_of_a_tapped_network_is_independent(network, images):
    with Taps(network, ["layer3"]) as taps:
        other = copy.deepcopy(network)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        _, features = taps(images)
        other(images)
    assert features["layer3"].any()


def test_gradients_flow_through_features(network, images):
    with Taps(network, ["layer2", PENULTIMATE]) as taps:
        _, features = taps(images)
    features["layer2"].square().sum().backward(retain_graph=True)
    assert network.conv1.weight.grad.any()
    assert network.fc.weight.grad is None
    features[PENULTIMATE].square().sum().backward()
    assert network.layer3[0].conv1.weight.grad.any()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(network, images, mode):
    with mode(), Taps(network.eval(), ["layer3", PENULTIMATE]) as taps:
        _, features = taps(images)
    assert not features[PENULTIMATE].requires_grad


def test_under_autocast(network, images):
    network.eval()
    with Taps(network, ["conv1", PENULTIMATE]) as taps, torch.no_grad():
        _, full = taps(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            _, half = taps(images)
    assert half["conv1"].dtype == torch.bfloat16
    assert torch.allclose(half["conv1"].float(), full["conv1"], atol=0.1)


def test_layers_of_a_wrapped_network_go_by_their_own_names(network, images):
    fabric = pytest.importorskip("lightning_fabric")
    wrapped = fabric.Fabric(accelerator="cpu", devices=1).setup(network)
    with Taps(wrapped.eval(), ["layer3", PENULTIMATE]) as taps, torch.no_grad():
        _, features = taps(images)
    assert torch.allclose(features["layer3"].mean((2, 3)), features[PENULTIMATE])


def test_feature_shapes_have_no_batch_dimension(network):
    shapes = feature_shapes(network, ["layer1", PENULTIMATE], 3, (20, 16))
    assert shapes == {"layer1": (16, 20, 16), PENULTIMATE: (64,)}


def test_unknown_layers_are_answered_with_close_names(network):
    with pytest.raises(UserError, match=r"^network CifarResNet has no layer 'layr3'; close: layer3"):
        Taps(network, ["layr3"])
    with pytest.raises(UserError, match=r"no layer 'zzzzzz'; allowed: normalise, conv1, bn1, .*or 'penultimate'$"):
        Taps(network, ["layer1", "zzzzzz"])
    with pytest.raises(UserError, match="has no layer ''"):
        Taps(network, [""])
    assert hooks_on(network) == 0


def test_a_network_without_linear_layers_has_no_penultimate_feature():
    network = nn.Sequential(nn.Conv2d(3, 10, 16), nn.Flatten())
    message = r"^network Sequential has no nn\.Linear, .*; allowed: a network that has one, or"
    with pytest.raises(UserError, match=message):
        Taps(network, [PENULTIMATE])


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(2, 2)
        self.pair = nn.LSTM(16, 4, batch_first=True)
        self.bn = nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images):
        return self.pair(self.relu(self.bn(images)).mean(1))[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unused", r"layer 'unused' of network Odd is not executed"),
        ("pair", r"layer 'pair' of network Odd returns tuple; allowed"),
        ("bn", r"output of layer 'bn' of network Odd is overwritten in place"),
        (PENULTIMATE, r"network Odd executes no nn\.Linear"),
    ],
)
def test_layers_that_cannot_be_read_are_refused(name, message, images):
    network = Odd()
    with pytest.raises(UserError, match=message), Taps(network, [name]) as taps:
        taps(images)
    assert hooks_on(network) == 0
    with Taps(network, ["relu"]) as taps:
        _, features = taps(images)
    assert (features["relu"] >= 0).all()
