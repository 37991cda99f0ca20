"""Methods on relations of images in feature space (rkd, pkt, flow, sp, crd): against loops in float64."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from forwards import SCALAR, STUDENT, TEACHER, classes, example, method, numbers, value
from scipy.stats import entropy

from cgankd.distill import DistillBatch
from cgankd.distill.methods import rkd

TASK = classes(3)


def rows(batch: DistillBatch, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """The student's and the teacher's features, flat, [B, D]."""
    return tuple(
        side[layer].detach().double().flatten(1).numpy() for side in (batch.student_features, batch.teacher_features)
    )  # type: ignore[return-value]


def huber(a: float, b: float) -> float:
    gap = abs(a - b)
    return gap**2 / 2 if gap < 1 else gap - 0.5


def test_rkd_against_loops() -> None:
    batch = example(TASK, 6)
    features = rows(batch, "end")
    pairs, triples = (list(itertools.permutations(range(6), k)) for k in (2, 3))
    distances = []
    for f in features:
        d = {(i, j): np.linalg.norm(f[i] - f[j]) for i, j in pairs}
        distances.append({pair: value / np.mean(list(d.values())) for pair, value in d.items()})
    distance = np.mean([huber(distances[0][pair], distances[1][pair]) for pair in pairs])

    def cosine(f: np.ndarray, i: int, j: int, k: int) -> float:
        a, b = f[i] - f[j], f[k] - f[j]
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    angle = np.mean([huber(cosine(features[0], *t), cosine(features[1], *t)) for t in triples])
    terms = numbers(method("rkd", TASK).loss(batch))
    assert terms["rkd_distance"] == pytest.approx(25 * distance, rel=1e-4)
    assert terms["rkd_angle"] == pytest.approx(50 * angle, rel=1e-4)


@pytest.mark.parametrize("elements", [1, 2**17])  # one j at a time, and all at once
def test_rkds_angles_and_their_gradient_against_a_tensor_of_all_triples(
    monkeypatch: pytest.MonkeyPatch, elements: int
) -> None:
    monkeypatch.setattr(rkd._AngleGaps, "ELEMENTS", elements)
    batch = example(TASK, 9)
    mine, theirs = (6.0 * side["end"].detach().double() for side in (batch.student_features, batch.teacher_features))

    def cosines(f: torch.Tensor) -> torch.Tensor:
        away = f[None, :] - f[:, None]
        unit = away / (away.square().sum(dim=2, keepdim=True) + 1e-300).sqrt()
        return unit @ unit.transpose(1, 2)

    mine.requires_grad_()
    plain = torch.nn.functional.smooth_l1_loss(cosines(mine), cosines(theirs), reduction="sum") / (9 * 8 * 7)
    (expected,) = torch.autograd.grad(50 * plain, mine)
    seen = dataclasses.replace(
        batch,
        student_features={**batch.student_features, "end": mine},
        teacher_features={**batch.teacher_features, "end": theirs},
    )
    angle = method("rkd", TASK).loss(seen)["rkd_angle"]
    assert float(angle.detach()) == pytest.approx(50 * float(plain.detach()), rel=1e-6)
    assert torch.allclose(torch.autograd.grad(angle, mine)[0], expected, rtol=1e-4, atol=1e-6)


def test_rkd_does_not_see_a_turned_and_scaled_space() -> None:
    batch = example(TASK)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))[0]
    same = {"end": 3.0 * batch.student_features["end"].detach() @ turn + 1.0}
    assert value(method("rkd", TASK), dataclasses.replace(batch, teacher_features=same)) == pytest.approx(0, abs=1e-4)


def test_equal_features_of_two_images_have_a_finite_gradient() -> None:
    batch = example(TASK)
    twins = batch.student_features["end"].detach().clone()
    twins[1] = twins[0]
    twins.requires_grad_()
    for name in ("rkd", "pkt", "flow", "crd"):
        seen = dataclasses.replace(batch, student_features={**batch.student_features, "end": twins})
        (slope,) = torch.autograd.grad(sum(method(name, TASK).loss(seen).values()), twins)
        assert torch.isfinite(slope).all(), name


def kernels(f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p_ij of the cosine kernel and of 1 / (1 + d), by loops."""
    count = len(f)
    cosine, distance = np.empty((count, count)), np.empty((count, count))
    for i in range(count):
        for j in range(count):
            cosine[i, j] = (f[i] @ f[j] / np.linalg.norm(f[i]) / np.linalg.norm(f[j]) + 1) / 2
            distance[i, j] = 1 / (1 + math.sqrt(((f[i] - f[j]) ** 2).sum()))
    return cosine / cosine.sum(axis=1, keepdims=True), distance / distance.sum(axis=1, keepdims=True)


