"""Weights on disk: a round trip, what doesn't fit is named, and nothing foreign is ever run."""

import pytest
import safetensors.torch
import torch
from torch import nn

from cgankd.core.errors import UserError
from cgankd.core.files import save_tensors
from cgankd.nets import zoo
from cgankd.nets.weights import load_weights

torch.set_num_threads(1)


def new(seed=0, outputs=10):
    torch.manual_seed(seed)
    return zoo.create("resnet8", 1, outputs, (16, 16))


def test_round_trip_carries_parameters_buffers_and_outputs(tmp_path):
    network, other = new(0), new(1)
    zoo.fix_normalisation(network, torch.tensor([0.3]), torch.tensor([0.4]))
    images = torch.rand(4, 1, 16, 16)
    network(images)  # moves the running statistics
    save_tensors(tmp_path / "deep" / "weights.safetensors", network.state_dict())
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
    save_tensors(tmp_path / "tied.safetensors", network.state_dict())
    found = safetensors.torch.load_file(tmp_path / "tied.safetensors")
    assert torch.equal(found["0.weight"], found["1.weight"])
    assert torch.equal(found["2.weight"], network[2].weight)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    save_tensors(path, new(0).state_dict())
    before = path.read_bytes()

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        save_tensors(path, new(1).state_dict())
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
    with pytest.raises(UserError, match=r"suffix is '\.pth'; allowed: \.safetensors; cgankd convert-weights converts"):
        load_weights(new(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"suffix is '\.npz'; allowed: \.safetensors$"):
        load_weights(new(), tmp_path / "w.npz")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(UserError, match=r"cut\.safetensors is not a safetensors file"):
        load_weights(new(), tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_forward_module.module.", "model.net."]
)
def test_wrappings_are_taken_off_where_weights_are_used(tmp_path, prefix):
    network, other = new(0), new(1)
    state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "wrapped.safetensors")
    load_weights(other, tmp_path / "wrapped.safetensors")
    loaded = other.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in network.state_dict().items())


def test_a_compiled_layer_and_counters_of_averages_and_tools_are_seen_through(tmp_path):
    network, other = new(0), new(1)
    state = {name.replace("layer1.", "layer1._orig_mod."): tensor for name, tensor in network.state_dict().items()}
    state = {f"module.{name}": tensor for name, tensor in state.items()}
    more = {"n_averaged": torch.tensor(3), "module.layer2.total_ops": torch.zeros(1), "total_params": torch.zeros(1)}
    safetensors.torch.save_file(state | more, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors")
    assert torch.equal(other.layer1[0].conv1.weight, network.layer1[0].conv1.weight)


def test_tensors_of_a_loss_beside_the_network_are_left_out_and_those_within_it_are_not(tmp_path):
    network, other = new(0), new(1)
    state = {f"net.{name}": tensor for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file({**state, "loss.weight": torch.ones(10)}, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors")
    assert torch.equal(other.fc.weight, network.fc.weight)
    safetensors.torch.save_file({**state, "net.head.weight": torch.ones(10)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"key 'head.weight' is not expected; CifarResNet has no such tensor; the file"):
        load_weights(other, tmp_path / "w.safetensors")


def test_of_two_networks_in_one_file_none_is_guessed(tmp_path):
    state = new().state_dict()
    both = {f"{who}.{name}": tensor.clone() for who in ("student", "teacher") for name, tensor in state.items()}
    safetensors.torch.save_file(both, tmp_path / "both.safetensors")
    with pytest.raises(UserError, match=r"both.safetensors: holds tensors of several networks; .*: student, teacher"):
        load_weights(new(1), tmp_path / "both.safetensors")


def test_files_from_before_batches_were_counted(tmp_path):
    network, other = new(0), new(1)
    state = {name: tensor for name, tensor in network.state_dict().items() if "num_batches" not in name}
    safetensors.torch.save_file(state, tmp_path / "old.safetensors")
    load_weights(other, tmp_path / "old.safetensors")
    assert torch.equal(other.fc.weight, network.fc.weight)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"normalise.std": 58.4, "normalise.mean": 123.7}, r"mean 123.7 and std 58.4 are for images in \[0, 255\]"),
        ({"normalise.std": 0.0}, "hold a number that is too small; allowed: a mean of 0 or more, and a std above 0"),
        ({"normalise.mean": float("nan")}, "key 'normalise.mean' holds nan"),
        ({"fc.bias": float("nan")}, "key 'fc.bias' holds nan; needed: weights without nan"),
    ],
)
def test_numbers_that_no_network_works_with_are_refused(tmp_path, changed, message):
    state = new().state_dict()
    state |= {name: torch.full_like(state[name], value) for name, value in changed.items()}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=rf"w\.safetensors: {message}|w\.safetensors: normalise: .*{message}"):
        load_weights(new(1), tmp_path / "w.safetensors")


def test_what_is_in_the_file_and_what_is_needed_are_listed(tmp_path):
    safetensors.torch.save_file({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError) as refused:
        load_weights(new(), tmp_path / "w.safetensors")
    assert (
        "the file holds 2 tensors (weight [2, 3], bias [2]); needed are 58 tensors (normalise.mean [1, 1, 1, 1], "
        in (str(refused.value).replace("bias [2], weight [2, 3]", "weight [2, 3], bias [2]"))
    )
