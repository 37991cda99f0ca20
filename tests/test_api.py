"""The road for one's own arrays and modules: classes and scalars, a black box, any generator."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from cgankd import Distiller, LabelUnit, Regression, UserError, show_progress
from cgankd.core.runtime import BF16, OneDevice
from cgankd.data.given import image_set
from cgankd.pipeline import stages
from cgankd.synthesis import checks
from cgankd.tasks import Classification

LEVELS = torch.tensor([40, 120, 200])
THREE = Classification(("0", "1", "2"))
GAN = {
    "channels": 8,
    "latent": 8,
    "label_dim": 8,
    "steps": 8,
    "batch_size": 8,
    "ema_start": 2,
    "scalar": {"label_input": {"steps": 4}},
}
RATIO = {"hidden": (32,), "steps": 20, "batch_size": 32, "fakes_per_image": 2}
SYNTHESIS = {"filter": {"calibration": 30}, "subsampling": {"burn_in": 20}, "batch_size": 50}
ALL_KEPT = {"filter": False, "subsampling": "none", "batch_size": 50}
NOT_SUBSAMPLED = SYNTHESIS | {"subsampling": "none"}


def grey(values: Tensor, seed: int) -> Tensor:
    """uint8 [N, 1, 16, 16]: each image of one grey value, with noise."""
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(values), 1, 16, 16, generator=rng) * 6
    return (values[:, None, None, None].float() + noise).clamp(0, 255).to(torch.uint8)


class Brightness(nn.Module):
    """Knows by construction: the class of the nearest grey level, or the grey value itself (``scale`` times it)."""

    def __init__(self, classes: bool, scale: float = 1.0) -> None:
        super().__init__()
        self.classes, self.scale = classes, scale
        self.last = nn.Linear(1, 3 if classes else 1)
        with torch.no_grad():
            if classes:  # -(x - m)^2 = 2 m x - m^2 + const, sharpened
                m = LEVELS / 255
                self.last.weight.copy_(2 * m[:, None] * 100)
                self.last.bias.copy_(-(m**2) * 100)
            else:
                self.last.weight.fill_(scale)
                self.last.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        return self.last(images.mean(dim=(1, 2, 3))[:, None])


def student(outputs: int) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, outputs))  # fmt: skip


def classes(count: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % 3
    return grey(LEVELS[labels], seed), labels


def scalars(count: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Grey from 40 to 200; the label is the grey value in hundreds below zero: -0.4 to -2."""
    values = torch.linspace(40, 200, count)
    return grey(values, seed), -values / 100


def real_generator(targets: Tensor, indices: Tensor, seed: int) -> Tensor:
    """As good as real: an image at the label, a pure function of label and index."""
    value = LEVELS[targets] if not targets.is_floating_point() else 200 - 160 * targets
    texture = ((torch.arange(256).view(1, 16, 16) * (indices.view(-1, 1, 1) + 3 + seed % 7)) % 13) - 6
    return (value.view(-1, 1, 1, 1) + texture[:, None]).clamp(0, 255).to(torch.uint8)


# --- the whole road -----------------------------------------------------------------------------------------------


def test_classes_with_a_plain_teacher_and_student(fabric: Fabric) -> None:
    images, labels = classes()
    road = Distiller(images.numpy(), labels.numpy(), Brightness(classes=True), fabric=fabric)
    assert road.task == Classification(("0", "1", "2"))
    assert road.score(road.teacher, *classes(30, seed=5)) == 100.0
    road.train_generator(**GAN)
    road.train_density_ratio(**RATIO)
    fakes = road.synthesize(images=45, **SYNTHESIS)
    assert fakes.images.dtype == torch.uint8
    assert fakes.images.shape == (road.synthesis.summary["kept"], 1, 16, 16)
    assert Counter(fakes.labels.tolist()).keys() <= {0, 1, 2}
    assert road.synthesis.summary["requested"] == 45
    made = road.distill(student(3), steps=60, batch_size=32, real_share=0.5, learning_rate=0.2)
    assert road.score(made, *classes(30, seed=5)) > 60  # 33 is chance


def test_unlabelled_images_teach_with_the_teachers_answers(fabric: Fabric) -> None:
    """The labelled images show one class alone: what the student knows of the others, it has from the unlabelled."""
    images, labels = classes()
    road = Distiller(images[labels == 0][:8], labels[labels == 0][:8], Brightness(classes=True), THREE, fabric=fabric)
    further, _ = classes(90, seed=3)
    made = road.distill(student(3), steps=60, batch_size=32, learning_rate=0.2, generated=False, unlabelled=further)
    assert road.score(made, *classes(30, seed=5)) > 60  # 33 is chance, and what the labelled images teach
    with pytest.raises(
        UserError, match=r"unlabelled images are torch.uint8 \[90, 1, 16, 15\]; needed: .*\[8, 1, 16, 16"
    ):
        road.distill(student(3), steps=2, generated=False, unlabelled=further[..., :15])


