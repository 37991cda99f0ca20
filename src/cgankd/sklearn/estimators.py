"""``DistilledClassifier`` and ``DistilledRegressor``: the road of the paper behind ``fit`` and ``predict``."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data
from torch import Tensor, nn

from cgankd.core.errors import UserError, did_you_mean
from cgankd.core.runtime import make_fabric, plain_torch
from cgankd.core.store import Work
from cgankd.core.terminal import plain_console
from cgankd.core.views import view
from cgankd.core.watching import Watched
from cgankd.data.given import as_tensor
from cgankd.data.imageset import ImageSet
from cgankd.nets import inference
from cgankd.sklearn.layout import Layout, NotImages
from cgankd.sklearn.storage import Parts, load_parts, save_parts, write_onnx
from cgankd.sklearn.teaching import FittedTeacher, Plan, teach
from cgankd.tasks import Classification, Regression, Task
from cgankd.tasks.regression import fits_float32

Array = npt.NDArray[Any]
E = TypeVar("E", bound="_Distilled")
NO_LABEL = {"None", "nan", "<NA>", "NaT"}  # as Python and pandas write a missing one
FEWEST_HELD_OUT = 20  # images; fewer say nothing about the density ratio


class _Distilled(BaseEstimator):  # type: ignore[misc]
    """What both estimators share.

    X: uint8, or floats in [0, 1]; [N, H, W], [N, H, W, C] or [N, C, H, W] with C 1 or 3, or [N, S * S]: square grey
    images, row after row. Images with a side below 16 pixels are enlarged. Where X has other numbers or shapes, nothing
    is scaled or guessed: NotImages, a ValueError, says what was found.
    """

    task_: Task

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        _, *parameters = inspect.signature(cls.__init__).parameters.values()
        cls.__signature__ = inspect.Signature(parameters)  # which help() and scikit-learn read, and __new__ would hide

    def __new__(cls, *args: Any, **parameters: Any) -> Any:
        """Refuses unknown parameters, because Python's message would name this class, not the one that is used."""
        try:
            if args or parameters:  # pickle gives none
                inspect.signature(cls.__init__).bind(None, *args, **parameters)
        except TypeError as error:
            known = cls._get_param_names()
            hint = next((did_you_mean(name, known) for name in parameters if name not in known), "")
            raise TypeError(f"{cls.__name__}: {error}{hint}; allowed: {', '.join(known)}") from None
        return super().__new__(cls)

    def __init__(
        self,
        student: str | nn.Module = "cnn8",
        *,
        teacher: Any = None,
        teacher_network: str = "cnn24",
        method: str = "kd",
        generated: bool = True,
        n_generated: int = 2000,
        steps: int = 1000,
        generator_steps: int = 1000,
        validation_fraction: float = 0.1,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.student = student
        self.teacher = teacher
        self.teacher_network = teacher_network
        self.method = method
        self.generated = generated
        self.n_generated = n_generated
        self.steps = steps
        self.generator_steps = generator_steps
        self.validation_fraction = validation_fraction
        self.settings = settings
        self.random_state = random_state
        self.verbose = verbose

    @plain_torch()
    def fit(self: E, X: npt.ArrayLike, y: npt.ArrayLike, *, X_unlabelled: npt.ArrayLike | None = None) -> E:
        """Train teacher (where none was given), generator, density ratio and student.

        X: images, see the class. y: labels [N]. X_unlabelled: further images, which the teacher labels. Raises
        NotImages for arrays that hold no images or labels, UserError for parameters that can't be used.
        """
        if not 0.0 <= self.validation_fraction < 1.0:
            raise UserError(f"validation_fraction = {self.validation_fraction} is not allowed; allowed: 0 to below 1")
        images, labels = self._given(X, y)
        random = check_random_state(self.random_state)
        plan = self._plan(int(random.randint(2**31 - 1)))
        pixels = self.layout_.images(images)
        if X_unlabelled is not None:
            plan = dataclasses.replace(plan, unlabelled=self._unlabelled(X_unlabelled))
        train, held_out = self._held_out(len(pixels), labels, plan)
        sets = [None if rows is None else ImageSet(pixels[rows], labels[rows]) for rows in (train, held_out)]
        assert sets[0] is not None
        with Watched([view(plain_console())] if self.verbose else []) as progress:
            taught = teach(dataclasses.replace(plan, progress=progress), sets[0], sets[1], self.task_)
        self.student_ = taught.student.cpu().eval()
        self.teacher_ = taught.teacher
        self.generated_ = taught.fakes
        return self

    @plain_torch()
    def outputs(self, X: npt.ArrayLike) -> Tensor:
        """The student's outputs for X, float32 [N, classes] (logits) or [N, 1] (the label range mapped to [0, 1])."""
        check_is_fitted(self)
        images = self._numbers(X, reset=False)
        return inference.outputs(Work(make_fabric()), self.student_, self.layout_.images(images))

    def save(self, path: str | Path) -> None:
        """Write the fitted student with its parameters to a .safetensors file, without pickle.

        Not stored: teacher and generated images. A student that was given as a module must be given to ``load`` again.
        """
        check_is_fitted(self)
        classes: Array | None = getattr(self, "classes_", None)
        names = getattr(self, "feature_names_in_", None)  # of a DataFrame's columns
        kept = {
            "features": int(self.n_features_in_), "params": self.get_params(deep=False),
            "names": None if names is None else names.tolist(),
        }  # fmt: skip
        parts = Parts(type(self).__name__, kept, self.layout_, self.task_, classes, self.student)
        save_parts(Path(path), parts, self.student_)

    @classmethod
    def load(cls: type[E], path: str | Path, student: nn.Module | None = None) -> E:
        """The estimator that ``save`` wrote. student: the module, where it was no network's name.

        Raises UserError for a file of another kind.
        """
        parts, network = load_parts(Path(path), cls.__name__, student)
        estimator = cls(**{**parts.kept["params"], "student": parts.student if student is None else student})
        estimator.layout_, estimator.task_ = parts.layout, parts.task
        estimator.n_features_in_ = parts.kept["features"]
        if (names := parts.kept.get("names")) is not None:
            estimator.feature_names_in_ = np.asarray(names, dtype=object)
        if parts.classes is not None:
            estimator.classes_ = parts.classes
        estimator.student_, estimator.teacher_, estimator.generated_ = network, None, None
        return estimator

    def export_onnx(self, path: str | Path, *, floats: bool = False) -> None:
        """Write the student as an ONNX file, as ``cgankd export`` does; docs/shipping.md says what it takes and gives.

        floats: it takes floats in [0, 1]; else bytes. Needs cgankd[export].
        """
        check_is_fitted(self)
        name = self.student if isinstance(self.student, str) else type(self.student).__name__
        write_onnx(Path(path), self.student_, name, self.task_, self.layout_, "float32" if floats else "uint8")

    def _given(self, X: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Array, Tensor]:
        """Checked images and labels as the task has them; sets the attributes that say what they are."""
        if y is None:
            raise NotImages(f"{type(self).__name__} requires y to be passed, but the target y is None")
        images = self._numbers(X, reset=True)
        if len(images) < 2:
            raise NotImages(f"X has n_samples = {len(images)}; needed: two images or more")
        _check_no_gaps(y)
        labels = self._labels(column_or_1d(y, warn=True))
        if len(labels) != len(images):
            raise NotImages(f"X has {len(images)} images, but y has {len(labels)} labels; needed: one each")
        self.layout_ = Layout.of(images)
        return images, labels

    def _labels(self, y: Array) -> Tensor:
        raise NotImplementedError

    def _numbers(self, X: npt.ArrayLike, reset: bool) -> Array:
        """X as an array of numbers. reset: keep the number of features; else it must be the same."""
        if isinstance(X, Tensor):  # numpy reads none on a graph, and no bfloat16
            X = as_tensor(X, "X")
            X = (X.float() if X.dtype == torch.bfloat16 else X).numpy()
        dimensions = X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim
        if dimensions <= 2:  # tables, also of pandas, and sparse matrices, which are refused
            return np.asarray(validate_data(self, X, reset=reset, dtype="numeric"))
        array = np.asarray(check_array(X, allow_nd=True, dtype="numeric", estimator=self))
        if reset:
            self.n_features_in_ = int(np.prod(array.shape[1:]))
        return array

    def _unlabelled(self, X: npt.ArrayLike) -> Tensor:
        """X_unlabelled as the networks see it. NotImages names it, because scikit-learn's own errors name X."""
        try:
            return self.layout_.images(self._numbers(X, reset=False))
        except (TypeError, ValueError) as error:
            said = re.sub(r"\bX\b", "X_unlabelled", str(error))
            raise NotImages(said if "X_unlabelled" in said else f"X_unlabelled: {said}") from None

    def _plan(self, seed: int) -> Plan:
        teacher = self.teacher
        if teacher is not None and not isinstance(teacher, nn.Module) and hasattr(teacher, "predict"):
            teacher = FittedTeacher.of(teacher, self.layout_, self.task_, getattr(self, "classes_", None))
        return Plan(
            student=self.student,
            teacher=teacher,
            teacher_network=self.teacher_network,
            method=self.method,
            generated=self.generated,
            n_generated=self.n_generated,
            steps=self.steps,
            generator_steps=self.generator_steps,
            settings=self.settings or {},
            seed=seed,
        )

    def _held_out(self, count: int, labels: Tensor, plan: Plan) -> tuple[Tensor, Tensor | None]:
        """Rows for the training, and rows that check the density ratio; None where there would be too few."""
        rows, wanted = torch.arange(count), int(self.validation_fraction * count)
        if not plan.generated or wanted < FEWEST_HELD_OUT:
            return rows, None
        frequent = labels.bincount() if not labels.is_floating_point() else torch.tensor([2])
        by = labels.numpy() if len(frequent) > 1 and int(frequent.min()) > 1 and wanted >= len(frequent) else None
        train, held_out = train_test_split(rows.numpy(), test_size=wanted, random_state=plan.seed, stratify=by)
        if not labels.is_floating_point():  # a class with few images may have none left to learn from
            lost = ~np.isin(labels[held_out], labels[train])
            train, held_out = np.concatenate([train, held_out[lost]]), held_out[~lost]
        if len(held_out) < FEWEST_HELD_OUT:
            return rows, None
        return torch.from_numpy(np.sort(train)), torch.from_numpy(np.sort(held_out))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


class DistilledClassifier(ClassifierMixin, _Distilled):  # type: ignore[misc]
    """A small network for classes, trained with a teacher and generated images (cGAN-KD).

    X: uint8, or floats in [0, 1]; [N, H, W], [N, H, W, C] or [N, C, H, W] with C 1 or 3, or [N, S * S].

    student: a name of ``cgankd networks``, or a module. teacher: a module (float images [B, C, H, W] in [0, 1] ->
    logits [B, classes]), a function of the same, a fitted classifier of scikit-learn (which is asked about images in
    the layout of X), or None: ``teacher_network`` is trained on X and y. method: what the student matches besides the
    labels: "supervised" (nothing: cGAN-KD), "kd", or any other of ``cgankd methods``. generated: whether it also learns
    from ``n_generated`` generated images. steps: of the student, and of a teacher that is trained here.
    generator_steps: of the GAN. validation_fraction: of X, which checks the density ratio. settings: those of the
    stages, as in a recipe: {"teacher": .., "generator": .., "ratio": .., "synthesis": .., "student": ..}.

    Fitted: ``classes_``, ``n_features_in_``, ``student_`` (a module on the CPU), ``teacher_``, ``generated_`` (an
    ImageSet, or None), ``task_``, ``layout_``.
    """

    classes_: Array

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The probability of each class, [N, classes], in the order of ``classes_``."""
        return np.asarray(self.outputs(X).double().softmax(dim=1).numpy())

    def predict(self, X: npt.ArrayLike) -> Array:
        """The most probable class of each image, [N]."""
        best = self.outputs(X).argmax(dim=1).numpy()
        return np.asarray(self.classes_[best])

    def _labels(self, y: Array) -> Tensor:
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise NotImages(f"y has one class, {self.classes_[0]!r}; DistilledClassifier needs two classes or more")
        self.task_ = Classification(tuple(str(value) for value in self.classes_))
        return torch.from_numpy(numbers.astype(np.int64))


class DistilledRegressor(RegressorMixin, _Distilled):  # type: ignore[misc]
    """A small network for one number per image, trained with a teacher and generated images (CcGAN, cGAN-KD).

    X and parameters: as :class:`DistilledClassifier`; a teacher that is a module gives [B, 1], y mapped to [0, 1] by
    its range (``cgankd.LabelUnit`` wraps one that gives y itself), a scikit-learn regressor gives y. Predictions lie in
    the range of the y that ``fit`` saw.
    """

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The number for each image, [N], in the unit of y."""
        outputs = self.outputs(X)
        return np.asarray(self.task_.predict(outputs).double().numpy())

    def _labels(self, y: Array) -> Tensor:
        values = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y", estimator=self)
        low, high = float(values.min()), float(values.max())
        if low == high:
            raise NotImages(f"every y is {low:g}; at least two distinct values are needed")
        self.task_ = Regression(low, high)
        return torch.from_numpy(values.astype(np.float32 if fits_float32(low, high) else np.float64))


def _check_no_gaps(y: npt.ArrayLike) -> None:
    """NotImages for a label that is missing beside texts, which numpy would make the text "nan" or fail to sort."""
    values = y if isinstance(y, list | tuple) else np.ravel(np.asarray(y))  # a DataFrame has a column
    if isinstance(values, np.ndarray) and values.dtype.kind not in "OmM":
        return
    for row, value in enumerate(values):
        if not isinstance(value, str | np.ndarray) and str(value) in NO_LABEL:
            raise NotImages(f"Input y contains NaN, or no label: {value} at row {row}; needed: one label per image")
