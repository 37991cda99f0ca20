"""A scalar head under bfloat16: outputs in training, targets, errors and scores must not fall on a coarse grid."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd import distill
from cgankd.config.settings import AugmentSettings
from cgankd.core.store import Work
from cgankd.data.batches import Batches
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.nets import inference, zoo
from cgankd.nets.feature_extractor import FeatureExtractor
from cgankd.nets.precision import MixedPrecision
from cgankd.tasks import Regression
from cgankd.training.forward import BatchForward

Noise = Callable[..., ImageSet]
COUNT = 400
SCALAR = Regression(0.0, 1.0)


@pytest.fixture
def rounding() -> Fabric:
    return Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")


def network(outputs: int = 1) -> nn.Module:
    """Outputs of about a half that differ little from image to image, where bfloat16 has steps of 1/256."""
    torch.manual_seed(0)
    made = zoo.create("cnn8", 1, outputs, (16, 16))
    made.fc.weight.data.mul_(0.05)
    made.fc.bias.data.fill_(0.5)
    return made


def distinct(outputs: Tensor) -> int:
    assert outputs.dtype == torch.float32
    return len(outputs.detach().flatten().unique())


def forward(noise: Noise, fabric: Fabric, student: nn.Module, teacher: nn.Module) -> BatchForward:
    images = TrainingImages(noise(COUNT, scalar=True))
    batches = Batches(images, SCALAR, COUNT, AugmentSettings(shift=0, views=1), 0, fabric.device)
    return BatchForward(student, teacher, distill.create("kd", SCALAR), batches, fabric, 0)


def test_training_outputs_and_the_targets_of_kd_are_as_many_as_images(noise: Noise, rounding: Fabric) -> None:
    student, teacher = network(), network()
    run = forward(noise, rounding, student, teacher)
    batch = run(run.batches.at(0), 0.0)
    run.close()
    assert distinct(batch.outputs) > 0.95 * COUNT
    assert distinct(batch.teacher_outputs) > 0.95 * COUNT
    with rounding.autocast():  # the hooks are gone, and without them there are a few steps
        assert len(student(batch.images).flatten().unique()) < COUNT / 4


def test_the_gradient_reaches_the_head_and_what_lies_before_it(noise: Noise, rounding: Fabric) -> None:
    student = network()
    run = forward(noise, rounding, student, network())
    run(run.batches.at(0), 0.0).outputs.sum().backward()
    run.close()
    assert all(float(weight.grad.abs().sum()) > 0 for weight in student.parameters() if weight.requires_grad)
    assert student.fc.weight.grad.dtype == torch.float32


def test_scores_and_labels_of_the_teacher_are_computed_at_full_precision(noise: Noise, rounding: Fabric) -> None:
    images, scored = noise(COUNT, scalar=True).images, network()
    exact = scored.eval()(images.float() / 255.0)
    assert torch.allclose(inference.outputs(Work(rounding), scored, images), exact, atol=1e-6)
    with FeatureExtractor(scored, rounding) as extractor:
        outputs, features = extractor(images)
    assert torch.allclose(outputs, exact, atol=1e-6)
    assert features.dtype == torch.float32
    assert distinct(features) > COUNT


class Convolutional(nn.Module):
    """Outputs that no linear layer makes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, 1, 16)

    def forward(self, images: Tensor) -> Tensor:
        return 0.5 + 0.01 * self.head(images).flatten(1)


class LinearInside(nn.Module):
    """The last linear layer gates; a convolution makes the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.head = nn.Linear(1, 1), nn.Conv2d(1, 1, 16)

    def forward(self, images: Tensor) -> Tensor:
        gate = self.gate(images.mean(dim=(1, 2, 3))[:, None]).sigmoid()
        return self.head(images * gate[:, :, None, None].to(images.dtype)).flatten(1)


@pytest.mark.parametrize("kind", [Convolutional, LinearInside])
def test_without_a_linear_head_all_runs_at_full_precision(kind: type[nn.Module], rounding: Fabric) -> None:
    module, images = kind(), torch.rand(COUNT, 1, 16, 16)
    precision = MixedPrecision(module, rounding, 1, (16, 16))
    with precision.autocast():
        outputs = module(images)
    precision.close()
    assert distinct(outputs) > 0.95 * COUNT


def test_a_layer_that_fails_leaves_autocast_as_it_was(rounding: Fabric) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(256, 1))
    precision = MixedPrecision(module, rounding, 1, (16, 16))
    with rounding.autocast():
        with pytest.raises(RuntimeError):
            module(torch.rand(2, 1, 8, 8))
        assert torch.is_autocast_enabled("cpu")
    precision.close()
