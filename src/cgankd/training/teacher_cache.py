"""A cache of the teacher's outputs on training views: the teacher runs once for each view of an image."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from cgankd.core import ranks
from cgankd.core.row_file import RowFile
from cgankd.core.runtime import Fabric, to_device
from cgankd.core.stopping import stop_in_time
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


Block = tuple[int, int, int]  # set of images, view, number of the block among those of this view


class TeacherOutputs:
    """The teacher's outputs on training views that recur: the teacher runs once for each view of each image.

    An output is used only for the view it was computed on. Views are computed in blocks of always the same images, so
    the last bits don't depend on the order of requests, such as after an interrupted run. Several processes compute
    these blocks in turns; only the first one has the cache.

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
        if batch.mixed:  # of one process alone, because several have only parts of its images
            outputs = self._of_mixed(batch)
        elif inference.is_of_networks(self.teacher):
            outputs = self._of_views(batch.whole)
        else:  # a service may charge for an answer, and the first process alone keeps the answers
            outputs = ranks.first_of_team(lambda: self._of_views(batch.whole))
        return to_device(outputs, self.fabric.device)

    def _of_mixed(self, batch: Batch) -> Tensor:
        """The outputs for a mixed batch that recurs; the batch is its own block."""
        assert batch.number is not None
        assert self.batches.period is not None
        size = len(batch.index)
        if self._mixed is None:
            path = None if self.folder is None else self.folder / f"{self.batches.mixed_key}-mixed"
            self._mixed = _View(path, self.batches.period * size, self.width, size)
        if not self._mixed.has(batch.number):
            self._mixed.put(batch.number, self._run(batch.images))
        return self._mixed.outputs.rows[batch.number * size : (batch.number + 1) * size]

    def _of_views(self, rows: BatchRows) -> Tensor:
        """The outputs for plain views. Blocks that are not in the cache are computed, by all processes."""
        missing, outputs = ranks.first_of_team(lambda: self._look_up(rows))
        if missing:
            for (number, view, block), computed in zip(missing, ranks.in_turns(missing, self._compute), strict=True):
                if ranks.is_first():
                    self._view(number, view).put(block, computed)
            _, outputs = ranks.first_of_team(lambda: self._look_up(rows))
        return outputs

    def _look_up(self, rows: BatchRows) -> tuple[list[Block], Tensor]:
        """The blocks that the cache lacks, and the outputs, as far as it has them."""
        missing, outputs = list[Block](), torch.empty(len(rows.index), self.width)
        for number, (first, count) in enumerate(self.batches.sets):
            inside = (rows.index >= first) & (rows.index < first + count)
            for view in rows.view[inside].unique().tolist():
                there = (inside & (rows.view == view)).nonzero().squeeze(1)
                images, cached = rows.index[there] - first, self._view(number, view)
                blocks = (images // self.BLOCK).unique().tolist()
                missing += [(number, view, block) for block in blocks if not cached.has(block)]
                outputs[there] = cached.outputs.rows[images]
        return missing, outputs

    def _view(self, number: int, view: int) -> _View:
        """The cache for one view of all images of a set."""
        if (number, view) not in self._views:
            path = None
            if self.folder is not None:
                path = self.folder / f"{self.batches.key(number)}-{self.BLOCK}-{view}"
            self._views[number, view] = _View(path, self.batches.sets[number][1], self.width, self.BLOCK)
        return self._views[number, view]

    def _compute(self, missing: Block) -> Tensor:
        number, view, block = missing
        first, count = self.batches.sets[number]
        index = torch.arange(block * self.BLOCK, min(count, (block + 1) * self.BLOCK)) + first
        return self._run(self.batches.views.draw(index, torch.full_like(index, view)))

    @torch.no_grad()
    def _run(self, images: Tensor) -> Tensor:
        stop_in_time(self.deadline)
        return inference.plain(self.teacher(images)).cpu()  # at float32, because it is stored


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
