"""Weights on disk: a round trip, what doesn't fit is named, and nothing foreign is ever run."""

import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from cgankd.core.errors import UserError
from cgankd.nets import zoo
from cgankd.nets.weights import convert_pth, load_weights, save_weights

torch.set_num_threads(1)


def new(seed=0, outputs=10):
    torch.manual_seed(seed)
    return zoo.create("resnet8", 1, outputs, (16, 16))


def test_round_trip_carries_parameters_buffers_and_outputs(tmp_path):
    network, other = new(0), new(1)
    zoo.fix_normalisation(network, torch.tensor([0.3]), torch.tensor([0.4]))
    images = torch.rand(4, 1, 16, 16)
    network(images)  # moves the running statistics
    save_weights(network, tmp_path / "deep" / "weights.safetensors")
    load_weights(other, tmp_path / "deep" / "weights.safetensors")
    state = other.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    with torch.no_grad():
        assert torch.equal(network.eval()(images), other.eval()(images))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["weights.safetensors"]


def test_tied_and_strided_tensors_are_saved(tmp_path):
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Conv2d(3, 3, 3))
    network[1].weight = network[0].weight
    network.to(memory_format=torch.channels_last)
    save_weights(network, tmp_path / "tied.safetensors")
    found = safetensors.torch.load_file(tmp_path / "tied.safetensors")
    assert torch.equal(found["0.weight"], found["1.weight"])
    assert torch.equal(found["2.weight"], network[2].weight)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    save_weights(new(0), path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        save_weights(new(1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("fc.bias"), r"key 'fc.bias' is missing; CifarResNet needs it"),
        (lambda state: state.update(extra=torch.zeros(1)), r"key 'extra' is not expected; CifarResNet has no such"),
        (
            lambda state: state.update({"fc.weight": torch.zeros(5, 64)}),
            r"key 'fc.weight' has shape \[5, 64\]; CifarResNet needs \[10, 64\]",
        ),
    ],
)
def test_a_file_that_does_not_fit_names_the_key_and_changes_nothing(tmp_path, change, message):
    path = tmp_path / "w.safetensors"
    state = new(0).state_dict()
    change(state)
    safetensors.torch.save_file(state, path)
    network, before = new(1), new(1).state_dict()
    with pytest.raises(UserError, match=rf"w\.safetensors: {message}"):
        load_weights(network, path)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_files_of_another_kind_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"absent\.safetensors does not exist"):
        load_weights(new(), tmp_path / "absent.safetensors")
    with pytest.raises(UserError, match=r"suffix is '\.pth'; allowed: \.safetensors; a \.pth or \.pt file can be"):
        load_weights(new(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"suffix is '\.bin'; allowed: \.safetensors$"):
        save_weights(new(), tmp_path / "w.bin")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(UserError, match=r"cut\.safetensors is not a safetensors file"):
        load_weights(new(), tmp_path / "cut.safetensors")


def test_a_state_that_is_not_all_tensors_is_refused(tmp_path):
    class Stateful(nn.Linear):
        def get_extra_state(self):
            return {"anything": 1}

    with pytest.raises(UserError, match="entry '_extra_state' of the state of Stateful is dict; allowed: tensors"):
        save_weights(Stateful(2, 2), tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 240},
        lambda state: {"model": "resnet8", "net": state},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
    ],
)
def test_foreign_checkpoints_are_converted(tmp_path, wrap):
    network, other = new(0), new(1)
    torch.save(wrap(network.state_dict()), tmp_path / "foreign.pth")
    convert_pth(tmp_path / "foreign.pth", tmp_path / "own.safetensors")
    load_weights(other, tmp_path / "own.safetensors")
    state = other.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_a_published_checkpoint_gets_the_normalisation_it_was_trained_with(tmp_path):
    published = {key: value for key, value in new(0).state_dict().items() if not key.startswith("normalise")}
    torch.save({"model": published}, tmp_path / "published.pth")
    convert_pth(tmp_path / "published.pth", tmp_path / "bare.safetensors")
    with pytest.raises(UserError, match=r"key 'normalise\.mean' is missing"):
        load_weights(new(1), tmp_path / "bare.safetensors")
    convert_pth(
        tmp_path / "published.pth", tmp_path / "own.safetensors", mean=torch.tensor([0.2]), std=torch.tensor([0.3])
    )
    network = new(1)
    load_weights(network, tmp_path / "own.safetensors")
    assert network.normalise.mean.item() == pytest.approx(0.2)
    assert network.normalise.std.item() == pytest.approx(0.3)


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    torch.save({"state_dict": new().state_dict(), "trap": Trap(tmp_path / "sprung")}, tmp_path / "evil.pth")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
    for name in ["evil.pth", "plain.pt"]:
        with pytest.raises(UserError, match=rf"^\S*{name}: can't be read as tensors alone .*; allowed: .*torch\.save$"):
            convert_pth(tmp_path / name, tmp_path / "own.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.pth", "plain.pt"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([torch.zeros(1)], "a list and 0 state dicts"),
        ({}, r"a dict with 0 keys \(\) and 0"),
        ({"epoch": 1, "weights": {"a": torch.zeros(1)}}, r"a dict with 2 keys \(epoch, weights\) and 0"),
        ({"model": {"a": torch.zeros(1)}, "net": {"a": torch.ones(1)}}, r"2 keys \(model, net\) and 2"),
        ({"a": torch.eye(2).to_sparse()}, r"1 keys \(a\) and 0"),
    ],
)
def test_checkpoints_without_one_state_dict_are_refused(tmp_path, content, found):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=rf"odd\.pt: holds {found}.*; allowed: " if "dict" in found else found):
        convert_pth(tmp_path / "odd.pt", tmp_path / "own.safetensors")
    assert not (tmp_path / "own.safetensors").exists()


def test_whole_networks_wrong_suffixes_and_half_a_normalisation_are_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(UserError, match=r"whole\.pth: can't be read as tensors alone"):
        convert_pth(tmp_path / "whole.pth", tmp_path / "own.safetensors")
    with pytest.raises(UserError, match=r"suffix is '\.ckpt'; allowed: \.pth, \.pt"):
        convert_pth(tmp_path / "a.ckpt", tmp_path / "own.safetensors")
    with pytest.raises(UserError, match=r"absent\.pth: no such file"):
        convert_pth(tmp_path / "absent.pth", tmp_path / "own.safetensors")
    with pytest.raises(UserError, match="only one of mean and std is given"):
        convert_pth(tmp_path / "whole.pth", tmp_path / "own.safetensors", mean=torch.zeros(3))
    torch.save({"a": torch.zeros(1)}, tmp_path / "good.pt")
    with pytest.raises(UserError, match=r"suffix is '\.bin'"):
        convert_pth(tmp_path / "good.pt", tmp_path / "own.bin")
