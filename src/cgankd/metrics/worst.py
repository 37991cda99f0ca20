"""The answers of networks to the test images, for the report: all of them, and those that are most wrong."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cgankd.data.imageset import ImageSet
from cgankd.tasks import Task


def all_answers(outputs: Mapping[str, Tensor], test: ImageSet, task: Task) -> dict[str, Tensor]:
    """What each network answers to each test image: one number per image, so that the file stays small.

    outputs: network's name -> its outputs for ``test.images``, [N, num_outputs]. Returns ``labels`` [N], and for each
    network NAME ``NAME_predictions`` [N], both in the label's unit.
    """
    predictions = {f"{name}_predictions": task.predict(output) for name, output in outputs.items()}
    return {"labels": test.labels, **predictions}


def worst_answers(outputs: Mapping[str, Tensor], test: ImageSet, task: Task, count: int) -> dict[str, Tensor]:
    """The ``count`` test images with the largest errors of each network, and the answers of all networks to them.

    outputs: as in :func:`all_answers`. Of images with equal errors the first count as worse. Returns ``images`` uint8
    [n, C, H, W], ``labels`` [n] and ``rows`` int64 [n], places in ``test``, each image once; and for each network
    NAME: ``NAME_worst`` int64 [count], places in ``images``, the worst first; ``NAME_predictions`` [n] in the label's
    unit; ``NAME_probabilities`` float32 [n], of the predicted class (the largest number in the answer, which means
    nothing for a scalar).
    """
    targets = task.to_target(test.labels)
    errors = {name: task.error(output, targets) for name, output in outputs.items()}
    worst = {name: error.argsort(descending=True, stable=True)[:count] for name, error in errors.items()}
    rows = torch.cat(list(worst.values())).unique()
    tensors = {"images": test.images[rows], "labels": test.labels[rows], "rows": rows}
    for name, output in outputs.items():
        tensors[f"{name}_worst"] = torch.searchsorted(rows, worst[name])
        tensors[f"{name}_predictions"] = task.predict(output[rows])
        tensors[f"{name}_probabilities"] = task.answer(output[rows]).amax(dim=1)
    return tensors
