"""The test images on which networks are most wrong, with the answers of all of them, for the report."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.nets.inference import Predictor, outputs
from cgankd.tasks import Task


def worst_answers(
    work: Work, networks: Mapping[str, Predictor], test: ImageSet, task: Task, count: int
) -> dict[str, Tensor]:
    """The ``count`` test images with the largest errors of each network, and the answers of all networks to them.

    Of images with equal errors the first count as worse. Returns ``images`` uint8 [n, C, H, W] and ``labels`` [n],
    each image once; and for each network NAME: ``NAME_worst`` int64 [count], places in ``images``, the worst first;
    ``NAME_predictions`` [n] in the label's unit; ``NAME_probabilities`` float32 [n], of the predicted class (the
    largest number in the answer, which means nothing for a scalar).
    """
    answers = {name: outputs(work, network, test.images, name) for name, network in networks.items()}
    targets = task.to_target(test.labels)
    errors = {name: task.error(answer, targets) for name, answer in answers.items()}
    worst = {name: error.argsort(descending=True, stable=True)[:count] for name, error in errors.items()}
    rows = torch.cat(list(worst.values())).unique()
    tensors = {"images": test.images[rows], "labels": test.labels[rows]}
    for name, answer in answers.items():
        tensors[f"{name}_worst"] = torch.searchsorted(rows, worst[name])
        tensors[f"{name}_predictions"] = task.predict(answer[rows])
        tensors[f"{name}_probabilities"] = task.answer(answer[rows]).amax(dim=1)
    return tensors
