"""What the teacher's outputs are kept by: teacher, image and view; never the filter's pass over clean images."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from cgankd import distill
from cgankd.config.recipe import from_tree
from cgankd.config.settings import AugmentSettings, FitSettings
from cgankd.core.errors import OutOfTime
from cgankd.core.files import save_tensors
from cgankd.core.store import Artifact, Store, Work, stage
from cgankd.data import sources
from cgankd.data.batches import Batches
from cgankd.data.imageset import TARGET, ImageSet, TrainingImages
from cgankd.nets import zoo
from cgankd.nets.build import StoredNetwork
from cgankd.pipeline.inputs import Teachers
from cgankd.pipeline.run import Run
from cgankd.tasks import Classification
from cgankd.training.best import Kept
from cgankd.training.forward import BatchForward, TeacherPasses
from cgankd.training.loop import fit
from cgankd.training.teacher_cache import TeacherOutputs

CLASSES = Classification(("a", "b", "c"))
Noise = Callable[..., ImageSet]


def network(seed: int, classes: int = 3, channels: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return zoo.create("cnn8", channels, classes, (16, 16)).eval()


def batches(real: ImageSet, fake: ImageSet | None, fabric: Fabric, seed: int = 0, **augment: Any) -> Batches:
    """augment: what differs from three plain views."""
    images, settings = TrainingImages(real, fake, real_share=0.5), AugmentSettings(**{"views": 3, **augment})
    return Batches(images, CLASSES, 8, settings, seed, fabric.device)


def written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/teacher_outputs-*/*")}


def test_each_teacher_has_outputs_of_its_own(noise: Noise, fabric: Fabric) -> None:
    views = batches(noise(10), noise(15, seed=1), fabric)
    teachers = [network(1), network(2)]
    memories = [TeacherOutputs(teacher, views, 3, fabric) for teacher in teachers]
    batch = views.at(4)
    for teacher, memory in zip(teachers, memories, strict=True):
        with torch.no_grad():
            assert torch.allclose(memory.of(batch), teacher(batch.images), atol=1e-6)
    assert not torch.allclose(memories[0].of(batch), memories[1].of(batch), atol=1e-2)


def test_a_resumed_loop_is_served_the_same_bits(noise: Noise, fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TeacherOutputs, "BLOCK", 4)
    views = batches(noise(10), noise(15, seed=1), fabric)
    before = TeacherOutputs(network(1), views, 3, fabric)
    served = {step: before.of(views.at(step)) for step in range(20)}
    for start in (3, 8, 19):  # with another part of the views known, in another order
        after = TeacherOutputs(network(1), batches(noise(10), noise(15, seed=1), fabric), 3, fabric)
        for step in range(start, 20):
            assert torch.equal(after.of(views.at(step)), served[step])


class Counted:
    """A teacher that only answers, and counts the images that it was asked about."""

    def __init__(self, seed: int) -> None:
        self.network, self.asked = network(seed), 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.asked += len(images)
        with torch.no_grad():
            return self.network(images)


def test_another_fit_on_the_same_views_is_told_what_the_first_was(noise: Noise, fabric: Fabric, tmp_path: Path) -> None:
    real, fake = noise(10), noise(15, seed=1)
    first, second = Counted(1), Counted(1)
    views = batches(real, fake, fabric)
    memories = [TeacherOutputs(teacher, views, 3, fabric, tmp_path) for teacher in (first, second)]
    for step in range(20):
        batch = views.at(step)
        assert torch.equal(*(memory.of(batch) for memory in memories))
    assert (first.asked, second.asked) == (3 * (10 + 15), 0)

    alone = Batches(TrainingImages(real), CLASSES, 8, AugmentSettings(views=3), 0, fabric.device)
    TeacherOutputs(second, alone, 3, fabric, tmp_path).of(alone.at(0))
    assert second.asked == 0  # without generated images the real ones' views are the same


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda noise, fabric: batches(noise(10), noise(15, seed=1), fabric, seed=5), id="seed"),
        pytest.param(lambda noise, fabric: batches(noise(10), noise(15, seed=2), fabric), id="images"),
        pytest.param(lambda noise, fabric: batches(noise(10), noise(15, seed=1), fabric, shift=1), id="shift"),
        pytest.param(lambda noise, fabric: batches(noise(10), noise(15, seed=1), fabric, flip=True), id="flip"),
        pytest.param(lambda noise, fabric: batches(noise(10), noise(15, seed=1), fabric, randaugment=1), id="random"),
    ],
)  # fmt: skip
def test_other_views_are_asked_about_anew(
    noise: Noise, fabric: Fabric, tmp_path: Path, other: Callable[[Noise, Fabric], Batches]
) -> None:
    views = batches(noise(10), noise(15, seed=1), fabric)
    TeacherOutputs(network(1), views, 3, fabric, tmp_path).of(views.at(0))
    teacher, changed = Counted(1), other(noise, fabric)
    batch = changed.at(0)
    told = TeacherOutputs(teacher, changed, 3, fabric, tmp_path).of(batch)
    assert teacher.asked > 0
    assert torch.allclose(told, teacher(batch.images), atol=1e-6)


def test_real_images_are_known_however_they_are_mixed(noise: Noise, fabric: Fabric, tmp_path: Path) -> None:
    real, first, second = noise(10), Counted(1), Counted(1)
    alone = Batches(TrainingImages(real), CLASSES, 8, AugmentSettings(views=1), 0, fabric.device)
    TeacherOutputs(first, alone, 3, fabric, tmp_path).of(alone.at(0))
    shuffled = Batches(
        TrainingImages(real, noise(15, seed=1)), CLASSES, 25, AugmentSettings(views=1), 0, fabric.device
    )  # no share
    TeacherOutputs(second, shuffled, 3, fabric, tmp_path).of(shuffled.at(0))
    assert (first.asked, second.asked) == (10, 15)


def test_what_cannot_be_kept_is_asked_for(noise: Noise, fabric: Fabric, tmp_path: Path) -> None:
    views, teacher = batches(noise(10), noise(15, seed=1), fabric), Counted(1)
    batch = views.at(0)
    (tmp_path / "file").write_text("no folder")
    told = TeacherOutputs(teacher, views, 3, fabric, tmp_path / "file").of(batch)  # nothing can be written there
    assert torch.allclose(told, teacher(batch.images), atol=1e-6)


def test_after_the_deadline_no_further_block_is_asked_for(
    noise: Noise, fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TeacherOutputs, "BLOCK", 4)
    teacher, views = Counted(1), batches(noise(10), noise(15, seed=1), fabric)
    late = TeacherOutputs(teacher, views, 3, fabric, tmp_path, deadline=time.monotonic())
    with pytest.raises(OutOfTime):
        late.of(views.at(0))
    assert teacher.asked == 0


@stage()
def where_outputs_are_kept(work: Work, *, teachers: Teachers) -> dict[str, Any]:
    """As the stages that distil ask for it."""
    return {"folder": str(work.cache_for("teacher_outputs", teachers))}


def kept_at(store: Store, votes: str, *teachers: str) -> Path:
    """The folder of the outputs of teachers by their artifacts' keys."""
    members = tuple(StoredNetwork(Artifact(Path(), key, 0.0, {})) for key in teachers)
    return Path(store.call(where_outputs_are_kept, teachers=Teachers(members, votes)).summary["folder"])


