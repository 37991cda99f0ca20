"""VAM: the entropy of the student's attention by loops, what it teaches, and the students of its rows."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from forwards import SCALAR, changed, classes, example, numbers, twice, unbuilt, value
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd import distill
from cgankd.config import recipe
from cgankd.config.settings import AugmentSettings, Constant, FitSettings, StudentSettings
from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors
from cgankd.core.store import Work
from cgankd.data.batches import Batches
from cgankd.data.imageset import TrainingImages
from cgankd.distill import DistillBatch, Method, NetworkFactory
from cgankd.distill.methods.vam import entropy
from cgankd.nets import zoo
from cgankd.nets.attention import attention, gates
from cgankd.pipeline import run
from cgankd.tasks import Task
from cgankd.training import scoring
from cgankd.training.forward import BatchForward
from cgankd.training.loop import fit

SIZE = (16, 16)
LAYERS = ["vam.0.score", "vam.1.score"]
SETTINGS = FitSettings(steps=3, batch_size=8, augment=AugmentSettings(views=2))


def method(task: Task, **own: float) -> Method:
    made = unbuilt("vam", task, StudentSettings(method_settings={"vam": own}))
    made.networks(NetworkFactory(zoo.create("cnn8+vam", 1, task.num_outputs, SIZE), None, 1, task.num_outputs, SIZE))
    assert made.taps(["layer3"], []) == (LAYERS, [])
    return made


def seen(task: Task, scale: float = 2.0, rows: int = 7) -> DistillBatch:
    """A batch with random scores of two gates, leaves that want a gradient."""
    rng = torch.Generator().manual_seed(1)
    scores = {name: (scale * torch.randn(rows, 4, 1, 1, generator=rng)).requires_grad_() for name in LAYERS}
    return dataclasses.replace(example(task, rows), student_features=scores)


@pytest.mark.parametrize("task", [classes(2), classes(1000), SCALAR])
def test_the_penalty_against_loops(task: Task) -> None:
    batch, terms = seen(task), []
    for scores in batch.student_features.values():
        for row in scores.detach().flatten(1).tolist():
            powers = [math.exp(score) for score in row]
            shares = [power / sum(powers) for power in powers]
            terms.append(-sum(share * math.log(share) for share in shares) / math.log(4))
    assert len(terms) == 14
    assert value(method(task, weight=0.3), batch) == pytest.approx(0.3 * sum(terms) / 14, rel=1e-5)


def test_its_ends_and_its_gradient_there() -> None:
    batch = seen(SCALAR, scale=0.0)
    assert value(method(SCALAR), batch) == pytest.approx(0.1)  # all blocks alike
    scores = torch.tensor([[300.0, 0.0, 0.0, -300.0]], requires_grad=True)
    found = entropy(scores)
    found.sum().backward()
    assert float(found.detach()) == 0.0  # one block alone, whose neighbours' shares are 0 in float32
    assert torch.equal(scores.grad, torch.zeros(1, 4))


def test_the_gradient_in_closed_form() -> None:
    batch, made = seen(SCALAR), method(SCALAR, weight=1.0)
    sum(made.loss(batch).values()).backward()
    for scores in batch.student_features.values():
        share = attention(scores.detach())
        each = entropy(scores.detach().flatten(1))
        right = -share * (share.log() + each[:, None]) / (14 * math.log(4))  # dH/ds_k = -a_k (ln a_k + H)
        assert torch.allclose(scores.grad.flatten(1), right, atol=1e-7)
        assert float(right.abs().sum()) > 1e-3
    assert batch.outputs.grad is None


def test_batch_size_order_and_half_precision() -> None:
    batch, made = seen(classes(5)), method(classes(5))
    assert value(made, twice(batch)) == pytest.approx(value(made, batch), rel=1e-5)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
    assert value(made, changed(batch, lambda rows: rows[order])) == pytest.approx(value(made, batch), rel=1e-5)
    rounded = changed(batch, lambda rows: rows.bfloat16().float() if rows.is_floating_point() else rows)
    assert value(made, rounded) == pytest.approx(value(made, batch), rel=0.03)


def networks(count: int, spread: float = 1.0) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    student, teacher = zoo.create("cnn8+vam", 1, count, SIZE), zoo.create("cnn16", 1, count, SIZE)
    for gate in gates(student).values():
        nn.init.normal_(gate.score.weight, std=spread)
    return student, teacher


@pytest.mark.parametrize("count", [2, 1000])
def test_every_weight_of_the_student_is_reached(count: int, noise, fabric: Fabric) -> None:
    student, teacher = networks(count)
    task = classes(count)
    objective = distill.create("kd+vam@real", task)
    batches = Batches(TrainingImages(noise(16, classes=2)), task, 8, AugmentSettings(views=2), 0, fabric.device)
    forward = BatchForward(student, teacher, objective, batches, fabric, 0)
    terms = objective.loss(forward(batches.at(0), 0.5))
    forward.close()
    assert set(terms) == {"label", "kd", "vam"}
    assert 0.0 < numbers(terms)["vam"] < 0.1
    torch.stack(list(terms.values())).sum().backward()
    for name, weight in student.named_parameters():
        assert torch.isfinite(weight.grad).all(), name
        assert float(weight.grad.abs().sum()) > 0, name
    assert all(weight.grad is None for weight in teacher.parameters())
    assert not list(objective.parameters())  # the attention is the student's own, and is saved with it


def test_the_penalty_makes_the_attention_decided(noise, fabric: Fabric) -> None:
    def undecided(weight: float) -> Tensor:
        student, _ = networks(3, spread=0.1)
        objective = distill.create("vam", classes(3), StudentSettings(method_settings={"vam": {"weight": weight}}))
        settings = SETTINGS.model_copy(update={"steps": 30, "schedule": Constant()})
        images = TrainingImages(noise(16))
        fit(Work(fabric), student, objective, images, settings, seed=0, teacher=lambda x: x[:, 0, 0, :3])
        return 1 - scoring.attention_per_bin(Work(fabric), student, noise(16), classes(3))["decided"]

    assert (undecided(20.0) < 0.8 * undecided(0.0)).all()


def test_the_teacher_may_be_any_callable_and_is_asked_once_a_view(noise, fabric: Fabric) -> None:
    asked: list[int] = []

    def teacher(shown: Tensor) -> Tensor:
        asked.append(len(shown))
        return shown.flatten(1)[:, :3]

    student, _ = networks(3)
    objective, settings = distill.create("kd+vam", classes(3)), SETTINGS.model_copy(update={"steps": 12})
    fit(Work(fabric), student, objective, TrainingImages(noise(16)), settings, seed=0, teacher=teacher)
    assert sum(asked) == 2 * 16  # two views of each


def test_a_student_without_attention_is_refused(noise, fabric: Fabric) -> None:
    student, teacher = (zoo.create(name, 1, 3, SIZE) for name in ("cnn8", "cnn16"))
    objective = distill.create("kd+vam", classes(3))
    with pytest.raises(UserError, match=r"needs a student with virtual attention, .* ConvNet has none; .* NAME\+vam"):
        fit(Work(fabric), student, objective, TrainingImages(noise(16)), SETTINGS, seed=0, teacher=teacher)


# --- rows ---------------------------------------------------------------------------------------------------------

TINY = (
    "data.train_size=60", "teacher.network=cnn8", "teacher.fit.steps=2", "student.network=cnn8",
    "student.fit.steps=2", "student.transfer_steps=2", "seeds=[0]", "runtime.threads=1", "runtime.precision=fp32",
)  # fmt: skip


@pytest.mark.parametrize("start", ["scratch", "nokd"])
def test_a_rows_student_has_its_attention_and_is_explained(start: str, tmp_path: Path) -> None:
    words = (*TINY, "compare.methods=[nokd, kd, kd+vam]", f"student.start={start}")
    found = run.run(recipe.load("digits", list(words)), tmp_path)
    assert [row["network"] for row in found["rows"]] == ["cnn8", "cnn8", "cnn8+vam"]
    assert set(found["latency_ms"]) == {"cnn8", "cnn8+vam"}
    assert found["rows"][2]["parameters"] == found["rows"][1]["parameters"] + 4 * (16 + 1) + 4 * (32 + 1)
    folders = [tmp_path / found["artifacts"]["students"][name][0] for name in ("kd", "kd+vam")]
    assert not (folders[0] / "attention.safetensors").exists()
    seen = load_tensors(folders[1] / "attention.safetensors")[0]
    assert seen["mean"].shape == (10, 2, 4)
    assert torch.allclose(seen["mean"].nansum(2), (seen["images"] > 0).float()[:, None].expand(10, 2), atol=1e-5)
    network = zoo.create("cnn8+vam", 1, 10, SIZE)
    network.load_state_dict(load_tensors(folders[1] / "weights.safetensors")[0])


def mapless(in_channels: int, num_outputs: int, image_size: tuple[int, int]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * math.prod(image_size), num_outputs))


def test_a_network_without_maps_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    words = (*TINY, f"student.network={__name__}:mapless", "compare.methods=[kd, vam]")
    with pytest.raises(UserError, match=r"mapless' has no feature maps .* allowed: a network with feature maps"):
        run.run(recipe.load("digits", list(words)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
