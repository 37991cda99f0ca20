"""Asking a network about many images: few at once where they are large."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor

from cgankd.core.store import Work
from cgankd.nets.inference import images_at_once, outputs


def test_large_images_are_asked_about_few_at_once() -> None:
    sizes = {side: images_at_once(torch.empty(0, 3, side, side)) for side in (28, 64, 224, 1000)}
    assert sizes == {28: 250, 64: 250, 224: 53, 1000: 16}


def test_every_image_is_answered_in_its_place(fabric: Fabric) -> None:
    calls: list[int] = []

    def predict(images: Tensor) -> Tensor:
        calls.append(len(images))
        return 255 * images[:, 0, 0, :1]

    images = torch.zeros(600, 1, 16, 16, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(600) % 251
    answers = outputs(Work(fabric), predict, images)
    assert calls == [250, 250, 100]
    assert torch.allclose(answers[:, 0], (torch.arange(600) % 251).float(), atol=1e-4)
