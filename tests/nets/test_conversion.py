"""Foreign checkpoints: unwrapped, tried on the network they are for, and never run."""

from __future__ import annotations

import argparse
import collections
import pathlib
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cgankd.core.errors import UserError
from cgankd.nets import zoo
from cgankd.nets.conversion import Target, convert_pth
from cgankd.nets.layers import normalisation
from cgankd.nets.weights import load_weights

State = dict[str, Tensor]
MEAN, STD = torch.tensor([0.5]), torch.tensor([0.25])


def new(seed: int = 0, outputs: int = 10) -> nn.Module:
    torch.manual_seed(seed)
    return zoo.create("resnet8", 1, outputs, (16, 16))


def named(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def bare(seed: int = 0) -> State:
    """As other packages have it: without our first layer."""
    return {name: tensor for name, tensor in new(seed).state_dict().items() if not name.startswith("normalise")}


WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "plain.pth": lambda state: state,
    "imagenet_example.pth.tar": lambda state: {"epoch": 1, "arch": "r", "state_dict": named("module.", state)},
    "model_name.pt": lambda state: {"model": "resnet8", "net": state},
    "repdistiller.pth": lambda state: {"opt": argparse.Namespace(lr=0.1), "model": state, "accuracy": np.float64(0.9)},
    "authors.pth": lambda state: {"net_state_dict": named("module.", state), "optimizer_state_dict": {"state": {}}},
    "compiled.pt": lambda state: named("_orig_mod.", state),
    "ddp_compiled.bin": lambda state: {"model_state_dict": named("module._orig_mod.", state)},
    "lightning.ckpt": lambda state: {
        "pytorch-lightning_version": "2.4", "state_dict": named("model.", state), "hyper_parameters": {"lr": 0.1},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}}], "lr_schedulers": [], "callbacks": {},
    },
    "lightning_compiled.ckpt": lambda state: {
        "pytorch-lightning_version": "2.4", "state_dict": named("net._orig_mod.", state),
    },
    "ema.pth": lambda state: {"ema": {**named("module.", state), "n_averaged": torch.tensor(7)}, "decay": 0.99},
    "model_ema.pth": lambda state: {"model_ema": state},
    "deep.pth": lambda state: {"checkpoint": {"model": {"state_dict": state}}, "when": pathlib.PurePosixPath("/a")},
    "in_a_list.pth": lambda state: [state, 3],
    "flat_with_numbers.pth": lambda state: {**state, "epoch": 3, "arch": "resnet8"},
    "counted.pth": lambda state: {"state_dict": state, "history": collections.defaultdict(list, a=[1.0])},
    "optimiser_beside.pth": lambda state: {"weights": state, "optimizer": {"momentum": {"a": torch.ones(3)}}},
}  # fmt: skip


@pytest.mark.parametrize("file", WRAPPINGS)
@pytest.mark.parametrize("named_network", [True, False])
def test_known_wrappings_are_unwrapped(tmp_path: Path, file: str, named_network: bool) -> None:
    torch.save(WRAPPINGS[file](bare()), tmp_path / file)
    target = Target("resnet8", size=(16, 16)) if named_network else None
    convert_pth(tmp_path / file, tmp_path / "own.safetensors", mean=MEAN, std=STD, target=target)
    other = new(1)
    load_weights(other, tmp_path / "own.safetensors")
    state = other.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in bare().items())
    assert state["normalise.mean"].item() == 0.5
    assert set(load_file(tmp_path / "own.safetensors")) == set(state)


def test_paths_that_python_3_13_saved_are_read_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Path313:
        pass

    Path313.__module__, Path313.__qualname__ = "pathlib._local", "PosixPath"
    module = types.ModuleType("pathlib._local")
    monkeypatch.setattr(module, "PosixPath", Path313, raising=False)
    monkeypatch.setitem(sys.modules, "pathlib._local", module)
    torch.save({"state_dict": bare(), "where": Path313()}, tmp_path / "of_3_13.pth")
    assert convert_pth(tmp_path / "of_3_13.pth", tmp_path / "own.safetensors")


def test_a_safetensors_file_may_be_converted_too(tmp_path: Path) -> None:
    save_file(named("module.", bare()), tmp_path / "theirs.safetensors")
    convert_pth(tmp_path / "theirs.safetensors", tmp_path / "own.safetensors", mean=MEAN, std=STD)
    load_weights(new(1), tmp_path / "own.safetensors")


