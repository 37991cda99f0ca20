"""Numerical faults of a training: losses, outputs or weights that are not finite."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from cgankd.core.errors import TrainingError
from cgankd.core.shared_weights import own_part


class NotFinite(TrainingError):
    """A loss, a weight or an output is not finite. fault: what it is, and where; advice: what may help."""

    def __init__(self, fault: str, advice: str) -> None:
        super().__init__(f"{fault}; {advice}")
        self.fault, self.advice = fault, advice

    def __reduce__(self) -> tuple[type[NotFinite], tuple[str, str]]:
        return type(self), (self.fault, self.advice)  # for pickle, by which other processes of the run get it


def is_finite(tensors: dict[str, Tensor]) -> bool:
    """Whether all numbers of all tensors are finite; waits for the device only once, unless something is wrong.

    >>> is_finite({"large": Tensor([3e38, 3e38])}), is_finite({"one": Tensor([1, float("inf")])}), is_finite({})
    (True, False, True)
    """
    numbers = [own_part(tensor) for tensor in tensors.values() if tensor.is_floating_point()]
    # One call for the norm of all is up to four times as fast as a call for each. Large numbers overflow the norm.
    return bool(get_total_norm(numbers).isfinite()) or all(bool(tensor.isfinite().all()) for tensor in numbers)


def not_finite(network: nn.Module) -> str | None:
    """The name of the first weight or buffer of the network with a number that is not finite; None: all are finite.

    Where the weights lie in parts in several processes, this process looks at its own.

    >>> layer = nn.Linear(2, 1)
    >>> before = not_finite(layer)
    >>> layer.bias.data.fill_(float("nan")), before, not_finite(layer)
    (tensor([nan]), None, 'bias')
    """
    state = network.state_dict()
    if is_finite(state):
        return None
    return next(name for name, value in state.items() if not is_finite({name: value}))
