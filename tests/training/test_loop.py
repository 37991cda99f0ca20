"""The training loop: teacher outputs belong to their views, a killed loop goes on exactly, rates by hand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd import distill
from cgankd.config.settings import (
    AdversarialSettings,
    AugmentSettings,
    FitSettings,
    OneCycle,
    StepDecay,
    StudentSettings,
)
from cgankd.core.checkpoint import Checkpoint
from cgankd.core.errors import TrainingError, UserError
from cgankd.core.progress import Bar, Progress
from cgankd.core.store import Work
from cgankd.data.batches import Batches
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.nets import zoo
from cgankd.nets.inference import Predictor
from cgankd.tasks import Classification, Regression, Task
from cgankd.training.forward import BatchForward
from cgankd.training.loop import _optimizer, fit, learning_rate
from cgankd.training.teacher_cache import TeacherOutputs

CLASSES = Classification(("a", "b", "c"))
SCALAR = Regression(0.0, 1.0)
Noise = Callable[..., ImageSet]


def network(task: Task, seed: int = 0, method: str = "supervised") -> nn.Module:
    torch.manual_seed(seed)
    return zoo.create(distill.student_network(method, "cnn8"), 1, task.num_outputs, (16, 16))


def settings(steps: int = 8, views: int = 2, **more: Any) -> FitSettings:
    return FitSettings(steps=steps, batch_size=8, augment=AugmentSettings(views=views), **more)


class Killed(BaseException):
    pass


class KillAt(Progress):
    """Progress whose bar raises when the student's loop, or the one called ``title``, reports ``step``."""

    def __init__(self, step: int, title: str = "train") -> None:
        self.step, self.title = step, title

    @contextmanager
    def bar(self, title: str, total: float) -> Iterator[Bar]:
        killer, bar = self, Bar()

        def to(done: float, note: str = "") -> None:
            if title == killer.title and done == killer.step:
                raise Killed

        bar.to = to  # type: ignore[method-assign]
        yield bar


# --- what the teacher is asked ------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [None, 0.5])
@pytest.mark.parametrize(("views", "randaugment"), [(0, 0), (1, 0), (3, 0), (3, 2)])
def test_teacher_outputs_are_those_of_the_views_in_the_batch(
    noise: Noise, fabric: Fabric, share: float | None, views: int, randaugment: int
) -> None:
    real, fake = noise(10), noise(15, seed=1)
    augment = AugmentSettings(flip=True, views=views, randaugment=randaugment)
    batches = Batches(TrainingImages(real, fake, real_share=share), CLASSES, 8, augment, 0, fabric.device)
    teacher = network(CLASSES).eval()
    memory = TeacherOutputs(teacher, batches, 3, fabric)
    far = 0.0
    for step in range(30):  # several epochs of both
        batch = batches.at(step)
        with torch.no_grad():
            asked = teacher(batch.images)
            clean = teacher(batches.views.clean(batch.index))
        served = memory.of(batch)
        assert torch.allclose(served, asked, atol=1e-5)
        far = max(far, float((asked - clean).abs().max()))
    assert far > 0.05  # another view would have been seen


class Counting:
    """A teacher that is a plain callable, and counts the images it is shown."""

    def __init__(self) -> None:
        self.asked: Counter[bytes] = Counter()

    def __call__(self, images: Tensor) -> Tensor:
        self.asked.update(image.numpy().tobytes() for image in images)
        return images.flatten(1)[:, :3]


@pytest.mark.parametrize("share", [None, 0.5])
def test_teacher_is_asked_once_per_view_and_image(noise: Noise, fabric: Fabric, share: float | None) -> None:
    real, fake, views = noise(10), noise(15, seed=1), 2
    batches = Batches(
        TrainingImages(real, fake, real_share=share), CLASSES, 8, AugmentSettings(views=views), 0, fabric.device
    )
    every = Counter(
        batches.views.draw(torch.tensor([index]), torch.tensor([view]))[0].numpy().tobytes()
        for index in range(25)
        for view in range(views)
    )
    teacher = Counting()
    memory = TeacherOutputs(teacher, batches, 3, fabric)
    for step in range(60):
        memory.of(batches.at(step))
    assert teacher.asked == every


