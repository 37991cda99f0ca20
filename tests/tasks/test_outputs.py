"""What a teacher's outputs are: noticed by their form and by labels, or stated; and what they become."""

from __future__ import annotations

import math

import pytest
import torch

from cgankd.core.errors import UserError
from cgankd.tasks import CircularRegression, Classification, Regression
from cgankd.tasks.outputs import AUTO, OutputKind, check_unchanged, resolve, sentence

CLASSES = Classification(("a", "b", "c"))
DEGREES = Regression(-80.0, 80.0, "degrees")
LABELS = torch.arange(30) % 3
ANGLES = torch.linspace(-80.0, 80.0, 30)


def logits(sharpness: float = 1.0) -> torch.Tensor:
    """Of a teacher that knows most labels."""
    noise = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    return sharpness * (noise + 4.0 * torch.nn.functional.one_hot(LABELS, 3))


def kind(outputs: torch.Tensor, *, stated: str = AUTO, trained: bool = True) -> str:
    return resolve(stated, outputs, LABELS, CLASSES, "the teacher", "teacher.outputs", trained=trained).kind


@pytest.mark.parametrize("sharpness", [0.01, 1.0, 50.0])  # unsure, usual, and probabilities that round to 0 and 1
def test_classes_outputs_are_known_by_their_form(sharpness: float) -> None:
    outputs = logits(sharpness)
    assert kind(outputs) == "logits"
    assert kind(outputs.softmax(1)) == "probabilities"
    assert kind(outputs.log_softmax(1)) == "log_probabilities"
    assert kind(outputs.softmax(1).half()) == "probabilities"
    assert kind(outputs.softmax(1), trained=False) == "probabilities"


def test_one_row_that_adds_up_to_something_else_makes_them_logits() -> None:
    outputs = logits().softmax(1)
    outputs[7] *= 1.05
    assert kind(outputs, trained=False) == "logits"
    outputs = logits().softmax(1)
    outputs[7] += torch.tensor([0.2, -0.1, -0.1]) - outputs[7].min()  # adds up to less than 1 by far, or is negative
    assert kind(outputs, trained=False) == "logits"


def test_logarithms_of_probabilities_are_logits_with_the_same_softmax() -> None:
    probabilities = logits().softmax(1)
    gives = OutputKind(CLASSES, "probabilities")
    assert gives.changes
    torch.testing.assert_close(gives(probabilities).softmax(1), probabilities)
    assert gives(torch.tensor([[1.0, 0.0, 0.0]])).tolist() == [[0.0, *[pytest.approx(math.log(1e-12))] * 2]]
    for same in ("logits", "log_probabilities"):
        assert not OutputKind(CLASSES, same).changes
        assert torch.equal(OutputKind(CLASSES, same)(probabilities), probabilities)


def test_percentages_and_sigmoids_are_a_question() -> None:
    with pytest.raises(UserError, match=r"the teacher: its outputs add up to 100 for each image, as percentages do"):
        kind(100.0 * logits().softmax(1))
    with pytest.raises(UserError, match=r"don't add up to 1, as with sigmoids; .* teacher\.outputs=logits"):
        kind((3.0 * (logits() - 2.0)).sigmoid())
    assert kind((3.0 * (logits() - 2.0)).sigmoid(), stated="logits") == "logits"
    assert kind(0.1 * logits().sigmoid()) == "logits"  # small ones, of a teacher that is hardly trained
    assert kind(100.0 * logits().softmax(1), trained=False) == "logits"


def test_a_stated_kind_is_taken_where_the_outputs_can_be_of_it() -> None:
    assert kind(logits().softmax(1), stated="logits") == "logits"  # as they are, though they look otherwise
    assert kind(logits().softmax(1), stated="probabilities") == "probabilities"
    with pytest.raises(UserError, match=r"are no probabilities: the smallest is -2.115, and rows add up to"):
        kind(logits(), stated="probabilities")
    with pytest.raises(UserError, match=r"are no log probabilities"):
        kind(logits().softmax(1), stated="log_probabilities")
    with pytest.raises(UserError, match=r"teacher\.outputs = label_unit is not allowed for classification; allowed:"):
        kind(logits(), stated="label_unit")


