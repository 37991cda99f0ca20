"""The estimators on images: layouts, teachers, scikit-learn's tools, files."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import Tensor, nn

from cgankd import UserError
from cgankd.sklearn import DistilledClassifier, DistilledRegressor, NotImages, teaching
from cgankd.sklearn.layout import Layout
from cgankd.sklearn.teaching import FittedTeacher
from cgankd.tasks import Classification, Regression

ALONE: dict[str, Any] = {
    "generated": False, "method": "supervised", "steps": 40, "random_state": 0,
    "settings": {"student": {"learning_rate": 0.1, "batch_size": 32, "augment": {"shift": 0}}},
}  # fmt: skip
SMALL: dict[str, Any] = {
    "generator": {"channels": 8, "latent": 8, "label_dim": 8, "batch_size": 8, "scalar": {"label_input": {"steps": 4}}},
    "ratio": {"hidden": (32,), "batch_size": 32, "fakes_per_image": 2},
    "synthesis": {"batch_size": 50},
}
NAMES = np.array(["dark", "bright"])


def shades(count: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, 16, 16]: noise around the grey value y, from 40 to 200."""
    rng = np.random.default_rng(seed)
    y = np.linspace(40, 200, count)
    pixels = y[:, None, None] + rng.normal(0, 8, (count, 16, 16))
    return pixels.clip(0, 255).astype(np.uint8), y