def test_teacher_is_asked_for_nothing_the_loop_does_not_reach(noise: Noise, fabric: Fabric) -> None:
    batches = Batches(TrainingImages(noise(8)), CLASSES, 8, AugmentSettings(views=16), 0, fabric.device)
    teacher = Counting()
    memory = TeacherOutputs(teacher, batches, 3, fabric)
    for step in range(3):
        memory.of(batches.at(step))
    assert teacher.asked.total() == 3 * 8


def test_supervised_training_asks_no_teacher(noise: Noise, fabric: Fabric) -> None:
    teacher = Counting()
    method = distill.create("supervised", CLASSES)
    fit(Work(fabric), network(CLASSES), method, TrainingImages(noise(16)), settings(2), seed=0, teacher=teacher)
    assert not teacher.asked


MIXED = AugmentSettings(randaugment=1, mixup=1.0, cutmix=1.0, views=3)


@pytest.mark.parametrize("method", ["fm", "kd", "dkd", "kd+sp"])
def test_the_teacher_is_asked_about_the_very_mix_that_the_student_sees(
    noise: Noise, fabric: Fabric, method: str
) -> None:
    teacher, student = network(CLASSES, seed=9).eval(), network(CLASSES)
    batches = Batches(TrainingImages(noise(16), noise(8, seed=1)), CLASSES, 8, MIXED, 0, fabric.device)
    forward = BatchForward(student, teacher, distill.create(method, CLASSES), batches, fabric, 0)
    for step in range(4):
        batch = batches.at(step)
        seen = forward(batch, 0.0)
        with torch.no_grad():
            assert torch.allclose(seen.teacher_outputs, teacher(batch.images), atol=1e-5)
        assert batch.targets.shape == (8, 3)  # mixed labels
    forward.close()


def mixed_loss(noise: Noise, fabric: Fabric, method: str, task: Task) -> float:
    images, chosen = (
        TrainingImages(noise(16, scalar=task.continuous)),
        settings(2).model_copy(update={"augment": MIXED}),
    )
    teacher = network(task, seed=9)
    return fit(Work(fabric), network(task), distill.create(method, task), images, chosen, seed=0, teacher=teacher)[-1][
        "loss"
    ]


def test_scalars_may_be_mixed_where_the_teacher_alone_is_learnt_from(noise: Noise, fabric: Fabric) -> None:
    assert math.isfinite(mixed_loss(noise, fabric, "fm", SCALAR))
    assert math.isfinite(mixed_loss(noise, fabric, "fm", CLASSES))
    for method in ("supervised", "kd", "cckd", "sp"):
        with pytest.raises(UserError, match=rf"a mix of two images has no label in regression, and method '{method}'"):
            mixed_loss(noise, fabric, method, SCALAR)


def test_no_label_is_read_by_function_matching_unless_asked(noise: Noise, fabric: Fabric) -> None:
    def trained(labels: int, **numbers: float) -> Tensor:
        real = noise(16)
        images = TrainingImages(ImageSet(real.images, (real.labels + labels) % 3))
        student, own = network(CLASSES), StudentSettings(method_settings={"fm": numbers})
        objective = distill.create("fm", CLASSES, own)
        fit(Work(fabric), student, objective, images, settings(4), seed=0, teacher=network(CLASSES, seed=9))
        return student.state_dict()["fc.weight"]

    assert torch.equal(trained(0), trained(1))
    assert not torch.equal(trained(0, label_weight=0.5), trained(1, label_weight=0.5))


# --- the loop -----------------------------------------------------------------------------------------------------


