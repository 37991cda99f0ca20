"""Images -> the teachers' outputs and one feature vector; each network runs once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cgankd.core import ranks
from cgankd.core.errors import UserError
from cgankd.core.runtime import Fabric
from cgankd.core.shared_calls import RowFunction, called_by_first
from cgankd.nets import inference
from cgankd.nets.taps import PENULTIMATE, Taps


class FeatureExtractor:
    """The teacher's outputs, and the feature vector that the density ratio reads.

    teacher: a module, or any callable on float images in [0, 1]. features_of: the module whose penultimate features
    are used; None: the teacher, which must be a module. others: the jurors, further teachers that vote with it.
    by_confidence: whether votes are weighted (:meth:`cgankd.tasks.Task.confidence`) or count equally. Raises UserError
    if a network's outputs are not [B, number of outputs].
    """

    def __init__(
        self,
        teacher: inference.Predictor,
        fabric: Fabric,
        features_of: nn.Module | None = None,
        others: Sequence[inference.Predictor] = (),
        *,
        by_confidence: bool = False,
    ) -> None:
        source = features_of if features_of is not None else teacher
        if not isinstance(source, nn.Module):
            raise UserError("the teacher is a plain callable, which has no features; features_of must be a module")
        for network in (teacher, source, *others):
            if isinstance(network, nn.Module):
                inference.place(network, fabric).eval()
        self.teacher, self.others, self.fabric = teacher, tuple(others), fabric
        self.by_confidence = by_confidence and bool(others)
        self._same = source is teacher
        self._taps = Taps(source, [PENULTIMATE])

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B, C, H, W] -> the teacher's outputs float32 [B, number of outputs], features float32 [B, F].

        Both are on the device. They are computed at float32, because what is derived from them is stored: errors,
        replaced labels and ratios. The jurors do not run.
        """
        x = inference.to_input(images, self.fabric.device)
        outputs, features = self._taps(x)
        if not self._same:
            outputs = self.teacher(x)
        return _checked(outputs, len(images), "the teacher"), features[PENULTIMATE].flatten(1).float()

    @torch.no_grad()
    def votes(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B, C, H, W] -> outputs of teacher and jurors float32 [T, B, number of outputs], features as above."""
        outputs, features = self(images)
        votes = [outputs]
        for number, juror in enumerate(self.others, start=1):
            vote = juror(inference.to_input(images, self.fabric.device))
            votes.append(_checked(vote, len(images), f"juror {number}"))
        return torch.stack(votes), features

    @contextmanager
    def shared(self, function: RowFunction) -> Iterator[RowFunction]:
        """As :func:`cgankd.core.shared_calls.called_by_first`, for a function that asks the teachers.

        Where one of the teachers is no module, the first process computes all rows alone.
        """
        if all(isinstance(teacher, nn.Module) for teacher in (self.teacher, *self.others)):
            with called_by_first(function) as by_all:
                yield by_all
        else:  # a service may charge for an answer, and the first process alone keeps the answers
            ranks.leave()
            yield function

    def __enter__(self) -> FeatureExtractor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the hooks off the network."""
        self._taps.close()


def _checked(outputs: Tensor, images: int, who: str) -> Tensor:
    if outputs.ndim != 2 or len(outputs) != images:
        raise UserError(
            f"{who} gives outputs {list(outputs.shape)} for {images} images; "
            f"allowed: [{images}, number of outputs], which is [{images}, 1] for a scalar"
        )
    return outputs.float()