NETWORKS = [("resnet8", 1), ("shufflenetv2", 3), ("vgg8", 3), ("lenet5", 1), ("cnn8+vam", 3)]


@pytest.mark.parametrize(("network", "channels"), NETWORKS)
def test_sizes_are_read_from_a_safetensors_file_in_any_order(tmp_path: Path, network: str, channels: int) -> None:
    state = zoo.create(network, channels, 7, (32, 32)).state_dict()
    state = {name: tensor.clone() for name, tensor in state.items() if not name.startswith("normalise")}
    save_file(named("module.", state), tmp_path / "theirs.safetensors")
    mean = torch.full((channels,), 0.5)
    said = convert_pth(tmp_path / "theirs.safetensors", tmp_path / "own.safetensors", mean=mean, std=mean,
                       target=Target(network))  # fmt: skip
    assert f"{network} with {channels} channel(s) and 7 output(s)" in said[-1]


def test_what_was_done_is_said(tmp_path: Path) -> None:
    torch.save({"state_dict": bare()}, tmp_path / "a.pth")
    said = convert_pth(
        tmp_path / "a.pth", tmp_path / "own.safetensors", mean=torch.tensor([127.5]), std=torch.tensor([51.0]),
        target=Target("resnet8", size=(16, 16)),
    )  # fmt: skip
    assert said[0].startswith(f"wrote {tmp_path / 'own.safetensors'}: 58 tensors (normalise.mean [1, 1, 1, 1], ")
    assert said[0].endswith(" from state_dict")
    assert said[1:] == [
        "mean and std were divided by 255, because they are for images in [0, 255]",
        "the weights fit resnet8 with 1 channel(s) and 10 output(s), and were tried on images of 16x16 pixels",
    ]
    assert load_file(tmp_path / "own.safetensors")["normalise.std"].item() == pytest.approx(0.2)
    said = convert_pth(tmp_path / "a.pth", tmp_path / "own.safetensors")
    assert said[1:] == ["the weights were not tried on a network; --network NAME does that"]


