"""Where loops run that tests call by themselves: with a checkpoint of the test's own."""

from __future__ import annotations

import dataclasses

from cgankd.core.checkpoint import Checkpoint
from cgankd.core.store import Work


class _Watched(Work):
    own: Checkpoint

    def checkpoint(self) -> Checkpoint:
        return self.own


def with_checkpoint(work: Work, checkpoint: Checkpoint | None) -> Work:
    """The same, but its loop saves and resumes by ``checkpoint``; loops within it have none."""
    if checkpoint is None:
        return work
    watched = _Watched(**{field.name: getattr(work, field.name) for field in dataclasses.fields(work)})
    object.__setattr__(watched, "own", checkpoint)
    return watched
