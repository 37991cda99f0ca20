"""A cache of the teacher's outputs on training views: the teacher runs once for each view of an image."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.core import ranks
from cgankd.core.errors import OutOfTime
from cgankd.core.row_file import RowFile
from cgankd.core.runtime import to_device
from cgankd.core.stopping import reason_to_stop
from cgankd.data.batches import Batch, Batches, BatchRows
from cgankd.nets import inference


def asked(batches: Batches, steps: int) -> Iterator[Tensor]:
    """The images about which a training asks a teacher that is no network, float32 [b, C, H, W]; some come up twice."""
    if batches.mixing is not None or not batches.recurring:
        for step in range(min(steps, batches.period or steps)):
            yield batches.at(step).images
        return
    for number, (first, count) in enumerate(batches.sets):
        for view in range(min(batches.recurring, batches.epochs(number, steps))):
            for index in (torch.arange(count) + first).split(TeacherOutputs.BLOCK):
                yield batches.views.draw(index, torch.full_like(index, view))


class TeacherOutputs:
    """The teacher's outputs on training views that recur: the teacher runs once for each view of each image.

    An output is used only for the view it was computed on. Views are computed in blocks of always the same images, so
    the last bits don't depend on the order of requests, such as after an interrupted run.

    folder: of this teacher. Its outputs are stored there in memory-mapped files, for other trainings on the same views,
    such as other rows of a table. None: they are kept in memory. deadline: a value of time.monotonic(); after it,
    OutOfTime is raised instead of running the teacher.
    """

    BLOCK = 500

    def __init__(
        self,
        teacher: inference.Predictor,
        batches: Batches,
        width: int,
        fabric: Fabric,
        folder: Path | None = None,
        deadline: float = math.inf,
    ) -> None:
        self.teacher, self.batches, self.fabric, self.width = teacher, batches, fabric, width
        self.folder, self.deadline = folder, deadline
        if isinstance(teacher, nn.Module):
            inference.place(teacher, fabric).eval()
        self._views: dict[tuple[int, int], _View] = {}  # by (set of images, view)
        self._mixed: _View | None = None  # of all mixed batches

    def of(self, batch: Batch) -> Tensor:
        """The outputs for all of the batch's views, which recur, float32 [B, number of outputs]."""
        stored = self._of_mixed if batch.mixed else lambda batch: self._stored(batch.whole)
        return to_device(ranks.first_of_team(lambda: stored(batch)), self.fabric.device)

    def _of_mixed(self, batch: Batch) -> Tensor:
        """The outputs for a mixed batch that recurs; the batch is its own block."""
        assert batch.number is not None
        assert self.batches.period is not None
        size = len(batch.index)
        if self._mixed is None:
            path = None if self.folder is None else self.folder / f"{self.batches.mixed_key}-mixed"
            self._mixed = _View(path, self.batches.period * size, self.width, size)
        if not self._mixed.has(batch.number):
            self._mixed.put(batch.number, self._run(batch.images).cpu())
        return self._mixed.outputs.rows[batch.number * size : (batch.number + 1) * size]

    def _stored(self, batch: BatchRows) -> Tensor:
        outputs = torch.empty(len(batch.index), self.width)
        for number, (first, count) in enumerate(self.batches.sets):
            inside = (batch.index >= first) & (batch.index < first + count)
            for view in batch.view[inside].unique().tolist():
                rows = (inside & (batch.view == view)).nonzero().squeeze(1)
                outputs[rows] = self._of_view(number, view, batch.index[rows] - first)
        return outputs

    def _of_view(self, number: int, view: int, rows: Tensor) -> Tensor:
        """The outputs for one view of these images of a set. Blocks that are not in the cache are computed."""
        first, count = self.batches.sets[number]
        if (number, view) not in self._views:
            path = None
            if self.folder is not None:
                path = self.folder / f"{self.batches.key(number)}-{self.BLOCK}-{view}"
            self._views[number, view] = _View(path, count, self.width, self.BLOCK)
        cached = self._views[number, view]
        for block in (rows // self.BLOCK).unique().tolist():
            if not cached.has(block):
                index = torch.arange(block * self.BLOCK, min(count, (block + 1) * self.BLOCK)) + first
                cached.put(block, self._run(self.batches.views.draw(index, torch.full_like(index, view))).cpu())
        return cached.outputs.rows[rows]

    @torch.no_grad()
    def _run(self, images: Tensor) -> Tensor:
        if (reason := reason_to_stop(self.deadline)) is not None:
            raise OutOfTime(reason)
        return inference.plain(self.teacher(images))  # at float32, because it is stored


class _View:
    """Outputs for one view of each image of a set, with a checksum for each block (0: not stored)."""

    def __init__(self, path: Path | None, count: int, width: int, size: int) -> None:
        self.size, blocks = size, math.ceil(count / size)
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self.outputs = RowFile(path and path.with_suffix(".rows"), count, (width,), torch.float32, resume=True)
            self.sums = RowFile(path and path.with_suffix(".sums"), blocks, (), torch.int64, resume=True)
        except OSError:  # such as a full disk; the cache then stays in memory
            self.outputs = RowFile(None, count, (width,), torch.float32)
            self.sums = RowFile(None, blocks, (), torch.int64)
        self._checked: set[int] = set()

    def has(self, block: int) -> bool:
        """Whether the block is in the cache, and its checksum is right."""
        if block not in self._checked and int(self.sums.rows[block]) == self._sum(block):
            self._checked.add(block)
        return block in self._checked

    def put(self, block: int, outputs: Tensor) -> None:
        """Store the outputs of a block, float32 [images, number of outputs], and its checksum."""
        self.outputs.rows[block * self.size : (block + 1) * self.size] = outputs
        self.sums.rows[block] = self._sum(block)
        self._checked.add(block)

    def _sum(self, block: int) -> int:
        return 1 + zlib.crc32(self.outputs.rows[block * self.size : (block + 1) * self.size].numpy().data)
