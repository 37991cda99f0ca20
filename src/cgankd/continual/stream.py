"""The stream of tasks: classes in the order of a seed, cut into equal parts that come one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor

from cgankd.core import rng
from cgankd.core.errors import UserError
from cgankd.data.imageset import ImageSet


@dataclasses.dataclass(frozen=True)
class Stream:
    """``order``, int64 [classes], holds every class once; task t has the w = ``width`` places from t w on.

    Images that it hands out are labelled by their class's place in the order: the output of a network that grows by
    w with each task.
    """

    order: Tensor
    tasks: int
    seed: int

    @classmethod
    def of(cls, classes: int, tasks: int, seed: int) -> Stream:
        """The seed's order of the classes. UserError where they can't be cut into equal tasks of two or more.

        >>> Stream.of(10, 5, seed=0).width
        2
        """
        if classes % tasks or classes < 2 * tasks:
            allowed = [n for n in range(2, classes // 2 + 1) if classes % n == 0]
            said = ", ".join(map(str, allowed)) or f"no number, {classes} classes are too few to be cut"
            raise UserError(
                f"tasks = {tasks}, but {classes} classes can't be cut into so many equal tasks of two classes or "
                f"more; allowed: {said}"
            )
        return cls(rng.bits(seed, "class order", torch.arange(classes)).argsort(), tasks, seed)

    @property
    def width(self) -> int:
        """Classes in a task."""
        return len(self.order) // self.tasks

    def images(self, source: ImageSet, tasks: Iterable[int]) -> ImageSet:
        """The images of these tasks, relabelled; in the order in which they stand in ``source``."""
        place = self.order.argsort()[source.labels]
        rows = torch.isin(place // self.width, torch.tensor(list(tasks), dtype=torch.int64)).nonzero().squeeze(1)
        return ImageSet(source.images[rows], place[rows])

    def exemplars(self, source: ImageSet, task: int, per_class: int) -> ImageSet:
        """Of each class before ``task``, ``per_class`` images (or all there are): once drawn, always the same."""
        place = self.order.argsort()[source.labels]
        drawn = rng.bits(self.seed, "exemplars", torch.arange(len(source))).argsort()
        kept = [drawn[place[drawn] == old][:per_class] for old in range(task * self.width)]
        rows = torch.cat(kept).sort().values
        return ImageSet(source.images[rows], place[rows])