def test_a_method_that_reads_no_label_asks_the_teacher_for_none(
    fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    def labelled(*_: Any, **__: Any) -> None:
        raise AssertionError("the teacher was asked for labels")

    monkeypatch.setattr(stages, "pseudo_label", labelled)
    road = Distiller(*classes(), Brightness(classes=True), THREE, fabric=fabric)
    road.distill(student(3), "fm", steps=2, batch_size=8, generated=False, unlabelled=classes(90, seed=3)[0])


@pytest.mark.parametrize(
    ("row", "needed"),
    [
        ("pseudo+fm", "'fm' with generated=False and unlabelled=IMAGES"),
        ("cgan+pseudo", "'supervised' with generated=True and unlabelled=IMAGES"),
        ("cgan_kd", "'kd' with generated=True"),
        ("nokd_longer", "'supervised' with generated=False"),
        ("augment", "'supervised' with generated=False and augment={'randaugment': {}, 'cutmix': 1.0, 'views': 0}"),
        ("fm~mixup", "'fm' with generated=False and augment={'mixup': 1.0, 'views': 0}"),
    ],
)
def test_the_name_of_a_row_is_no_method(fabric: Fabric, row: str, needed: str) -> None:
    road = Distiller(*classes(), Brightness(classes=True), THREE, fabric=fabric)
    sentence = f"method '{row}' is the name of a row; needed here: {needed}"
    with pytest.raises(UserError, match=f"^{re.escape(sentence)}$"):
        road.distill(student(3), row, steps=2)


def test_a_scalar_of_any_range_and_sign(fabric: Fabric) -> None:
    images, labels = scalars()
    task = Regression(-2.0, -0.4, "hundreds")
    # In [0, 1] by the task's range: grey 200 is label -2 is target 0.
    teacher = LabelUnit(Brightness(classes=False, scale=-2.55), task)
    road = Distiller(images, labels, teacher, task, fabric=fabric)
    assert road.score(teacher, *scalars(40, seed=5)) < 0.01
    road.train_generator(**GAN)
    road.train_density_ratio(**RATIO)
    fakes = road.synthesize(images=40, labels={"count": 10}, **SYNTHESIS)
    assert fakes.labels.dtype == torch.float32
    assert torch.equal(fakes.labels, fakes.columns["prediction"])  # scalars are replaced by the teacher's word
    assert float(fakes.labels.min()) >= -2
    assert float(fakes.labels.max()) <= -0.4 + 1e-6
    made = road.distill(student(1), method="kd", steps=80, batch_size=32, real_share=0.5)
    score = road.score(made, *scalars(40, seed=5))
    assert score < 0.3  # the middle of the range is wrong by 0.4 on average


def test_stages_run_when_they_are_needed(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = classes()
    road = Distiller(images, labels, Brightness(classes=True), fabric=fabric)
    ran = []
    for name, small in {"train_generator": GAN, "train_density_ratio": RATIO, "synthesize": SYNTHESIS}.items():
        original = getattr(road, name)

        def step(*words: Any, _name: str = name, _run: Any = original, _small: Any = small, **more: Any) -> Any:
            ran.append(_name)
            return _run(*words, **(_small | ({"images": 12} if _name == "synthesize" else {})), **more)

        monkeypatch.setattr(road, name, step)
    road.distill(student(3), steps=2, batch_size=8)
    assert sorted(ran) == ["synthesize", "train_density_ratio", "train_generator"]
    ran.clear()
    road.distill(student(3), steps=2, batch_size=8)
    assert ran == []


def test_the_same_seed_makes_the_same_images(fabric: Fabric) -> None:
    images, labels = classes()

    def fakes(seed: int) -> Tensor:
        torch.manual_seed(seed + int(torch.randint(1000, (1,))))  # whatever the user's program did before
        road = Distiller(images, labels, Brightness(classes=True), seed=seed, fabric=fabric)
        road.use_generator(real_generator)
        road.train_density_ratio(**RATIO)
        return road.synthesize(images=30, **SYNTHESIS).columns["ratio"]

    torch.manual_seed(1)
    first = fakes(0)
    torch.manual_seed(2)
    assert torch.equal(fakes(0), first)
    assert not torch.equal(fakes(1), first)


# --- a teacher that is a black box --------------------------------------------------------------------------------


def test_a_black_box_with_somebody_elses_features(fabric: Fabric) -> None:
    images, labels = classes()
    inner, seen = Brightness(classes=True), Counter()

    def service(batch: Tensor) -> Tensor:
        seen["images"] += len(batch)
        assert float(batch.min()) >= 0
        assert float(batch.max()) <= 1
        with torch.no_grad():
            return inner(batch)

    road = Distiller(images, labels, service, features_of=student(3), fabric=fabric)
    road.use_generator(real_generator)
    road.train_density_ratio(**RATIO)
    fakes = road.synthesize(images=30, replace="hard", **SYNTHESIS)
    assert seen["images"] >= 30
    assert torch.equal(fakes.labels, inner(fakes.images.float() / 255).argmax(dim=1))
    before = seen["images"]
    made = road.distill(student(3), method="kd", steps=4, batch_size=16)
    assert seen["images"] > before
    assert not made.training


def test_a_black_box_without_features_is_refused_before_anything_is_trained(fabric: Fabric) -> None:
    images, labels = classes()
    with pytest.raises(UserError, match="features_of"):
        Distiller(images, labels, lambda batch: batch.flatten(1)[:, :3], fabric=fabric)


class Unhashable(dict):  # a callable with __eq__ and without __hash__, as many a client object is
    def __call__(self, batch: Tensor) -> Tensor:
        return Brightness(classes=True)(batch).detach()


def test_a_black_box_may_be_any_callable(fabric: Fabric) -> None:
    images, labels = classes()
    road = Distiller(images, labels, Unhashable(), features_of=student(3), fabric=fabric)
    road.use_generator(real_generator)
    road.train_density_ratio(**RATIO)
    assert len(road.synthesize(images=12, **SYNTHESIS)) == 12


# --- any generator ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [classes, scalars])
def test_any_function_is_a_generator(fabric: Fabric, data: Callable[..., tuple[Tensor, Tensor]]) -> None:
    images, labels = data()
    teacher = Brightness(classes=data is classes)
    asked = []

    def generator(targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        asked.append(len(targets))
        assert targets.shape == indices.shape
        return real_generator(targets, indices, seed)

    road = Distiller(images, labels, teacher, fabric=fabric)
    road.use_generator(generator)
    fakes = road.synthesize(
        images=30, subsampling="none", filter=False, replace="none", labels={"count": 10}, batch_size=20
    )
    assert len(fakes) == 30
    assert sum(asked) >= 30
    assert max(asked) <= 20
    # its images are stored as they came, under the label they were asked at
    means = fakes.images.float().mean(dim=(1, 2, 3))
    expected = LEVELS[fakes.labels].float() if data is classes else -100 * fakes.labels
    assert torch.allclose(means, expected, atol=7.0)


def test_another_generator_needs_another_density_ratio(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = classes()
    road = Distiller(images, labels, Brightness(classes=True), fabric=fabric)
    road.use_generator(real_generator)
    road.train_density_ratio(**RATIO)
    trained = []

    def again(**_: Any) -> Any:
        trained.append(1)
        return Distiller.train_density_ratio(road, **RATIO)

    monkeypatch.setattr(road, "train_density_ratio", again)
    road.synthesize(images=12, **SYNTHESIS)
    assert not trained
    road.use_generator(lambda targets, indices, seed: real_generator(targets, indices + 1, seed))
    road.synthesize(images=12, **SYNTHESIS)
    assert trained  # the old one weighs another generator's images


# --- labels and arrays --------------------------------------------------------------------------------------------


class Constant(nn.Module):
    def __init__(self, *values: float, flat: bool = False) -> None:
        super().__init__()
        self.values, self.flat = torch.tensor(values), flat

    def forward(self, images: Tensor) -> Tensor:
        return self.values if self.flat else self.values[:, None]


@pytest.mark.parametrize("flat", [False, True])
def test_a_label_in_its_own_unit_becomes_the_tasks(flat: bool) -> None:
    unit = LabelUnit(Constant(-90.0, 0.0, 45.0, 180.0, flat=flat), Regression(-90.0, 90.0))
    found = unit(torch.zeros(4, 1, 16, 16))
    assert found.shape == (4, 1)
    assert found.flatten().tolist() == pytest.approx([0.0, 0.5, 0.75, 1.5])


@pytest.mark.parametrize(
    ("shape", "channels", "size"),
    [((5, 16, 18), 1, (16, 18)), ((5, 16, 18, 3), 3, (16, 18)), ((5, 16, 18, 1), 1, (16, 18)),
     ((5, 3, 16, 18), 3, (16, 18)), ((5, 1, 16, 18), 1, (16, 18))],
)  # fmt: skip
def test_arrays_of_any_order(shape: tuple[int, ...], channels: int, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found, task = image_set(pixels, np.arange(5) % 2)
    assert (len(found), found.channels, found.size) == (5, channels, size)
    assert task == Classification(("0", "1"))
    where = (2, 3, 7, 0) if shape[-1] in (1, 3) else (2, 0, 3, 7) if len(shape) == 4 else (2, 3, 7)
    assert found.images[2, 0, 3, 7] == pixels[where]


def test_decimals_are_a_scalar_and_whole_numbers_are_classes() -> None:
    pixels = torch.zeros(3, 16, 16, dtype=torch.uint8)
    assert image_set(pixels, [0.0, -2.5, 3.0])[1] == Regression(-2.5, 3.0)
    assert image_set(pixels, [0, 2, 1])[1] == Classification(("0", "1", "2"))
    assert image_set(pixels, np.array([0, 2, 1], dtype=np.uint8))[0].labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (torch.zeros(3, 16, 16), [0, 1, 0], "uint8"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), [0, 1, 0], "16 or more"),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), [0, 1], "one per image"),
        ([np.zeros((16, side)) for side in (16, 17, 16)], [0, 1, 0], "images are a list of several shapes"),
        (
            torch.zeros(3, 16, 16, dtype=torch.uint8),
            np.ma.masked_equal([0, 7, 0], 7),
            "labels have 1 masked value; nee",
        ),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), [0.0, float("nan"), 1.0], "row 1"),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), [0, -1, 1], "label -1 at row 1"),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), [0, 0, 0], "at least two"),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), [1.5, 1.5, 1.5], "labels that are all equal can't be learnt"),
    ],
)
def test_arrays_that_cannot_be_used(fabric: Fabric, images: Tensor, labels: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Distiller(images, labels, Brightness(classes=True), fabric=fabric)


def test_arrays_of_any_strides_and_byte_order() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 17, 3)).astype(np.uint8)
    blue_first = np.ascontiguousarray(pixels[..., ::-1])
    found, _ = image_set(blue_first[..., ::-1], np.arange(5, dtype=">f4"))
    assert torch.equal(found.images, torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert found.labels.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        ((torch.zeros(2, 1, 16, 16, dtype=torch.uint8), [0, 7]), "labels of held_out: label 7 at row 1 is not a class"),
        ((torch.zeros(2, 1, 16, 20, dtype=torch.uint8), [0, 1]), r"held_out are \[1, 16, 20\] each; needed: \[1, 16"),
        (torch.zeros(3, 1, 16, 16, dtype=torch.uint8), "held_out is no pair"),
    ],
)
def test_held_out_images_are_looked_at_before_anything_is_trained(fabric: Fabric, held_out: Any, said: str) -> None:
    images, labels = classes()
    with pytest.raises(UserError, match=said):
        Distiller(images, labels, Brightness(classes=True), held_out=held_out, fabric=fabric)


