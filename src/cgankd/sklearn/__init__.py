"""scikit-learn estimators: a small network that is trained with a teacher and generated images by ``fit(X, y)``."""

from cgankd.sklearn.estimators import DistilledClassifier, DistilledRegressor
from cgankd.sklearn.layout import NotImages

__all__ = ["DistilledClassifier", "DistilledRegressor", "NotImages"]
