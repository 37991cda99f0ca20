"""What is trained or measured before the student is: ft's paraphraser, ofd's margins, takd's assistant."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from forwards import SCALAR, classes, example, method, prepare, unbuilt, value
from lightning_fabric import Fabric
from scipy.stats import norm
from torch import Tensor, nn

from cgankd.config.settings import AugmentSettings, FitSettings, StudentSettings
from cgankd.core import rng
from cgankd.core.errors import TrainingError, UserError
from cgankd.core.store import Work
from cgankd.data.batches import Batches
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.distill import NetworkFactory, Preparation, create
from cgankd.distill.methods.flow import pooled
from cgankd.nets import zoo
from cgankd.nets.taps import PENULTIMATE, Taps
from cgankd.training.forward import BatchForward
from cgankd.training.loop import fit
from works import stopped_at_every_save

TASK = classes(3)
SETTINGS = FitSettings(steps=4, batch_size=8, augment=AugmentSettings(views=2))


@dataclasses.dataclass
class Shown:
    """Networks whose features are those that ``features`` makes of images."""

    batches: Batches
    features: Callable[[Tensor], Mapping[str, Tensor]]

    def student_forward(self, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        return torch.zeros(len(images), 3), self.features(images)

    teacher_forward = student_forward


def preparation(real: ImageSet, fabric: Fabric, features: Any, steps: int = 8, work: Work | None = None) -> Preparation:
    """With a teacher whose features are those that ``features`` makes of images."""
    batches = Batches(TrainingImages(real), TASK, 8, AugmentSettings(views=2), 0, fabric.device)
    return Preparation(Shown(batches, features), nn.Identity(), steps, work or Work(fabric), 0, lambda *_: None)


def test_ofds_margin_is_the_mean_of_the_negatives(noise, fabric: Fabric) -> None:
    torch_rng, seen = torch.Generator().manual_seed(0), []
    mean, deviation = torch.linspace(-1, 2, 5)[:, None, None], torch.linspace(0.5, 1.5, 5)[:, None, None]

    def features(images: Tensor) -> dict[str, Tensor]:
        seen.append(mean + deviation * torch.randn(len(images), 5, 4, 4, generator=torch_rng))
        return {"early": seen[-1], "late": torch.rand(len(images), 6, 3, 3, generator=torch_rng)}

    made = method("ofd", TASK, batches=40)
    made.prepare(preparation(noise(16), fabric, features))
    assert len(seen) == 40
    found, whole = made.get_buffer("margin0").flatten(), torch.cat(seen)
    for channel in range(5):
        m, s = float(mean[channel]), float(deviation[channel])
        values = whole[:, channel].flatten().tolist()
        below = [value for value in values if value < 0]
        assert float(found[channel]) == pytest.approx(sum(below) / len(below), rel=1e-4)
        paper = m - s * norm.pdf(m / s) / norm.cdf(-m / s)  # of a normal channel, as batch normalisation has it
        assert float(found[channel]) == pytest.approx(paper, rel=0.05)
    assert not made.get_buffer("margin1").any()  # a stage after activation


def test_fts_paraphraser_learns_to_reconstruct_and_is_frozen(noise, fabric: Fabric) -> None:
    filters = torch.randn(6, 1, 6, 6, generator=torch.Generator().manual_seed(0))

    def features(images: Tensor) -> dict[str, Tensor]:
        return {"late": torch.conv2d(images, filters, stride=5)}

    real, made = noise(16), method("ft", TASK, first=20.0)
    ready = preparation(real, fabric, features)
    (whole,) = made.teacher_maps(features(ready.images(0)))

    def error() -> float:
        with torch.no_grad():
            return float((made.decoder(made.encoder(whole)) - whole).square().mean())

    before, translator = error(), [weight.clone() for weight in made.adapters.parameters()]
    made.prepare(ready)
    assert error() < 0.8 * before
    assert all(map(torch.equal, translator, made.adapters.parameters()))
    for half in (made.encoder, made.decoder):
        assert not any(weight.requires_grad or weight.grad is not None for weight in half.parameters())


@pytest.mark.parametrize(("name", "numbers"), [("ft", {"first": 1.0}), ("ofd", {"batches": 5})])
def test_a_killed_preparation_goes_on_bit_for_bit(
    name: str, numbers: dict[str, float], noise, fabric: Fabric, tmp_path: Path
) -> None:
    filters, real = torch.randn(6, 1, 6, 6, generator=torch.Generator().manual_seed(0)), noise(16)

    def features(images: Tensor) -> dict[str, Tensor]:
        late = torch.conv2d(images, filters, stride=5)
        return {"early": late[:, :5], "late": late}

    def prepared(work: Work) -> dict[str, Tensor]:
        torch.manual_seed(0)
        made = method(name, TASK, **numbers)
        made.prepare(preparation(real, fabric, features, work=work))
        return made.state_dict()

    whole = prepared(Work(fabric))
    parts, calls = stopped_at_every_save(fabric, tmp_path, prepared)
    assert calls > 5
    for key, tensor in whole.items():
        assert torch.equal(parts[key], tensor), key


def test_what_does_not_learn_first_says_so(noise, fabric: Fabric) -> None:
    ready = preparation(noise(16), fabric, lambda images: {"late": torch.full((len(images), 6, 3, 3), math.nan)})
    with pytest.raises(TrainingError, match="ft: paraphraser: the loss is nan after 1 steps"):
        method("ft", TASK).prepare(ready)


def test_the_share_of_the_steps_is_one_at_least(noise, fabric: Fabric) -> None:
    ready = preparation(noise(16), fabric, dict, steps=100)
    assert [ready.share(first) for first in (0.0, 0.001, 0.125, 1.0, 2.5)] == [1, 1, 12, 100, 250]


@pytest.mark.parametrize("name", ["ft", "sskd"])
def test_the_teacher_learns_nothing_where_gradients_go_through_it(name: str, noise, fabric: Fabric) -> None:
    torch.manual_seed(0)
    student, teacher = (zoo.create(size, 1, 3, (16, 16)) for size in ("cnn8", "cnn24"))
    objective = create(f"kdiga+{name}", TASK)
    batches = Batches(TrainingImages(noise(16)), TASK, 8, AugmentSettings(views=2), 0, fabric.device)
    forward = BatchForward(student, teacher, objective, batches, fabric, 0)
    prepare(objective, forward, steps=8)
    torch.stack(list(objective.loss(forward(batches.at(0), 0.5)).values())).sum().backward()
    forward.close()
    assert all(weight.grad is None for weight in teacher.parameters())
    assert all(weight.grad is not None for weight in student.parameters())


# --- flow ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("student", "auxiliary"),
    [
        ("cnn8", "cnn16"),
        ("resnet8", "resnet8x4"),
        ("resnet20", "resnet8x4"),
        ("wrn_40_1", "wrn_16_2"),
        ("mobilenetv2", "mobilenetv2_full"),
    ],
)
def test_the_auxiliary_is_wider_and_of_the_students_family(student: str, auxiliary: str) -> None:
    factory = network_factory(student, "cnn24")
    assert factory.wider("flow", "none") == auxiliary
    assert len(zoo.map_layers(factory(auxiliary), 1, (16, 16))) == len(zoo.map_layers(factory.student, 1, (16, 16)))


@pytest.mark.parametrize("name", ["shufflenetv2", "vgg8", "wrn_16_2"])
def test_no_wider_network_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"'flow' needs a wider .* of \w+ has none; allowed: .*, or another"):
        network_factory(name, "cnn24").wider("flow", "another")


@pytest.mark.parametrize("task", [classes(4), SCALAR])
def test_flow_follows_the_auxiliary_as_it_would_a_teacher(task) -> None:
    torch.manual_seed(1)
    made = unbuilt("flow", task)
    factory = network_factory("cnn8", "cnn24", task.num_outputs)
    made.networks(factory)
    names = [*zoo.map_layers(factory.student, 1, (16, 16)), PENULTIMATE]
    assert made.taps(names, ["other", PENULTIMATE]) == (names, [])
    torch_rng = torch.Generator().manual_seed(0)
    images = torch.rand(7, 1, 16, 16, generator=torch_rng)
    with torch.no_grad(), Taps(factory.student, names) as student, Taps(made.auxiliary, names) as auxiliary:
        mine, theirs = student(images)[1], auxiliary(images)[1]
    batch = dataclasses.replace(example(task), images=images, student_features=mine, teacher_features={})
    plain = unbuilt("flow", task, StudentSettings(method_settings={"flow": {"auxiliary": 0.0}}))
    plain.taps(names, names)
    right = value(plain, dataclasses.replace(batch, teacher_features=theirs))
    assert right > 1e-3
    assert value(made, batch) == pytest.approx(right, rel=1e-6)


def test_the_auxiliary_is_taught_by_pkt_and_then_stays(noise, fabric: Fabric) -> None:
    torch.manual_seed(0)
    student, teacher = (zoo.create(name, 1, 3, (16, 16)) for name in ("cnn8", "cnn24"))
    own = {"flow": {"auxiliary": 1.5}, "pkt": {"weight": 7.0}}
    objective, real = create("flow", TASK, StudentSettings(method_settings=own)), TrainingImages(noise(16))
    fit(Work(fabric), student, objective, real, SETTINGS, seed=3, teacher=teacher)
    found = objective.stacked[0][0].auxiliary

    # the same by hand: new weights from the same stream, six steps of pkt
    torch.manual_seed(rng.key(3, "method/networks"))
    right = zoo.create("cnn16", 1, 3, (16, 16))
    longer = SETTINGS.model_copy(update={"steps": 6})
    pkt = create("pkt", TASK, StudentSettings(method_settings=own))
    fit(Work(fabric), right, pkt, real, longer, seed=3, teacher=teacher)
    for (name, weight), expected in zip(found.state_dict().items(), right.state_dict().values(), strict=True):
        assert torch.equal(weight, expected), name
    assert not found.training
    assert not any(weight.requires_grad for weight in found.parameters())


# --- takd ---------------------------------------------------------------------------------------------------------


def network_factory(student: str, teacher: str | None, outputs: int = 3) -> NetworkFactory:
    made = [None if name is None else zoo.create(name, 1, outputs, (16, 16)) for name in (student, teacher)]
    assert made[0] is not None
    return NetworkFactory(made[0], made[1], 1, outputs, (16, 16))


@pytest.mark.parametrize(
    ("student", "teacher", "family"),
    [("resnet8", "resnet56", "resnet"), ("cnn8", "cnn24", "cnn"), ("wrn_16_1", "wrn_40_2", "wrn")],
)
def test_the_assistant_is_in_the_middle_of_the_family(student: str, teacher: str, family: str) -> None:
    found = network_factory(student, teacher).between("takd")
    sizes = {}
    for name in zoo.names():
        if name.startswith(family) and name not in {"resnet18", "resnet34", "resnet50"}:  # another family
            with torch.device("meta"):
                sizes[name] = sum(p.numel() for p in zoo.create(name, 1, 3, (16, 16)).parameters())
    middle = math.sqrt(sizes[student] * sizes[teacher])
    ratios = {
        name: max(size / middle, middle / size)
        for name, size in sizes.items()
        if sizes[student] < size < sizes[teacher]
    }
    assert found == min(ratios, key=ratios.__getitem__)


@pytest.mark.long
def test_where_no_kin_is_between_another_is_the_assistant() -> None:
    counts = zoo.parameter_counts(1, 3, (16, 16))
    found = network_factory("shufflenetv1", "shufflenetv2").between("takd")  # each the only one of its family
    assert counts["shufflenetv1"] < counts[found] < counts["shufflenetv2"]


def test_no_network_between_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"'takd' needs .* none has between 72,211 and 72,787 parameters; allowed: a larger teacher"
    ):
        network_factory("cnn16", "cnn16_grid").between("takd")
    with pytest.raises(UserError, match="teacher is a plain callable, whose size is not known; allowed"):
        network_factory("cnn8", None).between("takd")


def test_the_assistant_normalises_as_the_student_does() -> None:
    factory = network_factory("cnn8", "cnn24")
    zoo.fix_normalisation(factory.student, torch.tensor([0.3]), torch.tensor([0.1]))
    (layer,) = [layer for layer in factory("cnn16").modules() if isinstance(layer, zoo.Normalise)]
    assert (float(layer.mean), float(layer.std)) == pytest.approx((0.3, 0.1))


@pytest.mark.parametrize("task", [classes(4), SCALAR])
def test_takd_is_kd_from_the_assistant(task) -> None:
    settings = StudentSettings(temperature=3.0)
    made, kd = unbuilt("takd", task, settings), unbuilt("kd", task, settings)
    made.networks(network_factory("cnn8", "cnn24", task.num_outputs))
    batch = dataclasses.replace(example(task), images=torch.rand(7, 1, 16, 16))
    assert made.label_weight == kd.label_weight
    with torch.no_grad():
        taught = dataclasses.replace(batch, teacher_outputs=made.assistant(batch.images))
    assert value(made, batch) == pytest.approx(value(kd, taught), rel=1e-6)
    assert value(made, batch) != pytest.approx(value(kd, batch), rel=1e-2)


class Counting(nn.Module):
    """A teacher that counts the images it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.images = zoo.create("cnn24", 1, 3, (16, 16)), 0

    def forward(self, images: Tensor) -> Tensor:
        self.images += len(images)
        return self.network(images)


