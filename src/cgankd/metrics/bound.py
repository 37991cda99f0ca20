"""The terms of the student's error bound: estimates where possible, and what each term says and does not say.

For a loss in [0, B], N real and M processed images, and theta the weight of the real images in the student's loss. The
real and the fake part are bounded separately, because the fakes depend on the real images. With probability 1 - delta

R(f) - inf R <= 2 theta [2 Rad_N + B sqrt(ln(4/delta) / 2N)] + 2 (1 - theta) [2 Rad_M + B sqrt(ln(4/delta) / 2M)]
                + 2 (1 - theta) B TV(real, processed), and where labels were replaced
                + 2 (1 - theta) Lip(loss) E_fake|teacher(x) - true label(x)|, where TV is then of x alone.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from torch import Tensor

from cgankd.core import rng
from cgankd.tasks import Task

DELTA = 0.05
LIPSCHITZ = 1.0  # of the bounded loss in the label, for both tasks: |y - y'|, and the 0-1 loss
FOLDS = 5
FEWEST, MOST = 10, 1000  # images of each kind for the two-sample classifier


@dataclasses.dataclass(frozen=True)
class TwoSample:
    """The accuracy of a classifier that separates real from processed images by ``features``; ``images`` of each."""

    accuracy: float
    lower_bound: float  # of TV, with confidence 95 %
    images: int
    features: str = "the teacher's features"


def two_sample(real: Tensor, fake: Tensor, seed: int, features: str = TwoSample.features) -> TwoSample:
    """A lower bound of the total variation (TV) between two samples [N, F]: TV >= 2 accuracy - 1 for any classifier.

    Logistic regression, cross-fitted over five folds, on equally many rows of each kind (10 to 1,000). The bound uses
    the Clopper-Pearson limit of the accuracy over all held-out rows; it neglects that folds share training rows
    (Bayle et al., arXiv 2007.12671).
    """
    # imported here, because it takes a second, and a run begins without it
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    count = min(len(real), len(fake), MOST)
    x = np.concatenate([_chosen(real, count, seed, "real"), _chosen(fake, count, seed, "fake")])
    y = np.repeat([0, 1], count)
    fold = np.tile(np.arange(count) % FOLDS, 2)
    correct = 0
    for number in range(FOLDS):
        held_out = fold == number
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))
        classifier.fit(x[~held_out], y[~held_out])
        correct += int((classifier.predict(x[held_out]) == y[held_out]).sum())
    from scipy import special  # takes half a second to import

    # the exact one-sided 95 % limit, a quantile of a beta distribution; 0 where nothing was correct
    low = float(special.betaincinv(correct, 2 * count - correct + 1, DELTA)) if correct else 0.0
    return TwoSample(correct / (2 * count), max(0.0, 2.0 * low - 1.0), count, features)


def _chosen(features: Tensor, count: int, seed: int, stream: str) -> Any:
    order = rng.order(len(features), seed, f"two-sample/{stream}")
    return features[order[:count]].double().numpy()


def deviation(images: int) -> float:
    """sqrt(ln(4 / delta) / 2N): how far a mean over N images may be from its expectation, for B = 1.

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
    chosen: bool = False,
) -> list[dict[str, Any]]:
    """One mapping per term: term, symbol, value, error (standard error), adds (to the bound), n, says, cannot_say.

    value and adds are None where they are not known. real_share: the recipe's share of real images in a batch.
    discrepancy: None where there are too few images. teacher_loss: [n], the teacher's bounded loss on validation
    images; None where its outputs for them are not known. chosen: whether the validation images chose the synthesis
    settings, so that no discrepancy could be measured on them.
    """
    theta = real_share if real_share is not None else real_images / (real_images + processed_images)
    rest = 1.0 - theta
    mismatch = discrepancy.lower_bound if discrepancy else None
    return [
        _term(
            "weight of the real images", "θ", theta, real_images + processed_images,
            says="the share of a training batch that is real"
            + (", set by student.real_share" if real_share is not None else ": N / (N + M)"),
            cannot_say="which weight is best: this depends on terms below that are not known",
        ),
        *_sampling_errors(real_images, processed_images, theta),
        _term(
            "capacity of the student", "Rad", None, None,
            says="how well the student could fit random labels (Rademacher complexity, times 4θ and 4(1 − θ))",
            cannot_say="its size: it is not estimated, because known estimates for deep networks are too loose",
        ),
        _term(
            "mismatch of real and processed", "TV ≥ 2a − 1", mismatch, discrepancy.images if discrepancy else None,
            adds=None if mismatch is None else 2.0 * rest * mismatch,
            says=_mismatch(discrepancy, replaced, chosen),
            cannot_say="how large the mismatch is: it is a lower bound only, because a better classifier, or more "
            "images, might separate them better",
        ),
        _term(
            "the teacher's own error", "E|f_t(x) − y|", **_own_error(task, teacher_loss, replaced, rest),
            cannot_say="its error on generated images, whose true labels are not known",
        ),
    ]  # fmt: skip


