"""Input gradients (kdiga): against finite differences in float64, on small smooth networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from forwards import SCALAR, classes, unbuilt
from lightning_fabric import Fabric
from scipy.special import log_softmax
from torch import Tensor, nn

from cgankd.config.settings import AugmentSettings, StudentSettings
from cgankd.core.errors import UserError
from cgankd.data.batches import Batches
from cgankd.data.imageset import TrainingImages
from cgankd.distill import DistillBatch, create
from cgankd.nets import zoo
from cgankd.tasks import Task
from cgankd.training.forward import BatchForward

STEP = 1e-5


def smooth(task: Task, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.Tanh(), nn.Linear(4, task.num_outputs)).double()


def shown(task: Task, student: nn.Module, teacher: nn.Module) -> DistillBatch:
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(5, 1, 3, 3, generator=rng, dtype=torch.float64).requires_grad_()
    targets = torch.rand(5, generator=rng).double() if task.continuous else torch.arange(5) % task.num_outputs
    fake = torch.tensor([False, True, False, True, True])
    return DistillBatch(student(images), targets, teacher(images), {}, {}, fake, images)


def explained(task: Task, network: nn.Module, image: Tensor, target: Tensor) -> float:
    """What is differentiated, in numpy: minus the target's log probability, or the output."""
    with torch.no_grad():
        outputs = network(image[None])[0].numpy()
    return float(outputs[0]) if task.continuous else float(-log_softmax(outputs)[int(target)])


def term(task: Task, batch: DistillBatch, student: nn.Module, teacher: nn.Module, rows: list[int]) -> float:
    """The mean norm of the two gradients' difference, by central differences."""
    assert batch.images is not None
    gaps = []
    for row in rows:
        image, gap = batch.images.detach()[row], np.zeros(9)
        for pixel in range(9):
            moved = torch.zeros(9, dtype=torch.float64)
            moved[pixel] = STEP
            ends = [image + sign * moved.view(1, 3, 3) for sign in (1, -1)]
            for network, sign in ((student, 1), (teacher, -1)):
                up, down = (explained(task, network, end, batch.targets[row]) for end in ends)
                gap[pixel] += sign * (up - down) / (2 * STEP)
        gaps.append(np.linalg.norm(gap))
    return float(np.mean(gaps))


@pytest.mark.parametrize("task", [classes(2), classes(4), SCALAR])
def test_the_term_against_finite_differences(task: Task) -> None:
    student, teacher = smooth(task, 1), smooth(task, 2)
    batch, made = shown(task, student, teacher), unbuilt("kdiga", task)
    found = float(made.loss(batch)["kdiga"].detach())
    assert found == pytest.approx(term(task, batch, student, teacher, [0, 1, 2, 3, 4]), rel=1e-6)
    part = float(made.loss(batch.rows(batch.fake))["kdiga"].detach())
    assert part == pytest.approx(term(task, batch, student, teacher, [1, 3, 4]), rel=1e-6)
    one = float(made.loss(batch.rows(batch.fake).rows(torch.tensor([False, False, True])))["kdiga"].detach())
    assert one == pytest.approx(term(task, batch, student, teacher, [4]), rel=1e-6)


@pytest.mark.parametrize("task", [classes(4), SCALAR])
def test_its_gradient_by_the_weights_against_finite_differences(task: Task) -> None:
    student, teacher = smooth(task, 1), smooth(task, 2)
    made = unbuilt("kdiga", task, StudentSettings(method_settings={"kdiga": {"weight": 3.0}}))

    def loss() -> Tensor:
        return made.loss(shown(task, student, teacher))["kdiga"]

    loss().backward()
    assert all(weight.grad is None for weight in teacher.parameters())
    for name in ("1.weight", "1.bias", "3.weight"):
        weight = student.get_parameter(name)
        assert weight.grad is not None
        for place in range(0, weight.numel(), 5):
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    weight.view(-1)[place] += sign * STEP
                ends.append(float(loss().detach()))
                with torch.no_grad():
                    weight.view(-1)[place] -= sign * STEP
            slope = (ends[0] - ends[1]) / (2 * STEP)
            assert float(weight.grad.view(-1)[place]) == pytest.approx(slope, rel=1e-4, abs=1e-7), name


@pytest.mark.parametrize("count", [2, 1000])
@pytest.mark.parametrize("fakes", [1, 2])
def test_few_fakes_and_few_or_many_classes(count: int, fakes: int, noise, fabric: Fabric) -> None:
    task = classes(count)
    torch.manual_seed(0)
    student, teacher = (zoo.create(name, 1, count, (16, 16)) for name in ("cnn8", "cnn16"))
    real, fake = noise(16, classes=count), noise(16, classes=count, seed=1)
    images = TrainingImages(real, fake, real_share=1 - fakes / 8)
    batches = Batches(images, task, 8, AugmentSettings(), 0, fabric.device)
    objective = create("kd+kdiga@fake", task)
    forward = BatchForward(student, teacher, objective, batches, fabric, 0)
    terms = objective.loss(forward(batches.at(0), 0.0))
    forward.close()
    assert float(terms["kdiga"].detach()) > 0
    terms["kdiga"].backward()
    assert all(weight.grad is None for weight in teacher.parameters())
    slopes = [weight.grad for weight in student.parameters() if weight.grad is not None]
    assert all(torch.isfinite(slope).all() for slope in slopes)
    assert sum(float(slope.abs().sum()) for slope in slopes) > 1e-6


class Attentive(nn.Module):
    """A transformer in small: torch's attention between the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 3)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.mean(dim=1, keepdim=True)
        return self.head(nn.functional.scaled_dot_product_attention(rows, rows, rows).mean(dim=(1, 2)))


def test_a_student_whose_attention_is_torchs_own_can_be_taught(noise, fabric: Fabric) -> None:
    batches = Batches(TrainingImages(noise(16)), classes(3), 8, AugmentSettings(), 0, fabric.device)
    objective, student, teacher = create("kd+kdiga", classes(3)), Attentive(), zoo.create("cnn8", 1, 3, (16, 16))
    forward = BatchForward(student, teacher, objective, batches, fabric, 0)
    objective.loss(forward(batches.at(0), 0.0))["kdiga"].backward()
    forward.close()
    assert float(student.head.weight.grad.abs().sum()) > 0


def test_a_student_that_is_the_teacher_costs_nothing() -> None:
    network = smooth(classes(3), 1)
    batch = shown(classes(3), network, network)
    assert float(unbuilt("kdiga", classes(3)).loss(batch)["kdiga"].detach()) == 0.0


def test_a_plain_callable_has_no_gradient(noise, fabric: Fabric) -> None:
    batches = Batches(TrainingImages(noise(16)), classes(3), 8, AugmentSettings(), 0, fabric.device)
    objective, student = create("kdiga", classes(3)), zoo.create("cnn8", 1, 3, (16, 16))
    with pytest.raises(UserError, match="'kdiga' differentiates the teacher, but this one is a plain callable"):
        BatchForward(student, lambda x: x.new_zeros(len(x), 3), objective, batches, fabric, 0)