@pytest.mark.parametrize("name", ["takd", "flow"])
def test_the_teacher_is_asked_for_what_is_trained_first_only(name: str, noise, fabric: Fabric) -> None:
    torch.manual_seed(0)
    asked = []
    for steps in (4, 40):  # and 4 of the first lesson, in both
        student, teacher = zoo.create("cnn8", 1, 3, (16, 16)), Counting()
        setting = "first" if name == "takd" else "auxiliary"
        own = StudentSettings(method_settings={name: {setting: 4 / steps}})
        chosen = SETTINGS.model_copy(update={"steps": steps})
        images = TrainingImages(noise(16))
        fit(Work(fabric), student, create(name, TASK, own), images, chosen, seed=3, teacher=teacher)
        asked.append(teacher.images)
    assert asked[0] == asked[1] > 0


def test_the_assistant_is_taught_by_kd_and_then_stays(noise, fabric: Fabric) -> None:
    torch.manual_seed(0)
    student, teacher = (zoo.create(name, 1, 3, (16, 16)) for name in ("cnn8", "cnn24"))
    settings = SETTINGS
    objective = create("takd", TASK, StudentSettings(temperature=2.0, method_settings={"takd": {"first": 1.5}}))
    fit(Work(fabric), student, objective, TrainingImages(noise(16)), settings, seed=3, teacher=teacher)
    assistant = objective.stacked[0][0].assistant

    # the same by hand: new weights from the same stream, six steps of plain KD at the same temperature
    alone, real = create("takd", TASK), TrainingImages(noise(16))
    batches = Batches(real, TASK, 8, settings.augment, 3, fabric.device)
    BatchForward(student, teacher, alone, batches, fabric, 3).close()
    right = alone.stacked[0][0].assistant
    assert not any(weight.requires_grad for weight in right.parameters())
    right.requires_grad_(True)
    kd, longer = create("kd", TASK, StudentSettings(temperature=2.0)), settings.model_copy(update={"steps": 6})
    fit(Work(fabric), right, kd, real, longer, seed=3, teacher=teacher)
    for (name, found), expected in zip(assistant.state_dict().items(), right.state_dict().values(), strict=True):
        assert torch.equal(found, expected), name
    assert not assistant.training
    assert not any(weight.requires_grad for weight in assistant.parameters())


def test_flow_averages_maps_over_pixels_and_tokens_over_places() -> None:
    numbers = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(pooled(numbers.unflatten(2, (5, 1))), numbers.mean(2))  # [B, D, H, W]
    assert torch.allclose(pooled(numbers), numbers.mean(1))  # [B, L, D]
    assert torch.equal(pooled(numbers[:, 0]), numbers[:, 0])
