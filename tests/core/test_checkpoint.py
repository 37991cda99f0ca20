"""A loop that is saved and loaded goes on as if nothing had happened, bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from cgankd.core.checkpoint import Checkpoint

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.01, momentum=0.9, nesterov=True, fused=True),
    "plain sgd": lambda weights: torch.optim.SGD(weights, lr=0.01),
    "adam": lambda weights: torch.optim.Adam(weights, lr=0.01, betas=(0.0, 0.9), fused=True),
    "adam, looped": lambda weights: torch.optim.Adam(weights, lr=0.01),
}


def new(name: str, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2))
    network.to(memory_format=torch.channels_last)  # as every network here is laid out
    return network, OPTIMIZERS[name](network.parameters())


def advance(network: nn.Module, optimizer: torch.optim.Optimizer, start: int, stop: int) -> None:
    for step in range(start, stop):
        images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_going_on_equals_never_having_stopped(name: str, tmp_path: Path) -> None:
    whole, optimizer = new(name)
    advance(whole, optimizer, 0, 6)

    first, optimizer = new(name)
    advance(first, optimizer, 0, 3)
    path = tmp_path / "checkpoint.safetensors"
    Checkpoint(path).save(3, {"net": first}, {"opt": optimizer}, [{"step": 3, "loss": 0.1}])

    second, optimizer = new(name, seed=1)
    assert Checkpoint(path).load({"net": second}, {"opt": optimizer}) == (3, [{"step": 3, "loss": 0.1}])
    for key, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key
    advance(second, optimizer, 3, 6)
    for key, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key


def test_two_modules_and_two_optimizers_keep_apart(tmp_path: Path) -> None:
    a, optimizer_a = new("sgd")
    b, optimizer_b = new("adam", seed=1)
    advance(a, optimizer_a, 0, 1)
    advance(b, optimizer_b, 0, 2)
    checkpoint = Checkpoint(tmp_path / "c.safetensors")
    checkpoint.save(2, {"a": a, "b": b}, {"a": optimizer_a, "b": optimizer_b}, [])
    c, optimizer_c = new("sgd", seed=2)
    d, optimizer_d = new("adam", seed=3)
    checkpoint.load({"a": c, "b": d}, {"a": optimizer_c, "b": optimizer_d})
    for before, after in [(a, c), (b, d)]:
        for key, value in before.state_dict().items():
            assert torch.equal(after.state_dict()[key], value), key
    for before, after in [(optimizer_a, optimizer_c), (optimizer_b, optimizer_d)]:
        for old, found in zip(before.state.values(), after.state.values(), strict=True):
            assert old.keys() == found.keys()
            assert all(torch.equal(old[key], found[key]) for key in old)


def test_nothing_saved_starts_at_0(tmp_path: Path) -> None:
    network, optimizer = new("sgd")
    assert Checkpoint(tmp_path / "none").load({"n": network}, {"o": optimizer}) == (0, [])
    nowhere = Checkpoint(None, every_seconds=0.0)
    nowhere.save(1, {"n": network}, {"o": optimizer}, [])
    assert nowhere.load({"n": network}, {"o": optimizer}) == (0, [])
    assert not nowhere.due()


def test_due_after_the_interval_and_not_right_after_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    network, optimizer = new("plain sgd")
    checkpoint = Checkpoint(tmp_path / "c", every_seconds=60.0)
    assert not checkpoint.due()
    now = 159.0
    assert not checkpoint.due()
    now = 160.0
    assert checkpoint.due()
    checkpoint.save(1, {"n": network}, {"o": optimizer}, [])
    assert not checkpoint.due()
    now = 220.0
    assert checkpoint.due()


def test_a_cut_file_is_as_none(tmp_path: Path) -> None:
    network, optimizer = new("plain sgd")
    path = tmp_path / "c.safetensors"
    Checkpoint(path).save(3, {"n": network}, {"o": optimizer}, [])
    whole = path.read_bytes()
    for size in (0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert not Checkpoint(path).there
        assert not path.exists()
        path.write_bytes(whole[:size])
        assert Checkpoint(path).load({"n": network}, {"o": optimizer}) == (0, [])
    path.write_bytes(whole)
    assert Checkpoint(path).there
    assert Checkpoint(path).load({"n": network}, {"o": optimizer}) == (3, [])