def test_other_teachers_votes_and_environments_have_folders_of_their_own(tmp_path: Path) -> None:
    names, said_by = set(), [("first", "a"), ("first", "b"), ("mean", "a", "b"), ("confidence", "a", "b")]
    for precision in ("32-true", "bf16-mixed"):
        store = Store(tmp_path, Fabric(accelerator="cpu", devices=1, precision=precision))
        for votes, *teachers in said_by:
            names.add(kept_at(store, votes, *teachers))
            assert kept_at(store, votes, *teachers) in names
        store.close()
    assert len(names) == 2 * len(said_by)
    assert {name.parents[1] for name in names} == {tmp_path / "cache"}


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path, fabric: Fabric) -> None:
    store = Store(tmp_path, fabric)
    left = kept_at(store, "first", "a") / ".x.safetensors.1.tmp"
    store.close()
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    Store(tmp_path, fabric).close()
    assert not left.exists()


@pytest.mark.parametrize("same_size", [True, False])
def test_a_spoilt_file_is_asked_for_again(noise: Noise, fabric: Fabric, tmp_path: Path, same_size: bool) -> None:
    views = batches(noise(10), noise(15, seed=1), fabric)
    right = TeacherOutputs(network(1), views, 3, fabric, tmp_path).of(views.at(0))
    for path in tmp_path.glob("*.rows"):
        path.write_bytes(path.read_bytes()[4:] + b"1234" if same_size else b"cut")
    teacher = Counted(1)
    assert torch.equal(TeacherOutputs(teacher, views, 3, fabric, tmp_path).of(views.at(0)), right)
    assert teacher.asked > 0