def test_pkt_against_loops() -> None:
    batch = example(TASK)
    s, t = (kernels(f)[0] for f in rows(batch, "end"))
    found = value(method("pkt", TASK), batch)
    assert found == pytest.approx(30_000 / 64 * entropy(t, s, axis=1).mean(), rel=1e-3)
    assert abs(found - 30_000 / 64 * entropy(s, t, axis=1).mean()) > 1e-2 * found  # the direction is visible


def test_pkts_weight_is_the_published_one_at_its_batch() -> None:
    batch = example(TASK, 64)
    s, t = (kernels(f)[0] for f in rows(batch, "end"))
    published = 30_000 * np.mean(t * np.log(t / s))  # the mean over all B x B
    assert value(method("pkt", TASK), batch) == pytest.approx(published, rel=1e-3)


def test_features_that_point_away_from_each_other_stay_finite() -> None:
    batch = example(TASK, 2)
    ends = torch.stack([torch.ones(7), -torch.ones(7)])
    seen = dataclasses.replace(batch, teacher_features={**batch.teacher_features, "end": ends})
    for name in ("pkt", "flow"):
        assert math.isfinite(value(method(name, TASK), seen))


@pytest.mark.parametrize("done", [0.0, 0.07])
def test_flow_against_loops(done: float) -> None:
    batch = example(TASK, done=done)
    right = 0.0
    for layer in ("early", "late", "end"):
        pooled = []
        for side in (batch.student_features, batch.teacher_features):
            feature = side[layer].detach().double().numpy()
            pooled.append(feature.reshape(*feature.shape[:2], -1).mean(axis=2))
        s, t = (kernels(f) for f in pooled)
        weight = 1.0 if layer == "end" else 100 * 0.7 ** (100 * done)
        for p, q in zip(t, s, strict=True):
            right += weight * (entropy(p, q, axis=1) + entropy(q, p, axis=1)).mean()
    assert value(method("flow", TASK), batch) == pytest.approx(right, rel=1e-3)


def test_flow_pairs_from_the_deepest_layer_up() -> None:
    made = method("flow", TASK)
    assert made.taps(["a", "b", "c", "end"], ["x", "end"]) == (["c", "end"], ["x", "end"])


def test_sp_against_loops() -> None:
    batch, found = example(TASK), []
    for f in rows(batch, "late"):
        gram = np.array([[a @ b for b in f] for a in f])
        found.append(np.array([row / np.linalg.norm(row) for row in gram]))
    right = 3000 * ((found[0] - found[1]) ** 2).sum() / 7**2
    assert value(method("sp", TASK), batch) == pytest.approx(right, rel=1e-4)


def test_sp_looks_at_the_last_map_or_the_only_layer() -> None:
    made = method("sp", TASK)
    assert made.taps(["a", "b", "end"], ["x", "end"]) == (["b"], ["x"])
    assert made.taps(["end"], ["x", "end"]) == (["end"], ["x"])


@pytest.mark.parametrize("task", [TASK, SCALAR])
def test_crd_against_loops(task) -> None:
    batch, made = example(task), method("crd", task, width=6, temperature=0.2)
    f_s, f_t = rows(batch, "end")
    weights = {name: weight.detach().double().numpy() for name, weight in made.named_parameters()}
    embedded = []
    for who, f in (("student", f_s), ("teacher", f_t)):
        g = f @ weights[f"embed_{who}.weight"].T + weights[f"embed_{who}.bias"]
        embedded.append(g / np.linalg.norm(g, axis=1, keepdims=True))
    s, t = embedded
    total = 0.0
    for i in range(7):  # the student's image i among the teacher's, and the other way round
        total -= math.log(math.exp(s[i] @ t[i] / 0.2) / sum(math.exp(s[i] @ t[j] / 0.2) for j in range(7)))
        total -= math.log(math.exp(s[i] @ t[i] / 0.2) / sum(math.exp(s[j] @ t[i] / 0.2) for j in range(7)))
    assert value(made, batch) == pytest.approx(made.values["weight"] * total / 7, rel=1e-4)


def test_crd_keeps_two_linear_layers_and_nothing_else() -> None:
    shapes = {name: tuple(kept.shape) for name, kept in method("crd", TASK).state_dict().items()}
    assert shapes == {
        "embed_student.weight": (128, *STUDENT["end"]), "embed_student.bias": (128,),
        "embed_teacher.weight": (128, *TEACHER["end"]), "embed_teacher.bias": (128,),
    }  # fmt: skip
