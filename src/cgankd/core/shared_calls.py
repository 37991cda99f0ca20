"""A function of rows that the first process calls and all processes compute, each for some of the rows.

It is for stages whose loop the first process runs alone, such as synthesis: it decides, saves and stops as if it were
the only one. The others wait for a call, compute their rows, and send them to the first. So what a stage saves, and
where it goes on, does not depend on the number of processes. Training is shared in another way (shared_rows.py),
because there every process needs the results. With one process, the function is called as it is.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cgankd.core import ranks

Rows = dict[str, Tensor]
RowFunction = Callable[..., Rows]


@contextmanager
def called_by_first(function: RowFunction) -> Iterator[RowFunction]:
    """In this block, the first process has ``function`` with its rows computed by all processes.

    function: takes tensors [B, ..] and values that are the same for all rows, and gives named tensors [B, ..]; a row
    must not depend on the others. It is called with positional arguments. All processes must come here, in a stage that
    :func:`cgankd.core.ranks.together` runs. The others answer calls until the first one leaves the block, and their
    stage ends here. An error of a kind that users see, of any process, is raised in the first one.
    """
    number, count = ranks.share()
    if number:
        _answer_calls(function, number, count)
    ranks.leave()
    if count == 1:
        yield function
        return
    try:
        yield functools.partial(_call, function, count)
    except ranks.SHARED:  # after any other error this process ends, and the others notice
        ranks.from_first(None)
        raise
    ranks.from_first(None)


def _call(function: RowFunction, count: int, *arguments: Any) -> Rows:
    """The rows of all processes, on the CPU, in the order of the arguments' rows."""
    ranks.from_first(arguments)
    mine, *others = _parts(arguments, count)
    own = _computed(function, arguments, mine)
    total = others[-1].stop
    rows = {name: torch.empty(total, *part.shape[1:], dtype=part.dtype) for name, part in own.items()}
    for name, part in own.items():
        rows[name][mine] = part
    with ranks.exchanging():
        for number, theirs in enumerate(others, start=1):
            for whole in rows.values() if _any(theirs) else ():
                dist.recv(whole[theirs], src=number, group=ranks.control())
    return rows


def _answer_calls(function: RowFunction, number: int, count: int) -> None:
    """Compute this process's rows of each call of the first one, until it has none left."""
    while (arguments := ranks.from_first(None)) is not None:
        try:
            own = _computed(function, arguments, _parts(arguments, count)[number])
        except ranks.SHARED:
            continue  # the first process raises it too, and leaves its block
        with ranks.exchanging():
            for part in own.values():
                dist.send(part.cpu().contiguous(), dst=0, group=ranks.control())


def _parts(arguments: tuple[Any, ...], count: int) -> list[slice]:
    """The rows of each process: neighbours, so rows that are sorted by label are divided by label."""
    total = next(len(value) for value in arguments if isinstance(value, Tensor))
    edges = [-(-number * total // count) for number in range(count + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def _any(part: slice) -> bool:
    return part.stop > part.start  # type: ignore[no-any-return]


def _computed(function: RowFunction, arguments: tuple[Any, ...], part: slice) -> Rows:
    """``function`` for these rows. The first error of any process is raised in all of them, before rows are sent."""
    rows = Rows()

    def compute() -> None:
        if _any(part):
            rows.update(function(*(value[part] if isinstance(value, Tensor) else value for value in arguments)))

    ranks.each(compute)
    return rows
