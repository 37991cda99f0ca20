"""What a method can't do with a task, a pair of networks or images: refused by the road before it has a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd import Distiller
from cgankd.config import recipe
from cgankd.config.recipe import Recipe
from cgankd.config.settings import AugmentSettings
from cgankd.core.errors import UserError
from cgankd.core.store import Work
from cgankd.data import sources
from cgankd.data.batches import Batches
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.distill import Preparation, create
from cgankd.nets import zoo
from cgankd.pipeline import preflight, run
from cgankd.tasks import Classification
from cgankd.training.forward import BatchForward

Noise = Callable[..., ImageSet]

BASE: dict[str, Any] = {
    "seeds": [0],
    "data": {"val_size": 6},
    "teacher": {"network": "cnn24"},
    "student": {"network": "cnn8"},
    "runtime": {"threads": 1, "precision": "fp32"},
}
OWN = "student.method_settings="


def without_maps(in_channels: int, num_outputs: int, image_size: tuple[int, int]) -> nn.Module:
    """A network whose layers are all flat."""
    pixels = in_channels * image_size[0] * image_size[1]
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 8), nn.ReLU(), nn.Linear(8, num_outputs))


def only_answers(images: Tensor) -> Tensor:
    """A teacher that is a function."""
    return torch.zeros(len(images), 3)


def on_noise(folder: Path, *overrides: str, classes: int = 3, size: tuple[int, int] = (16, 16)) -> Recipe:
    """A recipe on random images: so many classes, or a scalar for 0."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % classes if classes else np.linspace(0.0, 1.5, 60)
    np.savez(folder / "set.npz", images=rng.integers(0, 256, (60, *size), dtype=np.uint8), labels=labels)
    tree = json.loads(json.dumps(BASE))
    tree["data"]["source"] = str(folder / "set.npz")
    return recipe.from_tree(tree, overrides)


REFUSED = [
    ("takd", {}, ["student.network=cnn16", "teacher.network=cnn16_grid"],
     "'takd' needs a network between student and teacher, but none has"),
    ("flow", {}, ["student.network=cnn48_grid"], r"'flow' needs a wider .*flow\.auxiliary = 0, which uses the teacher"),
    ("mlkd", {}, [OWN + "{mlkd: {strong: 2}}"], r"mlkd\.strong = 2; allowed: 0"),
    ("mlkd+sskd", {}, [], r"'mlkd\+sskd' stacks two that need extra views of images"),
    ("kd", {"classes": 0}, ["student.fit.augment.mixup=1"], "augment.mixup=1, but a mix .* has no label in"),
    # what takd and flow train first learns from labels
    *((f"fm+{name}", {"classes": 0}, [], rf"augment.mixup=1, but a mix .* has no label in .* 'fm\+{name}'")
      for name in ("takd", "flow")),
    ("rkd", {}, [OWN + "{rkd: {wait: 1}}"], r"method_settings\.rkd: 'wait' is not known; allowed: distance, angle"),
    ("rkd", {}, [OWN + "{rkdd: {angle: 1}}"], r"'rkdd' is not known \(did you mean 'rkd'\?\)"),
    ("sskd", {"size": (16, 20)}, [], "'sskd' rotates images by 90 degrees, but these are 16x20; allowed: square"),
    *((name, {"classes": 2}, [], f"'{name}' is not useful with two classes")
      for name in ("dkd", "atkd", "ls-kd", "ls-dkd", "ls-dist", "ls-mlkd")),
    *((name, {"classes": 0}, [], f"'{name}' does not serve regression, only classification; methods for regr")
      for name in ("dkd", "dist", "mlkd", "atkd", "sskd", "ls-kd")),
    ("vam", {}, ["student.network=test_rehearsal:without_maps"], "without_maps"),
    ("pkt", {}, ["teacher.source=test_rehearsal:only_answers"], "'pkt' looks inside .*teacher.source is a black box"),
    ("tbr", {}, [], "'tbr' does not serve classification"),
    *((name, {}, [f"{who}.network=test_rehearsal:without_maps"],
       f"'{name}' compares feature maps, but the {who}'s network")
      for name in ("fitnet", "at", "nst", "vid", "ab", "ofd", "ft", "reviewkd") for who in ("student", "teacher")),
]  # fmt: skip


