"""The teacher's outputs on training views: each view of an image is asked for once, and kept."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors, save_tensors
from cgankd.data.batches import Batch, Batches
from cgankd.nets import inference


class TeacherOutputs:
    """The teacher's outputs on training views; where views recur, each view of each image is asked for once.

    An output is only ever served for the view it was computed on. Views are computed whole, in blocks of a fixed
    make-up, so that the last bits don't depend on when they were asked for (before a kill or after).
    folder: this teacher's; what it said is kept there for other runs on the same views, as the rows of a table are.
    """

    BLOCK = 500
    KEPT = 2**30  # bytes of all views' outputs, at most, of a fit whose teacher's answers are kept in files

    def __init__(
        self,
        teacher: inference.Predictor,
        batches: Batches,
        width: int,
        fabric: Fabric,
        folder: Path | None = None,
    ) -> None:
        self.teacher, self.batches, self.fabric, self.width = teacher, batches, fabric, width
        self.folder = folder if batches.recurring * batches.count * width * 4 <= self.KEPT else None
        if isinstance(teacher, nn.Module):
            inference.place(teacher, fabric).eval()
        self.known: dict[tuple[int, int], Tensor] = {}  # (set of images, view) -> outputs, float32 [images, width]

    def of(self, batch: Batch) -> Tensor:
        """float32 [B, number of outputs], for the batch's own views."""
        if not self.batches.recurring:
            return self._ask(batch.images)
        found = torch.empty(len(batch.index), self.width)
        for number, (first, count) in enumerate(self.batches.sets):
            inside = (batch.index >= first) & (batch.index < first + count)
            for view in batch.view[inside].unique().tolist():
                if (number, view) not in self.known:
                    self.known[number, view] = self._whole(number, view)
                rows = (inside & (batch.view == view)).nonzero().squeeze(1)
                found[rows] = self.known[number, view][batch.index[rows] - first]
        return found.to(self.fabric.device)

    def _whole(self, number: int, view: int) -> Tensor:
        """Outputs on one view of each image of a set: read where they are kept, or else asked for."""
        first, count = self.batches.sets[number]
        path = None
        if self.folder is not None:
            path = self.folder / f"{self.batches.key(number)}-{self.BLOCK}-{view}.safetensors"
            with contextlib.suppress(UserError, OSError):  # not there, or spoilt
                kept = load_tensors(path)[0].get("outputs")
                if kept is not None and kept.shape == (count, self.width):
                    return kept
        blocks = torch.arange(first, first + count).split(self.BLOCK)
        parts = [self._ask(self.batches.views.draw(index, torch.full_like(index, view))) for index in blocks]
        outputs = torch.cat(parts).cpu()  # all views of 100,000 images are more than a device may have to spare
        if path is not None:
            with contextlib.suppress(OSError):  # a full disk; nothing needs the file
                save_tensors(path, {"outputs": outputs})
        return outputs

    @torch.no_grad()
    def _ask(self, images: Tensor) -> Tensor:
        with self.fabric.autocast():
            return inference.plain(self.teacher(images))
