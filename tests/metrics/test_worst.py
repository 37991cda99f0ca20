"""The networks' answers to the test images, and those with the largest errors."""

from __future__ import annotations

import torch
from torch import Tensor

from cgankd.data.imageset import ImageSet
from cgankd.metrics.worst import all_answers, worst_answers
from cgankd.tasks import Classification, Regression


def numbered(labels: Tensor) -> ImageSet:
    """Image number n has the brightness n everywhere."""
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 16, 16)
    return ImageSet(images.clone(), labels)


def test_classes_are_ranked_by_the_loss_of_the_true_class() -> None:
    logits = {
        "kd": torch.tensor([[9.0, 0.0], [0.0, 2.0], [0.0, 1.0], [5.0, 0.0]]),
        "cgan": torch.tensor([[0.0, 3.0], [9.0, 0.0], [9.0, 0.0], [9.0, 0.0]]),
    }
    task = Classification(("cat", "dog"))
    found = worst_answers(logits, numbered(torch.tensor([0, 0, 0, 0])), task, 2)
    # kd is wrong about images 1 and 2, most about 1; cgan about image 0; of its equal errors image 1 comes first
    assert found["images"][:, 0, 0, 0].tolist() == [0, 1, 2]
    assert found["labels"].tolist() == [0, 0, 0]
    assert found["kd_worst"].tolist() == [1, 2]
    assert found["cgan_worst"].tolist() == [0, 1]
    assert found["kd_predictions"].tolist() == [0, 1, 1]
    assert found["cgan_predictions"].tolist() == [1, 0, 0]
    expected = torch.tensor([9.0, 2.0, 1.0]).sigmoid()
    assert torch.allclose(found["kd_probabilities"], expected)


def test_scalars_are_ranked_by_their_distance_and_answered_in_their_unit() -> None:
    task = Regression(0.0, 90.0, "degrees")
    labels = torch.tensor([0.0, 45.0, 90.0])
    outputs = {"cgan": torch.tensor([[0.0], [0.1], [0.2]])}  # 0, 9 and 18 degrees
    found = worst_answers(outputs, numbered(labels), task, 2)
    assert found["images"][:, 0, 0, 0].tolist() == [1, 2]
    assert found["cgan_worst"].tolist() == [1, 0]  # 72 degrees wrong, then 36
    assert torch.allclose(found["cgan_predictions"], torch.tensor([9.0, 18.0]))
    assert found["labels"].tolist() == [45.0, 90.0]


def test_fewer_images_than_asked_for() -> None:
    task = Regression(0.0, 1.0)
    found = worst_answers({"kd": torch.zeros(1, 1)}, numbered(torch.tensor([0.5])), task, 10)
    assert found["kd_worst"].tolist() == [0]


def test_all_answers_are_one_number_for_each_image_in_the_labels_unit() -> None:
    degrees = Regression(0.0, 90.0, "degrees")
    found = all_answers({"kd": torch.tensor([[0.5], [2.0]])}, numbered(torch.tensor([30.0, 60.0])), degrees)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "labels": [30.0, 60.0], "kd_predictions": [45.0, 90.0],
    }  # fmt: skip
    animals = Classification(("cat", "dog"))
    found = all_answers({"kd": torch.tensor([[0.0, 1.0], [2.0, 1.0]])}, numbered(torch.tensor([1, 1])), animals)
    assert (found["labels"].tolist(), found["kd_predictions"].tolist()) == ([1, 1], [1, 0])