def test_what_the_filter_was_told_of_clean_images_is_a_label_and_no_output(noise: Noise, fabric: Fabric) -> None:
    wrong = torch.tensor([[0.0, 0.0, 1.0]]).repeat(15, 1)
    plain = noise(15, seed=1)
    told = {"prediction": torch.full((15,), 2.0), "probabilities": wrong, TARGET: wrong}
    views = batches(noise(10), ImageSet(plain.images, plain.labels, told), fabric)
    teacher = network(1)
    forward = BatchForward(network(0), teacher, distill.create("kd", CLASSES), views, fabric, 0)
    far = 0.0
    for step in range(6):
        batch = views.at(step)
        seen = forward(batch, 0.0)
        assert seen.teacher_outputs is not None
        with torch.no_grad():
            assert torch.allclose(seen.teacher_outputs, teacher(batch.images), atol=1e-6)
            clean = teacher(views.views.clean(batch.index))
        assert torch.equal(seen.targets[batch.fake], wrong[: int(batch.fake.sum())])
        far = max(far, float((seen.teacher_outputs - clean).abs().max()))
    assert far > 0.01  # the clean images' outputs would have been noticed


def test_other_weights_of_the_teacher_make_another_distilled_student(tmp_path: Path, fabric: Fabric) -> None:
    settings = {
        "data": {"source": "digits", "train_size": 40},
        "teacher": {"network": "cnn8", "fit": {"steps": 2, "batch_size": 8}},
        "student": {
            "network": "cnn8", "fit": {"steps": 6, "batch_size": 8, "augment": {"views": 1}}, "transfer_steps": 6
        },
        "runtime": {"threads": 1, "precision": "fp32"},
    }  # fmt: skip
    keys: dict[str, set[str]] = {"teacher": set(), "kd": set(), "nokd": set()}
    for seed in (0, 1):
        save_tensors(tmp_path / f"{seed}.safetensors", network(seed, classes=10).state_dict())
        recipe = from_tree(json.loads(json.dumps(settings)), [f"teacher.start={tmp_path / f'{seed}.safetensors'}"])
        store = Store(tmp_path / "run", fabric)
        road = Run(recipe, sources.load(recipe.data), store)
        keys["teacher"].add(road.teacher(0).key)
        for row in ("kd", "nokd"):
            keys[row].add(road.student(row, 0).key)
        before = written(tmp_path / "run" / "cache")
        assert len({path.parent for path in before}) == seed + 1  # each teacher's outputs by themselves
        road.student("dkd", 0)
        assert written(tmp_path / "run" / "cache") == before
        store.close()
    assert {name: len(found) for name, found in keys.items()} == {"teacher": 2, "kd": 2, "nokd": 1}