def test_a_scalar_in_the_labels_own_unit_is_a_question() -> None:
    def scalar(outputs: torch.Tensor, stated: str = AUTO, trained: bool = True) -> OutputKind:
        return resolve(stated, outputs[:, None], ANGLES, DEGREES, "the teacher", "teacher.outputs", trained=trained)

    assert scalar((ANGLES + 80.0) / 160.0).kind == "scaled"
    assert scalar(torch.full_like(ANGLES, 0.5)).kind == "scaled"  # knows nothing, but is of that scale
    with pytest.raises(UserError, match=r"teacher\.outputs=label_unit if they are in the .* \(-80 to 80 degrees\)"):
        scalar(ANGLES)
    assert scalar(ANGLES, trained=False).kind == "scaled"
    assert scalar(ANGLES, "scaled").kind == "scaled"
    gives = scalar(ANGLES, "label_unit")
    assert gives(torch.tensor([[-80.0], [0.0], [40.0]])).squeeze(1).tolist() == [0.0, 0.5, 0.75]
    with pytest.raises(UserError, match=r"teacher\.outputs = logits is not allowed for regression; allowed: auto"):
        scalar(ANGLES, "logits")


def test_a_scalar_in_a_unit_that_32_bits_are_too_coarse_for_is_refused() -> None:
    days, labels = Regression(2459000.0, 2459001.0, "days"), torch.linspace(2459000.0, 2459001.0, 30).double()
    ends = r"2459000 to 2459001 days"
    with pytest.raises(UserError, match=rf"steps of 0\.25 in the label range {ends}; allowed: numbers of 64"):
        resolve("label_unit", labels[:, None], labels, days, "the teacher", "teacher.outputs")
    with pytest.raises(UserError, match=rf"label_unit if they are in the label's unit \({ends}\)"):
        resolve(AUTO, labels[:, None], labels, days, "the teacher", "teacher.outputs")
    exact = torch.linspace(2459000.0, 2459001.0, 30, dtype=torch.float64)  # labels was rounded to 32 bits
    kind = resolve("label_unit", exact[:, None], exact, days, "the teacher", "teacher.outputs")
    assert (kind.misfit, kind(exact[:, None]).dtype) == ("", torch.float32)
    torch.testing.assert_close(kind(exact[:, None])[:, 0], torch.linspace(0.0, 1.0, 30), rtol=0.0, atol=1e-6)
    years = Regression(2020.0, 2024.0)
    assert (
        resolve("label_unit", 2020.0 + labels[:, None] % 4, 2020.0 + labels % 4, years, "t", "o").kind == "label_unit"
    )


def test_a_scalar_in_a_unit_close_to_the_mapped_one_is_a_question_too() -> None:
    task, labels = Regression(0.0, 1.6), torch.linspace(0.0, 1.6, 30)
    for outputs in (labels / 1.6, labels / 1.6 + 0.3, torch.full_like(labels, 0.9)):
        assert task.kind_of(outputs[:, None], labels, trained=True) == "scaled"
    with pytest.raises(
        ValueError, match=r"by 0\.3 on average; allowed: .* label's unit \(0 to 1\.6\), outputs=scaled to"
    ):
        task.kind_of(labels[:, None], labels, trained=True)
    same = Regression(0.0, 1.0)
    assert same.kind_of(labels[:, None] / 1.6, labels / 1.6, trained=True) == "scaled"


def test_each_kind_has_its_own_key_and_so_has_each_task() -> None:
    wider = Regression(-90.0, 80.0, "degrees")
    kinds = [
        OutputKind(CLASSES, "probabilities"), OutputKind(CLASSES, "logits"), OutputKind(DEGREES, "label_unit"),
        OutputKind(wider, "label_unit"),
    ]  # fmt: skip
    assert len({one.content_key for one in kinds}) == 4


def test_what_is_told() -> None:
    assert sentence(OutputKind(CLASSES, "probabilities"), "the teacher", "teacher.outputs") == (
        "the teacher: its outputs for training images are probabilities (none is below 0 and each row adds up to 1, so "
        "their logarithms are used as logits); teacher.outputs=logits uses them without conversion."
    )
    with pytest.raises(UserError, match=r"the student: it gives probabilities, but its loss takes logits; needed:"):
        check_unchanged(OutputKind(CLASSES, "probabilities"), "the student")
    check_unchanged(OutputKind(CLASSES, "log_probabilities"), "the student")


def test_a_cosine_and_sine_that_miss_the_labels_are_suspect() -> None:
    hours = CircularRegression(0.0, 24.0, "hours")
    labels = torch.linspace(0.0, 23.9, 40)
    outputs = hours.from_deployed(labels)
    assert hours.misfit(outputs, labels, "cosine_sine") == ""
    assert "by 0.25 of a turn on average" in hours.misfit(outputs.flip(1), labels, "cosine_sine")
    length = float(outputs.norm(dim=1).mean())
    assert hours.misfit(outputs * (1.9 / length), labels, "cosine_sine") == ""
    assert "a length of 3 on average" in hours.misfit(outputs * (3.0 / length), labels, "cosine_sine")
