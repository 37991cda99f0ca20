"""Stacked methods: which rows each sees, what it may look at, what is refused, what is trained beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd import distill
from cgankd.config.settings import AugmentSettings, FitSettings, StudentSettings
from cgankd.core.errors import UserError
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.distill import METHODS, DistillBatch, Method, Preparation
from cgankd.distill.base import Shape
from cgankd.nets import zoo
from cgankd.tasks import Classification
from cgankd.training.loop import fit

TASK = Classification(("a", "b", "c"))
SEEN: list[str] = []


@pytest.fixture(autouse=True)
def one_more_method() -> Iterator[None]:
    """A method as a user would add it: one class in one file, registered by its decorator."""

    @distill.register
    class Inside(Method):
        name = "inside"
        tasks = ("classification",)
        matches = "feature"
        where = "last map"
        distance = "squared"
        paper = "none"
        defaults: ClassVar[dict[str, float]] = {"weight": 2.0}
        needs_inside = True

        def taps(self, student: Sequence[str], teacher: Sequence[str]) -> tuple[list[str], list[str]]:
            return [student[-2]], [teacher[-2]]

        def build(self, student: Mapping[str, Shape], teacher: Mapping[str, Shape]) -> None:
            (self.mine,), (self.theirs,) = student, teacher
            self.adapt = nn.Conv2d(student[self.mine][0], teacher[self.theirs][0], 1)

        def prepare(self, preparation: Preparation) -> None:
            images = preparation.images(0)
            SEEN.append(f"prepared {tuple(preparation.teacher(images)[1][self.theirs].shape)}")

        def loss(self, batch: DistillBatch) -> dict[str, Tensor]:
            mine, theirs = batch.student_features[self.mine], batch.teacher_features[self.theirs]
            assert not theirs.requires_grad
            return {"inside": self.values["weight"] * (self.adapt(mine) - theirs).square().mean()}

    SEEN.clear()
    yield
    del METHODS["inside"]


def images(count: int, seed: int = 0) -> ImageSet:
    rng = torch.Generator().manual_seed(seed)
    return ImageSet(
        torch.randint(0, 256, (count, 1, 16, 16), generator=rng, dtype=torch.uint8),
        torch.randint(0, 3, (count,), generator=rng),
    )


def example(rows: int = 6) -> DistillBatch:
    rng = torch.Generator().manual_seed(1)
    fake = torch.tensor([False, True, True, False, True, False])[:rows]
    outputs, teacher = (torch.randn(rows, 3, generator=rng) for _ in range(2))
    return DistillBatch(outputs, torch.arange(rows) % 3, teacher, {}, {}, fake)


def settings(steps: int = 3) -> FitSettings:
    return FitSettings(steps=steps, batch_size=8, augment=AugmentSettings(views=2))


@pytest.mark.parametrize(("name", "rows"), [("kd", slice(None)), ("kd@fake", [1, 2, 4]), ("kd@real", [0, 3, 5])])
def test_a_method_sees_the_part_of_the_batch_it_was_given(name: str, rows: slice | list[int]) -> None:
    batch = example()
    terms = distill.create(name, TASK).loss(batch)
    assert batch.teacher_outputs is not None
    expected = 0.9 * TASK.imitation_loss(batch.outputs[rows], batch.teacher_outputs[rows], 4.0)
    assert float(terms["kd"]) == pytest.approx(float(expected), rel=1e-6)
    own = TASK.error(batch.outputs, batch.targets)
    own[rows] *= 0.1  # the images that it sees
    assert float(terms["label"]) == pytest.approx(float(own.mean()), rel=1e-6)


def test_a_part_that_is_not_in_the_batch_has_no_term() -> None:
    batch = example().rows(torch.tensor([True, False, False, True, False, True]))
    assert set(distill.create("kd@fake", TASK).loss(batch)) == {"label"}


def test_rows_keep_extra_images_with_theirs() -> None:
    base = example()
    extra = DistillBatch(torch.arange(36.0).view(12, 3), torch.arange(12), None, {}, {}, base.fake.repeat(2))
    whole = DistillBatch(base.outputs, base.targets, None, {}, {}, base.fake, extra=extra)
    part = whole.rows(base.fake)
    assert part.extra is not None
    assert part.extra.targets.tolist() == [1, 2, 4, 7, 8, 10]


def test_adapter_layers_are_trained_and_the_teacher_is_not(fabric: Fabric) -> None:
    torch.manual_seed(0)
    student, teacher = (zoo.create(name, 1, 3, (16, 16)) for name in ("cnn8", "cnn16"))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    objective = distill.create("kd+inside", TASK, StudentSettings(method_settings={"inside": {"weight": 0.5}}))
    fit(
        Work(fabric), student, objective, TrainingImages(images(20), images(20, 1)), settings(), seed=3, teacher=teacher
    )
    (adapter,) = [p for name, p in objective.named_parameters() if name.endswith("adapt.weight")]
    assert [f"prepared {(8, *SHAPE)}"] == SEEN
    again = distill.create("inside", TASK)
    fit(Work(fabric), student, again, TrainingImages(images(20)), settings(1), seed=3, teacher=teacher)
    (other,) = [p for name, p in again.named_parameters() if name.endswith("adapt.weight")]
    assert adapter.shape == other.shape
    assert not torch.equal(adapter, other)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


SHAPE = (64, 2, 2)  # cnn16's last map for a 16x16 image


def test_each_of_several_methods_is_built_for_the_layers_it_named(fabric: Fabric) -> None:
    torch.manual_seed(0)
    student, teacher = (zoo.create(name, 1, 3, (16, 16)) for name in ("cnn8", "cnn16"))
    objective = distill.create("inside+sp+crd+at", TASK)
    fit(Work(fabric), student, objective, TrainingImages(images(20)), settings(1), seed=3, teacher=teacher)
    shapes = {name: tuple(weight.shape) for name, weight in objective.named_parameters()}
    assert shapes["layers.0.adapt.weight"] == (64, 32, 1, 1)  # the last maps
    assert shapes["layers.2.embed_student.weight"] == (128, 32)  # the penultimate


def test_adapters_start_from_the_seed_whatever_was_drawn_before(fabric: Fabric) -> None:
    torch.manual_seed(0)
    teacher = zoo.create("cnn16", 1, 3, (16, 16))
    results = []
    for noise in (1, 2):
        torch.manual_seed(9)
        student = zoo.create("cnn8", 1, 3, (16, 16))
        torch.manual_seed(noise)
        objective = distill.create("inside", TASK)
        fit(Work(fabric), student, objective, TrainingImages(images(20)), settings(), seed=3, teacher=teacher)
        results.append(student.state_dict())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_a_plain_callable_shows_no_features(fabric: Fabric) -> None:
    student, objective = zoo.create("cnn8", 1, 3, (16, 16)), distill.create("inside", TASK)
    with pytest.raises(UserError, match="'inside' looks inside the teacher, but this one is a plain callable"):
        fit(
            Work(fabric), student, objective, TrainingImages(images(20)), settings(), seed=0,
            teacher=lambda x: x.new_zeros(len(x), 3),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "said"),
    [("kd+kd@fake", "names one method twice"), ("kd@some", "'some' is no part of a batch"), ("", "is not known"),
     ("kd+", "is not known"), ("kdd", "did you mean 'kd'")],
)  # fmt: skip
def test_names_that_mean_nothing_are_refused(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        distill.create(name, TASK)


def test_a_setting_that_a_method_lacks_is_refused() -> None:
    with pytest.raises(UserError, match="'wait' is not known; allowed: weight"):
        distill.create("inside", TASK, StudentSettings(method_settings={"inside": {"wait": 1.0}}))


@pytest.mark.parametrize(
    ("name", "key", "value", "allowed"),
    [("at", "weight", -1.0, "0 or more"), ("crd", "temperature", 0.0, "a number above 0"),
     ("sskd", "contrast_temperature", 0.0, "a number above 0"), ("kd", "teacher_weight", -0.5, "0 or more"),
     ("crd", "width", 0.5, "a whole number, 1 or more"), ("ofd", "batches", 0.0, "a whole number, 1 or more"),
     ("atkd", "easy", 2.0, "0 to 1")],
)  # fmt: skip
def test_a_number_that_no_loss_can_be_made_with_is_refused(name: str, key: str, value: float, allowed: str) -> None:
    with pytest.raises(UserError, match=rf"method_settings\.{name}\.{key} = {value:g}; allowed: {allowed}$"):
        distill.create(name, TASK, StudentSettings(method_settings={name: {key: value}}))
