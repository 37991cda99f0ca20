"""Removes prefixes of tensor names, which torch.compile, DistributedDataParallel, Lightning and averages add."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from cgankd.core.errors import UserError

# Parts of names that only wrappers add, at any place in the name.
INSIDE = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_forward_module|_original_module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
AROUND = "module."  # DataParallel and weight averages add it to all names
COUNTERS = re.compile(r"n_averaged|(.*\.)?total_(ops|params)")  # tensors of weight averages and of the library thop


def unwrapped(tensors: Mapping[str, Tensor], lightning: bool = False) -> dict[str, Tensor]:
    """The tensors without the prefixes that can be removed without knowing the network.

    lightning: whether Lightning wrote the file, which puts an attribute's name before all names.
    """
    state = _without_wrappers(tensors)
    while state and all(name.startswith(AROUND) for name in state):
        state = {name.removeprefix(AROUND): tensor for name, tensor in state.items()}
    first = {name.partition(".")[0] + "." for name in state}
    if lightning and len(first) == 1 and all("." in name for name in state):
        return unwrapped({name.removeprefix(*first): tensor for name, tensor in state.items()})
    return state


def renamed(tensors: Mapping[str, Tensor], needed: Collection[str], where: str | Path) -> dict[str, Tensor]:
    """The tensors under the names ``needed`` by a network. Removes the prefix that leaves most of these names.

    Tensors with another prefix, such as those of a loss or of another network, are left out. Raises UserError if two
    prefixes match equally many names.
    """
    state = _without_wrappers(tensors, needed)
    count = Counter({"": sum(name in needed for name in state)})
    for name in state:
        parts = name.split(".")
        for place in range(1, len(parts)):
            if ".".join(parts[place:]) in needed:
                count[".".join(parts[:place]) + "."] += 1
    most = max(count.values())
    best = [prefix for prefix, matches in count.items() if matches == most]
    if not most:
        return unwrapped(state)
    if "" in best:
        return state
    if len(best) > 1:
        several = ", ".join(sorted(prefix.rstrip(".") for prefix in best))
        raise UserError(f"{where}: holds tensors of several networks; needed: one of them, by --entry: {several}")
    return {name.removeprefix(best[0]): tensor for name, tensor in state.items() if name.startswith(best[0])}


def _without_wrappers(tensors: Mapping[str, Tensor], needed: Collection[str] = ()) -> dict[str, Tensor]:
    state = {INSIDE.sub("", name): tensor for name, tensor in tensors.items()}
    if len(state) < len(tensors):  # without the prefixes two tensors would have one name
        return dict(tensors)
    return {name: tensor for name, tensor in state.items() if name in needed or not COUNTERS.fullmatch(name)}
