"""Targets, losses, errors, predictions, scores: against numpy and scipy in float64."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from cgankd.core.errors import UserError
from cgankd.tasks import CircularRegression, Classification, Regression, Task, from_json

CLASSES = Classification(("a", "b", "c", "d", "e"))
YEARS = Regression(low=-20.0, high=60.0, unit="years")


def logits(rows: int, columns: int, seed: int) -> torch.Tensor:
    return 3.0 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def kl(teacher: torch.Tensor, student: torch.Tensor, temperature: float) -> np.ndarray:
    """KL(p_teacher || p_student) of every row, in float64."""
    p, q = (np.exp(log_softmax(x.double().numpy() / temperature, axis=1)) for x in (teacher, student))
    return entropy(p, q, axis=1)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("classes", [2, 5, 1000])
def test_imitation_is_t_squared_kl_averaged_over_the_batch(temperature: float, classes: int) -> None:
    task = Classification(tuple(map(str, range(classes))))
    student, teacher = logits(7, classes, 0), logits(7, classes, 1)
    found = float(task.imitation_loss(student, teacher, temperature))
    right = temperature**2 * kl(teacher, student, temperature).mean()
    assert found == pytest.approx(right, rel=1e-5)
    swapped = temperature**2 * kl(student, teacher, temperature).mean()
    assert abs(found - swapped) > 1e-3 * right  # the direction is visible in this example
    assert abs(found - right / classes) > 0.4 * right  # not averaged over the classes too


def test_imitation_takes_logits_not_probabilities() -> None:
    student, teacher = logits(7, 5, 0), logits(7, 5, 1)
    shifted = CLASSES.imitation_loss(student + 100.0, teacher - 50.0, 2.0)  # softmax does not see a shift
    assert float(shifted) == pytest.approx(float(CLASSES.imitation_loss(student, teacher, 2.0)), rel=1e-4)
    assert float(CLASSES.imitation_loss(teacher, teacher, 4.0)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("scale", [0.01, 0.5, 1.0, 2.0, 30.0])
def test_a_calibrated_loss_has_the_best_temperature(scale: float) -> None:
    outputs, targets = logits(40, 5, 0), torch.arange(40) % 5
    outputs[torch.arange(40), targets] += 2.0  # mostly right
    given = (scale * outputs).double()

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(given.numpy() / math.exp(log_temperature), axis=1)
        return float(-scaled[np.arange(40), targets.numpy()].mean())

    best = minimize_scalar(loss, bounds=(math.log(0.2), math.log(8.0)), method="bounded", options={"xatol": 1e-9})
    found = CLASSES.calibrated_loss(given, targets)
    assert found == pytest.approx(best.fun, rel=1e-6)
    assert found <= float(CLASSES.loss(given, targets))
    if scale in (0.5, 1.0):  # within the temperatures: bolder outputs are not worse
        assert found == pytest.approx(CLASSES.calibrated_loss(outputs.double(), targets), rel=1e-6)


def test_of_outputs_that_are_all_right_the_larger_margin_has_the_lower_calibrated_loss() -> None:
    targets = torch.arange(10) % 5
    right = torch.nn.functional.one_hot(targets, 5).double()
    assert 0.0 < CLASSES.calibrated_loss(4.0 * right, targets) < CLASSES.calibrated_loss(2.0 * right, targets)
    numbers = logits(7, 1, 0)
    assert YEARS.calibrated_loss(numbers, torch.zeros(7)) == float(YEARS.loss(numbers, torch.zeros(7)))


def test_what_an_image_explains_is_its_loss_or_its_number() -> None:
    outputs, targets = logits(7, 5, 0), torch.arange(7) % 5
    right = -log_softmax(outputs.double().numpy(), axis=1)[np.arange(7), targets.numpy()]
    assert CLASSES.explained(outputs, targets).tolist() == pytest.approx(right.tolist(), rel=1e-5)
    numbers = logits(7, 1, 0)
    assert torch.equal(YEARS.explained(numbers, numbers[:, 0]), numbers[:, 0])


def test_imitation_by_hand() -> None:
    # p = (3/4, 1/4), q = (1/2, 1/2): KL(p || q) = 3/4 ln(3/2) + 1/4 ln(1/2); the other way round it is
    # 1/2 ln(2/3) + 1/2 ln 2.
    two = Classification(("a", "b"))
    teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
    right = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(two.imitation_loss(student, teacher, 1.0)) == pytest.approx(right, rel=1e-6)
    other = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    assert float(two.imitation_loss(teacher, student, 1.0)) == pytest.approx(other, rel=1e-6)


def test_imitation_stays_finite_for_extreme_logits() -> None:
    student = torch.tensor([[500.0, -500.0]], requires_grad=True)
    loss = Classification(("a", "b")).imitation_loss(student, torch.tensor([[-500.0, 500.0]]), 1.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1000.0)
    assert torch.isfinite(student.grad).all()


def test_scalar_imitation_is_the_mean_squared_distance() -> None:
    student, teacher = logits(9, 1, 0), logits(9, 1, 1)
    expected = float(((student - teacher).double() ** 2).mean())
    assert float(YEARS.imitation_loss(student, teacher, 4.0)) == pytest.approx(expected, rel=1e-6)


def test_class_loss_takes_probabilities_too() -> None:
    outputs, wanted = logits(7, 5, 0), torch.softmax(logits(7, 5, 1), dim=1)
    right = -(wanted.double().numpy() * log_softmax(outputs.double().numpy(), axis=1)).sum(axis=1).mean()
    assert float(CLASSES.loss(outputs, wanted)) == pytest.approx(right, rel=1e-5)


def test_class_loss_and_error_are_cross_entropy() -> None:
    outputs, targets = logits(7, 5, 0), torch.tensor([0, 1, 2, 3, 4, 0, 1])
    rows = -log_softmax(outputs.double().numpy(), axis=1)[np.arange(7), targets.numpy()]
    assert CLASSES.error(outputs, targets).numpy() == pytest.approx(rows, rel=1e-5)
    assert float(CLASSES.loss(outputs, targets)) == pytest.approx(rows.mean(), rel=1e-5)


def test_class_prediction_and_score() -> None:
    outputs = torch.tensor([[0.0, 2.0, 1.0, 0.0, 0.0], [3.0, 2.0, 1.0, 0.0, 0.0]])
    assert CLASSES.predict(outputs).tolist() == [1, 0]
    assert CLASSES.score(outputs, torch.tensor([1, 4])).tolist() == [100.0, 0.0]


def test_scalar_loss_is_not_clipped_but_error_and_prediction_are() -> None:
    outputs, targets = torch.tensor([[-0.5], [0.25], [1.5]]), torch.tensor([0.0, 0.5, 0.75])
    assert float(YEARS.loss(outputs, targets)) == pytest.approx((0.25 + 0.0625 + 0.5625) / 3)
    assert YEARS.error(outputs, targets).tolist() == [0.0, 0.25, 0.25]
    assert YEARS.predict(outputs).tolist() == [-20.0, 0.0, 60.0]
    labels = torch.tensor([-10.0, 0.0, 30.0])
    assert YEARS.score(outputs, labels).tolist() == [10.0, 0.0, 30.0]
    assert YEARS.score(outputs, labels).dtype == torch.float64


def test_targets_map_the_range_to_0_1_and_back() -> None:
    labels = torch.tensor([-20.0, 0.0, 20.0, 60.0])
    assert YEARS.to_target(labels).tolist() == [0.0, 0.25, 0.5, 1.0]
    assert YEARS.from_target(YEARS.to_target(labels)).tolist() == labels.tolist()
    assert YEARS.to_target(labels).dtype == torch.float32
    many = torch.empty(1000).uniform_(-20, 60, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(YEARS.from_target(YEARS.to_target(many)), many, atol=1e-5)


def test_small_differences_of_large_labels_survive() -> None:
    # 2**20 + k / 16 has 24 significant bits: float32 holds the labels, and the targets must still tell them apart.
    task = Regression(low=2.0**20, high=2.0**20 + 1)
    labels = 2.0**20 + torch.arange(9) / 8
    assert task.to_target(labels).tolist() == [k / 8 for k in range(9)]


@pytest.mark.parametrize(("low", "high"), [(0.0, 90.0), (-80.0, 80.0), (0.0, 1.0), (1.0, 60.0), (-3.0, 7.0)])
def test_bins_are_the_tenths_of_the_range(low: float, high: float) -> None:
    task = Regression(low=low, high=high)
    labels = torch.empty(2000).uniform_(low, high, generator=torch.Generator().manual_seed(0))
    names, place = task.bins(torch.cat([labels, torch.tensor([low, high])]))
    edges = np.linspace(low, high, 11)
    expected = np.clip(np.searchsorted(edges, labels.double().numpy(), side="right") - 1, 0, 9)
    assert place[:-2].tolist() == expected.tolist()
    assert place[-2:].tolist() == [0, 9]
    assert names == [f"{a:g} to {b:g}" for a, b in itertools.pairwise(edges)]


def test_whole_degrees_on_an_edge_belong_to_the_upper_bin() -> None:
    _, place = Regression(low=0.0, high=90.0).bins(torch.arange(91).float())
    assert place.tolist() == [min(degree // 9, 9) for degree in range(91)]


def test_the_ends_of_bins_are_round() -> None:
    low, high = -0.160001, 0.1599976  # not quite from -0.16 to 0.16
    names, _ = Regression(low=low, high=high).bins(torch.tensor([0.0]))
    assert names[0] == "-0.16 to -0.128"
    assert names[4:6] == ["-0.032 to 0", "0 to 0.032"]
    assert Regression(low=1.66, high=179.81).bins(torch.tensor([2.0]))[0][0] == "1.7 to 19.5"


def test_the_ends_of_a_range_have_no_digits_of_float32_in_files_that_leave() -> None:
    task = Regression(low=float(np.float32(1.7)), high=float(np.float32(54.9)), unit="%")
    assert task.described() == {"type": "regression", "low": 1.7, "high": 54.9, "unit": "%"}
    assert task.deployed_facts["range"] == [1.7, 54.9]
    assert task.to_json()["low"] == 1.7000000476837158  # what keys of stages depend on
    labels, read_back = torch.tensor([1.7, 20.3, 54.9]), from_json(task.described())
    assert read_back.from_target(task.to_target(labels)).tolist() == labels.tolist()
    for same in (0.1234567891, 123456792.0):  # of data.label_range; more than seven digits
        assert Regression(same, same * 4).described()["low"] == same
    wide = Regression(1700001664.5, 1700001664.75)  # labels of float64
    assert (wide.described()["low"], wide.described()["high"]) == (1700001664.5, 1700001664.75)


def test_class_bins_are_the_classes() -> None:
    names, place = CLASSES.bins(torch.tensor([4, 0, 2]))
    assert names == ["a", "b", "c", "d", "e"]
    assert place.tolist() == [4, 0, 2]


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.nan)])
def test_a_range_without_width_is_refused(low: float, high: float) -> None:
    with pytest.raises(UserError, match="range"):
        Regression(low=low, high=high)


@pytest.mark.parametrize(("low", "high"), [(0.0, math.inf), (-math.inf, 0.0)])
def test_an_infinite_range_is_refused(low: float, high: float) -> None:
    with pytest.raises(UserError, match="range"):
        Regression(low=low, high=high)  # every target would be 0 or nan


@pytest.mark.parametrize("bad", [-20.5, 60.5, math.nan, math.inf])
def test_a_label_outside_the_range_is_named(bad: float) -> None:
    with pytest.raises(UserError, match=r"here: label .* at row 2 is outside .* -20 to 60"):
        YEARS.check_labels(torch.tensor([-20.0, 60.0, bad]), "here")
    YEARS.check_labels(torch.tensor([-20.0, 60.0]), "here")
    with pytest.raises(UserError, match=r"--label: label 9999 is outside the allowed range -20 to 60"):
        YEARS.check_labels(torch.tensor([9999.0]), "--label")


@pytest.mark.parametrize("bad", [-1, 5])
def test_a_label_that_is_no_class_is_named(bad: int) -> None:
    with pytest.raises(UserError, match=rf"here: label {bad} at row 1 is not a class; allowed: 0 to 4"):
        CLASSES.check_labels(torch.tensor([0, bad, 4]), "here")
    CLASSES.check_labels(torch.arange(5), "here")


def test_labels_of_another_source_get_the_numbers_of_this_task() -> None:
    task, labels = Classification(("ant", "bee", "cat")), torch.tensor([0, 2, 1])
    assert task.renumbered(labels, ("cat", "bee", "ant"), "x").tolist() == [2, 0, 1]
    assert task.renumbered(labels, ("0", "1", "2"), "x").tolist() == [0, 2, 1]
    with pytest.raises(UserError, match=r"^x: class '-1' is not one of the run's: ant, bee, cat$"):  # not the last one
        task.renumbered(torch.arange(4), ("-1", "0", "1", "2"), "x")
    with pytest.raises(UserError, match=r"^x: class 'dog' is not one of the run's: ant, bee, cat$"):
        task.renumbered(labels, ("cat", "bee", "dog"), "x")
    with pytest.raises(UserError, match=r"^x: has no image of class 'ant'; every class of the run needs some$"):
        task.renumbered(labels, ("bee", "cat"), "x")
    assert Regression(0.0, 9.0).renumbered(torch.tensor([1.5, 7.0]), (), "x").tolist() == [1.5, 7.0]


def test_one_class_is_refused() -> None:
    with pytest.raises(UserError, match="at least two"):
        Classification(("only",))


@pytest.mark.parametrize("task", [CLASSES, YEARS])
def test_json_round_trip(task: Classification | Regression) -> None:
    again = from_json(task.to_json())
    assert type(again) is type(task)
    assert dataclasses.asdict(again) == dataclasses.asdict(task)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(UserError, match="'ranking' is not known"):
        from_json({"type": "ranking"})


def test_paper_defaults() -> None:
    # METHOD, sections 3 and 5: rho .9 / .7, replacement for scalars only, r = .1 and a = .9, or .5 and .5.
    found = [(t.filter_quantile, t.replace_labels, t.label_weight, t.teacher_weight) for t in (CLASSES, YEARS)]
    assert found == [(0.9, "none", 0.1, 0.9), (0.7, "hard", 0.5, 0.5)]


def test_answers_are_in_the_targets_terms() -> None:
    outputs, targets = logits(7, 5, 0), torch.tensor([0, 1, 2, 3, 4, 0, 1])
    assert CLASSES.answer(outputs).numpy() == pytest.approx(softmax(outputs.double().numpy(), axis=1), rel=1e-5)
    assert CLASSES.right_answer(targets).tolist() == np.eye(5)[targets.numpy()].tolist()
    soft = torch.full((7, 5), 0.2)
    assert CLASSES.right_answer(soft) is soft
    numbers, labels = logits(4, 1, 0), torch.rand(4, generator=torch.Generator().manual_seed(1))
    assert YEARS.answer(numbers).tolist() == numbers.tolist()
    assert YEARS.right_answer(labels).tolist() == [[label] for label in labels.tolist()]


def test_agreement_margin_and_uncertainty() -> None:
    outputs = torch.log(torch.tensor([[0.5, 0.3, 0.1, 0.06, 0.04], [0.2, 0.2, 0.2, 0.2, 0.2]]))
    targets = torch.tensor([1, 4])
    assert CLASSES.agreement(outputs, targets, 9.0).tolist() == pytest.approx([0.3, 0.2])
    soft = torch.tensor([[0.5, 0.5, 0, 0, 0], [0, 0, 0, 0, 1.0]])
    assert CLASSES.agreement(outputs, soft, 9.0).tolist() == pytest.approx([0.4, 0.2])
    assert CLASSES.margin(outputs, targets).tolist() == pytest.approx([-0.2, 0.0], abs=1e-6)
    assert CLASSES.margin(outputs, torch.tensor([0, 0])).tolist() == pytest.approx([0.2, 0.0], abs=1e-6)
    expected = entropy([0.5, 0.3, 0.1, 0.06, 0.04]) / math.log(5)
    assert CLASSES.uncertainty(outputs).tolist() == pytest.approx([expected, 1.0])
    assert CLASSES.uncertainty(torch.tensor([[999.0, 0, 0, 0, 0]])).tolist() == [0.0]
    numbers, labels = torch.tensor([[0.5], [1.2]]), torch.tensor([0.3, 0.9])
    assert YEARS.agreement(numbers, labels, 0.1).tolist() == pytest.approx([math.exp(-2), math.exp(-1)])
    assert YEARS.margin(numbers, labels).tolist() == [-1.0, -1.0]
    assert YEARS.uncertainty(numbers).tolist() == [0.5, 0.5]


def test_losses_of_each_image_have_the_loss_as_mean() -> None:
    for task, targets in ((CLASSES, torch.arange(5)), (YEARS, torch.linspace(0, 1, 5))):
        outputs, teacher = (logits(5, task.num_outputs, seed) for seed in (0, 1))
        own, imitation = task.loss(outputs, targets, "none"), task.imitation_loss(outputs, teacher, 4.0, "none")
        assert own.shape == imitation.shape == (5,)
        assert float(own.mean()) == pytest.approx(float(task.loss(outputs, targets)), rel=1e-6)
        assert float(imitation.mean()) == pytest.approx(float(task.imitation_loss(outputs, teacher, 4.0)), rel=1e-6)
        alone = [float(task.imitation_loss(outputs[i, None], teacher[i, None], 4.0)) for i in range(5)]
        assert imitation.tolist() == pytest.approx(alone, rel=1e-5)


# --- what the generator and the error bound are judged by ---------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(0.0, 90.0), (-3.0, 7.0), (1e6, 1e6 + 4)])
def test_windows_hold_what_lies_within_their_half_width(low: float, high: float) -> None:
    task = Regression(low=low, high=high)
    labels = torch.linspace(low, high, 41)  # every fortieth of the range; windows end on some of them
    names, inside = task.windows(labels, count=4, half_width=0.125)
    for number, centre in enumerate((0.125, 0.375, 0.625, 0.875)):
        expected = [abs(k / 40 - centre) <= 0.125 for k in range(41)]
        assert inside[number].tolist() == expected
        assert float(names[number]) == pytest.approx(low + centre * (high - low), abs=(high - low) / 40)
    assert len(set(names)) == 4


def test_windows_of_classes_are_the_classes() -> None:
    names, inside = CLASSES.windows(torch.tensor([4, 0, 4]), count=20, half_width=0.05)
    assert names == ["a", "b", "c", "d", "e"]
    assert inside.long().tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 1]]


def test_bounded_losses_lie_in_0_1() -> None:
    outputs = torch.tensor([[0.0, 2.0, 1.0, 0.0, 0.0], [3.0, 2.0, 1.0, 0.0, 0.0]])
    assert CLASSES.bounded_loss(outputs, torch.tensor([1, 4])).tolist() == [0.0, 1.0]
    scalars = torch.tensor([[-9.0], [0.25], [9.0]])
    assert YEARS.bounded_loss(scalars, torch.tensor([1.0, 0.5, 0.0])).tolist() == [1.0, 0.25, 1.0]


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (Classification(("ant", "007", "3.5")), torch.tensor([0, 1, 2, 1])),
        (Regression(-80.0, 80.0), torch.tensor([-80.0, 1.0 / 3.0, 1e-7, 79.99999])),
    ],
)
def test_labels_are_read_as_they_were_written(task: Task, labels: torch.Tensor) -> None:
    read = torch.tensor([task.read_label(task.label_text(label)) for label in labels.tolist()], dtype=torch.float64)
    assert torch.equal(read.to(labels.dtype), labels)
    outputs = task.from_answer(task.right_answer(task.to_target(read)))
    torch.testing.assert_close(task.predict(outputs), labels)
    torch.testing.assert_close(task.from_answer(task.answer(outputs)), outputs)
    for text in ("wasp", "", "nan"):
        with pytest.raises(ValueError, match="one of ant, 007, 3.5" if not task.continuous else "a finite number"):
            task.read_label(text)


def test_labels_and_predictions_for_people() -> None:
    assert [CLASSES.short_text(label) for label in (1, 4, 7)] == ["b", "e", "7"]
    assert CLASSES.prediction_text(1, 2, 0.876) == "b (88 %)"
    assert [YEARS.short_text(label) for label in (-7.26, -0.2, 59.7)] == ["−7.3", "−0.2", "59.7"]
    assert YEARS.prediction_text(12.2, 30.4, 1.0) == "12.2 (error 18.2)"
    assert CircularRegression(0.0, 360.0).prediction_text(350.0, 10.0, 1.0) == "350 (error 20)"
    assert Regression(0.0, 0.004).short_text(0.00123456) == "0.00123"


def test_confusions_are_counted_by_true_and_predicted_class() -> None:
    counts = Classification(("ant", "bee", "cat")).confusion(torch.tensor([0, 0, 0, 2]), torch.tensor([0, 1, 1, 0]))
    assert counts.tolist() == [[1, 2, 0], [0, 0, 0], [1, 0, 0]]
    assert YEARS.confusion(torch.tensor([1.0]), torch.tensor([2.0])) is None


def test_errors_have_a_name_and_a_unit() -> None:
    assert (CLASSES.error_name, CLASSES.error_scale) == ("cross-entropy, nats", 1.0)
    assert (YEARS.error_name, YEARS.error_scale) == ("|prediction − label|, years", 80.0)
    assert Regression(0.0, 1.0).error_name == "|prediction − label|"
    error = YEARS.error(torch.tensor([[0.25]]), YEARS.to_target(torch.tensor([40.0])))
    assert float(error) * YEARS.error_scale == pytest.approx(40.0)  # 0.25 stands for 0 years


def test_of_many_classes_a_message_names_a_few() -> None:
    task = Classification(tuple(f"class {number}" for number in range(1000)))
    with pytest.raises(ValueError, match=r"^one of class 0, .*, class 19 and 980 more$"):
        task.read_label("cat")
    with pytest.raises(UserError, match=r"not one of the run's: class 0, .*, class 19 and 980 more$"):
        task.renumbered(torch.zeros(1, dtype=torch.int64), ["cat"], "images")
