"""Settings that keep to a time, from given speeds; and the recipe that is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from cgankd.config import recipe
from cgankd.config.settings import CompareSettings
from cgankd.config.settings.compare import UNLABELLED_CANDIDATES
from cgankd.core.errors import OutOfTime
from cgankd.core.progress import Bar
from cgankd.core.watching import Output, Watched
from cgankd.data.imageset import ImageSet, Splits, UnlabelledImages
from cgankd.planning import plan as planning
from cgankd.planning import timing
from cgankd.planning.look import Look
from cgankd.planning.plan import LEAST, METHODS, WITHOUT_FAKES, estimate, make_plan
from cgankd.planning.text import as_yaml
from cgankd.planning.timing import Seconds
from cgankd.tasks import Classification, Regression

FAST = Seconds(0.05, 0.01, 0.08, 0.006, 0.0004, 0.0001, 0.0003, 0.0004)


def splits(scalar: bool) -> Splits:
    labels = torch.linspace(0, 90, 200) if scalar else torch.arange(200) % 2
    images = ImageSet(torch.zeros(200, 1, 16, 16, dtype=torch.uint8), labels)
    task = Regression(0.0, 90.0, "degrees") if scalar else Classification(("a", "b"))
    return Splits("mine", task, images, images, images, images)


@pytest.fixture(autouse=True)
def speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "measure", lambda *_: [FAST])


@pytest.mark.parametrize("scalar", [False, True])
@pytest.mark.parametrize("minutes", [3, 10, 600])
def test_a_plan_keeps_to_its_time(minutes: float, scalar: bool) -> None:
    plan = make_plan({"source": "mine"}, "mine", splits(scalar), None, 60.0 * minutes)  # type: ignore[arg-type]
    assert plan.total <= 60 * minutes or plan.share == LEAST
    if minutes == 600:
        assert plan.share == 1.0
        assert plan.recipe.student.transfer_steps == 8000
    else:
        assert plan.share < 1
        assert plan.recipe.student.transfer_steps < 8000
    assert plan.recipe.teacher.network == ("cnn40_grid" if scalar else "cnn48_grid")
    augment = plan.recipe.teacher.fit.augment
    assert (augment.mixes, bool(augment.randaugment)) == ((False, False) if scalar else (True, True))


def test_the_user_chooses_the_teachers_views() -> None:
    overrides = ["teacher.fit.augment.randaugment=0", "teacher.fit.augment.flip=true"]
    augment = make_plan({"source": "mine"}, "mine", splits(False), None, 600.0, overrides).recipe.teacher.fit.augment  # type: ignore[arg-type]
    assert (augment.randaugment, augment.flip, augment.cutmix) == (None, True, 1.0)


def test_the_time_is_the_sum_of_what_a_run_does() -> None:
    mine = recipe.from_tree(
        {
            "seeds": [0],
            "teacher": {"fit": {"steps": 100}},
            "student": {"fit": {"steps": 50, "batch_size": 10}, "transfer_steps": 80},
            "generator": {"steps": 200},
            "compare": {"methods": ["nokd", "nokd_longer", "kd", "fm"]},
        }
    )
    parts = estimate(mine, splits(False), FAST)
    assert parts["teacher"] == pytest.approx(100 * 0.05 + 400 * 0.0004)
    # nokd; then three rows, scored on validation and test images; kd and fm ask the teacher about each image seen
    # 25 times each is scored on the validation images while it is trained
    trained = 80 * 0.01 + 400 * 0.0001 + 25 * 200 * 0.0001
    assert parts["students"] == pytest.approx(50 * 0.01 + 3 * trained + 2 * 800 * 0.0004)
    assert "generator" not in parts
    fakes = mine.model_copy(update={"compare": CompareSettings(methods=["nokd_longer", "cgan"])})
    assert estimate(fakes, splits(False), FAST)["generator"] == pytest.approx(200 * 0.08)


@pytest.mark.parametrize(("scalar", "burn_in", "calibration"), [(False, 2 * 500, 2 * 1000), (True, 20 * 500, 1000)])
def test_burn_in_and_calibration_are_those_of_all_classes(scalar: bool, burn_in: int, calibration: int) -> None:
    mine = recipe.from_tree({"synthesis": {"images": 500}, "compare": {"methods": ["nokd_longer", "cgan"]}})
    drawn = burn_in + 4 * (calibration + 500)  # four proposals for each image that is accepted
    parts = estimate(mine, splits(scalar), FAST)
    assert parts["generated images"] == pytest.approx(drawn * (FAST.generated_image + FAST.teacher_image), rel=0.02)


def test_the_time_counts_the_labels_of_unlabelled_images() -> None:
    further = UnlabelledImages(torch.zeros(1000, 1, 16, 16, dtype=torch.uint8))
    teacher = {
        method: estimate(
            recipe.from_tree({"compare": {"methods": ["nokd_longer", method]}}),
            dataclasses.replace(splits(False), further=further),
            FAST,
        )["teacher"]
        for method in ("fm", "pseudo+fm", "pseudo+kd")
    }
    assert teacher["pseudo+fm"] == teacher["fm"]  # which reads no label
    assert teacher["pseudo+kd"] == pytest.approx(teacher["fm"] + 1000 * FAST.teacher_image)


def parts_of(*overrides: str) -> dict[str, float]:
    return estimate(recipe.from_tree({"compare": {"methods": "auto"}}, overrides), splits(False), FAST)


def test_the_time_counts_every_seed() -> None:
    one, three = parts_of("seeds=[0]"), parts_of("seeds=[0,1,2]")
    control = parts_of("compare.methods=[nokd_longer]", "seeds=[0]")["students"]
    assert three["students"] > one["students"] + 4 * control  # two rows more for each seed; the trials have the first
    assert {**three, "students": 0} == {**one, "students": 0}
    rows = "compare.methods=[nokd,nokd_longer,kd]"
    assert parts_of(rows, "seeds=[0,1,2]")["students"] == pytest.approx(3 * parts_of(rows, "seeds=[0]")["students"])
    everything = parts_of("seeds=[0,1,2]", "vary=everything")
    for part in ("teacher", "generator", "density ratio", "generated images"):
        assert everything[part] == pytest.approx(3 * one[part])


def test_the_time_counts_the_training_on_all_labels() -> None:
    rows = ("seeds=[0]", "compare.methods=[nokd_longer,kd]")
    usual, again = parts_of(*rows), parts_of(*rows, "student.refit=true")
    kd = parts_of("seeds=[0]", "compare.methods=[kd]")["students"]
    teacher = usual["teacher"] - 400 * FAST.teacher_image
    assert usual["training on all labels"] == 0
    assert again["training on all labels"] == pytest.approx(kd + teacher)
    given = parts_of(*rows, "student.refit=true", "teacher.weights=mine.safetensors")
    assert given["training on all labels"] == pytest.approx(kd)


def test_the_time_counts_every_teacher_that_is_trained_and_no_other() -> None:
    scored = 400 * FAST.teacher_image
    trained = parts_of("seeds=[0]")["teacher"] - scored
    assert parts_of("seeds=[0]", "teacher.jury=[{},{}]")["teacher"] == pytest.approx(3 * (trained + scored))
    for given in ("teacher.source=mine:answer", "teacher.weights=mine.safetensors"):
        assert parts_of("seeds=[0]", given)["teacher"] == pytest.approx(scored)


def test_the_time_counts_the_search_and_the_images_of_ablation_rows() -> None:
    usual, search = parts_of("seeds=[0]"), parts_of("seeds=[0]", "search={rho: [0.5, 0.9]}")
    control = parts_of("compare.methods=[nokd_longer]", "seeds=[0]")["students"]
    assert search["search"] == pytest.approx(4 * control)  # the recipe's settings, two values, and no images
    assert search["generated images"] == pytest.approx(3 * usual["generated images"])
    rows = parts_of("seeds=[0]", "compare.methods=[nokd_longer,cgan]", "compare.ablation=true")
    assert rows["generated images"] == pytest.approx(5 * usual["generated images"])


def test_the_time_counts_attacks_and_the_network_that_features_of_the_ratio_need() -> None:
    rows, attacked = "compare.methods=[nokd,kd]", ("metrics.robustness.images=50", "metrics.robustness.steps=10")
    assert parts_of(rows)["attacks"] == 0.0
    # two rows of two seeds, and a teacher; 10 steps on 50 images take as long as training steps on as many
    steps = 10 * 50 / 128 * (2 * 2 * FAST.student_step + FAST.teacher_step)
    assert parts_of(rows, "seeds=[0,1]", *attacked)["attacks"] == pytest.approx(steps)
    usual, features = (parts_of(*each) for each in ((), ("ratio.features={kind: classifier, steps: 70}",)))
    assert features["density ratio"] == pytest.approx(usual["density ratio"] + 70 * FAST.teacher_step)


def test_what_is_given_is_neither_trained_nor_counted() -> None:
    overrides = ["teacher.source=mine:answer", "generator.source=mine:draw", "synthesis.subsampling=none"]
    plan = make_plan({"source": "mine"}, "mine", splits(False), None, 600.0, overrides)  # type: ignore[arg-type]
    assert plan.tree["teacher"] == {"source": "mine:answer"}
    assert (plan.tree["generator"], plan.tree.get("ratio")) == ({"source": "mine:draw"}, None)
    assert plan.seconds["generator"] == plan.seconds["density ratio"] == 0.0
    text = as_yaml(Look(plan.recipe.data, splits(False), {}, ()), plan)
    assert "trained here" not in text
    assert "the conditional GAN" not in text


def test_a_file_of_predictions_can_t_be_asked_about_validation_images() -> None:
    words = ["teacher.source=mine.csv", "generator.source=mine/"]
    plan = make_plan({"source": "mine"}, "mine", splits(False), None, 600.0, words)  # type: ignore[arg-type]
    assert plan.with_fakes
    assert not plan.recipe.student.refit


def test_a_given_generator_is_not_said_to_need_time_to_be_trained() -> None:
    plan = make_plan({"source": "mine"}, "mine", splits(False), None, 150.0, ["generator.source=mine:draw"])  # type: ignore[arg-type]
    text = as_yaml(Look(plan.recipe.data, splits(False), {}, ()), plan)
    assert "# Without generated images, because the time is too short for them.\n" in text


@pytest.mark.parametrize("scalar", [False, True])
@pytest.mark.parametrize(
    ("seconds", "methods", "refit"),
    [(3600, "auto", True), (500, METHODS, True), (300, WITHOUT_FAKES, True), (150, WITHOUT_FAKES, False)],
)
def test_where_time_is_short_there_are_no_trials_and_then_no_generated_images(
    seconds: float, methods: str | tuple[str, ...], refit: bool, scalar: bool
) -> None:
    plan = make_plan({"source": "mine"}, "mine", splits(scalar), None, seconds)  # type: ignore[arg-type]
    assert plan.total <= seconds
    assert plan.recipe.compare.methods == methods
    assert ("fit" in plan.tree["student"]) == plan.with_fakes  # its steps are those of NOKD, which no other row needs
    assert ("generator" in plan.tree) == plan.with_fakes == (methods != WITHOUT_FAKES)
    assert plan.recipe.student.refit == refit
    assert (
        "learns the validation images too" in as_yaml(Look(plan.recipe.data, splits(scalar), {}, ()), plan)
    ) == refit
    text = as_yaml(Look(plan.recipe.data, splits(scalar), {}, ()), plan)
    assert ("Without generated images" in text) == (methods == WITHOUT_FAKES)


@pytest.mark.parametrize("seconds", [3600, 500, 300])
def test_images_without_labels_are_used_in_further_rows(seconds: float) -> None:
    data = {"source": "mine", "unlabelled": "mine/unlabelled"}
    plan = make_plan(data, "mine", splits(False), None, seconds)  # type: ignore[arg-type]
    without = make_plan({"source": "mine"}, "mine", splits(False), None, seconds)  # type: ignore[arg-type]
    further = set(plan.recipe.rows) - set(without.recipe.rows)
    assert further == (
        set(planning.UNLABELLED_METHODS) if plan.recipe.compare.methods != "auto" else set(UNLABELLED_CANDIDATES)
    )
    assert plan.recipe.data.unlabelled == "mine/unlabelled"


@pytest.mark.parametrize("scalar", [False, True])
def test_the_written_recipe_is_the_plan(scalar: bool) -> None:
    data = {"source": "my images/", "size": 32, "group_pattern": r"(.+)[_-]\d+\.\w+$"}
    parts = splits(scalar)
    plan = make_plan(data, "mine", parts, None, 600.0)  # type: ignore[arg-type]
    reasons = {"size": "large images take long", "group_pattern": "frames: of 'a # b'"}
    text = as_yaml(Look(plan.recipe.data, parts, reasons, ()), plan)
    assert text.startswith("# About ")
    assert "size: 32  # large images take long" in text
    import yaml

    assert recipe.from_tree(yaml.safe_load(text)) == plan.recipe


def test_a_measurement_stops_where_its_bar_does() -> None:
    class Stopping(Bar):
        def to(self, done: float, note: str = "") -> None:
            raise OutOfTime("it was asked to stop (SIGTERM)")

    clock = timing._Clock(Stopping())
    with pytest.raises(OutOfTime, match="SIGTERM"), clock.bar("student", 4) as bar:
        bar.to(1)


def test_a_long_step_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 30.0, 30.0, 55.0, 55.0, 82.0])
    monkeypatch.setattr("cgankd.planning.timing.time.perf_counter", lambda: next(times))
    clock = timing._Clock(Bar())

    def training() -> None:
        with clock.bar("student", 4) as bar:
            bar.to(1)
            bar.to(2)
            pytest.fail("a third step is measured")

    assert clock.per_step(training) == 25.0


@pytest.mark.parametrize("known", [("student_step",), ("student_step", "teacher_step")])  # of large images; of others
def test_no_more_is_measured_where_that_alone_takes_too_long(
    known: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """640 steps of each of three students are the fewest, and 566 of a teacher."""

    def measured(*_: object) -> Iterator[Seconds]:
        yield Seconds(**dict.fromkeys(known, 1.0))
        pytest.fail("more is measured")

    monkeypatch.setattr(planning, "measure", measured)
    plan = make_plan({"source": "mine"}, "mine", splits(False), None, 600.0, limit=660.0)  # type: ignore[arg-type]
    teacher = 550.0 if "teacher_step" in known else 0.0
    assert plan.total == pytest.approx(3 * 650.0 + teacher + planning.REPORT)


def test_no_generator_is_measured_where_networks_leave_it_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = Seconds(teacher_step=0.2, student_step=0.1, teacher_image=0.001, student_image=0.001)

    def measured(*_: object) -> Iterator[Seconds]:
        yield networks
        pytest.fail("a generator is measured")

    monkeypatch.setattr(planning, "measure", measured)
    plan = make_plan({"source": "mine"}, "mine", splits(False), None, 400.0, limit=440.0)  # type: ignore[arg-type]
    assert (plan.total <= 400.0, plan.with_fakes) == (True, False)


def test_what_was_not_measured_on_larger_images_does_not_count() -> None:
    assert FAST.at_most(Seconds(student_step=0.005)) == dataclasses.replace(FAST, student_step=0.005)


def test_the_status_has_news_of_every_step_that_is_measured() -> None:
    class News(Output):
        every, count = 0.0, 0

        def tick(self, watched: Watched) -> None:
            self.count += 1
            assert (watched.now()["done"], watched.now()["total"]) == (0.0, 0.0)  # its length is not known

    news = News()
    watched = Watched([news])
    with watched.passing("measuring", 0) as whole:
        clock = timing._Clock(whole)

        def training() -> None:
            with clock.bar("student", 4) as bar:
                for step in range(1, 5):
                    bar.to(step)

        assert clock.per_step(training) >= 0.0
    assert news.count == 3  # the first step begins the clock of the output


def test_of_large_images_the_least_is_known_before_they_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = list[tuple[int, int]]()
    monkeypatch.setattr(
        timing, "fit", lambda work, network, objective, images, *_, **__: sides.append(images.real.size)
    )
    monkeypatch.setattr(timing._Clock, "per_step", lambda clock, training: training() or 0.25)
    images = ImageSet(torch.zeros(4, 1, 128, 128, dtype=torch.uint8), torch.arange(4) % 2)
    large = dataclasses.replace(splits(False), train=images)
    least = next(timing.measure(recipe.from_tree({}), large, None, Bar()))  # type: ignore[arg-type]
    assert least == Seconds(student_step=0.5 * 4 * 0.25)
    assert sides == [(64, 64)]
