"""Converts foreign checkpoints to .safetensors files, and tries the weights on the network that they are for."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from cgankd.core import rng
from cgankd.core.errors import UserError
from cgankd.core.files import save_tensors
from cgankd.nets import checkpoints, zoo
from cgankd.nets.checkpoints import StateDict
from cgankd.nets.layers import normalisation, normalisations
from cgankd.nets.trial import check_finite
from cgankd.nets.weights import check_suffix, fitting, listed
from cgankd.nets.wrappings import renamed, unwrapped

COLOURS = (1, 3)
FORMAT = {"format": "pt"}  # tells other readers of safetensors that the tensors are torch's


@dataclasses.dataclass(frozen=True)
class Target:
    """The network that weights are for. channels, outputs: None: taken from the shapes in the file."""

    network: str
    channels: int | None = None
    outputs: int | None = None
    size: tuple[int, int] = (32, 32)

    def create(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        """A new network of this kind."""
        channels, outputs = self.shape(tensors)
        with rng.restored():
            return zoo.create(self.network, channels, outputs, self.size)

    def shape(self, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
        """Channels of the images, from the first convolution, and number of outputs, from the first layer whose size
        they change; in the order of the network's layers, because .safetensors files have an order of their own."""
        own = self._state(self.outputs or 1)
        with contextlib.suppress(UserError):  # for the caller, which knows the file
            found = renamed(tensors, own, self.network)
            tensors = {name: found[name] for name in own if name in found} or tensors
        filters = _first_filters(tensors)
        channels = COLOURS[-1] if filters is None or filters.shape[1] not in COLOURS else filters.shape[1]
        return self.channels or channels, self.outputs or self._outputs(tensors, own)

    def _outputs(self, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> int:
        other = self._state(2)
        sizes = (len(tensors[name]) for name in own if own[name].shape != other[name].shape and name in tensors)
        return next(sizes, 1)

    def _state(self, outputs: int) -> dict[str, Tensor]:
        with rng.restored():
            return zoo.create(self.network, self.channels or COLOURS[-1], outputs, self.size).state_dict()


def convert_pth(
    src: str | Path,
    dst: str | Path,
    *,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    target: Target | None = None,
    entry: str | None = None,
) -> list[str]:
    """Convert a foreign checkpoint to a .safetensors file, without running any code in it.

    src: a state dict that torch.save or safetensors wrote, or a dict with one (:mod:`cgankd.nets.checkpoints`); known
    prefixes of the tensor names are removed (:mod:`cgankd.nets.wrappings`). mean, std: both [C], the normalisation
    that the weights were trained with, which the networks of this package store with their weights; values for
    images in [0, 255] are divided by 255. target: the network that the weights are for; they are tried on it before
    anything is written. entry: which entry of the file holds the weights, if there are several.

    Returns sentences that say what was done. Raises UserError for any other content, and then writes nothing.
    """
    src, dst = Path(src), Path(dst)
    check_suffix(dst)
    if (mean is None) != (std is None):
        raise UserError("only one of mean and std is given; allowed: both or none")
    notes: list[str] = []
    constants: dict[str, Tensor] = {}
    if mean is not None and std is not None:
        mean, std, divided = normalisation(mean, std, "--mean and --std")
        constants = {"normalise.mean": mean.view(1, -1, 1, 1), "normalise.std": std.view(1, -1, 1, 1)}
        notes += ["mean and std were divided by 255, because they are for images in [0, 255]"] * divided
    states = checkpoints.read_checkpoint(src, entry)
    if target is None:
        chosen = checkpoints.only(states, src)
        tensors = {**unwrapped(chosen.tensors, chosen.lightning), **constants}
        _check_channels(tensors, mean)
        notes.append("the weights were not tried on a network; --network NAME does that")
    else:
        chosen, network = _select(states, target, src)
        _check_normalisation(network, target, mean)
        names = network.state_dict()
        tensors = fitting(network, renamed(chosen.tensors, names, src), src, constants)
        network.load_state_dict(tensors)
        channels, outputs = target.shape(chosen.tensors)
        check_finite(str(src), zoo.check_outputs(target.network, network, channels, target.size, outputs))
        fits = f"{target.network} with {channels} channel(s) and {outputs} output(s)"
        notes.append(f"the weights fit {fits}, and were tried on images of {target.size[0]}x{target.size[1]} pixels")
    save_tensors(dst, tensors, FORMAT)
    place = f" from {chosen.entry}" if chosen.entry else ""
    return [f"wrote {dst}: {listed(tensors)}{place}", *notes]


def _select(states: Sequence[StateDict], target: Target, src: Path) -> tuple[StateDict, nn.Module]:
    """The state dict for the target, and a new network of its sizes; of several state dicts, the one that fits."""
    candidates = [(state, target.create(state.tensors)) for state in states]
    if len(candidates) > 1:
        candidates = [(state, network) for state, network in candidates if _fits(state, network, src)] or candidates
    checkpoints.only([state for state, _ in candidates], src)
    return candidates[0]


def _fits(state: StateDict, network: nn.Module, src: Path) -> bool:
    needed = network.state_dict()
    own = [f"{name}.{kind}" for name in normalisations(network) for kind in ("mean", "std")]
    try:
        fitting(network, renamed(state.tensors, needed, src), src, {name: needed[name] for name in own})
    except UserError:
        return False
    return True


def _check_normalisation(network: nn.Module, target: Target, mean: Tensor | None) -> None:
    """UserError if mean and std are given, but the network stores none, or for another number of channels."""
    layers = normalisations(network)
    if mean is None:
        return
    if list(layers) != ["normalise"]:
        raise UserError(
            f"network {target.network!r} keeps no mean and std among its weights; allowed: the command without --mean "
            "and --std"
        )
    if layers["normalise"].mean.shape[1] != len(mean):
        raise UserError(
            f"--mean and --std have {len(mean)} number(s), but network {target.network!r} takes images of "
            f"{layers['normalise'].mean.shape[1]} channel(s); needed: one number for each"
        )


def _check_channels(tensors: Mapping[str, Tensor], mean: Tensor | None) -> None:
    """UserError if no filters take as many channels as mean has. All are looked at, because .safetensors files have an
    order of their own, in which depthwise filters [O, 1, H, W] may be the first."""
    filters = _first_filters(tensors)
    if mean is None or filters is None or filters.shape[1] not in COLOURS:
        return
    if not any(tensor.ndim == 4 and len(tensor) > 1 and tensor.shape[1] == len(mean) for tensor in tensors.values()):
        raise UserError(
            f"--mean and --std have {len(mean)} number(s), but the first filters {list(filters.shape)} are for "
            f"{filters.shape[1]} channel(s); needed: one number for each"
        )


def _first_filters(tensors: Mapping[str, Tensor]) -> Tensor | None:
    """The first convolution's weights [O, C, H, W]; a stored mean [1, C, 1, 1] is skipped."""
    return next((tensor for tensor in tensors.values() if tensor.ndim == 4 and len(tensor) > 1), None)
