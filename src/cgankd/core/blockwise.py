"""Compute something for many rows (usually images) in blocks; a pass that was stopped continues at its last block."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from cgankd.core import ranks
from cgankd.core.row_file import RowFile, release_pages
from cgankd.core.store import CHECKPOINT, Work

BLOCK = 250
WORTH_SAVING = 1.0  # seconds: a shorter pass is not saved, but repeated after a kill


def blockwise(
    work: Work,
    name: str,
    count: int,
    compute: Callable[[Tensor], Mapping[str, Tensor]],
    blocks: Sequence[Tensor] | int = BLOCK,
) -> dict[str, Tensor]:
    """The results of ``compute`` for each of ``count`` rows, [count, ...] on the CPU.

    name: names this pass within its stage; shown while it runs. compute: takes rows, int64 [b], and returns named
    tensors [b, ...] of float32, float64, uint8, int64 or bool. blocks: the rows of each call, or the number of rows
    per call; a row in no block stays 0. Where ``work`` has a folder, the results are memory-mapped files in it, until
    the stage ends.

    Where several processes compute together, all of them call this, and compute the blocks in turns. Then only the
    first one has all results, because a pass that continues is read by it alone.
    """
    parts = torch.arange(count).split(blocks) if isinstance(blocks, int) else blocks
    work = work.within(name, name)
    checkpoint, started = work.checkpoint(), time.monotonic()
    first, shapes = checkpoint.load()
    files: dict[str, RowFile] = {}

    def new_file(table: str, shape: Sequence[int], dtype: torch.dtype) -> RowFile:
        path = None if work.folder is None else work.folder / f"{CHECKPOINT}-{work.loop}-{table}.rows"
        return RowFile(path, count, tuple(shape), dtype, resume=first > 0)

    if first:
        files = {table: new_file(table, shape, getattr(torch, dtype)) for table, (shape, dtype) in shapes.items()}
        if not ranks.agreed(lambda: all(file.resumed for file in files.values())):
            first, files = 0, {}

    def computed(rows: Tensor) -> dict[str, Tensor]:
        return {table: values.cpu() for table, values in compute(rows).items()}

    with work.progress.passing(work.title, len(parts)) as bar:
        for number, results in enumerate(ranks.in_turns(parts[first:], computed), start=first):
            for table, values in results.items():
                if table not in files:
                    files[table] = new_file(table, values.shape[1:], values.dtype)
                files[table].rows[parts[number]] = values
            release_pages()
            bar.to(number + 1)
            last = number + 1 == len(parts)
            if checkpoint.due() or (last and ranks.agreed(lambda: time.monotonic() - started > WORTH_SAVING)):
                for file in files.values():
                    file.flush()
                shapes = {table: (file.shape, str(file.dtype).removeprefix("torch.")) for table, file in files.items()}
                checkpoint.save(number + 1, history=shapes)
    return {table: file.rows for table, file in files.items()}
