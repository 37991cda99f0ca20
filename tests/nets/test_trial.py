"""Networks are tried in both modes; what can't be trained is refused in one sentence, and nothing is changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cgankd.core.errors import UserError
from cgankd.nets import trial

IMAGES = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def small() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))


class InTraining(nn.Module):
    """Gives in training mode what ``change`` makes of its outputs."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.network, self.change = small(), change

    def forward(self, images: Tensor) -> Any:
        outputs = self.network(images)
        return self.change(outputs) if self.training else outputs


def fails(outputs: Tensor) -> Tensor:
    raise RuntimeError("no labels\nwere given")


def frozen() -> nn.Module:
    return small().requires_grad_(False)


class WithState(nn.Linear):
    """Keeps something beside tensors."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 3}

    def set_extra_state(self, state: Any) -> None:
        """Nothing to do."""


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (
            InTraining(lambda o: (o, o)),
            r"it gives tuple in training mode; allowed: one tensor \[2, 3\], the outputs",
        ),
        (InTraining(lambda o: {"out": o}), r"it gives dict in training mode; allowed: one tensor \[2, 3\]"),
        (InTraining(lambda o: [o]), r"it gives list in training mode; allowed: one tensor \[2, 3\]"),
        (InTraining(lambda o: o[:, :2]), r"it gives \[2, 2\] in training mode; allowed: a tensor \[2, 3\]"),
        (InTraining(lambda o: o.argmax(1, keepdim=True).expand(2, 3)), r"numbers of type int64 in training mode"),
        (InTraining(lambda o: o * torch.nan), r"in training mode: it gives outputs that are not finite"),
        (InTraining(lambda o: o.detach()), r"outputs in training mode don't depend on its parameters \(detached"),
        (
            InTraining(fails),
            r"it fails in training mode on images \[2, 1, 16, 16\] \(RuntimeError: no labels were given",
        ),
        (frozen(), r"it has no trainable parameter \(requires_grad is False for all\); needed: at least one"),
        (nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(3)), r"it has no trainable parameter"),
        (small().half(), r"its weights are float16; needed for training: float32, by network\.float\(\)"),
        (small().bfloat16(), r"its weights are bfloat16; needed for training: float32"),
        (small().double(), r"its weights are float64; needed for training: float32"),
        (
            nn.Sequential(nn.Flatten(), WithState(256, 3)),
            r"entry '1\._extra_state' of its state dict is dict; allowed:",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(network: nn.Module, said: str) -> None:
    modes = [module.training for module in network.modules()]
    with pytest.raises(UserError, match=said) as refused:
        trial.check_learns("student.network 'own'", network, IMAGES, 3)
    assert str(refused.value).startswith("student.network 'own': ")
    assert "\n" not in str(refused.value)
    assert [module.training for module in network.modules()] == modes


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (
            small().half(),
            r"it fails on images .*; its weights are float16, but images are float32; network\.float\(\) converts",
        ),
        (InTraining(None).eval().network[:-1], r"it gives \[2, 8\]; allowed: a tensor \[2, 3\]"),
        (nn.Sequential(nn.Flatten(), nn.Linear(256, 3), nn.Softmax(0), nn.Flatten(0)), r"it gives \[6\]; allowed"),
    ],
)
def test_what_answers_otherwise_is_refused(network: nn.Module, said: str) -> None:
    with pytest.raises(UserError, match=said):
        trial.check_answers("the teacher", network, IMAGES, 3)


def test_a_network_is_left_as_it_was() -> None:
    network = small()
    network[0].eval()  # a layer in the other mode than the rest
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    trial.check_answers("it", network, IMAGES, 3)
    trial.check_learns("it", network, IMAGES, 3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [layer.training for layer in network] == [False, True, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())


def test_part_of_a_network_may_be_frozen_and_of_another_type() -> None:
    network = small()
    network[1].requires_grad_(False)
    trial.check_learns("it", network, IMAGES, 3)
    network.register_buffer("count", torch.zeros(3, dtype=torch.int64))
    trial.check_learns("it", network, IMAGES, 3)


class InPlace(nn.Module):
    """Normalises the images of others too."""

    def __init__(self) -> None:
        super().__init__()
        self.network = small()

    def forward(self, images: Tensor) -> Tensor:
        images -= 0.5
        return self.network(images)  # type: ignore[no-any-return]


def test_a_network_that_changes_its_images_is_refused() -> None:
    with pytest.raises(UserError, match=r"network 'a:b': it changes the images that it is given; needed: x = x - mean"):
        trial.check_answers("network 'a:b'", InPlace(), IMAGES.clone(), 3)