@pytest.mark.parametrize(
    ("name", "value"), [("progress", True), ("task", "classification"), ("fabric", "cpu"), ("seed", "a"), ("seed", 1.5)]
)
def test_arguments_of_another_type_are_refused(fabric: Fabric, name: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"{name} is {value!r}; needed: "):
        Distiller(*classes(), Brightness(classes=True), **{"fabric": fabric, name: value})


def test_a_folder_that_is_a_file_is_named_as_the_argument(fabric: Fabric, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^out .*file is a file; a folder is needed"):
        Distiller(*classes(), Brightness(classes=True), fabric=fabric, out=tmp_path / "file")


@pytest.mark.parametrize(
    ("network", "images", "said"),
    [
        (None, (1, 16, 16), "the network is None; needed: a torch.nn.Module"),
        (nn.Flatten(), (1, 16, 16), r"the network: for images .* it gives \[2, 256\]; allowed: a tensor \[2, 3\]"),
        (Brightness(classes=True), (3, 16, 16), r"images are \[3, 16, 16\] each; needed: \[1, 16, 16\]"),
        (Brightness(classes=True), (1, 32, 32), r"images are \[1, 32, 32\] each; needed: \[1, 16, 16\]"),
    ],
)
def test_what_cannot_be_scored_is_refused(fabric: Fabric, network: Any, images: tuple[int, ...], said: str) -> None:
    road = Distiller(*classes(), Brightness(classes=True), fabric=fabric)
    with pytest.raises(UserError, match=said):
        road.score(network, torch.zeros(2, *images, dtype=torch.uint8), [0, 1])


def test_a_method_has_a_name(fabric: Fabric) -> None:
    road = Distiller(*classes(), Brightness(classes=True), fabric=fabric)
    with pytest.raises(UserError, match="method is None; needed: a name"):
        road.distill(student(3), method=None)


@pytest.mark.parametrize(
    ("generator", "said"),
    [
        (lambda targets: targets, r"TypeError: .* takes 1 positional argument but 3 were given"),
        (lambda targets, indices, seed: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_generator_that_fails_is_named_and_its_error_is_chained(fabric: Fabric, generator: Any, said: str) -> None:
    road = Distiller(*classes(), Brightness(classes=True), fabric=fabric)
    with pytest.raises(UserError, match=rf"generator <lambda>: drawing \d+ images failed \({said}\); a func") as error:
        road.use_generator(generator)
    assert isinstance(error.value.__cause__, TypeError | ZeroDivisionError)


def test_labels_far_from_zero_stay_exact_beside_one_far_away(fabric: Fabric) -> None:
    images, _ = scalars()
    times = 1.7e9 + torch.arange(60, dtype=torch.float64)
    road = Distiller(images, times, Brightness(classes=False), fabric=fabric, outputs="scaled", held_out=(
        images[:2], torch.tensor([0.0, 1.7e9 + 1], dtype=torch.float64)))  # fmt: skip
    assert road.unseen is not None
    assert road.unseen.labels.tolist() == [0.0, 1.7e9 + 1]
    always = lambda images: torch.full((len(images), 1), 30 / 59)  # noqa: E731
    mean = road.score(always, images[:2], torch.tensor([0.0, 1.7e9 + 31], dtype=torch.float64))
    assert mean == pytest.approx((1.7e9 + 30 + 1) / 2, abs=1e-3)


def test_a_callable_in_the_labels_unit_stays_exact_far_from_zero(fabric: Fabric) -> None:
    images = torch.arange(60, dtype=torch.uint8).view(-1, 1, 1, 1).expand(60, 1, 16, 16)
    times = 1.7e9 + torch.arange(60, dtype=torch.float64)

    def teacher(images: Tensor) -> Tensor:
        return 1.7e9 + (images[:, :, 0, 0].double() * 255).round()

    road = Distiller(images, times, teacher, features_of=Brightness(False), fabric=fabric, outputs="label_unit")
    assert road.score(road.teachers.members[0].open(fabric), images, times) < 1e-3


def test_arrays_that_change_later_change_nothing(fabric: Fabric) -> None:
    """Results are kept under what they held at first."""
    pixels, labels = np.zeros((6, 16, 16), np.uint8), np.arange(6) % 2
    kept, _ = image_set(pixels, labels)
    tensor, _ = image_set(torch.from_numpy(pixels), torch.from_numpy(labels))
    pixels += 9
    labels += 1
    for given in (kept, tensor):
        assert not given.images[:].any()
        assert given.labels.tolist() == [0, 1] * 3
    pixels.flags.writeable = False
    assert np.shares_memory(image_set(pixels, labels)[0].images[:].numpy(), pixels)  # it may be a file


def test_read_only_arrays_give_no_warning(fabric: Fabric, recwarn: pytest.WarningsRecorder) -> None:
    pixels, numbers = (np.array(part) for part in classes())
    for array in (pixels, numbers):
        array.flags.writeable = False
    torch.set_warn_always(True)  # else torch gives this warning once in a process
    try:
        image_set(pixels, numbers)
    finally:
        torch.set_warn_always(False)
    assert not [warning for warning in recwarn if "not writable" in str(warning.message)]


@pytest.mark.parametrize("share", [-0.5, 0, 1, 1.5])
def test_a_share_of_real_images_is_between_0_and_1(fabric: Fabric, share: float) -> None:
    road = Distiller(*classes(), Brightness(classes=True), fabric=fabric)
    with pytest.raises(UserError, match=r"distill: real_share = \S+ is not allowed; allowed: a number above 0"):
        road.distill(student(3), real_share=share)


def test_a_generator_may_be_a_path_and_must_be_one_of_the_allowed(fabric: Fabric, tmp_path: Path) -> None:
    road = Distiller(*classes(), Brightness(classes=True), fabric=fabric)
    with pytest.raises(UserError, match=r"generator.source '.*nowhere' is not there"):
        road.use_generator(tmp_path / "nowhere")
    with pytest.raises(UserError, match="the generator is None; needed: a function"):
        road.use_generator(None)


def test_labels_outside_the_given_task_are_named(fabric: Fabric) -> None:
    images, labels = scalars()
    with pytest.raises(UserError, match="outside the allowed range -1 to 0"):
        Distiller(images, labels, Brightness(classes=False), Regression(-1.0, 0.0), fabric=fabric)


def test_scores_on_images_of_one_label(fabric: Fabric) -> None:
    images, labels = classes()
    road = Distiller(images, labels, Brightness(classes=True), fabric=fabric)
    only = labels == 0
    assert road.score(road.teacher, images[only], labels[only]) == 100.0
    images, labels = scalars()
    task = Regression(-2.0, -0.4)
    road = Distiller(images, labels, LabelUnit(Brightness(classes=False, scale=-2.55), task), task, fabric=fabric)
    assert road.score(road.teacher, images[:1], labels[:1]) < 0.05


def test_a_score_needs_labels_of_the_task(fabric: Fabric) -> None:
    images, labels = classes()
    road = Distiller(images, labels, Brightness(classes=True), fabric=fabric)
    with pytest.raises(UserError, match="label 3 at row 2"):
        road.score(road.teacher, images[:3], [0, 1, 3])


def test_a_setting_that_is_not_known_is_named(fabric: Fabric) -> None:
    images, labels = classes()
    road = Distiller(images, labels, Brightness(classes=True), fabric=fabric)
    road.use_generator(real_generator)
    for call in (road.train_generator, road.train_density_ratio, road.synthesize):
        with pytest.raises(UserError, match=r"key 'stepz' is not known.*allowed here"):
            call(stepz=3)  # type: ignore[operator]
    road.synthesize(images=12, subsampling="none", filter=False)
    with pytest.raises(UserError, match="methodd"):
        road.distill(student(3), method="methodd", steps=1)


def test_a_ratio_that_fails_its_checks_is_not_used(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "AUC", -1.0)
    images, labels = classes()
    for held_out in (None, classes(30, seed=7)):
        road = Distiller(images, labels, Brightness(classes=True), held_out=held_out, fabric=fabric)
        road.use_generator(real_generator)
        road.train_density_ratio(**RATIO)
        road.synthesize(images=12, **SYNTHESIS)
        assert (road.ratio_check is None) == (held_out is None)
        assert road.synthesis.summary["subsampling"] == ("maximum" if held_out is None else "none")
        assert len(road.fell_back) == (0 if held_out is None else 1)


def test_the_jury_votes(fabric: Fabric) -> None:
    images, labels = classes()
    teacher = Brightness(classes=True)
    road = Distiller(images, labels, teacher, jury=[teacher, teacher], fabric=fabric)
    road.use_generator(real_generator)
    fakes = road.synthesize(images=12, **NOT_SUBSAMPLED, replace="soft")
    assert road.synthesis.summary["teachers"] == 3
    assert torch.equal(fakes.columns["target"], fakes.columns["probabilities"])
    made = road.distill(student(3), steps=4, batch_size=16)
    assert isinstance(made, nn.Module)


def jury_road(fabric: Fabric, votes: str) -> Distiller:
    images, labels = classes()
    jury = [Brightness(classes=True), student(3)]
    road = Distiller(images, labels, jury[0], jury=jury[1:], votes=votes, fabric=fabric)
    road.use_generator(real_generator)
    return road


def test_a_student_learns_by_the_numbers_and_the_votes_it_is_given(fabric: Fabric) -> None:
    torch.manual_seed(1)
    roads = {votes: jury_road(fabric, votes) for votes in ("first", "mean", "confidence")}
    for road in roads.values():
        road.synthesize(images=12, **ALL_KEPT)

    def weights(votes: str = "first", **settings: Any) -> Tensor:
        torch.manual_seed(0)
        made = roads[votes].distill(student(3), method="kd+dkd", steps=3, batch_size=16, **settings)
        return weights_of(made)

    usual = weights()
    assert torch.equal(weights(temperature=4.0, method_settings={}), usual)
    for other in (
        {"temperature": 2.0}, {"label_weight": 0.5}, {"teacher_weight": 0.2}, {"votes": "mean"},
        {"votes": "confidence"}, {"method_settings": {"dkd": {"beta": 0.5}}},
    ):  # fmt: skip
        assert not torch.allclose(weights(**other), usual), other
    with pytest.raises(UserError, match=r"student.method_settings.dkd: 'gamma' is not known"):
        weights(method_settings={"dkd": {"gamma": 1.0}})
    with pytest.raises(UserError, match=r"distill: method_settings\.gamma = 1.0 is not allowed; allowed: numbers by"):
        weights(method_settings={"gamma": 1.0})
    with pytest.raises(UserError, match="votes = 'best' is not known; allowed: first, mean, confidence"):
        jury_road(fabric, "best")


def test_votes_by_confidence_count_in_the_labels_of_generated_images(fabric: Fabric) -> None:
    found = {}
    for votes in ("first", "mean", "confidence"):
        torch.manual_seed(1)
        road = jury_road(fabric, votes)
        fakes = road.synthesize(images=12, **ALL_KEPT, replace="soft")
        found[votes] = fakes.columns["probabilities"]
    assert torch.equal(found["first"], found["mean"])  # all vote alike in labels
    assert not torch.allclose(found["first"], found["confidence"])


def test_a_plain_callable_teaches_what_needs_outputs_alone(fabric: Fabric) -> None:
    images, labels = classes()
    teacher = Brightness(classes=True)
    made = []
    for asked in (teacher, lambda x: teacher(x)):
        road = Distiller(images, labels, asked, features_of=student(3), fabric=fabric)
        road.use_generator(real_generator)
        road.synthesize(images=12, **NOT_SUBSAMPLED)
        torch.manual_seed(0)
        taught = road.distill(student(3), method="kd", steps=3, batch_size=16)
        made.append(weights_of(taught))
    assert torch.equal(*made)
    with pytest.raises(UserError, match="'fitnet' looks inside the teacher, but this one is a plain callable"):
        road.distill(student(3), method="fitnet", steps=3, batch_size=16)


def test_a_callable_with_other_code_or_other_outputs_is_another_teacher(fabric: Fabric) -> None:
    images, labels = classes()
    inner = Brightness(classes=True)

    def asked(extra: float) -> Any:
        def by_heart(batch: Tensor) -> Tensor:  # the labelled images are known, others are not
            pixels = (batch * 255).round().to(torch.uint8)
            known = torch.stack([(images == image).flatten(1).all(1).any() for image in pixels])
            return inner(batch).detach() + torch.where(known, 0.0, extra)[:, None] * torch.tensor([1.0, 0.0, 0.0])

        return by_heart

    first, again, other = asked(1.0), asked(1.0), asked(2.0)
    keys = [
        Distiller(images, labels, teacher, features_of=student(3), fabric=fabric).extractor.teacher.content_key
        for teacher in (first, again, other, lambda batch: first(batch), lambda batch: first(batch))
    ]
    assert keys[0] == keys[1]
    assert len(set(keys[1:])) == 3  # both lambdas have the same lines


def test_what_the_teachers_cannot_give_shows_at_once(fabric: Fabric) -> None:
    images, labels = scalars()
    with pytest.raises(UserError, match=r"the teacher: for images \[16, 1, 16, 16\] it gives \[16\]"):
        Distiller(images, labels, lambda x: x.mean(dim=(1, 2, 3)), features_of=student(1), fabric=fabric)
    road = Distiller(images, labels, Brightness(classes=False), fabric=fabric)
    with pytest.raises(UserError, match="features = autoencoder is possible in a recipe only"):
        road.train_density_ratio(features="autoencoder")
    with pytest.raises(UserError, match="soft needs classes"):
        road.synthesize(images=4, replace="soft")
    assert road._generator is None  # nothing was trained for it


def test_a_teacher_of_another_width_is_refused_at_once() -> None:
    images, labels = np.zeros((8, 16, 16), dtype=np.uint8), np.arange(8) % 4
    with pytest.raises(UserError, match=r"the teacher: .* it gives \[8, 3\]; allowed: a tensor \[8, 4\]"):
        Distiller(images, labels, nn.Sequential(nn.Flatten(), nn.Linear(256, 3)))


# --- outputs of another kind, and modules that are unusual --------------------------------------------------------


class Probable(nn.Module):
    """The same network, and a softmax."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).softmax(1)


def taught_by(fabric: Fabric, teacher: Any, method: str = "kd", **settings: Any) -> Tensor:
    images, labels = classes()
    road = Distiller(images, labels, teacher, features_of=student(3), fabric=fabric, **settings)
    road.use_generator(real_generator)
    road.synthesize(images=12, **NOT_SUBSAMPLED)
    torch.manual_seed(0)
    return weights_of(road.distill(student(3), method=method, steps=3, batch_size=16))


def test_probabilities_of_a_module_and_of_a_callable_become_logits(
    fabric: Fabric, recwarn: pytest.WarningsRecorder
) -> None:
    teacher = Brightness(classes=True)
    usual, own = taught_by(fabric, teacher), Probable(teacher)
    taught_by(fabric, own, outputs="probabilities")
    assert not [one for one in recwarn if "probabilities" in str(one.message)]
    for asked in (own, lambda x: own(x)):
        with pytest.warns(UserWarning, match="the teacher: its outputs for training images are probabilities") as seen:
            taught = taught_by(fabric, asked)
        assert seen[0].filename == __file__
        torch.testing.assert_close(taught, usual, atol=2e-4, rtol=0)  # Adam makes much of small differences
        assert float((taught_by(fabric, asked, outputs="logits") - usual).abs().max()) > 2e-3
    assert torch.equal(own(torch.ones(1, 1, 16, 16)).sum(1), torch.ones(1))  # the user's module is as it was


def test_a_callable_whose_answers_depend_on_the_batch_is_noted(fabric: Fabric) -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(256, 3))
    with pytest.warns(UserWarning, match="the teacher: its outputs for the same images differ from batch") as seen:
        taught_by(fabric, lambda images: network(images))
    assert seen[0].filename == __file__


def test_methods_look_inside_a_teacher_of_probabilities(fabric: Fabric) -> None:
    torch.manual_seed(2)
    teacher = student(3)
    usual = taught_by(fabric, teacher, method="kd+pkt", outputs="logits")
    taught = taught_by(fabric, Probable(teacher), method="kd+pkt", outputs="probabilities")
    torch.testing.assert_close(taught, usual, atol=1e-5, rtol=1e-5)


def test_a_scalar_teacher_in_the_labels_own_unit(fabric: Fabric) -> None:
    images, labels = scalars()  # the label is minus the grey value in hundreds
    own = Brightness(classes=False, scale=-2.55)
    far = Brightness(classes=False, scale=-255.0)
    with pytest.raises(UserError, match=r"the teacher: .* miss the labels, mapped to \[0, 1\].* outputs=label_unit"):
        Distiller(images, labels, far, fabric=fabric)
    road = Distiller(images, labels, own, outputs="label_unit", fabric=fabric)
    opened = road.teachers.open(road._task, fabric)
    assert opened is not None
    answers = opened(images[[0, 30, 59]].float() / 255)
    torch.testing.assert_close(answers.squeeze(1), (labels[[0, 30, 59]] + 2.0) / 1.6, atol=0.02, rtol=0)


class Tuple(nn.Module):
    """Gives its outputs and further ones in training, as networks with a second head do."""

    def __init__(self) -> None:
        super().__init__()
        self.network = student(3)

    def forward(self, images: Tensor) -> Any:
        outputs = self.network(images)
        return (outputs, outputs) if self.training else outputs


def frozen() -> nn.Module:
    network = student(3)
    network.requires_grad_(False)
    return network


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Tuple(), r"the student: for images \[2, 1, 16, 16\] it gives tuple in training mode; allowed: one tensor"),
        (student(3).half(), r"the student: it fails on images .* its weights are float16, but images are float32"),
        (student(3).double(), r"the student: it fails on images .* its weights are float64, but images are float32"),
        (frozen(), r"the student: it has no trainable parameter \(requires_grad is False for all\)"),
        (student(4), r"the student: .* it gives \[16, 4\]; allowed: a tensor \[16, 3\]"),
        (Probable(student(3)), r"the student: it gives probabilities, but its loss takes logits; needed:"),
        (lambda images: images, r"the student is <function .*>; needed: a torch.nn.Module"),
    ],
)
def test_a_student_is_tried_before_anything_is_made(fabric: Fabric, network: Any, said: str) -> None:
    images, labels = classes()
    road = Distiller(images, labels, Brightness(classes=True), fabric=fabric)
    with pytest.raises(UserError, match=said) as refused:
        road.distill(network, method="kd", steps=1)
    assert "\n" not in str(refused.value)
    assert (road._generator, road.synthesis) == (None, None)


@pytest.mark.parametrize(
    ("teacher", "more", "said"),
    [
        (Brightness(classes=True).half(), {}, r"the teacher: it fails on images .* its weights are float16, but"),
        ("teacher.pt", {}, r"the teacher is 'teacher.pt'; needed: a torch.nn.Module, or a function of images"),
        (Brightness, {}, r"the teacher is <class .*>; needed: a torch.nn.Module, or a function of images"),
        (Brightness(classes=True), {"jury": [student(4)]}, r"juror 1: .* it gives \[16, 4\]; allowed: a tensor"),
        (lambda x: 1 / 0, {}, r"the teacher: the call with 16 images failed \(ZeroDivisionError: division by zero\)"),
        (lambda x: (x.mean((1, 2, 3)),), {}, r"the teacher: for images .* it gives tuple; allowed: one tensor \[16, 3"),
        (Brightness(classes=True), {"features_of": "resnet8"}, r"features_of is 'resnet8'; needed: a torch.nn.Module"),
        (Brightness(classes=True), {"features_of": student(3).half()}, r"features_of: it fails on images .* float16"),
        (Brightness(classes=True), {"outputs": "scaled"}, r"outputs = scaled is not allowed for classification; al"),
        (Brightness(classes=True), {"outputs": "probabilities"}, r"the teacher: its outputs .* are no probabilities"),
    ],
)
def test_teachers_are_tried_at_once(fabric: Fabric, teacher: Any, more: Any, said: str) -> None:
    images, labels = classes()
    with pytest.raises(UserError, match=said) as refused:
        Distiller(images, labels, teacher, fabric=fabric, **more)
    assert "\n" not in str(refused.value)


def test_a_teacher_may_be_frozen(fabric: Fabric) -> None:
    teacher = Brightness(classes=True).requires_grad_(False)
    assert torch.equal(taught_by(fabric, teacher), taught_by(fabric, Brightness(classes=True)))


# --- a folder where results are kept -------------------------------------------------------------------------------


def weights_of(network: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


def test_answers_of_another_teacher_in_one_folder_are_asked_for_anew(tmp_path: Path, fabric: Fabric) -> None:
    images, labels = classes()

    def taught(teacher: Callable[[Tensor], Tensor], folder: Path | None) -> Tensor:
        road = Distiller(images, labels, teacher, fabric=fabric, features_of=Brightness(True), out=folder)
        road.use_generator(real_generator)
        road.synthesize(images=30, **ALL_KEPT)
        return weights_of(road.distill(student(3), method="kd", steps=20, batch_size=8, augment={"views": 1}))

    module, moved = Brightness(True), Brightness(True)
    with torch.no_grad():
        moved.last.bias += torch.tensor([0.0, 3.0, 0.0])
    plain = lambda pixels: module(pixels) * 0.5  # noqa: E731
    found = []
    for teacher in (module, moved, plain, module):
        found.append(taught(teacher, tmp_path))
        assert torch.equal(found[-1], taught(teacher, None))
    assert len({tuple(weights.tolist()) for weights in found}) == 3
    assert len(list((tmp_path / "cache").glob("*/teacher_outputs-*"))) == 3


def test_the_same_calls_in_one_folder_go_on(tmp_path: Path, fabric: Fabric, capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = classes()
    inner, asked, drawn = Brightness(classes=True), Counter(), Counter()

    def service(batch: Tensor) -> Tensor:
        asked["images"] += len(batch)
        return inner(batch).detach()

    def generator(targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        drawn["images"] += len(targets)
        return real_generator(targets, indices, seed)

    def walk(steps: int) -> Tensor:
        asked.clear()
        drawn.clear()
        road = Distiller(
            images, labels, service, features_of=student(3), fabric=fabric, out=tmp_path / "out",
            progress=show_progress(0.0),
        )  # fmt: skip
        road.use_generator(generator)
        road.train_density_ratio(**RATIO)
        assert len(road.synthesize(images=30, **SYNTHESIS)) == road.synthesis.summary["kept"]
        assert road.synthesis.folder.is_relative_to(tmp_path / "out" / "artifacts")
        return weights_of(road.distill(student(3), method="kd", steps=steps, batch_size=16))

    first, asked_first, drawn_first = walk(4), asked["images"], drawn["images"]
    assert "] synthesis: calibration" in capsys.readouterr().out
    assert torch.equal(walk(4), first)
    named = asked["images"]  # those that tell the teacher from others, and two when it is opened
    assert named < 50
    assert drawn["images"] < 30
    assert min(asked_first, drawn_first) > 200
    assert not torch.equal(walk(8), first)
    assert asked["images"] - named == 60 + 30  # about the second view of each image, not again about the first
    assert drawn["images"] < 30


def test_torchs_random_state_stays_as_it_was_and_so_a_rerun_has_the_same_student(
    tmp_path: Path, fabric: Fabric
) -> None:
    def walk() -> bool:
        teacher, first = Brightness(classes=True), torch.random.get_rng_state()
        road = Distiller(*classes(), teacher, fabric=fabric, out=tmp_path)
        road.train_generator(**GAN)
        road.train_density_ratio(**RATIO)
        road.synthesize(images=3, **SYNTHESIS)
        road.generate(per_label=1)
        return torch.equal(first, torch.random.get_rng_state())

    assert walk()
    assert walk()  # now all is there


ELSEWHERE = """
import sys
from pathlib import Path
from cgankd.core.errors import UserError
from cgankd.core.runtime import make_fabric
from cgankd.core.store import Store
try: Store(Path(sys.argv[1]), make_fabric("cpu", "fp32"), command="Distiller")
except UserError as error: print(error)
"""


@pytest.mark.long
def test_a_folder_is_one_programs_at_a_time(tmp_path: Path, fabric: Fabric) -> None:
    images, labels = classes()
    road = Distiller(images, labels, Brightness(classes=True), fabric=fabric, out=tmp_path)
    # The same program may make it again, as a cell of a notebook that is run again does.
    road = Distiller(images, labels, Brightness(classes=True), fabric=fabric, out=str(tmp_path))
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path)]
    assert "is in use" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    del road
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


def test_a_temporary_folder_goes_with_the_road(fabric: Fabric) -> None:
    images, labels = classes()
    road = Distiller(images, labels, Brightness(classes=True), fabric=fabric)
    road.use_generator(real_generator)
    fakes = road.synthesize(images=12, **ALL_KEPT)
    folder = road.synthesis.folder
    assert folder.is_dir()
    del road
    assert not folder.exists()
    assert fakes.images.float().std() > 0  # still mapped


def test_what_rests_on_another_stage_is_made_anew(fabric: Fabric) -> None:
    images, labels = classes()
    road = Distiller(images, labels, Brightness(classes=True), held_out=classes(30, seed=7), fabric=fabric)
    road.use_generator(real_generator)
    road.train_density_ratio(**RATIO)
    road.synthesize(images=12, **SYNTHESIS)
    assert road.synthesis is not None
    first = road.ratio_check
    assert first is not None
    road.train_density_ratio(**RATIO | {"steps": 30})
    assert road.synthesis is None
    assert road.ratio_check not in (None, first)
    for another in (
        lambda: road.use_generator(lambda *given: real_generator(*given)),
        lambda: road.train_generator(**GAN),
    ):
        road.synthesize(images=12, **NOT_SUBSAMPLED)
        road.train_density_ratio(**RATIO)
        another()
        assert road.synthesis is None
        assert road.ratio_check is None


def test_the_students_own_weights_are_where_training_starts_and_ends(fabric: Fabric) -> None:
    images, labels = classes()
    road = Distiller(images, labels, Brightness(classes=True), fabric=fabric)
    road.use_generator(real_generator)
    road.synthesize(images=12, **ALL_KEPT)
    given, other = student(3), student(3)
    with torch.no_grad():
        other[0].weight.mul_(2.0)  # type: ignore[index]
    before = weights_of(given).clone()
    made = road.distill(given, steps=3, batch_size=16)
    assert made is given
    assert not torch.equal(weights_of(given), before)
    assert torch.equal(weights_of(road.distill(student(3), steps=3, batch_size=16)), weights_of(given))
    assert not torch.equal(weights_of(road.distill(other, steps=3, batch_size=16)), weights_of(given))


# --- the modes, threads and modules of the caller's program -------------------------------------------------------


class Acts(nn.Module):
    """Has its activation as an attribute, and repeats a layer. All of them begin with the same weights."""

    def __init__(self, act: Callable[[Tensor], Tensor] = torch.relu, repeats: int = 1, residual: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.act, self.repeats, self.residual = act, repeats, residual
        self.first, self.again, self.last = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)
        self.maps: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.maps = [self.first(images)]  # which torch's deepcopy refuses after a pass with gradients
        for _ in range(self.repeats):
            step = self.act(self.again(self.maps[-1]))
            self.maps.append(step + self.maps[-1] if self.residual else step)
        return self.last(self.maps[-1].mean(dim=(2, 3)))


def of_real(fabric: Fabric | OneDevice) -> Distiller:
    images, labels = classes(24)
    return Distiller(images, labels, Brightness(classes=True), fabric=fabric)


def taught(road: Distiller, network: nn.Module, **more: Any) -> dict[str, Tensor]:
    made = road.distill(network, generated=False, steps=2, batch_size=8, **more)
    return {name: value.clone() for name, value in made.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_frozen_layer_stays_although_the_same_student_was_trained_whole(fabric: Fabric) -> None:
    road = of_real(fabric)
    whole = taught(road, Acts())
    network = Acts()
    network.first.requires_grad_(False)
    before = network.first.weight.clone()
    part = taught(road, network)
    assert torch.equal(part["first.weight"], before)
    assert not torch.equal(whole["first.weight"], before)


@pytest.mark.parametrize(
    "more", [{"act": torch.tanh}, {"act": lambda maps: 2 * maps}, {"repeats": 2}, {"residual": True}]
)
def test_students_that_differ_in_an_attribute_alone_are_trained_apart(fabric: Fabric, more: dict[str, Any]) -> None:
    road = of_real(fabric)
    first = taught(road, Acts())
    assert same(first, taught(road, Acts()))
    assert len(road.store.used_names()) == 1  # the second was found
    assert not same(first, taught(road, Acts(**more)))


@pytest.mark.parametrize("more", [{"act": torch.tanh}, {"residual": True}])
def test_students_with_a_last_layer_of_zeros_that_differ_in_an_attribute_are_trained_apart(
    fabric: Fabric, more: dict[str, Any]
) -> None:
    road = of_real(fabric)
    networks = [Acts(), Acts(**more)]
    for network in networks:
        nn.init.zeros_(network.last.weight)
        nn.init.zeros_(network.last.bias)
        taught(road, network)
    assert len(road.store.used_names()) == 2


def old_weight_norm() -> nn.Module:
    made = student(3)
    torch.nn.utils.weight_norm(made[0])
    return made


def holds_itself() -> nn.Module:
    made = student(3)
    made.parts = [made[0]]
    made.parts.append(made.parts)
    return made


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("network", [Acts, old_weight_norm, holds_itself, lambda: torch.jit.script(student(3))])
def test_students_that_python_cannot_copy_are_trained(fabric: Fabric, network: Callable[[], nn.Module]) -> None:
    made = network()
    made(torch.rand(2, 1, 16, 16))
    before = {name: value.clone() for name, value in made.state_dict().items()}
    assert not same(before, taught(of_real(fabric), made))


@pytest.mark.parametrize(
    "mode",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: torch.device("meta"),
    ],
)
def test_modes_of_the_caller_change_nothing(fabric: Fabric, mode: Callable[[], Any]) -> None:
    networks = [student(3), student(3)]
    teacher, held_out = Brightness(classes=True), classes(30, seed=3)
    made = []
    for network, around in zip(networks, (contextlib.nullcontext, mode), strict=True):
        images, labels = classes(24)
        with around():
            road = Distiller(images, labels, teacher, held_out=held_out, fabric=fabric)
            road.train_generator(**GAN | {"steps": 2, "ema_start": 1})
            road.train_density_ratio(**RATIO | {"steps": 2})
            fakes = road.synthesize(images=6, **SYNTHESIS)
            drawn = road.generate([1], per_label=1).images
            road.distill(network, "kd", steps=2, batch_size=8)
            made.append((fakes.images[:], drawn, road.score(network, images, labels)))
    assert torch.equal(made[0][0], made[1][0])
    assert torch.equal(made[0][1], made[1][1])
    assert made[0][2] == made[1][2]
    assert same(networks[0].state_dict(), networks[1].state_dict())


def test_another_default_type_of_numbers_changes_nothing_and_stays(fabric: Fabric) -> None:
    made = []
    networks = [student(1), student(1)]
    task = Regression(-2.0, -0.4)
    teacher = LabelUnit(Brightness(classes=False, scale=-2.55), task)
    for network, dtype in zip(networks, (torch.float32, torch.float64), strict=True):
        images, labels = scalars(24)
        torch.set_default_dtype(dtype)
        try:
            road = Distiller(images, labels, teacher, task, fabric=fabric)
            road.train_generator(**GAN | {"steps": 2, "ema_start": 1})
            road.synthesize(images=10, labels={"count": 5}, **ALL_KEPT)
            road.distill(network, "kd", steps=2, batch_size=8)
            assert torch.get_default_dtype() == dtype
        finally:
            torch.set_default_dtype(torch.float32)
        made.append(network.state_dict())
    assert same(*made)


def test_a_score_leaves_every_layer_in_its_mode(fabric: Fabric) -> None:
    images, labels = classes(24)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                            nn.Linear(4, 3)).train()  # fmt: skip
    network[1].eval()
    of_real(fabric).score(network, images, labels)
    assert [layer.training for layer in network] == [True, False, True, True, True]


def test_threads_have_the_numbers_that_they_have_alone(fabric: Fabric) -> None:
    images, labels = classes(24)
    teacher = Brightness(classes=True)  # made before, because new layers draw their weights where dropout draws too

    def train(seed: int, network: nn.Module) -> None:
        road = Distiller(images, labels, teacher, fabric=fabric, seed=seed)
        road.distill(network, generated=False, steps=20, batch_size=8)

    def dropping() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(256, 3))

    alone, together = [dropping(), dropping()], [dropping(), dropping()]
    for seed, network in enumerate(alone):
        train(seed, network)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train, (0, 1), together))
    for one, other in zip(alone, together, strict=True):
        assert same(one.state_dict(), other.state_dict())


def test_labels_on_a_graph_are_labels(fabric: Fabric) -> None:
    images, labels = scalars(24)
    teacher = LabelUnit(Brightness(classes=False, scale=-2.55), Regression(-2.0, -0.4))
    keys = [Distiller(images, given, teacher, Regression(-2.0, -0.4), fabric=fabric).data.content_key
            for given in (labels, labels.clone().requires_grad_())]  # fmt: skip
    assert keys[0] == keys[1]


@pytest.mark.parametrize("load", [lambda data: data, lambda data: DataLoader(data, 8)])
def test_a_dataset_in_place_of_images_is_named(load: Callable[[Any], Any]) -> None:
    images, labels = classes(24)
    given = load(TensorDataset(images, labels))
    with pytest.raises(UserError, match=f"images are a {type(given).__name__}; needed: images as one array"):
        image_set(given, labels)


@pytest.mark.parametrize("enabled", [False, True])
def test_a_training_in_bfloat16_inside_autocast_computes_with_its_newest_weights(enabled: bool) -> None:
    networks = [student(3), student(3)]
    for network, around in zip(
        networks, (contextlib.nullcontext(), torch.autocast("cpu", enabled=enabled)), strict=True
    ):
        with around:
            taught(of_real(OneDevice(precision=BF16)), network, learning_rate=0.5)
    assert same(networks[0].state_dict(), networks[1].state_dict())


@pytest.mark.parametrize(("wrong", "row"), [(-1, 1), (2**62, 1), (1_700_000_000, 1)])
def test_whole_numbers_that_are_no_classes_are_named(wrong: int, row: int) -> None:
    with pytest.raises(
        UserError, match=rf"label {wrong} at row {row} is not a class; allowed: whole numbers, 0 to 99999"
    ):
        image_set(np.zeros((4, 16, 16), np.uint8), [0, wrong, 1, 0])


def test_classes_given_as_decimals_are_whole(fabric: Fabric) -> None:
    images, labels = classes(12)
    task = Classification(("low", "middle", "high"))
    road = Distiller(images, labels.double(), Brightness(classes=True), task, fabric=fabric)
    assert torch.equal(road.data.labels, labels)
    with pytest.raises(UserError, match=r"labels: found 0\.4 at row 0; needed: whole numbers, for classes"):
        road.score(Brightness(classes=True), images, torch.full((12,), 0.4))
