"""One image -> the network's outputs and one feature vector, both in one pass."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd import evaluate
from cgankd.errors import UserError
from cgankd.nets.taps import PENULTIMATE, Taps


class Observer:
    """What the road sees of images through the teacher: outputs, and a feature vector for the density ratio.

    teacher: a module, or any callable on float images in [0, 1]. features_of: the module whose penultimate layer is
    the feature; None where the teacher is a module and shows its own.
    """

    def __init__(self, teacher: evaluate.Predictor, fabric: Fabric, features_of: nn.Module | None = None) -> None:
        source = features_of if features_of is not None else teacher
        if not isinstance(source, nn.Module):
            raise UserError(
                "the teacher is a plain callable, which shows no features; features_of must be a module"
            )
        for network in (teacher, source):
            if isinstance(network, nn.Module):
                evaluate.place(network, fabric).eval()
        self.teacher, self.fabric = teacher, fabric
        self._same = source is teacher
        self._taps = Taps(source, [PENULTIMATE])

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B, C, H, W] -> outputs float32 [B, number of outputs], features float32 [B, F], on the device."""
        with self.fabric.autocast():
            x = evaluate.to_input(images, self.fabric.device)
            outputs, features = self._taps(x)
            if not self._same:
                outputs = self.teacher(x)
        return outputs.float(), features[PENULTIMATE].flatten(1).float()

    def all(self, images: Tensor, batch_size: int = 500) -> tuple[Tensor, Tensor]:
        """The same for many images, batch by batch."""
        parts = [self(block) for block in images.split(batch_size)]
        return torch.cat([outputs for outputs, _ in parts]), torch.cat([features for _, features in parts])

    def close(self) -> None:
        """Take the hooks off the network."""
        self._taps.close()
