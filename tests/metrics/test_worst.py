"""The test images with the largest errors: which they are, and each network's answer to them."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor

from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.metrics.worst import worst_answers
from cgankd.tasks import Classification, Regression


def numbered(labels: Tensor) -> ImageSet:
    """Image number n has the brightness n everywhere."""
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 16, 16)
    return ImageSet(images.clone(), labels)


def brightness(images: Tensor) -> Tensor:
    return (images[:, 0, 0, 0] * 255).round()


def test_classes_are_ranked_by_the_loss_of_the_true_class(fabric: Fabric) -> None:
    logits = {
        "kd": torch.tensor([[9.0, 0.0], [0.0, 2.0], [0.0, 1.0], [5.0, 0.0]]),
        "cgan": torch.tensor([[0.0, 3.0], [9.0, 0.0], [9.0, 0.0], [9.0, 0.0]]),
    }
    networks = {name: lambda images, of=of: of[brightness(images).long()] for name, of in logits.items()}
    task = Classification(("cat", "dog"))
    found = worst_answers(Work(fabric), networks, numbered(torch.tensor([0, 0, 0, 0])), task, 2)
    # kd is wrong about images 1 and 2, most about 1; cgan about image 0; of its equal errors image 1 comes first
    assert found["images"][:, 0, 0, 0].tolist() == [0, 1, 2]
    assert found["labels"].tolist() == [0, 0, 0]
    assert found["kd_worst"].tolist() == [1, 2]
    assert found["cgan_worst"].tolist() == [0, 1]
    assert found["kd_predictions"].tolist() == [0, 1, 1]
    assert found["cgan_predictions"].tolist() == [1, 0, 0]
    expected = torch.tensor([9.0, 2.0, 1.0]).sigmoid()
    assert torch.allclose(found["kd_probabilities"], expected)


def test_scalars_are_ranked_by_their_distance_and_answered_in_their_unit(fabric: Fabric) -> None:
    task = Regression(0.0, 90.0, "degrees")
    labels = torch.tensor([0.0, 45.0, 90.0])
    networks = {"cgan": lambda images: brightness(images)[:, None] / 10}  # 0, 9 and 18 degrees
    found = worst_answers(Work(fabric), networks, numbered(labels), task, 2)
    assert found["images"][:, 0, 0, 0].tolist() == [1, 2]
    assert found["cgan_worst"].tolist() == [1, 0]  # 72 degrees wrong, then 36
    assert torch.allclose(found["cgan_predictions"], torch.tensor([9.0, 18.0]))
    assert found["labels"].tolist() == [45.0, 90.0]


def test_fewer_images_than_asked_for(fabric: Fabric) -> None:
    task = Regression(0.0, 1.0)
    networks = {"kd": lambda images: brightness(images)[:, None] * 0}
    found = worst_answers(Work(fabric), networks, numbered(torch.tensor([0.5])), task, 10)
    assert found["kd_worst"].tolist() == [0]