@pytest.mark.parametrize(
    ("content", "target", "words"),
    [
        ({"weight": torch.zeros(2, 3)}, Target("resnet8", 1), "key 'conv1.weight' is missing; CifarResNet needs it; "
         r"the file holds 1 tensor \(weight \[2, 3\]\); needed are 58 tensors \(normalise.mean"),
        (bare(), Target("resnet8", 3), r"'conv1.weight' has shape \[16, 1, 3, 3\]; CifarResNet needs \[16, 3, 3, 3\]"),
        (bare(), Target("resnet8", 1, 5), r"key 'fc.weight' has shape \[10, 64\]; CifarResNet needs \[5, 64\]"),
        (bare(), Target("resnet20", 1), "key 'layer1.1.conv1.weight' is missing"),
        ({**bare(), "fc.bias": torch.full((10,), torch.inf)}, Target("resnet8"), "outputs that are not finite"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_listed_and_nothing_is_written(
    tmp_path: Path, content: Any, target: Target, words: str
) -> None:
    torch.save(content, tmp_path / "a.pth")
    mean = torch.full((target.channels or 1,), 0.5)
    with pytest.raises(UserError, match=words):
        convert_pth(tmp_path / "a.pth", tmp_path / "own.safetensors", mean=mean, std=mean, target=target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_of_several_weights_the_ones_that_fit_are_taken_or_named(tmp_path: Path) -> None:
    more: dict[str, Any] = {"mean": MEAN, "std": STD}
    target, own = Target("resnet8", size=(16, 16)), tmp_path / "own.safetensors"
    torch.save({"netG": nn.Linear(2, 2).state_dict(), "netD": bare()}, tmp_path / "gan.pth")
    assert " from netD" in convert_pth(tmp_path / "gan.pth", own, **more, target=target)[0]
    with pytest.raises(UserError, match=r"gan.pth: holds 2 state dicts; needed: --entry, one of netG, netD"):
        convert_pth(tmp_path / "gan.pth", own)
    torch.save({"model": bare(0), "ema": named("module.", bare(1))}, tmp_path / "both.pth")
    with pytest.raises(UserError, match=r"both.pth: holds 2 state dicts; needed: --entry, one of model, ema"):
        convert_pth(tmp_path / "both.pth", own, **more, target=target)
    convert_pth(tmp_path / "both.pth", own, **more, target=target, entry="ema")
    assert torch.equal(load_file(own)["fc.weight"], bare(1)["fc.weight"])
    torch.save({**named("student.", bare(0)), **named("teacher.", bare(1))}, tmp_path / "flat.pth")
    with pytest.raises(UserError, match="several networks; needed: one of them, by --entry: student, teacher"):
        convert_pth(tmp_path / "flat.pth", own, **more, target=target)
    convert_pth(tmp_path / "flat.pth", own, **more, target=target, entry="teacher")
    assert torch.equal(load_file(own)["fc.weight"], bare(1)["fc.weight"])
    with pytest.raises(
        UserError, match=r"--entry 'nobody' matches no tensors, or .* several entries; allowed: model, ema"
    ):
        convert_pth(tmp_path / "both.pth", own, entry="nobody")


# --- nothing in a file is run -------------------------------------------------------------------------------------


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": bare(), "trap": Trap(tmp_path / "sprung")}, tmp_path / "evil.pth")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
    for name in ["evil.pth", "plain.pt"]:
        with pytest.raises(UserError, match=rf"{name}: can't be read as tensors only.*; allowed: a state dict saved"):
            convert_pth(tmp_path / name, tmp_path / "own.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.pth", "plain.pt"]


class Settings(argparse.Namespace):
    """A class of somebody's own."""


def test_of_settings_beside_the_weights_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"opt": argparse.Namespace(lr=0.1), "model": bare()}, tmp_path / "a.pth")

    def made(*_: Any, **__: Any) -> None:
        raise AssertionError("an object of the file was made")

    monkeypatch.setattr(argparse.Namespace, "__init__", made)
    allowed = set(torch.serialization.get_safe_globals())
    convert_pth(tmp_path / "a.pth", tmp_path / "own.safetensors")
    assert set(torch.serialization.get_safe_globals()) == allowed
    monkeypatch.undo()
    torch.save({"opt": Settings(lr=0.1), "model": bare()}, tmp_path / "b.pth")
    with pytest.raises(UserError, match=r"b.pth: .* because it holds other objects \(.*test_conversion.Settings\)"):
        convert_pth(tmp_path / "b.pth", tmp_path / "own.safetensors")


def test_whole_networks_scripts_and_other_files_are_refused(tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(UserError, match=r"whole\.pth: .* other objects \(torch.nn.modules.linear.Linear\); allowed: a"):
        convert_pth(tmp_path / "whole.pth", own)
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "script.pt")
    with pytest.raises(UserError, match=r"script\.pt: .*: it is TorchScript; torch\.jit\.load"):
        convert_pth(tmp_path / "script.pt", own)
    (tmp_path / "odd.ckpt").write_bytes(b"neither\n" * 20)
    with pytest.raises(UserError, match=r"odd\.ckpt: can't be read as tensors only"):
        convert_pth(tmp_path / "odd.ckpt", own)
    with pytest.raises(UserError, match=r"absent\.pth: no such file"):
        convert_pth(tmp_path / "absent.pth", own)
    torch.save({"a": torch.zeros(1)}, tmp_path / "good.pt")
    with pytest.raises(UserError, match="only one of mean and std is given"):
        convert_pth(tmp_path / "good.pt", own, mean=torch.zeros(3))
    with pytest.raises(UserError, match=r"suffix is '\.bin'"):
        convert_pth(tmp_path / "good.pt", tmp_path / "own.bin")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (torch.zeros(1), "a Tensor and no tensors by name"),
        ({}, r"a dict with 0 keys \(\) and no"),
        ({"epoch": 1, "best": torch.tensor(3.0)}, r"a dict with 2 keys \(epoch, best\) and no"),
        ({"a": torch.eye(2).to_sparse()}, r"a dict with 1 key \(a\) and no"),
        ({"optimizer": {"a": torch.ones(2)}}, r"a dict with 1 key \(optimizer\) and no"),
        ({"a": {"b": {"c": {"d": {"weight": torch.ones(2)}}}}}, r"a dict with 1 key \(a\) and no"),
    ],
)
def test_files_without_a_state_dict_are_refused(tmp_path: Path, content: Any, found: str) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=rf"odd\.pt: holds {found}.*; allowed: "):
        convert_pth(tmp_path / "odd.pt", tmp_path / "own.safetensors")
    assert not (tmp_path / "own.safetensors").exists()


