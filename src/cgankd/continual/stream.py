"""The stream of tasks: the classes in a random order, cut into tasks of equal size."""

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
    """``order``, int64 [classes], holds every class once; task t has the classes at w t to w t + w - 1, w = ``width``.

    Its images are labelled by the place of their class in the order, which is the output of a network that grows by w
    outputs with each task.
    """

    order: Tensor
    tasks: int
    seed: int

    @classmethod
    def of(cls, classes: int, tasks: int, seed: int) -> Stream:
        """The stream of a seed. UserError where the classes can't be cut into equal tasks of two or more classes.

        >>> Stream.of(10, 5, seed=0).width
        2
        """
        if classes % tasks or classes < 2 * tasks:
            allowed = [n for n in range(2, classes // 2 + 1) if classes % n == 0]
            choices = ", ".join(map(str, allowed)) or f"no number, because {classes} classes can't be cut"
            raise UserError(
                f"tasks = {tasks}, but {classes} classes can't be cut into {tasks} equal tasks of two classes or "
                f"more; allowed: {choices}"
            )
        return cls(rng.order(classes, seed, "class order"), tasks, seed)

    @property
    def width(self) -> int:
        """Classes in a task."""
        return len(self.order) // self.tasks

    def images(self, source: ImageSet, tasks: Iterable[int]) -> ImageSet:
        """The images of these tasks, relabelled, in the order of ``source``."""
        place = self.order.argsort()[source.labels]
        rows = torch.isin(place // self.width, torch.tensor(list(tasks), dtype=torch.int64)).nonzero().squeeze(1)
        return ImageSet(source.images[rows], place[rows])

    def exemplars(self, source: ImageSet, task: int, per_class: int) -> ImageSet:
        """``per_class`` images (or all, if fewer) of each class before ``task``; for every task the same images."""
        place = self.order.argsort()[source.labels]
        drawn = rng.order(len(source), self.seed, "exemplars")
        kept = [drawn[place[drawn] == old][:per_class] for old in range(task * self.width)]
        rows = torch.cat(kept).sort().values
        return ImageSet(source.images[rows], place[rows])
