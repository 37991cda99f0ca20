"""The terms of the student's error bound that can be estimated, with what each says and what it can't.

For a loss in [0, B], N real and M processed images, theta the real images' weight in the student's loss, each half
bounded apart because the fakes are made from the same real images: with probability 1 - delta

R(f) - inf R <= 2 theta [2 Rad_N + B sqrt(ln(4/delta) / 2N)] + 2 (1 - theta) [2 Rad_M + B sqrt(ln(4/delta) / 2M)]
                + 2 (1 - theta) B TV(real, processed), and where labels were replaced
                + 2 (1 - theta) Lip(loss) E_fake|teacher(x) - true label(x)|, TV then being taken on x alone.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from cgankd.core import rng
from cgankd.tasks import Task

DELTA = 0.05
LIPSCHITZ = 1.0  # of both tasks' bounded losses in the label: |y - y'|, and 0-1 where labels differ
FOLDS = 5
FEWEST = 10  # images of each kind for the two-sample classifier
MOST = 1000


@dataclasses.dataclass(frozen=True)
class TwoSample:
    """A classifier's success in telling real from processed images; ``images`` of each kind."""

    accuracy: float
    lower_bound: float  # of TV, with confidence 95 %
    images: int


def two_sample(real: Tensor, fake: Tensor, seed: int) -> TwoSample:
    """How far apart two sets of features [N, F] must at least be: TV >= 2 accuracy - 1, for any classifier.

    Logistic regression, cross-fitted over five folds, on as many rows of each kind (1,000 at most). The bound takes
    the Clopper-Pearson limit of the accuracy over all held-out rows; that the folds share training rows is
    neglected (Bayle et al., arXiv 2007.12671). Needs ten rows of each.
    """
    count = min(len(real), len(fake), MOST)
    x = np.concatenate([_chosen(real, count, seed, "real"), _chosen(fake, count, seed, "fake")])
    y = np.repeat([0, 1], count)
    fold = np.tile(np.arange(count) % FOLDS, 2)
    right = 0
    for number in range(FOLDS):
        held_out = fold == number
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))
        classifier.fit(x[~held_out], y[~held_out])
        right += int((classifier.predict(x[held_out]) == y[held_out]).sum())
    # the exact one-sided 95 % limit; zero where nothing was right
    low = float(stats.beta.ppf(DELTA, right, 2 * count - right + 1)) if right else 0.0
    return TwoSample(right / (2 * count), max(0.0, 2.0 * low - 1.0), count)


def _chosen(features: Tensor, count: int, seed: int, stream: str) -> Any:
    order = rng.bits(seed, f"two-sample/{stream}", torch.arange(len(features))).argsort()
    return features[order[:count]].double().numpy()


def deviation(images: int) -> float:
    """sqrt(ln(4 / delta) / 2N): how far a mean over N images may lie from its expectation, for B = 1.

    >>> round(deviation(1000), 4)
    0.0468
    """
    return math.sqrt(math.log(4.0 / DELTA) / (2.0 * images))


