"""Images as a ``torch.utils.data.Dataset``, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cgankd.core.mapped_rows import Images


class ImageDataset(Dataset[tuple[Tensor, Tensor]]):
    """One image after the other, as (image, target).

    image: float32 [C, H, W] in [0, 1], after ``transform`` where one is given. target: int64 [] (a class), float32 []
    (a number in its unit), or float32 [classes] (probabilities in place of a class).
    """

    def __init__(self, images: Images, targets: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> None:
        """images: uint8 [N, C, H, W], in memory or mapped. targets: [N] or [N, classes]."""
        self.images, self.transform = images, transform
        self.targets = targets.float() if targets.is_floating_point() else targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index].to(torch.float32) / 255.0
        return (image if self.transform is None else self.transform(image)), self.targets[index]
