"""The old model: adapted, it normalises by the batch and changes nothing else; grown, it still says the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cgankd.continual.old_model import AdaptedTeacher, check_adaptable, grow, normalisations
from cgankd.core.errors import UserError
from cgankd.nets import zoo


class Small(nn.Module):
    """A 1x1 convolution, normalisation, dropout, and a linear layer on the map's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3)
        self.dropout, self.fc = nn.Dropout(0.5), nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.dropout(self.norm(self.conv(images)).relu().mean((2, 3))))


@pytest.fixture
def network() -> Small:
    torch.manual_seed(0)
    made = Small().double()
    nn.init.normal_(made.norm.weight)
    nn.init.normal_(made.norm.bias)
    made.norm.running_mean.copy_(torch.tensor([5.0, -3.0, 1.0]))  # type: ignore[union-attr]
    made.norm.running_var.copy_(torch.tensor([2.0, 0.1, 4.0]))  # type: ignore[union-attr]
    return made.train()


IMAGES = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def maps(network: Small) -> np.ndarray:  # type: ignore[type-arg]
    """The convolution's output, [B, 3, H, W], in NumPy."""
    weight, bias = (p.detach().numpy() for p in (network.conv.weight, network.conv.bias))
    return weight[:, 0, 0, 0][None, :, None, None] * IMAGES.numpy() + bias[None, :, None, None]


def test_adapted_it_normalises_by_the_batch(network: Small) -> None:
    found = AdaptedTeacher(network)(IMAGES)
    x = maps(network)
    mean, variance = x.mean(axis=(0, 2, 3), keepdims=True), x.var(axis=(0, 2, 3), keepdims=True)
    gamma, beta = (p.detach().numpy()[None, :, None, None] for p in (network.norm.weight, network.norm.bias))
    pooled = np.maximum((x - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0).mean(axis=(2, 3))  # no dropout
    expected = pooled @ network.fc.weight.detach().numpy().T + network.fc.bias.detach().numpy()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)
    assert not found.requires_grad
    network.eval()
    assert not torch.allclose(found, network(IMAGES))  # by the old statistics it says something else


def test_its_running_statistics_follow_and_nothing_else_moves(network: Small) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    teacher = AdaptedTeacher(network)
    teacher(IMAGES)
    x = maps(network)
    after = teacher.network.state_dict()
    mean, variance = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3), ddof=1)
    for name, seen in (("norm.running_mean", mean), ("norm.running_var", variance)):
        np.testing.assert_allclose(after[name].numpy(), 0.9 * before[name].numpy() + 0.1 * seen, rtol=1e-10)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}


def test_the_network_itself_stays_as_it_is(network: Small) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.eval()
    teacher = AdaptedTeacher(network)
    teacher(IMAGES)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(module.training for module in network.modules())
    assert all(p.requires_grad for p in network.parameters())
    assert not any(p.requires_grad for p in teacher.network.parameters())


def test_only_normalisations_are_in_train_mode(network: Small) -> None:
    teacher = AdaptedTeacher(network)
    assert [name for name, module in teacher.network.named_modules() if module.training] == ["norm"]


def test_an_answer_does_not_depend_on_earlier_ones(network: Small) -> None:
    teacher = AdaptedTeacher(network)
    first = teacher(IMAGES)
    teacher(IMAGES * 3 - 1)
    assert torch.equal(teacher(IMAGES), first)  # so that a resumed training, whose teacher is new, goes on exactly


def test_without_batch_normalisation_it_is_refused() -> None:
    with pytest.raises(UserError, match=r"^network mine:make has no batch normalisation, .*; allowed with \+ta: "):
        check_adaptable(nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.InstanceNorm2d(2)), "mine:make")


@pytest.mark.parametrize("name", ["cnn16", "resnet8", "vgg8", "wrn_16_1"])
def test_grown_it_says_the_same_of_the_old_classes(name: str) -> None:
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(4)
    old, new = (zoo.create(name, 1, outputs, (32, 32)) for outputs in (2, 6))
    assert normalisations(old)
    fresh = {key: tensor.clone() for key, tensor in new.state_dict().items()}
    grow(new, old.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(new.eval()(images)[:, :2], old.eval()(images))
    longer = [key for key, tensor in new.state_dict().items() if tensor.shape != old.state_dict()[key].shape]
    assert len(longer) == 2  # the last layer's weight and bias, whose new rows are the new network's own
    assert all(torch.equal(new.state_dict()[key][2:], fresh[key][2:]) for key in longer)


def test_a_network_that_changes_elsewhere_is_refused() -> None:
    with pytest.raises(UserError, match=r"with more outputs, weight changes from \[3, 2\] to \[3, 6\]; allowed: "):
        grow(nn.Linear(6, 3), nn.Linear(2, 3).state_dict())
