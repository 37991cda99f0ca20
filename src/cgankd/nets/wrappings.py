"""Names of tensors without what was put before them: by torch.compile, DistributedDataParallel, Lightning, averages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from cgankd.core.errors import UserError

# Parts of names that no network gives its own layers, wherever they stand.
INSIDE = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_forward_module|_original_module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
AROUND = "module."  # what DataParallel and averages put before all names
COUNTERS = re.compile(r"n_averaged|(.*\.)?total_(ops|params)")  # of averages, and of the library thop


def unwrapped(found: Mapping[str, Tensor], lightning: bool = False) -> dict[str, Tensor]:
    """The tensors without known wrappings; what can be taken off without knowing the network.

    lightning: whether the file is Lightning's, where one attribute's name stands before all.
    """
    state = _without_wrappers(found)
    while state and all(name.startswith(AROUND) for name in state):
        state = {name.removeprefix(AROUND): tensor for name, tensor in state.items()}
    first = {name.partition(".")[0] + "." for name in state}
    if lightning and len(first) == 1 and all("." in name for name in state):
        return unwrapped({name.removeprefix(*first): tensor for name, tensor in state.items()})
    return state


def renamed(found: Mapping[str, Tensor], needed: Collection[str], where: str | Path) -> dict[str, Tensor]:
    """The tensors by the names that a network ``needed``: without the prefix after which most of them are its own.

    Tensors under another prefix, as of a loss or of another network, are left out. Raises UserError where two
    prefixes serve alike.
    """
    state = _without_wrappers(found, needed)
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


def _without_wrappers(found: Mapping[str, Tensor], needed: Collection[str] = ()) -> dict[str, Tensor]:
    state = {INSIDE.sub("", name): tensor for name, tensor in found.items()}
    if len(state) < len(found):  # two tensors of one name: the wrappers tell them apart
        return dict(found)
    return {name: tensor for name, tensor in state.items() if name in needed or not COUNTERS.fullmatch(name)}
