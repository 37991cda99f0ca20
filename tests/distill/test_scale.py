"""How losses behave with the batch's size, the number of classes and half precision."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from forwards import SCALAR, changed, classes, example, method, twice, value

from cgankd.distill import METHODS
from cgankd.tasks import Task

MAPS = ["ab", "at", "fitnet", "ft", "nst", "ofd", "reviewkd", "vid"]
SCALARS = ["tbr", "ckd", "cmkd", "cckd", "cckd-target", "rkd", "pkt", "sp", "crd", "flow", *MAPS]
CLASSES = ["dkd", "dist", "mlkd", "ls-kd", "ls-dkd", "ls-dist", "ls-mlkd", "atkd", *SCALARS[1:]]
NOT_FOR_TWO = {"dkd", "atkd", "ls-kd", "ls-dkd", "ls-dist", "ls-mlkd"}
HAVE_LAYERS = {"crd", "ab", "fitnet", "ft", "ofd", "reviewkd", "vid"}  # which must learn what the same map is
OTHER_ZERO = {"tbr", "ckd", "cckd", "cckd-target", *HAVE_LAYERS}  # these have the label in their terms
BOTH = [(name, classes(5)) for name in CLASSES] + [(name, SCALAR) for name in SCALARS]
MEANS = {
    "dkd",
    "dist",
    "mlkd",
    "ls-kd",
    "ls-dkd",
    "ls-dist",
    "ls-mlkd",
    "atkd",
    "tbr",
    "cmkd",
    "cckd",
    "cckd-target",
    "pkt",
    "flow",
    *MAPS,
}


@pytest.mark.parametrize(("name", "task"), [case for case in BOTH if case[0] in MEANS])
def test_a_batch_that_is_shown_twice_costs_the_same(name: str, task: Task) -> None:
    batch, made = example(task), method(name, task)
    assert value(made, twice(batch)) == pytest.approx(value(made, batch), rel=1e-4)


@pytest.mark.parametrize("task", [classes(5), SCALAR])
def test_what_a_batch_shown_twice_costs_where_the_formula_counts_images(task: Task) -> None:
    batch = example(task)  # 7 images

    def both(name: str, **own: float) -> tuple[float, float]:
        made = method(name, task, **own)
        return value(made, batch), value(made, twice(batch))

    once, again = both("sp")  # rows of the Gram matrix are divided by norms that grow with sqrt(2)
    assert again == pytest.approx(once / 2, rel=1e-4)
    once, again = both("ckd", anchor=0.0)  # an image differs from its twin by nothing
    assert again == pytest.approx(once * 2 * 6 / 13, rel=1e-4)
    weight = method("crd", task).values["weight"]
    once, again = both("crd")  # half of what is taken for an image is its twin
    assert again == pytest.approx(once + 2 * weight * math.log(2), rel=1e-4)


@pytest.mark.parametrize(("name", "task"), BOTH)
def test_the_order_of_the_images_does_not_matter(name: str, task: Task) -> None:
    batch, made = example(task), method(name, task)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
    assert value(made, changed(batch, lambda rows: rows[order])) == pytest.approx(value(made, batch), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "count"),
    [(name, count) for name in CLASSES for count in (2, 3, 1000) if count > 2 or name not in NOT_FOR_TWO],
)
@pytest.mark.parametrize("scale", [2.0, 30.0])
def test_gradients_for_few_and_many_classes(name: str, count: int, scale: float) -> None:
    batch = example(classes(count), scale=scale)
    reached(name, classes(count), batch)


@pytest.mark.parametrize("name", SCALARS)
def test_gradients_for_a_scalar(name: str) -> None:
    reached(name, SCALAR, example(SCALAR))


def reached(name: str, task: Task, batch) -> None:
    """The gradient is finite, there, and on the outputs alone or on the tapped features alone."""
    made = method(name, task)
    sum(made.loss(batch).values()).backward()
    assert batch.teacher_outputs.grad is None
    tapped = set(made.taps(["early", "late", "end"], ["early", "late", "end"])[0])
    wanted = {**batch.student_features, "outputs": batch.outputs}
    for layer, looked_at in wanted.items():
        if layer in (tapped or {"outputs"}):
            assert torch.isfinite(looked_at.grad).all()
            assert float(looked_at.grad.abs().sum()) > 1e-6
        else:
            assert looked_at.grad is None


@pytest.mark.parametrize(("name", "task"), [case for case in BOTH if case[0] not in OTHER_ZERO])
def test_a_teacher_that_is_the_student_costs_nothing(name: str, task: Task) -> None:
    batch = example(task)
    features = {layer: feature.detach() for layer, feature in batch.student_features.items()}
    same = dataclasses.replace(batch, teacher_outputs=batch.outputs.detach(), teacher_features=features)
    assert value(method(name, task), same) == pytest.approx(0.0, abs=2e-4)


@pytest.mark.parametrize(("name", "task"), BOTH)
def test_half_precision_is_near(name: str, task: Task) -> None:
    # the loop hands over float32 that a bfloat16 network has rounded
    batch, made = example(task, 24), method(name, task)
    rounded = changed(batch, lambda rows: rows.bfloat16().float() if rows.is_floating_point() else rows)
    assert value(made, rounded) == pytest.approx(value(made, batch), rel=0.03)


def test_every_name_here_is_a_method_of_outputs_relations_or_features() -> None:
    assert {name for name, made in METHODS.items() if made.matches in {"output", "relation", "feature"}} >= set(
        CLASSES + SCALARS
    )


@pytest.mark.parametrize("name", sorted(name for name, made in METHODS.items() if made.task_defaults))
def test_a_tasks_own_weight_scales_the_published_loss(name: str) -> None:
    own, published = METHODS[name].task_defaults["regression"]["weight"], METHODS[name].defaults["weight"]
    batch = example(SCALAR)
    changed_weight = value(method(name, SCALAR, weight=published), batch)
    assert value(method(name, SCALAR), batch) == pytest.approx(changed_weight * own / published, rel=1e-5)
