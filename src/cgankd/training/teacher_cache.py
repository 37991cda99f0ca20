"""The teacher's outputs on training views: each view of an image is asked for once, and kept."""

from __future__ import annotations

import math
import time
import zlib
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.core.errors import OutOfTime
from cgankd.core.row_file import RowFile
from cgankd.core.runtime import to_device
from cgankd.data.batches import Batch, Batches
from cgankd.nets import inference


class TeacherOutputs:
    """The teacher's outputs on training views; where views recur, each view of each image is asked for once.

    An output is only ever served for the view it was computed on. Views are computed in blocks of a fixed make-up, so
    that the last bits don't depend on when they were asked for (before a kill or after).
    folder: this teacher's; its outputs lie in files there, mapped into memory, for other trainings on the same views,
    as the rows of a table are. None: they lie in memory. After ``deadline`` (of time.monotonic) OutOfTime is raised
    instead of asking.
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
        self._known: dict[tuple[int, int], _View] = {}  # of (set of images, view)

    def of(self, batch: Batch) -> Tensor:
        """float32 [B, number of outputs], for the batch's own views."""
        if not self.batches.recurring:
            return self._ask(batch.images)
        outputs = torch.empty(len(batch.index), self.width)
        for number, (first, count) in enumerate(self.batches.sets):
            inside = (batch.index >= first) & (batch.index < first + count)
            for view in batch.view[inside].unique().tolist():
                places = (inside & (batch.view == view)).nonzero().squeeze(1)
                outputs[places] = self._of_view(number, view, batch.index[places] - first)
        return to_device(outputs, self.fabric.device)

    def _of_view(self, number: int, view: int, rows: Tensor) -> Tensor:
        """The outputs on one view of these images of a set; its blocks that are not known are asked for."""
        first, count = self.batches.sets[number]
        if (number, view) not in self._known:
            path = None
            if self.folder is not None:
                path = self.folder / f"{self.batches.key(number)}-{self.BLOCK}-{view}"
            self._known[number, view] = _View(path, count, self.width, self.BLOCK)
        known = self._known[number, view]
        for block in (rows // self.BLOCK).unique().tolist():
            if not known.has(block):
                if time.monotonic() >= self.deadline:
                    raise OutOfTime
                index = torch.arange(block * self.BLOCK, min(count, (block + 1) * self.BLOCK)) + first
                known.put(block, self._ask(self.batches.views.draw(index, torch.full_like(index, view))).cpu())
        return known.outputs.rows[rows]

    @torch.no_grad()
    def _ask(self, images: Tensor) -> Tensor:
        return inference.plain(self.teacher(images))  # at float32, because it is kept


class _View:
    """Outputs on one view of each image of a set. Beside each block is its checksum: 0 is that of no block."""

    def __init__(self, path: Path | None, count: int, width: int, size: int) -> None:
        self.size, blocks = size, math.ceil(count / size)
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self.outputs = RowFile(path and path.with_suffix(".rows"), count, (width,), torch.float32, resume=True)
            self.sums = RowFile(path and path.with_suffix(".sums"), blocks, (), torch.int64, resume=True)
        except OSError:  # a full disk; nothing needs the files
            self.outputs = RowFile(None, count, (width,), torch.float32)
            self.sums = RowFile(None, blocks, (), torch.int64)
        self._checked: set[int] = set()

    def has(self, block: int) -> bool:
        """Whether the block is known, and is what was written."""
        if block not in self._checked and int(self.sums.rows[block]) == self._sum(block):
            self._checked.add(block)
        return block in self._checked

    def put(self, block: int, outputs: Tensor) -> None:
        self.outputs.rows[block * self.size : (block + 1) * self.size] = outputs
        self.sums.rows[block] = self._sum(block)
        self._checked.add(block)

    def _sum(self, block: int) -> int:
        return 1 + zlib.crc32(self.outputs.rows[block * self.size : (block + 1) * self.size].numpy().data)
