"""PyTorch files become safetensors without being run, and a converted file serves as teacher."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import Said
from safetensors.torch import load_file

from cgankd.nets import zoo

Typed = Callable[..., Said]


def test_a_converted_network_is_the_teacher_of_a_run(typed: Typed, tiny: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    network = zoo.create("cnn16", 1, 10, (16, 16))
    torch.save(network.state_dict(), tmp_path / "teacher.pth")
    said = typed("convert-weights", "teacher.pth", "teacher.safetensors")
    assert said.code == 0, said.err
    assert "teacher.safetensors" in said.out
    for name, tensor in load_file(tmp_path / "teacher.safetensors").items():
        assert torch.equal(tensor, network.state_dict()[name])

    words = ["teacher.network=cnn16", "teacher.weights=teacher.safetensors", "compare.methods=[kd]"]
    said = typed("run", tiny, *words, "--quiet", "--no-report", "--no-export", "--out", "out")
    assert said.code == 0, said.err
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["teacher"]["network"] == "cnn16"
    assert found["teacher"]["trained_on"] == "elsewhere"
    (folder,) = (tmp_path / "out" / "artifacts").glob("load_network-*")
    for name, tensor in load_file(folder / "weights.safetensors").items():
        assert torch.equal(tensor, network.state_dict()[name]), name  # not trained, not normalised anew


def test_means_and_deviations_become_the_first_layer(typed: Typed, tmp_path: Path) -> None:
    torch.save({"state_dict": {"module.a": torch.ones(2)}}, tmp_path / "a.pth")
    said = typed("convert-weights", "a.pth", "a.safetensors", "--mean", "0.5,0.25,0", "--std", "1,0.5,0.25")
    assert said.code == 0, said.err
    found = load_file(tmp_path / "a.safetensors")
    assert found["a"].tolist() == [1, 1]
    assert found["normalise.mean"].flatten().tolist() == [0.5, 0.25, 0]
    assert found["normalise.std"].flatten().tolist() == [1, 0.5, 0.25]


def test_a_compiled_network_in_a_checkpoint_is_tried_on_its_network(typed: Typed, tmp_path: Path) -> None:
    torch.manual_seed(5)
    network = zoo.create("cnn16", 3, 4, (32, 32))
    state = {
        f"module._orig_mod.{name}": tensor for name, tensor in network.state_dict().items() if "normal" not in name
    }
    torch.save({"net_state_dict": state, "epoch": 3}, tmp_path / "best [1].pth.tar")
    numbers = ["--mean", "123.675,116.28,103.53", "--std", "58.395,57.12,57.375"]
    said = typed("convert-weights", "best [1].pth.tar", "own [1].safetensors", "--network", "cnn16", *numbers)
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[0].startswith("wrote own [1].safetensors: ")
    assert said.out.splitlines()[1:] == [
        "mean and std were divided by 255, because they are for images in [0, 255]",
        "the weights fit cnn16 with 3 channel(s) and 4 output(s), and were tried on images of 32x32 pixels",
    ]
    found = load_file(tmp_path / "own [1].safetensors")
    assert found.keys() == network.state_dict().keys()
    assert found["normalise.std"].flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("by", ["pickle", "torch"])
def test_a_malicious_pickle_is_refused_and_not_executed(
    typed: Typed, tmp_path: Path, by: str, recwarn: pytest.WarningsRecorder
) -> None:
    mark, path = tmp_path / "executed", tmp_path / "bad.pth"
    if by == "pickle":
        path.write_bytes(pickle.dumps(Malicious(mark)))
    else:
        torch.save({"a": torch.zeros(2), "b": Malicious(mark)}, path)
    sentence = typed("convert-weights", "bad.pth", "good.safetensors").sentence()
    assert "bad.pth" in sentence
    assert not list(recwarn)  # a warning would be more lines on stderr
    assert not mark.exists()
    assert not (tmp_path / "good.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["none.pth", "a.safetensors"], "none.pth: no such file"),
        (["a.pth", "a.bin"], "a.bin"),
        (["a.pth", "a.safetensors", "--mean", "0.5"], "mean and std"),
        (["a.pth", "a.safetensors", "--mean", "half", "--std", "1"], "--mean 'half'"),
        (
            ["a.pth", "a.safetensors", "--mean", "0.5", "--std", "0"],
            "--mean and --std: mean 0.5 and std 0 hold a number",
        ),
        (
            ["a.pth", "a.safetensors", "--network", "resnet8"],
            "key 'normalise.mean' is missing; CifarResNet needs it (cg",
        ),
        (["a.pth", "a.safetensors", "--network", "resnet9"], "network 'resnet9' is not known (did you mean"),
        (["a.pth", "a.safetensors", "--channels", "3"], "--channels and --classes are sizes of a network; needed: --n"),
        (["a.pth", "a.safetensors", "--entry", "ema"], "--entry 'ema' matches no tensors"),
    ],
)
def test_what_cannot_be_converted(typed: Typed, tmp_path: Path, words: list[str], named: str) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    assert named in typed("convert-weights", *words).sentence()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth"]