def classes(count: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    X, y = shades(count, seed)
    return X, NAMES[(y > 120).astype(int)]


def test_any_layout_of_the_same_images_gives_the_same_tensor() -> None:
    X = shades(6)[0]
    expected = torch.from_numpy(X)[:, None]
    floats = X.astype(np.float64) / 255
    for given in (X, X[:, None], X[..., None], X.reshape(6, -1), floats, floats.reshape(6, 256), floats[..., None]):
        layout = Layout.of(given)
        assert torch.equal(layout.images(given), expected)
        back = layout.arrays(expected.float() / 255)
        assert back.shape == given.shape
        assert back == pytest.approx(given, abs=1e-6)
    colour = np.stack([X, X // 2, X // 4], axis=3)
    expected = torch.from_numpy(colour).permute(0, 3, 1, 2)
    assert torch.equal(Layout.of(colour).images(colour), expected)
    assert torch.equal(Layout.of(expected.numpy()).images(expected.numpy()), expected)


def test_small_images_are_enlarged_and_a_teacher_sees_them_at_their_size() -> None:
    X = np.repeat([[0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 0.6, 0.2] * 8], 3, axis=0)
    layout = Layout.of(X)
    assert (layout.size, layout.scale) == ((16, 16), 2)
    images = layout.images(X)
    assert images.shape == (3, 1, 16, 16)
    assert layout.arrays(torch.full((2, 1, 16, 16), 0.5)) == pytest.approx(np.full((2, 64), 0.5))


def test_unlabelled_images_teach_what_a_fitted_teacher_says_of_them() -> None:
    """The labelled images are all dark but two, so the rest comes from the unlabelled ones."""
    X, y = shades(200, 1)
    teacher = LinearRegression().fit(X.reshape(200, -1) / 255, y)
    few = np.r_[:10, 190:192]
    floats = X.reshape(200, -1) / 255
    student = DistilledRegressor("cnn8", teacher=FrozenEstimator(teacher), **ALONE)
    student.fit(floats[few], y[few], X_unlabelled=floats[::2])
    alone = DistilledRegressor("cnn8", **ALONE).fit(floats[few], y[few])
    unseen, truth = shades(60, 2)
    unseen = unseen.reshape(60, -1) / 255
    error, before = (float(np.abs(one.predict(unseen) - truth).mean()) for one in (student, alone))
    assert error < 0.7 * before


@pytest.mark.parametrize(
    ("X", "sentence"),
    [
        (np.zeros((3, 63)), "^X_unlabelled has 63 features"),
        (np.full((3, 64), np.nan), "^Input X_unlabelled contains NaN"),
        (np.full((3, 64), 3.0), "^pixels of X_unlabelled go from 3 to 3"),
        (np.zeros((3, 8, 8)), r"^X_unlabelled is floats NHW .*; fit saw floats flat"),
        (np.zeros((0, 64)), "^X_unlabelled: Found array with 0 sample"),
    ],
)
def test_errors_about_unlabelled_images_name_them(X: np.ndarray, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DistilledClassifier("cnn8", **ALONE).fit(np.zeros((4, 64)), [0, 1, 0, 1], X_unlabelled=X)


@pytest.mark.parametrize("shape", [(5, 64), (5, 5, 9), (5, 9, 5, 3), (5, 3, 2, 7)])
def test_a_teacher_sees_enlarged_images_as_they_were(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for X in (rng.random(shape), rng.integers(0, 256, shape).astype(np.uint8)):
        layout = Layout.of(X)
        assert layout.scale > 1
        back = layout.arrays(layout.images(X).float() / 255.0)
        assert np.abs(back.astype(float) - X).max() < (0.005 if layout.floats else 1.5)


@pytest.mark.parametrize("kind", [">f4", ">f8", np.longdouble])
def test_floats_that_torch_does_not_know_are_read(kind: Any) -> None:
    X = np.random.default_rng(0).random((3, 16, 17)).astype(np.float32)
    assert torch.equal(Layout.of(X).images(X.astype(kind)), Layout.of(X).images(X))


@pytest.mark.parametrize(
    ("X", "sentence"),
    [
        (np.zeros((4, 16, 16), np.int64), "X holds int64; allowed: uint8 or floats"),
        (np.full((4, 16, 16), 1.5), "pixels of X go from 1.5 to 1.5; allowed: floats in"),
        (np.zeros((4, 60)), "X has 60 features, which is no square"),
        (np.zeros((4, 5, 16, 16), np.uint8), r"X is \[4, 5, 16, 16\]; allowed"),
        (np.zeros((4, 3, 16, 3), np.uint8), "may be .N, C, H, W. or .N, H, W, C."),
    ],
)
def test_what_is_no_image_is_refused(X: np.ndarray, sentence: str) -> None:
    with pytest.raises(NotImages, match=sentence) as caught:
        DistilledClassifier(**ALONE).fit(X, [0, 1, 0, 1])
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, UserError)


def test_other_images_than_in_fit_are_refused() -> None:
    X, y = classes(8)
    fitted = DistilledClassifier(**{**ALONE, "steps": 1}).fit(X, y)
    with pytest.raises(NotImages, match=r"X is floats NHW with 1 channel\(s\) of 16x16 pixels; fit saw uint8 NHW"):
        fitted.predict(X / 255.0)


def test_classes_are_learnt_and_named_as_in_y() -> None:
    fitted = DistilledClassifier(**ALONE).fit(*classes())
    X, y = classes(40, seed=1)
    assert fitted.classes_.tolist() == ["bright", "dark"]
    assert fitted.n_features_in_ == 256
    assert fitted.score(X, y) > 0.9
    probabilities = fitted.predict_proba(X)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(40))
    assert (fitted.classes_[probabilities.argmax(axis=1)] == fitted.predict(X)).all()
    again = clone(fitted).fit(*classes())
    assert (again.predict_proba(X) == probabilities).all()  # random_state decides everything


def test_numbers_are_learnt_in_the_unit_of_y() -> None:
    X, y = shades()
    fitted = DistilledRegressor(**{**ALONE, "steps": 80}).fit(X, y * 10 - 300)
    unseen, labels = shades(40, seed=1)
    assert fitted.score(unseen, labels * 10 - 300) > 0.8
    predictions = fitted.predict(unseen)
    assert (predictions.min() >= 100, predictions.max() <= 1700) == (True, True)


def test_the_tools_of_scikit_learn_work_on_images() -> None:
    X, y = classes()
    model = make_pipeline(FunctionTransformer(lambda images: images / 255.0), DistilledClassifier(**ALONE))
    assert cross_val_score(model, X, y, cv=2).mean() > 0.65  # 0.5 is chance
    search = GridSearchCV(DistilledClassifier(**ALONE), {"steps": [1, 40]}, cv=2).fit(X, y)
    assert search.best_params_ == {"steps": 40}
    assert search.best_estimator_.get_params()["steps"] == 40


def test_the_whole_road_with_a_teacher_trained_here() -> None:
    X, y = classes()
    settings = {**SMALL, "student": ALONE["settings"]["student"]}
    road = DistilledClassifier(
        steps=30, generator_steps=6, n_generated=40, teacher_network="cnn8", settings=settings, random_state=0
    ).fit(X, y)
    assert road.generated_.images.shape[1:] == (1, 16, 16)
    assert 0 < len(road.generated_) <= 40
    assert isinstance(road.teacher_, nn.Module)
    assert set(road.predict(X)) <= set(NAMES)


@pytest.mark.parametrize("regression", [False, True])
def test_a_fitted_estimator_teaches_with_generated_images(regression: bool) -> None:
    X, y = shades() if regression else classes()
    flat = X.reshape(80, -1) / 255.0
    teacher = (LinearRegression() if regression else LogisticRegression()).fit(flat, y)
    kind = DistilledRegressor if regression else DistilledClassifier
    settings = {**SMALL, "student": ALONE["settings"]["student"]}
    road = kind(
        teacher=teacher, steps=10, generator_steps=4, n_generated=30, settings=settings, random_state=0
    ).fit(flat, y)  # fmt: skip
    assert len(road.generated_) > 0
    assert road.predict(flat[:3]).shape == (3,)


def test_a_fitted_estimator_teaches_without_generated_images_and_inside_cross_validation() -> None:
    X, y = classes()
    flat = X.reshape(80, -1) / 255.0
    teacher = LogisticRegression().fit(flat, y)
    road = DistilledClassifier(**{**ALONE, "method": "kd", "steps": 3}, teacher=FrozenEstimator(teacher))
    assert len(cross_val_score(road, flat, y, cv=2, error_score="raise")) == 2
    with pytest.raises(NotFittedError, match=r"FrozenEstimator\(teacher\)"):
        clone(road.set_params(teacher=teacher)).fit(flat, y)


def test_a_fitted_estimator_is_asked_in_the_layout_of_x_and_answers_in_the_order_of_classes() -> None:
    X, y = classes()
    flat = X.reshape(80, -1) / 255.0
    teacher = LogisticRegression().fit(flat, y)
    layout, task = Layout.of(flat), Classification(("bright", "dark", "odd"))
    asked = FittedTeacher.of(teacher, layout, task, np.array(["odd", "dark", "bright"])[::-1])
    images = layout.images(flat).float() / 255
    answers = asked(images).softmax(dim=1)
    expected = teacher.predict_proba(layout.arrays(images))
    assert answers[:, :2].numpy() == pytest.approx(expected, abs=1e-4)
    assert float(answers[:, 2].max()) < 1e-4

    numbers = LinearRegression().fit(flat, np.linspace(-3, 5, 80))
    scaled = FittedTeacher.of(numbers, layout, Regression(-3.0, 5.0), None)(images)
    assert scaled.squeeze(1).numpy() == pytest.approx((numbers.predict(flat) + 3) / 8, abs=1e-3)


class Shade(nn.Module):
    """A student of one's own: three numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(1, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(images.mean(dim=(1, 2, 3))[:, None])


@pytest.mark.parametrize("estimator", [DistilledClassifier, DistilledRegressor])
def test_an_unknown_parameter_is_refused_in_the_name_of_the_class(estimator: Any) -> None:
    with pytest.raises(
        TypeError,
        match=rf"^{estimator.__name__}: got an unexpected keyword argument 'studnt' \(did you mean 'student'\?\); "
        "allowed: generated, generator_steps, ",
    ):
        estimator(studnt="cnn8")
    with pytest.raises(TypeError, match=f"^{estimator.__name__}: too many positional arguments; allowed: "):
        estimator("cnn8", 5)
    assert list(inspect.signature(estimator).parameters)[:2] == ["student", "teacher"]
    assert clone(estimator("cnn16", steps=3)).get_params()["student"] == "cnn16"


def test_a_module_as_a_student_is_not_changed_by_fit(tmp_path: Path) -> None:
    own = Shade()
    before = own.last.weight.clone()
    fitted = DistilledClassifier(own, **{**ALONE, "steps": 5}).fit(*classes())
    assert torch.equal(own.last.weight, before)
    assert not torch.equal(fitted.student_.last.weight, before)
    fitted.save(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"holds the weights of a module of your own; needed: Disti.*student=\.\."):
        DistilledClassifier.load(tmp_path / "a.safetensors")
    loaded = DistilledClassifier.load(tmp_path / "a.safetensors", student=Shade())
    assert (loaded.predict_proba(classes()[0]) == fitted.predict_proba(classes()[0])).all()


@pytest.mark.parametrize(
    "labels", [np.array([3, 7]), np.array(["a", "b"]), np.array([0.0, 1.0]), np.array([False, True])]
)
def test_saved_estimators_load_with_their_classes_and_without_pickle(labels: np.ndarray, tmp_path: Path) -> None:
    X, y = shades(20)
    fitted = DistilledClassifier(**{**ALONE, "steps": 2}).fit(X, labels[(y > 120).astype(int)])
    fitted.save(tmp_path / "a.safetensors")
    loaded = DistilledClassifier.load(tmp_path / "a.safetensors")
    assert loaded.classes_.dtype == fitted.classes_.dtype
    assert loaded.get_params() == fitted.get_params()
    assert (loaded.predict_proba(X) == fitted.predict_proba(X)).all()
    assert loaded.predict(X).tolist() == fitted.predict(X).tolist()
    with pytest.raises(UserError, match=r"holds a DistilledClassifier; needed: DistilledClassifier\.load"):
        DistilledRegressor.load(tmp_path / "a.safetensors")


def test_an_exported_estimator_gives_what_it_predicts(tmp_path: Path) -> None:
    formats = pytest.importorskip("cgankd.shipping.formats")
    pytest.importorskip("onnxruntime")
    X, y = shades(20)
    fitted = DistilledRegressor(**{**ALONE, "steps": 3}).fit(X, y)
    fitted.export_onnx(tmp_path / "a.onnx")
    exported = formats.OnnxStudent(tmp_path / "a.onnx")
    assert exported(torch.from_numpy(X)[:, None]).numpy() == pytest.approx(fitted.predict(X), abs=1e-3)
    assert json.loads(json.dumps(exported.description))["input"]["shape"] == ["batch", 1, 16, 16]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"settings": {"studnt": {}}}, r"settings has 'studnt' \(did you mean 'student'\?\); allowed: teacher, gen"),
        ({"settings": {"student": {"epochs": 3}}}, "epochs"),
        (
            {"settings": {"student": {"method": "kd"}}},
            r"^settings\['student'\] has 'method'; needed: method in its place$",
        ),
        ({"settings": {"synthesis": {"images": 9}}}, "has 'images'; needed: n_generated in its place"),
        ({"settings": {"student": 5}}, r"^settings\['student'\] is 5; needed: a dict$"),
        ({"settings": [5]}, r"^settings is \[5\]; needed: a dict, by stage"),
        ({"validation_fraction": 1.5}, r"^validation_fraction = 1.5 is not allowed; allowed: 0 to below 1$"),
        ({"validation_fraction": -0.5}, r"^validation_fraction = -0.5 is not allowed"),
        ({"student": "resnt8"}, r"resnt8.*did you mean 'resnet8'"),
        ({"teacher": LinearRegression()}, "not fitted"),
        ({"teacher": LinearRegression().fit(np.zeros((2, 256)), [0, 1])}, "LinearRegression, which has no classes"),
        ({"teacher": LogisticRegression().fit(np.eye(2, 256), ["dark", "grey"])}, "knows the class 'grey', which y"),
    ],
)
def test_parameters_that_cannot_be_used_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises((UserError, ValueError), match=sentence):
        DistilledClassifier(**{**ALONE, **changes}).fit(*classes(20))


@pytest.mark.parametrize(
    "y",
    [
        ["a", None] * 2,
        ["a", float("nan")] * 2,
        np.array([3, "NaT"] * 2, "M8[D]"),
        *(np.array(y * 2, object) for y in (["a", None], [["a"], [None]])),
    ],
)
def test_a_missing_label_is_named_and_no_class(y: Any) -> None:
    with pytest.raises(NotImages, match=r"contains NaN, or no label: .* at row 1; needed: one label per image"):
        DistilledClassifier(**ALONE).fit(shades(4)[0], y)


def test_the_only_image_of_a_class_is_trained_on() -> None:
    X, y = shades(240)
    estimator = DistilledClassifier(**{**ALONE, "generated": True})
    labels = estimator._given(X, np.where(np.arange(240) == 5, "rare", NAMES[(y > 120).astype(int)]))[1]
    for seed in range(20):
        train, held_out = estimator._held_out(240, labels, estimator._plan(seed))
        assert held_out is not None
        assert 5 in train.tolist()
        assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(240))
    labels = estimator._given(X, np.arange(240) // 2 * np.tile([1, 0], 120))[1]  # 119 classes of one image
    train, held_out = estimator._held_out(240, labels, estimator._plan(0))
    assert (train.tolist(), held_out) == (list(range(240)), None)  # too few are left


def test_tensors_on_a_graph_or_of_bfloat16_are_read() -> None:
    X, y = classes(8)
    fitted = DistilledClassifier(**{**ALONE, "steps": 1}).fit(X / np.float32(255), y)
    floats = torch.from_numpy(X / np.float32(255))
    assert np.array_equal(fitted.predict_proba(floats.requires_grad_()), fitted.predict_proba(floats.detach().numpy()))
    rounded = floats.detach().bfloat16()
    assert np.array_equal(fitted.predict_proba(rounded), fitted.predict_proba(rounded.float()))


def test_floats_may_leave_the_range_by_a_rounding_error() -> None:
    X = np.array([0.0, 1.0], np.float32).repeat(512).reshape(4, 256)
    layout = Layout.of(X)
    assert torch.equal(layout.images(X * np.float32(1.000001) - np.float32(1e-7)), layout.images(X))
    with pytest.raises(NotImages, match=r"pixels of X go from 0 to 1\.01; allowed"):
        layout.images(X * np.float32(1.01))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"settings": {"student": {"stepz": 5}}}, "settings['student']"),
        ({"settings": {"student": {"temperature": "x"}}}, "settings['student']"),
        ({"settings": {"ratio": {"nothing": 5}}}, "settings['ratio']"),
        ({"method": "kdd"}, "method 'kdd' is not known"),
        ({"method": "pseudo+fm"}, "needed here: 'fm' with generated=False"),
        ({"method": None}, "method is None; needed: a name"),
    ],
)
def test_what_the_last_stage_would_refuse_is_refused_before_the_first(
    parameters: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teaching, "_alone", mock.Mock(side_effect=AssertionError("a network is trained")))
    X, y = shades(20)
    with pytest.raises(UserError) as caught:
        DistilledRegressor(**parameters).fit(X, y)
    assert words in str(caught.value)


def test_names_of_columns_are_saved(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    X, y = shades(20)
    table = pandas.DataFrame(X.reshape(20, -1), columns=[f"p{number}" for number in range(256)])
    DistilledRegressor(**{**ALONE, "steps": 1}).fit(table, y).save(tmp_path / "a.safetensors")
    loaded = DistilledRegressor.load(tmp_path / "a.safetensors")
    loaded.predict(table)
    with pytest.raises(ValueError, match="feature names should match"):
        loaded.predict(table[table.columns[::-1]])


@pytest.mark.parametrize("kind", ["datetime64[us]", "datetime64[D]", "timedelta64[s]"])
def test_dates_as_classes_are_saved(kind: str, tmp_path: Path) -> None:
    X, _ = shades(8)
    fitted = DistilledClassifier(**{**ALONE, "steps": 1}).fit(X, np.array([3, 70] * 4).astype(kind))
    fitted.save(tmp_path / "a.safetensors")
    loaded = DistilledClassifier.load(tmp_path / "a.safetensors")
    assert loaded.classes_.dtype == fitted.classes_.dtype
    assert np.array_equal(loaded.predict(X), fitted.predict(X))
