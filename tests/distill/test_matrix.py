"""Every registered method on real networks, both tasks: gradients, scale, few and many classes, half precision.

That a method's terms are the right numbers is tested beside its kin: kd in test_kd; dkd, dist, ls-*, mlkd and atkd
in test_logits; tbr, ckd, cmkd and cckd in test_answers; rkd, pkt, flow, sp and crd in test_relations; methods on
maps in test_maps; sskd, kdiga, vam and takd in test_sskd, test_kdiga, test_vam and test_first.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from forwards import LAYERS, SCALAR, classes, method, prepare
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.config.settings import AugmentSettings
from cgankd.core.errors import UserError
from cgankd.data.batches import Batch, Batches
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.distill import METHODS, DistillBatch, create, student_network
from cgankd.distill.base import WHERE
from cgankd.nets import zoo
from cgankd.tasks import Task
from cgankd.training.forward import BatchForward

Noise = Callable[..., ImageSet]
TASKS = {"classification": classes(5), "regression": SCALAR}
SERVED = [(name, task) for name in sorted(METHODS) for task in METHODS[name].tasks]
OF_CLASSES = [name for name, task in SERVED if task == "classification"]
NOT_FOR_TWO = {"dkd", "atkd", "ls-kd", "ls-dkd", "ls-dist", "ls-mlkd"}
# a shift of all scalar outputs changes no correlation and no slope, and one before a ReLU no slope
BLIND = {("cmkd", "regression"): {"fc.bias"}, ("kdiga", "regression"): {"fc.bias", "layer3.4.bias"}}
# not means over images: pairs and triples of distinct ones, norms of whole batches, finding one among all
COUNT_IMAGES = {"rkd_distance", "rkd_angle", "sp", "ckd", "crd", "sskd_contrast"}


@dataclasses.dataclass
class Scene:
    student: nn.Module
    teacher: nn.Module
    method: nn.Module
    batches: Batches
    see: Callable[[Batch], tuple[DistillBatch, dict[str, Tensor]]]  # half-way; the method's own terms


@contextmanager
def scene(name: str, task: Task, noise: Noise, fabric: Fabric) -> Iterator[Scene]:
    """cnn8, or cnn8+vam, learning from cnn24, past what comes first (networks taught there stay as made)."""
    torch.manual_seed(0)
    names = student_network(name, "cnn8"), "cnn24"
    student, teacher = (zoo.create(network, 1, task.num_outputs, (16, 16)) for network in names)
    for weight in student.parameters():
        if not weight.any():  # what starts at 0 hides slopes: a channel's scale where its norm is divided out
            nn.init.normal_(weight, std=0.1)
    real = noise(32, classes=task.num_outputs, scalar=task.continuous)
    batches = Batches(TrainingImages(real), task, 8, AugmentSettings(views=2), 0, fabric.device)
    objective = create(name, task)
    forward = BatchForward(student, teacher, objective, batches, fabric, 0)
    prepare(objective, forward)

    def see(batch: Batch) -> tuple[DistillBatch, dict[str, Tensor]]:
        seen = forward(batch, 0.25)  # before what a method leaves off in the middle
        terms = objective.loss(seen)
        del terms["label"]
        assert all(term.dtype == torch.float32 for term in terms.values())
        return seen, terms

    yield Scene(student, teacher, objective, batches, see)
    forward.close()


def numbers(terms: dict[str, Tensor]) -> dict[str, float]:
    return {key: float(term.detach()) for key, term in terms.items()}


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


@pytest.mark.parametrize(("name", "task"), SERVED)
def test_gradients_reach_all_that_is_looked_at_and_nothing_else(name: str, task: str, noise: Noise, fabric) -> None:
    with scene(name, TASKS[task], noise, fabric) as set_up:
        seen, terms = set_up.see(set_up.batches.at(0))
        looked_at = list(seen.student_features.values())
        if {"outputs", "images"} & set(METHODS[name].where.split(", ")):
            looked_at.append(seen.outputs)
        names, weights = zip(*set_up.student.named_parameters(), strict=True)
        anything = torch.stack([value.square().sum() for value in looked_at]).sum()
        slopes = torch.autograd.grad(anything, weights, allow_unused=True, retain_graph=True)
        upstream = {key for key, slope in zip(names, slopes, strict=True) if slope is not None}
        total(terms).backward()
    reached = set()
    for key, weight in zip(names, weights, strict=True):
        if weight.grad is not None:
            assert torch.isfinite(weight.grad).all(), key
            if float(weight.grad.abs().max()) > 1e-6:
                reached.add(key)
    assert reached == upstream - BLIND.get((name, task), set())
    assert all(weight.grad is None for weight in set_up.teacher.parameters())
    own = dict(set_up.method.named_parameters())
    assert all((weight.grad is not None) == weight.requires_grad for weight in own.values())
    assert all(torch.isfinite(weight.grad).all() for weight in own.values() if weight.grad is not None)


@pytest.mark.parametrize(("name", "task"), SERVED)
def test_images_that_are_shown_twice_cost_the_same(name: str, task: str, noise: Noise, fabric: Fabric) -> None:
    with scene(name, TASKS[task], noise, fabric) as set_up:
        once = set_up.batches.at(0)
        fields = {field.name: getattr(once, field.name) for field in dataclasses.fields(once)}
        rows = {key: value for key, value in fields.items() if isinstance(value, torch.Tensor)}
        twice = Batch(**{key: torch.cat([value, value]).detach() for key, value in rows.items()})
        costs = [numbers(set_up.see(shown)[1]) for shown in (once, twice)]
    assert any(costs[0].values())
    for key in set(costs[0]) - COUNT_IMAGES:
        assert costs[1][key] == pytest.approx(costs[0][key], rel=1e-3, abs=1e-6), key


@pytest.mark.parametrize("count", [2, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", OF_CLASSES)
def test_two_and_a_thousand_classes(name: str, count: int, noise: Noise, fabric: Fabric) -> None:
    if count == 2 and name in NOT_FOR_TWO:
        with pytest.raises(UserError, match="is not useful with two classes"):
            create(name, classes(2))
        return
    with scene(name, classes(count), noise, fabric) as set_up:
        _, terms = set_up.see(set_up.batches.at(0))
        assert all(math.isfinite(float(term.detach())) for term in terms.values())
        total(terms).backward()
    slopes = [weight.grad for weight in set_up.student.parameters() if weight.grad is not None]
    assert all(torch.isfinite(slope).all() for slope in slopes)
    assert sum(float(slope.abs().sum()) for slope in slopes) > 1e-6


@pytest.mark.long
@pytest.mark.parametrize(("name", "task"), SERVED)
def test_under_autocast_to_bfloat16_terms_are_near(name: str, task: str, noise: Noise, fabric: Fabric) -> None:
    with scene(name, TASKS[task], noise, fabric) as set_up:
        full = numbers(set_up.see(set_up.batches.at(0))[1])
    half = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    with scene(name, TASKS[task], noise, half) as set_up:
        _, terms = set_up.see(set_up.batches.at(0))
        total(terms).backward()
    assert all(torch.isfinite(w.grad).all() for w in set_up.student.parameters() if w.grad is not None)
    assert numbers(terms) == pytest.approx(full, rel=0.1)


@pytest.mark.parametrize("name", sorted(name for name, made in METHODS.items() if made.matches != "nothing"))
def test_where_a_method_looks_is_where_its_metadata_say(name: str) -> None:
    made = METHODS[name]
    said = made.where.split(", ")
    assert [place for place in WHERE if place in said] == said  # known words, from the image on
    tapped = method(name, TASKS[made.tasks[0]]).taps(LAYERS, LAYERS)[0]
    maps = {"all maps": ["early", "late"], "middle map": ["late"], "last map": ["late"], "penultimate": ["end"]}
    assert tapped == [layer for place in said for layer in maps.get(place, [])]
    assert made.distance