def _term(name: str, symbol: str, value: float | None, n: int | None, **more: Any) -> dict[str, Any]:
    return {"term": name, "symbol": symbol, "value": value, "error": None, "adds": None, "n": n, **more}


def _sampling_errors(real_images: int, processed_images: int, theta: float) -> list[dict[str, Any]]:
    """The terms for the number of real and of processed images."""
    return [
        _term(
            "sampling error, real images", "√(ln(4/δ) / 2N)", deviation(real_images), real_images,
            adds=2.0 * theta * deviation(real_images),
            says="how far the mean loss on N real images may be from its expectation; only more labelled images "
            "reduce it",
            cannot_say=f"what happens in the other {DELTA:.0%} of cases (δ = {DELTA:g})",
        ),
        _term(
            "sampling error, processed images", "√(ln(4/δ) / 2M)", deviation(processed_images), processed_images,
            adds=2.0 * (1.0 - theta) * deviation(processed_images),
            says="the same for the processed images, which are independent draws given the generator; more of them "
            "reduce it",
            cannot_say="how good they are: the mismatch measures that",
        ),
    ]  # fmt: skip


def _own_error(task: Task, losses: Tensor | None, replaced: bool, rest: float) -> dict[str, Any]:
    """value, n, error and says of the teacher's own error; ``rest`` is the weight of the processed images."""
    if losses is None:
        return {"value": None, "n": None, "says": "nothing: the teacher has no outputs for validation images"}
    mean, n = float(losses.mean()), len(losses)
    adds = "labels were not replaced, so it is no term of this bound"
    if replaced:
        adds = (
            f"labels were replaced, so the bound contains 2(1 − θ) times it (Lip = {LIPSCHITZ:g}): "
            f"about {2.0 * rest * LIPSCHITZ * mean:.3g}"
        )
    return {
        "value": mean,
        "n": n,
        "error": float(losses.double().std()) / math.sqrt(n) if n > 1 else None,
        "says": f"{task.bounded_loss_name} on validation images, at most {_upper(losses):.2g} with "
        f"confidence {1 - DELTA:.0%}; {adds}",
    }


def _upper(losses: Tensor) -> float:
    """The upper 95 % limit of the mean of losses in [0, 1] (Hoeffding), which is valid also where all are 0."""
    return min(1.0, float(losses.mean()) + math.sqrt(math.log(1.0 / DELTA) / (2.0 * len(losses))))


def _mismatch(discrepancy: TwoSample | None, replaced: bool, chosen: bool) -> str:
    if discrepancy is None and chosen:
        return "nothing: the synthesis settings were chosen on the validation images, so none is left for this"
    if discrepancy is None:
        return f"nothing: fewer than {FEWEST} validation or processed images"
    result = (
        f"of {2 * discrepancy.images} held-out images, half of them real, a classifier on {discrepancy.features} "
        f"classified {discrepancy.accuracy:.0%} correctly as real or processed: "
    )
    if discrepancy.lower_bound == 0.0:
        return result + "no difference is shown"
    labels = "" if replaced else "; it did not see labels, and a mismatch of labels would add to this"
    return result + f"they differ by at least this much, with confidence {1 - DELTA:.0%}{labels}"


def at_least(entries: list[dict[str, Any]]) -> float:
    """The sum of the known terms, a lower limit of the bound, because every other term is 0 or more."""
    return float(sum(entry["adds"] for entry in entries if entry["adds"] is not None))
