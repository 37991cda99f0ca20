"""Storage of generated images: raw uint8 in a memory-mapped file, and columns in a file of tensors."""

from __future__ import annotations

import dataclasses
from typing import Any

from cgankd.core.hashing import content_key
from cgankd.core.row_file import open_rows
from cgankd.core.store import Artifact, Work
from cgankd.data.imageset import ImageSet
from cgankd.synthesis import adjust

IMAGES = "images.u8"


@dataclasses.dataclass(frozen=True)
class StoredFakes:
    """The images that a stage saved with :func:`keep_fakes`. replace: how their labels are replaced."""

    artifact: Artifact
    replace: str = "none"

    @property
    def content_key(self) -> str:
        return content_key(self.artifact.content_key, self.replace)

    def open(self) -> ImageSet:
        """The images are mapped into memory, not read."""
        columns = self.artifact.tensors("columns")
        channels, height, width = self.artifact.summary["shape"]
        images = open_rows(self.artifact.folder / IMAGES, (channels, height, width))
        return adjust.relabelled(ImageSet(images, columns.pop("labels"), columns), self.replace)


def keep_fakes(work: Work, fakes: ImageSet) -> dict[str, Any]:
    """Save labels and columns; the images are in their file already. Returns the entries of the summary for both."""
    work.save("columns", {"labels": fakes.labels, **fakes.columns})
    return {"shape": list(fakes.images.shape[1:])}
