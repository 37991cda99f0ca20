"""Networks of timm by name: their own normalisation, no download, map layers and weights under timm's own names."""

import copy
import socket

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cgankd.core.errors import UserError
from cgankd.core.files import save_tensors
from cgankd.nets import zoo
from cgankd.nets.feature_layers import map_layers
from cgankd.nets.pretrained import start_from
from cgankd.nets.taps import PENULTIMATE, Taps, feature_shapes
from cgankd.nets.weights import load_weights

timm = pytest.importorskip("timm")

torch.set_num_threads(1)

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def new(name, channels=3, outputs=5, size=(32, 32)):
    torch.manual_seed(0)
    return zoo.create(f"timm/{name}", channels, outputs, size)


@pytest.mark.parametrize("name", ["resnet10t", "resnet18.a1_in1k", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
@pytest.mark.parametrize(("channels", "outputs", "size"), [(3, 5, (32, 32)), (1, 1, (48, 32))])
def test_outputs_and_gradients(name, channels, outputs, size):
    network = new(name, channels, outputs, size)
    found = network(torch.rand(2, channels, *size))
    assert found.shape == (2, outputs)
    found.square().sum().backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []


def test_its_own_normalisation_comes_first_and_stays():
    network = new("resnet10t").eval()
    plain = timm.create_model("resnet10t", pretrained=False, num_classes=5).eval()
    plain.load_state_dict(network.state_dict())  # the same names: the normalisation is not among them
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
    with torch.no_grad():
        expected = plain((images - mean) / std)
        assert torch.allclose(network(images), expected, atol=1e-5)
        assert not torch.allclose(network(images), plain(images), atol=1e-3)
        assert not zoo.fix_normalisation(network, torch.zeros(3), torch.ones(3))
        assert torch.allclose(copy.deepcopy(network)(images), expected, atol=1e-5)


def test_grey_images_are_normalised_by_the_average_of_three_channels():
    layer = new("resnet10t", channels=1).normalise
    assert layer.mean.shape == (1, 1, 1, 1)
    assert layer.mean.item() == pytest.approx(sum(IMAGENET[0]) / 3)
    assert layer.std.item() == pytest.approx(sum(IMAGENET[1]) / 3)


def test_weights_of_a_file_in_timms_own_names(tmp_path):
    other = timm.create_model("resnet10t", pretrained=False, num_classes=5)
    save_file(other.state_dict(), tmp_path / "hub.safetensors")
    network = new("resnet10t")
    load_weights(network, tmp_path / "hub.safetensors")
    assert torch.equal(network.fc.weight, other.fc.weight)
    save_tensors(tmp_path / "own.safetensors", network.state_dict())
    load_weights(new("resnet10t"), tmp_path / "own.safetensors")


def test_map_layers_are_those_that_timm_declares():
    network = new("resnet18", size=(64, 64))
    names = map_layers(network, 3, (64, 64))
    assert names == ["act1", "layer1", "layer2", "layer3", "layer4"]
    shapes = feature_shapes(network, [*names, PENULTIMATE], 3, (64, 64))
    assert [shapes[name][1] for name in names] == [32, 16, 8, 4, 2]
    assert shapes[PENULTIMATE] == (512,)


@pytest.mark.parametrize("name", ["densenet121", "efficientnet_b0", "convnext_atto", "mobilenetv2_035"])
def test_map_layers_of_other_families_can_be_tapped(name):
    network = new(name, size=(64, 64)).eval()
    names = map_layers(network, 3, (64, 64))
    with Taps(network, names) as taps, torch.no_grad():
        _, features = taps(torch.rand(2, 3, 64, 64))
    sides = [feature.shape[-1] for feature in features.values()]
    assert sides == sorted(set(sides), reverse=True)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_transformers_have_no_map_layers(name):
    size = (56, 56) if "swin" in name else (32, 32)
    assert map_layers(new(name, size=size), 3, size) == []


def test_what_timm_describes_wrongly_is_not_believed():
    assert map_layers(new("volo_d1_224", size=(64, 64)), 3, (64, 64)) == []  # maps whose channels come last
    network = new("twins_pcpvt_small", size=(64, 64))
    with pytest.raises(UserError, match=r"has no layer 'block\.0'"):
        feature_shapes(network, [entry["module"] for entry in network.feature_info], 3, (64, 64))
    assert "block.0" not in map_layers(network, 3, (64, 64))
    feature_shapes(network, [PENULTIMATE], 3, (64, 64))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt18", r"^network 'timm/resnt18' is not known to timm .* \(did you mean 'timm/resne?t18'\?\)"),
        ("hf-hub:timm/resnet18.a1_in1k", r"is not known to timm"),
        ("resnet18.a9_in1k", r"timm knows no weights 'a9_in1k' of resnet18; allowed: .*resnet18.a1_in1k"),
        (
            "vit_small_patch32_224",
            r"into patches of 32x32 pixels and would ignore the rest of 16x16; allowed: a data.si",
        ),
        ("inception_v3", r"^network 'timm/inception_v3': it fails on images \[2, 3, 16, 16\] \(RuntimeError"),
    ],
)
def test_what_timm_has_not_or_not_for_these_images_gives_a_sentence(name, message):
    with pytest.raises(UserError, match=message):
        new(name, size=(16, 16))