def trained(
    noise: Noise, fabric: Fabric, method: str, task: Task, teacher: Predictor | None, **more: Any
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """more: where it works, such as a folder for its checkpoints."""
    student = network(task, method=method)
    real = noise(20, scalar=task.continuous)
    fake = noise(12, scalar=task.continuous, seed=1)
    history = fit(
        Work(fabric, title="train", **more),
        student,
        distill.create(method, task),
        TrainingImages(real, fake, validation=noise(9, scalar=task.continuous, seed=2)),
        settings(),
        seed=3,
        teacher=teacher,
    )
    return student, history


@pytest.mark.parametrize(
    ("method", "task", "stop"),
    [
        ("supervised", CLASSES, 1), ("supervised", SCALAR, 5), ("kd", CLASSES, 5), ("kd", SCALAR, 1),
        ("kd+vam", CLASSES, 1), ("kd+vam", SCALAR, 5),
    ],
)  # fmt: skip
def test_a_killed_loop_goes_on_bit_for_bit(
    noise: Noise, fabric: Fabric, tmp_path: Path, method: str, task: Task, stop: int
) -> None:
    teacher = None if method == "supervised" else network(task, seed=9)
    whole, history = trained(noise, fabric, method, task, teacher)
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        # a checkpoint after every step; the bar moves before the step's own checkpoint is written
        trained(
            noise, fabric, method, task, teacher, folder=tmp_path, checkpoint_seconds=0.0, progress=KillAt(stop + 1)
        )
    assert Checkpoint(path).load({}, {})[0] == stop
    torch.manual_seed(123)  # whatever the new process does before
    again, resumed = trained(noise, fabric, method, task, teacher, folder=tmp_path, checkpoint_seconds=1e9)
    assert resumed == history
    for key, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


class Counted(Progress):
    """Progress that notes the titles of its bars, and how often each moved."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.moves: Counter[str] = Counter()

    @contextmanager
    def bar(self, title: str, total: float) -> Iterator[Bar]:
        self.titles.append(title)
        bar = Bar()
        bar.to = lambda done, note="": self.moves.update([title])  # type: ignore[method-assign, misc]
        yield bar


@pytest.mark.parametrize(
    ("method", "first"),
    [
        ("takd", ["train: kd"]),
        ("ft", ["ft: paraphraser"]),
        ("sskd", ["sskd: teacher's head"]),
        ("ofd", ["ofd: margins"]),
    ],
)
def test_what_was_trained_first_is_not_trained_again(
    noise: Noise, fabric: Fabric, tmp_path: Path, method: str, first: list[str]
) -> None:
    torch.manual_seed(9)
    teacher = zoo.create("wrn_16_1", 1, 3, (16, 16))  # its maps are before activation: ofd has margins
    seen = Counted(), Counted()
    whole, history = trained(noise, fabric, f"kd+{method}", CLASSES, teacher, progress=seen[0])
    with pytest.raises(Killed):
        trained(
            noise, fabric, f"kd+{method}", CLASSES, teacher, folder=tmp_path, checkpoint_seconds=0.0, progress=KillAt(4)
        )
    torch.manual_seed(123)
    again, resumed = trained(
        noise, fabric, f"kd+{method}", CLASSES, teacher, folder=tmp_path, checkpoint_seconds=1e9, progress=seen[1]
    )
    assert [progress.titles for progress in seen] == [[*first, "train"], ["train"]]
    assert resumed == history
    for key, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@pytest.mark.parametrize(("method", "lesson"), [("takd", "train: kd"), ("flow", "train: pkt")])
def test_a_lesson_that_comes_first_goes_on_bit_for_bit(
    noise: Noise, fabric: Fabric, tmp_path: Path, method: str, lesson: str
) -> None:
    torch.manual_seed(9)
    teacher = zoo.create("cnn24", 1, 3, (16, 16))
    whole, history = trained(noise, fabric, method, CLASSES, teacher)
    with pytest.raises(Killed):
        trained(
            noise, fabric, method, CLASSES, teacher,
            folder=tmp_path, checkpoint_seconds=0.0, progress=KillAt(6, lesson),
        )  # fmt: skip
    assert not (tmp_path / "checkpoint.safetensors").exists()
    assert Checkpoint(tmp_path / "checkpoint-1.safetensors").load({}, {})[0] == 5
    torch.manual_seed(123)
    seen = Counted()
    again, resumed = trained(
        noise, fabric, method, CLASSES, teacher, folder=tmp_path, checkpoint_seconds=1e9, progress=seen
    )
    assert seen.moves == {lesson: 3, "train": 8}  # of eight steps each
    assert resumed == history
    for key, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_a_lesson_within_a_lesson_has_a_checkpoint_of_its_own(
    noise: Noise, fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Twice(distill.METHODS["takd"]):  # type: ignore[name-defined, misc]
        name = "twice"
        teaches_by = "takd"

    monkeypatch.setitem(distill.METHODS, "twice", Twice)
    torch.manual_seed(9)
    teacher = zoo.create("cnn24", 1, 3, (16, 16))
    whole, history = trained(noise, fabric, "twice", CLASSES, teacher)
    for stop, lesson in ((6, "train: takd: kd"), (3, "train: takd"), (5, "train")):  # one kill after the other
        with pytest.raises(Killed):
            trained(
                noise, fabric, "twice", CLASSES, teacher,
                folder=tmp_path, checkpoint_seconds=0.0, progress=KillAt(stop, lesson),
            )  # fmt: skip
    names = {"checkpoint.safetensors", "checkpoint-1.safetensors", "checkpoint-1-1.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == names
    again, resumed = trained(noise, fabric, "twice", CLASSES, teacher, folder=tmp_path, checkpoint_seconds=1e9)
    assert resumed == history
    for key, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_a_lesson_that_took_its_time_is_saved_before_the_first_step(
    noise: Noise, fabric: Fabric, tmp_path: Path
) -> None:
    torch.manual_seed(9)
    teacher = zoo.create("cnn24", 1, 3, (16, 16))
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        trained(noise, fabric, "takd", CLASSES, teacher, folder=tmp_path, checkpoint_seconds=0.0, progress=KillAt(1))
    assert Checkpoint(path).load({}, {})[0] == 0
    seen = Counted()
    trained(noise, fabric, "takd", CLASSES, teacher, folder=tmp_path, checkpoint_seconds=1e9, progress=seen)
    assert seen.titles == ["train"]


@pytest.mark.parametrize("adversarial", [None, AdversarialSettings(steps=2)])
def test_a_student_with_dropout_goes_on_bit_for_bit(
    noise: Noise, fabric: Fabric, tmp_path: Path, adversarial: AdversarialSettings | None
) -> None:
    def run(**more: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        layers = [nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 3)]
        student = nn.Sequential(*layers)
        torch.manual_seed(int(torch.seed()))  # another state of the global generator in every run
        method = distill.create("supervised", CLASSES)
        work = Work(fabric, title="train", **more)
        fit(work, student, method, TrainingImages(noise(20)), settings(adversarial=adversarial), seed=3)
        return student.state_dict()

    whole = run()
    with pytest.raises(Killed):
        run(folder=tmp_path, checkpoint_seconds=0.0, progress=KillAt(4))
    again = run(folder=tmp_path, checkpoint_seconds=1e9)
    for key, value in whole.items():
        assert torch.equal(again[key], value), key


def test_the_same_seed_gives_the_same_weights_and_another_does_not(noise: Noise, fabric: Fabric) -> None:
    students = [network(CLASSES) for _ in range(3)]
    for student, seed in zip(students, (0, 0, 1), strict=True):
        method = distill.create("supervised", CLASSES)
        fit(Work(fabric), student, method, TrainingImages(noise(16)), settings(), seed=seed)
    a, b, c = (student.state_dict()["fc.weight"] for student in students)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_the_loop_leaves_the_global_random_state_alone(noise: Noise, fabric: Fabric) -> None:
    student, method = network(CLASSES), distill.create("supervised", CLASSES)
    before = torch.random.get_rng_state()
    fit(Work(fabric), student, method, TrainingImages(noise(16)), settings(2), seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_teacher_stays_as_it_is(noise: Noise, fabric: Fabric) -> None:
    teacher = network(CLASSES, seed=9).train()
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    trained(noise, fabric, "kd", CLASSES, teacher)
    for key, value in teacher.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_what_share_of_the_loss_is_the_labels(noise: Noise, fabric: Fabric) -> None:
    real, chosen, teacher = noise(8), settings(1), network(CLASSES, seed=9)
    student, copy = network(CLASSES), network(CLASSES).train()
    kd, supervised = (distill.create(name, CLASSES) for name in ("kd", "supervised"))
    (entry,) = fit(Work(fabric), student, kd, TrainingImages(real), chosen, seed=4, teacher=teacher)
    batch = Batches(TrainingImages(real), CLASSES, 8, chosen.augment, 4, fabric.device).at(0)
    label = 0.1 * nn.functional.cross_entropy(copy(batch.images), batch.targets)
    assert entry["label_share"] == pytest.approx(float(label.detach()) / entry["loss"], rel=1e-5)
    (alone,) = fit(Work(fabric), student, supervised, TrainingImages(real), chosen, seed=4)
    assert "label_share" not in alone


def test_a_term_below_zero_counts_by_its_size(noise: Noise, fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    class Below(distill.METHODS["kd"]):  # type: ignore[name-defined, misc]
        name = "below"

        def loss(self, batch: distill.DistillBatch) -> dict[str, Tensor]:
            return {"below": -3.0 * self.task.loss(batch.outputs, batch.targets)}

    monkeypatch.setitem(distill.METHODS, "below", Below)
    student, teacher, method = network(CLASSES), network(CLASSES, seed=9), distill.create("below", CLASSES)
    (entry,) = fit(Work(fabric), student, method, TrainingImages(noise(8)), settings(1), seed=4, teacher=teacher)
    assert entry["loss"] < 0
    assert entry["label_share"] == pytest.approx(0.1 / 3.1)  # r of plain KD


def test_one_step_is_nesterov_sgd_on_the_batch(noise: Noise, fabric: Fabric) -> None:
    real, lr, decay = noise(8), 0.02, 0.1
    chosen = settings(1, schedule="constant", learning_rate=lr, weight_decay=decay, clip_norm=0.5)
    student, copy = network(CLASSES), network(CLASSES)
    history = fit(Work(fabric), student, distill.create("supervised", CLASSES), TrainingImages(real), chosen, seed=4)
    batch = Batches(TrainingImages(real), CLASSES, 8, chosen.augment, 4, fabric.device).at(0)
    loss = nn.functional.cross_entropy(copy.train()(batch.images), batch.targets)
    loss.backward()
    assert history[0]["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in copy.parameters()))
    assert norm > 0.5  # so that clipping matters
    for after, before in zip(student.parameters(), copy.parameters(), strict=True):
        gradient = before.grad * 0.5 / norm + decay * before
        expected = before - lr * (1 + 0.9) * gradient  # the first Nesterov step: gradient + momentum * buffer
        assert torch.allclose(after, expected, atol=1e-6)


def test_the_last_weights_stay_whatever_validation_says(noise: Noise, fabric: Fabric) -> None:
    students, chosen = [network(CLASSES) for _ in range(2)], settings(30)
    method, real, histories = distill.create("supervised", CLASSES), noise(16), []
    for student, validation in zip(students, (None, noise(30, seed=7)), strict=True):
        images = TrainingImages(real, validation=validation)
        histories.append(fit(Work(fabric), student, method, images, chosen, seed=0))
    scores = [entry["val"] for entry in histories[1]]
    assert max(scores) > scores[-1]  # an earlier step would have been picked
    alone, watched = (student.state_dict() for student in students)
    assert all(torch.equal(alone[key], watched[key]) for key in alone)


def test_a_loop_names_the_metric_and_the_unit_of_its_validation_scores(noise: Noise, fabric: Fabric) -> None:
    bars: list[Bar] = []

    class Noting(Progress):
        @contextmanager
        def bar(self, title: str, total: float) -> Iterator[Bar]:
            bars.append(Bar())
            yield bars[-1]

    for task, scalar in ((CLASSES, False), (Regression(0.0, 1.0, "degrees"), True)):
        student, method = network(task), distill.create("supervised", task)
        images = TrainingImages(noise(8, scalar=scalar))
        fit(Work(fabric, progress=Noting()), student, method, images, FitSettings(steps=1, batch_size=4), seed=0)
    assert [(bar.metric, bar.metric_unit) for bar in bars] == [("accuracy", "%"), ("mae", "degrees")]


def test_history_has_the_last_step_and_the_rates(noise: Noise, fabric: Fabric) -> None:
    chosen = FitSettings(steps=60, batch_size=4, schedule="cosine")
    student, method = network(CLASSES), distill.create("supervised", CLASSES)
    history = fit(Work(fabric), student, method, TrainingImages(noise(16)), chosen, seed=0)
    assert [entry["step"] for entry in history] == list(range(2, 61, 2))
    assert [entry["learning_rate"] for entry in history] == [
        pytest.approx(0.025 * (1 + math.cos(math.pi * step / 60))) for step in range(1, 60, 2)
    ]
    assert not student.training


def test_training_learns(noise: Noise, fabric: Fabric) -> None:
    # Brightness is the class: three grey levels with noise. 40 steps must leave chance (33%) far behind.
    base = noise(120)
    images = (base.images // 8 + (base.labels * 90).to(torch.uint8)[:, None, None, None]).to(torch.uint8)
    real = ImageSet(images, base.labels)
    method, images = distill.create("supervised", CLASSES), TrainingImages(real, validation=real)
    history = fit(Work(fabric), network(CLASSES), method, images, settings(40, learning_rate=0.05), seed=0)
    assert history[-1]["val"] > 90


def test_outputs_of_a_teacher_that_are_not_finite_are_an_error(noise: Noise, fabric: Fabric) -> None:
    def teacher(images: Tensor) -> Tensor:
        return torch.full((len(images), 3), math.nan)

    with pytest.raises(TrainingError, match="train: the teacher's outputs are not finite at step 1 of 8; allowed: a "):
        trained(noise, fabric, "kd", CLASSES, teacher)


def test_a_loss_that_is_not_finite_is_an_error(noise: Noise, fabric: Fabric) -> None:
    images, method = TrainingImages(noise(24)), distill.create("supervised", CLASSES)
    with pytest.raises(TrainingError, match=r"train: the loss is (nan|inf) at step \d of 8; a lower learning_rate"):
        fit(Work(fabric, title="train"), network(CLASSES), method, images, settings(learning_rate=1e30), seed=0)


def test_a_weight_that_the_last_step_spoils_is_an_error(noise: Noise, fabric: Fabric) -> None:
    student, method = network(CLASSES), distill.create("supervised", CLASSES)
    student.fc.bias.register_hook(lambda gradient: gradient * math.nan)  # the loss of the only step is finite
    with pytest.raises(TrainingError, match=r"train: weight fc\.bias is not finite at step 1 of 1"):
        fit(Work(fabric, title="train"), student, method, TrainingImages(noise(24)), settings(1), seed=0)


# --- learning rates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("constant", 0, 1.0), ("constant", 99, 1.0),
        # divided by 10 at 62.5%, 75% and 87.5% of 80 steps (150, 180, 210 of 240 epochs)
        ("step", 0, 1.0), ("step", 49, 1.0), ("step", 50, 0.1), ("step", 59, 0.1), ("step", 60, 0.01),
        ("step", 69, 0.01), ("step", 70, 0.001), ("step", 79, 0.001),
        ("cosine", 0, 1.0), ("cosine", 40, 0.5), ("cosine", 20, 0.5 + math.sqrt(0.125)),
        ("cosine", 79, 0.5 * (1 + math.cos(math.pi * 79 / 80))),
        # onecycle: from 4% to the peak in 16 of 80 steps, then half a cosine over the other 64
        ("onecycle", 0, 0.04), ("onecycle", 8, 0.52), ("onecycle", 16, 1.0), ("onecycle", 48, 0.5),
        ("onecycle", 79, 0.5 * (1 + math.cos(math.pi * 63 / 64))),
    ],
)  # fmt: skip
def test_learning_rate_by_hand(schedule: str, step: int, expected: float) -> None:
    chosen = FitSettings(steps=80, learning_rate=1.0, schedule=schedule)
    assert learning_rate(chosen, step) == pytest.approx(expected, rel=1e-9)
    halved = FitSettings(steps=80, learning_rate=0.5, schedule=schedule)
    assert learning_rate(halved, step) == pytest.approx(expected / 2, rel=1e-9)


def test_onecycle_without_warmup_starts_at_the_peak() -> None:
    chosen = FitSettings(steps=10, learning_rate=1.0, schedule=OneCycle(warmup=0.0))
    assert learning_rate(chosen, 0) == 1.0


def test_the_papers_regression_schedule() -> None:
    # METHOD, section 5: divided by 10 at 43% and 71% of 350 epochs, that is at 150.5 and 248.5
    chosen = FitSettings(steps=350, learning_rate=0.01, schedule=StepDecay(milestones=(0.43, 0.71)))
    rates = [learning_rate(chosen, epoch) for epoch in (150, 151, 248, 249, 349)]
    assert rates == pytest.approx([0.01, 0.001, 0.001, 0.0001, 0.0001])


def test_gradients_are_clipped_only_where_asked_and_the_share_of_such_steps_is_logged(
    noise: Noise, fabric: Fabric
) -> None:
    def history(**changes: Any) -> list[dict[str, Any]]:
        student, images = network(CLASSES), TrainingImages(noise(16))
        return fit(Work(fabric), student, distill.create("supervised", CLASSES), images, settings(**changes), seed=0)

    assert all("clipped" not in entry for entry in history())
    assert [entry["clipped"] for entry in history(clip_norm=1e-6)] == [1.0] * len(history())
    assert [entry["clipped"] for entry in history(clip_norm=1e6)] == [0.0] * len(history())
    assert history()[-1]["loss"] == history(clip_norm=1e6)[-1]["loss"] != history(clip_norm=1e-6)[-1]["loss"]


def test_by_default_published_losses_are_not_clipped_and_scalars_are(noise: Noise, fabric: Fabric) -> None:
    for task, clips in ((CLASSES, False), (SCALAR, True)):
        images = TrainingImages(noise(16, scalar=task is SCALAR))
        history = fit(Work(fabric), network(task), distill.create("supervised", task), images, settings(2), seed=0)
        assert ("clipped" in history[0]) == clips
        never = settings(2, clip_norm=None)
        history = fit(Work(fabric), network(task), distill.create("supervised", task), images, never, seed=0)
        assert "clipped" not in history[0]


@pytest.mark.parametrize("task", [CLASSES, SCALAR])
def test_weights_may_get_their_first_gradient_late(task: Task, noise: Noise, fabric: Fabric) -> None:
    """In the first half of ``ab`` the labels don't count, so the head has no gradient."""
    student = network(task)
    head = [parameter for name, parameter in student.named_parameters()][-1]
    before = head.detach().clone()
    images = TrainingImages(noise(16, scalar=task.continuous))
    history = fit(
        Work(fabric), student, distill.create("ab", task), images, settings(6), seed=0, teacher=network(task, 9)
    )
    assert math.isfinite(history[-1]["loss"])
    assert not torch.equal(head, before)


def test_momentum_begins_at_zero_as_in_torch(noise: Noise, fabric: Fabric) -> None:
    plain = torch.optim.SGD([nn.Parameter(torch.ones(3))], lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)
    weights = [nn.Parameter(torch.ones(3))]
    ours = _optimizer(Work(fabric), weights, settings(learning_rate=0.1, weight_decay=0.1, momentum=0.9))
    for gradient in (1.0, -2.0, 0.5):
        for optimizer in (plain, ours):
            weight = optimizer.param_groups[0]["params"][0]
            weight.grad = torch.full((3,), gradient)
            optimizer.step()
    assert torch.equal(weights[0], plain.param_groups[0]["params"][0])