def terms(
    task: Task,
    *,
    real_images: int,
    processed_images: int,
    real_share: float | None,
    replaced: bool,
    discrepancy: TwoSample | None,
    teacher_loss: Tensor | None,
    features: str = "the teacher's features",
    chosen: bool = False,
) -> list[dict[str, Any]]:
    """One mapping per term: term, symbol, value, error (standard error), adds (to the bound), n, says, cannot_say.

    value and adds are None where nothing can be said. real_share: the recipe's share of real images in a batch.
    discrepancy: None where there are too few images; it was found in ``features``. teacher_loss: [n], the teacher's
    bounded loss on validation images; None where it has not answered about them. chosen: whether those images chose
    the synthesis settings, so that there is no discrepancy to be had.
    """
    theta = real_share if real_share is not None else real_images / (real_images + processed_images)
    rest = 1.0 - theta
    mismatch = discrepancy.lower_bound if discrepancy else None

    def term(name: str, symbol: str, value: float | None, n: int | None, **more: Any) -> dict[str, Any]:
        return {"term": name, "symbol": symbol, "value": value, "error": None, "adds": None, "n": n, **more}

    found = [
        term(
            "weight of the real images", "θ", theta, real_images + processed_images,
            says="the share of a training batch that is real"
            + (", set by student.real_share" if real_share is not None else ": N / (N + M)"),
            cannot_say="which weight would be best: that depends on the terms below that are not known",
        ),
        term(
            "chance, real images", "√(ln(4/δ) / 2N)", deviation(real_images), real_images,
            adds=2.0 * theta * deviation(real_images),
            says="how far the loss on so few real images may lie from the true one; only more labels shrink it",
            cannot_say=f"more than holds in {1 - DELTA:.0%} of cases (δ = {DELTA:g})",
        ),
        term(
            "chance, processed images", "√(ln(4/δ) / 2M)", deviation(processed_images), processed_images,
            adds=2.0 * rest * deviation(processed_images),
            says="the same for the processed images, independent draws given the generator; more of them shrink it",
            cannot_say="anything of how good they are: that is the mismatch",
        ),
        term(
            "capacity of the student", "Rad", None, None,
            says="what the student could fit by chance alone (Rademacher complexity, times 4θ and 4(1 − θ))",
            cannot_say="its size: it is not estimated here, and what is known for deep networks is too loose",
        ),
        term(
            "mismatch of real and processed", "TV ≥ 2a − 1", mismatch, discrepancy.images if discrepancy else None,
            adds=None if mismatch is None else 2.0 * rest * mismatch,
            says=_mismatch(discrepancy, replaced, features, chosen),
            cannot_say="how large the mismatch is: a better classifier, or more images, might tell them apart "
            "where this one can't, so it is a lower bound only",
        ),
        term(
            "the teacher's own error", "E|f_t(x) − y|", **_own_error(task, teacher_loss, replaced, rest),
            cannot_say="its error on generated images, whose true labels nobody knows",
        ),
    ]  # fmt: skip
    return found


def _own_error(task: Task, losses: Tensor | None, replaced: bool, rest: float) -> dict[str, Any]:
    """value, n, error and says of the teacher's own error; ``rest`` is the processed images' weight."""
    if losses is None:
        return {"value": None, "n": None, "says": "nothing: the teacher has not answered about validation images"}
    mean, n = float(losses.mean()), len(losses)
    pays = "labels were not replaced, so it is no term of this bound"
    if replaced:
        pays = (
            f"labels were replaced, so the bound pays 2(1 − θ) times it (Lip = {LIPSCHITZ:g}): "
            f"about {2.0 * rest * LIPSCHITZ * mean:.3g}"
        )
    return {
        "value": mean,
        "n": n,
        "error": float(losses.double().std()) / math.sqrt(n) if n > 1 else None,
        "says": f"{task.bounded_loss_name} on validation images, at most {_upper(losses):.2g} with "
        f"confidence {1 - DELTA:.0%}; {pays}",
    }


def _upper(losses: Tensor) -> float:
    """The upper 95 % limit of the mean of losses in [0, 1] (Hoeffding); holds where all are 0, too."""
    return min(1.0, float(losses.mean()) + math.sqrt(math.log(1.0 / DELTA) / (2.0 * len(losses))))


def _mismatch(found: TwoSample | None, replaced: bool, features: str, chosen: bool) -> str:
    if found is None and chosen:
        return "nothing: the synthesis settings were chosen on the validation images, so none is left to judge by"
    if found is None:
        return f"nothing: fewer than {FEWEST} validation or processed images"
    seen = (
        f"of {2 * found.images} images it had not been trained on, half of them real, a classifier on "
        f"{features} told {found.accuracy:.0%} rightly as real or processed: "
    )
    if found.lower_bound == 0.0:
        return seen + "no difference is shown"
    labels = "" if replaced else "; it saw no labels, and a mismatch of labels would add to this"
    return seen + f"they differ by at least this much, with confidence {1 - DELTA:.0%}{labels}"


def at_least(found: list[dict[str, Any]]) -> float:
    """The sum of what is known to be in the bound; every term left out is zero or more."""
    return float(sum(entry["adds"] for entry in found if entry["adds"] is not None))
