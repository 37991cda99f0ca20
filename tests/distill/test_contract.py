"""What every registered method must hold to: metadata, tasks, few fakes in a batch, three steps of training."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from forwards import SCALAR, classes, numbers, prepare
from lightning_fabric import Fabric

from cgankd import distill
from cgankd.config.settings import AugmentSettings, FitSettings
from cgankd.core.errors import UserError
from cgankd.core.store import Work
from cgankd.data.batches import Batches
from cgankd.data.imageset import TrainingImages
from cgankd.distill import METHODS, DistillBatch, Objective
from cgankd.nets import zoo
from cgankd.tasks import Task
from cgankd.training.forward import BatchForward
from cgankd.training.loop import fit

CLASSES = classes(3)
TASKS = {task.name: task for task in (CLASSES, SCALAR)}
SERVED = [(name, task) for name in sorted(METHODS) for task in METHODS[name].tasks]
SHARED = {  # what the student's settings give where they say nothing
    "classification": {"temperature": 4.0, "label_weight": 0.1, "teacher_weight": 0.9},
    "regression": {"label_weight": 0.5, "teacher_weight": 0.5},
}
SETTINGS = FitSettings(steps=3, batch_size=8, augment=AugmentSettings(views=2))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_metadata(name: str) -> None:
    made = METHODS[name]
    assert made.name == name
    assert not set(name) & set("+@ ")  # they join methods in a recipe
    assert made.tasks
    assert set(made.tasks) <= set(TASKS)
    assert made.matches in {"output", "feature", "relation", "gradient", "nothing"}
    assert made.paper
    assert made.__doc__
    assert all(isinstance(number, float | int) for number in made.defaults.values())
    assert set(made.task_defaults) <= set(made.tasks)
    assert set(made.shared) <= set(SHARED["classification"])
    for task in made.tasks:
        own = made.task_defaults.get(task, {})
        assert set(own) <= set(made.defaults)
        shared = {key: value for key, value in SHARED[task].items() if key in made.shared}
        assert distill.create(name, TASKS[task]).stacked[0][0].values == {**shared, **made.defaults, **own}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_task_that_is_not_served_is_refused_with_what_serves_it(name: str) -> None:
    for task in set(TASKS) - set(METHODS[name].tasks):
        with pytest.raises(UserError, match=rf"'{name}' does not serve {task}, .*methods for {task}: .*\bkd\b"):
            distill.create(name, TASKS[task])


def test_every_method_has_its_line_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
    _, _, table = text.partition("| method | what is minimised in addition to the label's loss |")
    cells = [line.split("|")[1] for line in table.partition("\n\n")[0].splitlines() if line.startswith("| `")]
    assert sorted(name.strip(" `") for cell in cells for name in cell.split(",")) == sorted(METHODS)


def networks(task: Task, name: str = "kd") -> tuple[torch.nn.Module, torch.nn.Module]:
    """A student that the method ``name`` can teach, and a teacher."""
    torch.manual_seed(0)
    sizes = distill.student_network(name, "cnn8"), "cnn24"
    student, teacher = (zoo.create(size, 1, task.num_outputs, (16, 16)) for size in sizes)
    return student, teacher


def seen(name: str, task: Task, fakes: int, noise, fabric: Fabric) -> tuple[Objective, DistillBatch]:
    """The objective after its preparation, and a batch of 8 images with so many fake, half-way through."""
    student, teacher = networks(task, name)
    real, fake = (noise(20, scalar=task.continuous, seed=seed) for seed in (1, 2))
    augment = AugmentSettings(views=2)
    images = TrainingImages(real, fake, real_share=1 - fakes / 8)
    batches = Batches(images, task, 8, augment, 0, torch.device("cpu"))
    objective = distill.create(name, task)
    forward = BatchForward(student, teacher, objective, batches, fabric, 0)
    prepare(objective, forward)
    batch = forward(batches.at(0), 0.5)
    forward.close()
    assert int(batch.fake.sum()) == fakes
    return objective, batch


@pytest.mark.parametrize(("name", "task"), SERVED)
@pytest.mark.parametrize("fakes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_few_fakes_in_a_batch(name: str, task: str, fakes: int, noise, fabric: Fabric) -> None:
    objective, batch = seen(f"{name}@fake", TASKS[task], fakes, noise, fabric)
    terms = objective.loss(batch)
    assert len(terms) > 1
    for term, loss in terms.items():
        assert loss.shape == ()
        assert term == "label" or term.startswith(name)  # so that the terms of stacked methods don't collide
        assert math.isfinite(float(loss.detach())), term
    torch.stack(list(terms.values())).sum().backward()


@pytest.mark.parametrize("name", [name for name, task in SERVED if task == "classification"])
def test_one_hot_targets_are_labels(name: str, noise, fabric: Fabric) -> None:
    objective, batch = seen(name, CLASSES, 3, noise, fabric)
    soft = dataclasses.replace(batch, targets=torch.eye(3)[batch.targets])
    if batch.extra is not None:
        soft = dataclasses.replace(
            soft, extra=dataclasses.replace(batch.extra, targets=torch.eye(3)[batch.extra.targets])
        )
    assert numbers(objective.loss(soft)) == pytest.approx(numbers(objective.loss(batch)), rel=1e-5)


@pytest.mark.parametrize(("name", "task"), SERVED)
def test_three_steps_beside_kd(name: str, task: str, noise) -> None:
    # the other precision of each task: test_waiting.py trains on classes in float32, test_matrix.py looks at scalars
    precision = "32-true" if TASKS[task].continuous else "bf16-mixed"
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    student, teacher = networks(TASKS[task], name)
    before, known = ({k: v.clone() for k, v in network.state_dict().items()} for network in (student, teacher))
    real, fake = (noise(20, scalar=TASKS[task].continuous, seed=seed) for seed in (1, 2))
    objective = distill.create(name if name == "kd" else f"kd+{name}", TASKS[task])
    history = fit(Work(fabric), student, objective, TrainingImages(real, fake), SETTINGS, seed=3, teacher=teacher)
    assert all(math.isfinite(entry["loss"]) for entry in history)
    after = student.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert not all(torch.equal(after[key], before[key]) for key in before)
    assert all(torch.equal(value, known[key]) for key, value in teacher.state_dict().items())
    assert all(weight.grad is None for weight in teacher.parameters())


def test_the_teacher_sees_images_as_it_was_trained_to(noise, fabric: Fabric) -> None:
    # whatever is in a batch, real or fake, the teacher's own normalisation and statistics are used
    _, batch = seen("kd", CLASSES, 4, noise, fabric)
    _, teacher = networks(CLASSES)
    assert batch.images is not None
    alone = torch.cat([teacher.eval()(image[None]) for image in batch.images])
    assert batch.teacher_outputs is not None
    assert torch.allclose(batch.teacher_outputs, alone, atol=1e-5)


def test_the_label_counts_for_each_image_what_its_methods_ask_for(noise, fabric: Fabric) -> None:
    _, batch = seen("kd", CLASSES, 2, noise, fabric)
    real, fake = (
        float(CLASSES.loss(batch.outputs.detach()[rows], batch.targets[rows])) for rows in (~batch.fake, batch.fake)
    )
    found = {
        name: numbers(distill.create(name, CLASSES).loss(batch))["label"]
        for name in ("kd", "kd@fake", "cckd@fake", "kd@real+cckd@fake")
    }
    assert found == pytest.approx(
        {
            "kd": (6 * 0.1 * real + 2 * 0.1 * fake) / 8,
            "kd@fake": (6 * real + 2 * 0.1 * fake) / 8,
            "cckd@fake": 6 * real / 8,  # its own terms hold the fakes' labels
            "kd@real+cckd@fake": 6 * 0.1 * real / 8,
        },
        rel=1e-5,
    )