def test_a_network_that_timm_fails_to_make_gives_a_sentence(monkeypatch):
    def refuse(name, **_):
        raise TypeError("no such\nkeyword")

    monkeypatch.setattr(timm, "create_model", refuse)
    message = (
        r"^network 'timm/resnet18': timm can't build it for 1 channel\(s\) of 16x24 pixels \(TypeError: no such key"
    )
    with pytest.raises(UserError, match=message):
        new("resnet18", channels=1, size=(16, 24))


# --- torchvision comes with timm: the families that it has, too, give its outputs with its weights -------------


def small_stem(name):
    """torchvision's network with our first convolution, of random weights and statistics."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(1)
    network = torchvision.models.get_model(name, weights=None, num_classes=7)
    if name.startswith("resnet"):
        network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    elif name.startswith("densenet"):
        width = network.features.conv0.out_channels
        network.features.conv0 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        network.features.norm0 = network.features.relu0 = network.features.pool0 = nn.Identity()
    elif name.startswith("shufflenet"):
        network.conv1[0], network.maxpool = nn.Conv2d(3, 24, 1, bias=False), nn.Identity()
    else:
        network.features[0][0].stride = (1, 1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.2)
    return network.eval()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("resnet18", "resnet18"), ("resnet34", "resnet34"), ("resnet50", "resnet50"),
        ("densenet121", "densenet121"), ("densenet161", "densenet161"),
        ("shufflenetv2", "shufflenet_v2_x1_0"), ("efficientnet_b0", "efficientnet_b0"),
    ],
)  # fmt: skip
def test_outputs_are_torchvisions_with_torchvisions_weights(ours, theirs):
    reference, network = small_stem(theirs), zoo.create(ours, 3, 7, (32, 32)).eval()
    network.normalise = nn.Identity()
    names, tensors = (
        list(network.state_dict()),
        list(reference.state_dict().values()),
    )  # both in the order of running
    network.load_state_dict(dict(zip(names, tensors, strict=True)))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        found, expected = network(images), reference(images)
    assert expected.std() > 1e-2
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_published_weights_come_from_the_page_that_timm_names(tmp_path, monkeypatch):
    other = timm.create_model("resnet10t", pretrained=False, num_classes=1000)
    save_file(other.state_dict(), tmp_path / "model.safetensors")
    asked = []

    def download(*names):
        asked.append(names)
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    network = new("resnet10t")
    assert start_from(network, "timm/resnet10t", "student.start") == ["fc"]
    assert torch.equal(network.conv1[0].weight, other.conv1[0].weight)
    assert asked == [("timm/resnet10t.c3_in1k", "model.safetensors")]


@pytest.mark.parametrize("channels", [1, 3])
def test_published_weights_that_need_another_normalisation_are_refused(tmp_path, monkeypatch, channels):
    network, start = new("efficientnet_b0", channels), "timm/efficientnet_b0.ra4_e3600_r224_in1k"
    file = tmp_path / "model.safetensors"
    save_file(timm.create_model("efficientnet_b0", num_classes=1000).state_dict(), file)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: str(file))
    with pytest.raises(UserError, match=r"normalised by mean 0.5.* std 0.5.*; allowed: teacher.network=" + start):
        start_from(network, start)
    assert start_from(zoo.create(start, channels, 5, (32, 32)), start) == ["classifier"]
    assert start_from(network, "timm/efficientnet_b0.ra_in1k") == ["classifier"]


def test_what_the_hub_does_not_give_is_said_in_a_sentence(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"of timm/resnet10t.c3_in1k can't be downloaded from the hub"):
        start_from(new("resnet10t"), "timm/resnet10t", "student.start")