# --- the normalisation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], None),
        ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], None),
        ([0.5], [1 / 255], None),
        ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])),
        ([104.0, 117.0, 123.0], [1.0, 1.0, 1.0], ([104 / 255, 117 / 255, 123 / 255], [1 / 255] * 3)),
        ([0.0], [255.0], ([0.0], [1.0])),
    ],
)
def test_numbers_of_either_scale(mean: list[float], std: list[float], expected: Any) -> None:
    found = normalisation(torch.tensor(mean), torch.tensor(std), "here")
    assert found[2] is (expected is not None)
    for values, wanted in zip(found, expected or (mean, std), strict=False):
        np.testing.assert_allclose(values.numpy(), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        ([0.5], [0.0], "std 0 hold a number that is too small"),
        ([0.5], [-0.2], "too small"),
        ([-0.1], [0.2], "too small"),
        ([float("nan")], [0.2], "and std 0.2 are not all finite"),
        ([0.5], [float("inf")], "not all finite"),
        ([0.5, 0.5], [0.2], "and std 0.2 differ in length"),
        ([], [], "differ in length"),
        ([123.7, 116.3, 103.5], [0.229, 0.224, 0.225], "mix two scales"),
        ([0.485, 0.456, 0.406], [58.4, 57.1, 57.4], "mix two scales"),
        ([300.0], [58.0], "mix two scales"),
    ],
)
def test_numbers_of_no_scale_are_refused(mean: list[float], std: list[float], words: str) -> None:
    with pytest.raises(UserError, match=f"here: mean .*{words}"):
        normalisation(torch.tensor(mean), torch.tensor(std), "here")


def test_numbers_for_other_channels_are_refused(tmp_path: Path) -> None:
    torch.save(bare(), tmp_path / "a.pth")
    three = torch.full((3,), 0.5)
    for target, who in (
        (None, r"first filters \[16, 1, 3, 3\] are for 1 channel"),
        (Target("resnet8"), "'resnet8' takes images of 1 channel"),
    ):
        with pytest.raises(UserError, match=rf"--mean and --std have 3 number\(s\), but .*{who}"):
            convert_pth(tmp_path / "a.pth", tmp_path / "own.safetensors", mean=three, std=three, target=target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_depthwise_filters_that_come_first_are_not_taken_for_those_of_grey_images(tmp_path: Path) -> None:
    filters = {"depthwise.weight": torch.zeros(8, 1, 3, 3), "stem.weight": torch.zeros(8, 3, 3, 3)}
    save_file(filters, tmp_path / "a.safetensors")
    three = torch.full((3,), 0.5)
    convert_pth(tmp_path / "a.safetensors", tmp_path / "own.safetensors", mean=three, std=three)


def test_a_network_that_keeps_no_normalisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "their_network.py").write_text(
        "from torch import nn\ndef make(in_channels, num_outputs, image_size):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size[0] * image_size[1], num_outputs))\n"
    )
    torch.save({"1.weight": torch.zeros(10, 256), "1.bias": torch.zeros(10)}, tmp_path / "a.pth")
    target = Target("their_network:make", 1, size=(16, 16))
    with pytest.raises(UserError, match="keeps no mean and std among its weights"):
        convert_pth(tmp_path / "a.pth", tmp_path / "own.safetensors", mean=MEAN, std=STD, target=target)
    convert_pth(tmp_path / "a.pth", tmp_path / "own.safetensors", target=target)
    assert set(load_file(tmp_path / "own.safetensors")) == {"1.weight", "1.bias"}


def test_the_normalisation_of_real_images_is_checked_too() -> None:
    network = new()
    with pytest.raises(UserError, match=r"the normalisation: mean 127 and std 50 are for images in \[0, 255\]"):
        zoo.fix_normalisation(network, torch.tensor([127.0]), torch.tensor([50.0]))
    with pytest.raises(UserError, match="not all finite"):
        zoo.fix_normalisation(network, torch.tensor([0.5]), torch.tensor([float("nan")]))
    assert network.state_dict()["normalise.mean"].item() == 0.5
    assert zoo.fix_normalisation(network, torch.tensor([0.25]), torch.tensor([0.0]))  # all black
    assert network.state_dict()["normalise.std"].item() == pytest.approx(0.001)