@pytest.mark.parametrize(
    ("once", "asked"),
    [(set(), [15, 10]), ({1}, [10, 4]), ({0}, [15, 4]), ({0, 1}, [8])],
)  # fmt: skip
def test_only_views_that_recur_are_kept(noise: Noise, fabric: Fabric, once: set[int], asked: list[int]) -> None:
    views = batches(noise(10), noise(15, seed=1), fabric)
    teacher, seen = network(1), []
    forward = BatchForward(
        network(0), teacher, distill.create("kd", CLASSES), views, fabric, 0, TeacherPasses(once=frozenset(once))
    )
    batch = views.at(0)
    with torch.no_grad():
        expected = teacher(batch.images)
    teacher.register_forward_pre_hook(lambda layer, args: seen.append(len(args[0])))
    outputs = forward(batch, 0.0).teacher_outputs
    assert outputs is not None
    assert torch.allclose(outputs, expected, atol=1e-6)
    assert sorted(seen, reverse=True) == asked  # whole blocks of 10 and 15 images, or the 4 of this batch


@pytest.mark.parametrize("plain", [True, False])
def test_a_service_is_asked_once_about_a_view_by_all_trainings(
    noise: Noise, fabric: Fabric, tmp_path: Path, plain: bool
) -> None:
    """A network of our own is cheaper to ask again than to keep; whoever answers from elsewhere may charge for it."""
    teacher = Counted(1) if plain else network(1)
    fit(
        Work(fabric), network(0), distill.create("kd", CLASSES), TrainingImages(noise(16)),
        FitSettings(steps=2, batch_size=8, augment=AugmentSettings(views=3)), seed=0, teacher=teacher,
        kept=Kept(tmp_path),
    )  # fmt: skip
    assert bool(list(tmp_path.iterdir())) == plain


def test_about_mixed_images_that_recur_the_teacher_is_asked_once(noise: Noise, fabric: Fabric, tmp_path: Path) -> None:
    real, fake = noise(10), noise(15, seed=1)
    mixes = {"mixup": 1.0, "mixed_views": 3, "views": 64}
    views = batches(real, fake, fabric, **mixes)
    first, second, period = Counted(1), Counted(1), 3 * 25 // 8
    memories = [TeacherOutputs(teacher, views, 3, fabric, tmp_path) for teacher in (first, second)]
    for step in [4, *range(3 * period)]:
        batch = views.at(step)
        told = [memory.of(batch) for memory in memories]
        assert torch.equal(*told)
        assert torch.allclose(told[0], first.network(batch.images), atol=1e-6)
    assert (first.asked, second.asked) == (8 * period, 0)
    for changes in ({"seed": 5}, {"mixup": 0.5}, {"views": 2}):  # 2 views come again in a period
        other, before = batches(real, fake, fabric, **{**mixes, **changes}), second.asked
        TeacherOutputs(second, other, 3, fabric, tmp_path).of(other.at(0))
        assert second.asked == before + 8
    same = batches(real, fake, fabric, **{**mixes, "views": 0})  # the same images
    TeacherOutputs(second, same, 3, fabric, tmp_path).of(same.at(0))
    assert second.asked == before + 8


@pytest.mark.parametrize(("mixes", "asked"), [(2, 32), (3, 48), (0, 64)])
def test_function_matching_asks_as_often_as_there_are_mixed_views(
    noise: Noise, fabric: Fabric, mixes: int, asked: int
) -> None:
    teacher = Counted(1)
    augment = AugmentSettings(mixed_views=mixes, mixup=1.0)
    fit(
        Work(fabric), network(0), distill.create("fm", CLASSES), TrainingImages(noise(16)),
        FitSettings(steps=8, batch_size=8, augment=augment), seed=0, teacher=teacher,
    )  # fmt: skip
    assert teacher.asked == asked
