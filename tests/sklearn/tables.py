"""The estimators for tables of any numbers, so that scikit-learn's checks of its conventions can run.

Only the reading of X differs: numbers are squashed into [0, 1], and columns of 0 are added up to the next square.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from cgankd.sklearn import DistilledClassifier, DistilledRegressor


class _OfTables:
    def _numbers(self, X: Any, reset: bool) -> np.ndarray:
        array = validate_data(self, X, reset=reset, dtype="numeric").astype(np.float64)
        count, features = array.shape
        square = math.isqrt(features - 1) + 1
        padded = np.zeros((count, square**2))
        padded[:, :features] = 1 / (1 + np.exp(-np.clip(array, -30, 30)))
        return padded

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        for own in (tags.classifier_tags, tags.regressor_tags):
            if own is not None:
                own.poor_score = True  # after two steps of training
        return tags


class TableClassifier(_OfTables, DistilledClassifier):
    """DistilledClassifier for tables."""


class TableRegressor(_OfTables, DistilledRegressor):
    """DistilledRegressor for tables."""