@pytest.mark.parametrize(("method", "images", "overrides", "said"), REFUSED)
def test_what_a_method_cant_do_is_refused_before_anything_is_trained(
    method: str, images: dict[str, Any], overrides: list[str], said: str, tmp_path: Path
) -> None:
    wanted = on_noise(tmp_path, f"compare.methods=[nokd, cgan+{method}]", *overrides, **images)
    with pytest.raises(UserError, match=said):
        run.run(wanted, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("method", "overrides"),
    [("takd", []), ("flow", []), ("flow", ["student.network=cnn48_grid", OWN + "{flow: {auxiliary: 0}}"]),
     ("at", []), ("vam", []), ("kd", ["teacher.source=test_rehearsal:only_answers"]),
     ("sp", ["student.network=test_rehearsal:without_maps"])],
)  # fmt: skip
def test_what_it_can_do_is_not(method: str, overrides: list[str], tmp_path: Path) -> None:
    wanted = on_noise(tmp_path, f"compare.methods=[{method}]", *overrides)
    preflight.check(wanted, sources.load(wanted.data))


@pytest.mark.parametrize(
    ("method", "said"),
    [("at", "looks inside the teacher"), ("kdiga", "differentiates the teacher"), ("takd", "looks inside")],
)
def test_a_plain_callable_is_refused_before_a_generator_is_trained(method: str, said: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 16, 16), dtype=np.uint8)

    student = without_maps(1, 3, (16, 16))
    road = Distiller(images, np.arange(12) % 3, only_answers, features_of=without_maps(1, 3, (16, 16)))
    before = [weight.detach().clone() for weight in student.parameters()]
    with pytest.raises(UserError, match=f"'{method}' .*{said}"):
        road.distill(student, method)
    assert road.synthesis is None
    assert all(map(torch.equal, before, student.parameters()))


SMALL_OF_EACH_FAMILY = [
    "resnet8", "wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2", "densenet121", "efficientnet_b0",
    "resnet18",
]  # fmt: skip


@pytest.mark.parametrize("name", SMALL_OF_EACH_FAMILY)
def test_students_of_every_family_are_taught_by_what_looks_inside(name: str, fabric: Fabric, noise: Noise) -> None:
    task, real = Classification(("a", "b", "c")), noise(8)
    torch.manual_seed(0)
    student, teacher = (zoo.create(network, 1, 3, (16, 16)) for network in (name, "resnet8x4"))
    objective = create("fitnet+at+vid+sp+crd+rkd+pkt+ofd", task)
    batches = Batches(TrainingImages(real), task, 4, AugmentSettings(), 0, fabric.device)
    forward = BatchForward(student, teacher, objective, batches, fabric, 0)
    objective.prepare(Preparation(forward, student, 2, Work(fabric), 0, lambda *_: None))
    student.train()
    torch.stack(list(objective.loss(forward(batches.at(0), 0.5)).values())).sum().backward()
    forward.close()
    without = [key for key, weight in student.named_parameters() if weight.grad is None]
    assert without == []
    assert all(torch.isfinite(weight.grad).all() for weight in student.parameters() if weight.grad is not None)
    assert all(weight.grad is None for weight in teacher.parameters())


class Detached(nn.Module):
    """A teacher as many are wrapped: no gradient goes through it."""

    def __init__(self, way: Any) -> None:
        super().__init__()
        self.network, self.way = zoo.create("cnn8", 1, 4, (16, 16)), way

    def forward(self, images: Tensor) -> Tensor:
        with self.way():
            return self.network(images)


@pytest.mark.parametrize("way", [torch.no_grad, torch.inference_mode])
def test_a_teacher_without_gradients_serves_methods_that_do_not_differentiate_it(
    fabric: Fabric, way: Any, noise: Noise
) -> None:
    images = noise(16, classes=4)
    torch.manual_seed(0)
    road = Distiller(images.images, images.labels, Detached(way), fabric=fabric)
    for method in ("kd", "kd+pkt", "fitnet", "at", "kd+crd"):
        student = zoo.create("cnn8", 1, 4, (16, 16))
        before = [weight.clone() for weight in student.parameters()]
        road._fakes, road.synthesis = None, object()  # type: ignore[assignment]
        road.distill(student, method=method, steps=1, batch_size=8)
        assert any(not torch.equal(*pair) for pair in zip(before, student.parameters(), strict=True)), method
    with pytest.raises(
        UserError, match=r"method '.*kdiga.*' differentiates the teacher, but its outputs have no gradient"
    ):
        road.distill(zoo.create("cnn8", 1, 4, (16, 16)), method="kd+kdiga", steps=1, batch_size=8)
