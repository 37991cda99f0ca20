"""The stream of tasks: who is in which task, by which label, and which images of old classes are kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from cgankd.continual.stream import Stream
from cgankd.core.errors import UserError
from cgankd.data.imageset import ImageSet

Noise = Callable[..., ImageSet]


def test_the_order_holds_every_class_once_and_is_the_seeds() -> None:
    orders = [Stream.of(12, 3, seed).order.tolist() for seed in range(4)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len(set(map(tuple, orders))) == 4
    assert orders[2] == Stream.of(12, 3, 2).order.tolist()
    assert orders[2] == Stream.of(12, 6, 2).order.tolist()  # whatever it is cut into


@pytest.mark.parametrize("tasks", [[0], [1], [0, 1, 2], [2]])
def test_images_are_those_of_the_tasks_labelled_by_place(noise: Noise, tasks: list[int]) -> None:
    source, stream = noise(40, classes=6), Stream.of(6, 3, seed=5)
    order = stream.order.tolist()
    rows = [row for row, label in enumerate(source.labels.tolist()) if order.index(label) // 2 in tasks]
    found = stream.images(source, tasks)
    assert found.labels.tolist() == [order.index(int(source.labels[row])) for row in rows]
    assert torch.equal(found.images, source.images[rows])


def test_every_image_is_in_one_task(noise: Noise) -> None:
    source, stream = noise(31, classes=4), Stream.of(4, 2, seed=1)
    assert sum(len(stream.images(source, [task])) for task in range(2)) == 31


def test_exemplars_are_so_many_of_each_old_class_and_stay_the_same(noise: Noise) -> None:
    source, stream = noise(60, classes=6), Stream.of(6, 3, seed=2)
    assert len(stream.exemplars(source, 1, 3)) == 6
    kept = stream.exemplars(source, 2, 3)
    assert torch.bincount(kept.labels).tolist() == [3, 3, 3, 3]
    known, later, earlier = (
        contents(images) for images in (stream.images(source, [0, 1]), kept, stream.exemplars(source, 1, 3))
    )
    assert earlier < later < known
    assert len(stream.exemplars(source, 2, 1000)) == 40  # all there are


def contents(images: ImageSet) -> set[tuple[int, bytes]]:
    return {(int(y), x.numpy().tobytes()) for x, y in zip(images.images, images.labels, strict=True)}


@pytest.mark.parametrize(
    ("classes", "tasks", "allowed"),
    [(10, 3, "2, 5"), (10, 10, "2, 5"), (12, 12, "2, 3, 4, 6"), (3, 2, "no number")],
)
def test_unequal_tasks_are_refused(classes: int, tasks: int, allowed: str) -> None:
    with pytest.raises(UserError, match=rf"^tasks = {tasks}, but {classes} classes .* allowed: {allowed}"):
        Stream.of(classes, tasks, seed=0)
