"""Methods on class logits (dkd, dist, ls-*, mlkd, atkd): against numpy in float64; what two classes do to them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from forwards import classes, example, method, numbers, value
from scipy.special import softmax
from scipy.stats import entropy, pearsonr

from cgankd.core.errors import UserError
from cgankd.data.batches import Batch
from cgankd.distill import DistillBatch
from cgankd.distill.methods.dkd import decoupled


def logits(batch: DistillBatch) -> tuple[np.ndarray, np.ndarray]:
    assert batch.teacher_outputs is not None
    return batch.outputs.detach().double().numpy(), batch.teacher_outputs.double().numpy()


def parts(s: np.ndarray, t: np.ndarray, y: int, temperature: float) -> tuple[float, float]:
    """KL(teacher || student) of one image: of (target, rest), and among the rest."""
    p_s, p_t = softmax(s / temperature), softmax(t / temperature)
    rest_s, rest_t = np.delete(p_s, y), np.delete(p_t, y)
    target = entropy([p_t[y], rest_t.sum()], [p_s[y], rest_s.sum()])
    return target, entropy(rest_t / rest_t.sum(), rest_s / rest_s.sum())


@pytest.mark.parametrize("count", [3, 10, 1000])
def test_dkd_against_numpy(count: int) -> None:
    batch, temperature = example(classes(count)), 3.0
    s, t = logits(batch)
    found = value(method("dkd", classes(count), temperature, alpha=0.7, beta=5.0), batch)
    rows = [parts(s[i], t[i], int(batch.targets[i]), temperature) for i in range(len(s))]
    right = temperature**2 * np.mean([0.7 * target + 5.0 * rest for target, rest in rows])
    assert found == pytest.approx(right, rel=1e-4)
    swapped = [parts(t[i], s[i], int(batch.targets[i]), temperature) for i in range(len(s))]
    assert abs(found - temperature**2 * np.mean([0.7 * a + 5.0 * b for a, b in swapped])) > 1e-3 * found


def test_decoupled_parts_make_up_plain_kd() -> None:
    # the paper's equation (7): KL = KL(b) + (1 - p_t,y) KL(q)
    task, batch = classes(6), example(classes(6))
    assert batch.teacher_outputs is not None
    target, others = decoupled(batch.outputs, batch.teacher_outputs, batch.targets, 2.0)
    p_y = torch.softmax(batch.teacher_outputs / 2.0, dim=1).gather(1, batch.targets[:, None])[:, 0]
    whole = task.imitation_loss(batch.outputs, batch.teacher_outputs, 2.0) / 4.0
    assert float((target + (1 - p_y) * others).mean().detach()) == pytest.approx(float(whole.detach()), rel=1e-5)


def test_dkd_warms_up() -> None:
    task = classes(5)
    batch, full = example(task), method("dkd", task, warmup=0.0)
    for done, share in ((0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.9, 1.0)):
        now = dataclasses.replace(batch, done=done)
        assert value(method("dkd", task, warmup=0.2), now) == pytest.approx(share * value(full, now))


def test_dkd_stays_finite_for_a_teacher_without_doubt() -> None:
    task, batch = classes(5), example(classes(5))
    sure = dataclasses.replace(batch, teacher_outputs=1000.0 * torch.eye(5)[batch.targets])
    loss = sum(method("dkd", task).loss(sure).values())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(batch.outputs.grad).all()


@pytest.mark.parametrize("name", ["dkd", "atkd", "ls-kd", "ls-dkd", "ls-dist", "ls-mlkd"])
def test_two_classes_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(UserError, match=rf"'{name}' is not useful with two classes, .*; allowed: three classes"):
        method(name, classes(2))


def test_why_two_classes_are_refused() -> None:
    batch = example(classes(2))
    assert batch.teacher_outputs is not None
    _, others = decoupled(batch.outputs, batch.teacher_outputs, batch.targets, 4.0)
    assert others.tolist() == [0.0] * 7  # the part that DKD gives eight times the weight


@pytest.mark.parametrize("count", [2, 4, 1000])
def test_dist_against_scipy(count: int) -> None:
    batch = example(classes(count))
    s, t = (softmax(x / 4.0, axis=1) for x in logits(batch))
    terms = numbers(method("dist", classes(count), beta=1.5, gamma=0.5).loss(batch))
    inter = np.mean([1 - pearsonr(s[i], t[i])[0] for i in range(len(s))])
    intra = np.mean([1 - pearsonr(s[:, c], t[:, c])[0] for c in range(count)])
    assert terms["dist_inter"] == pytest.approx(16 * 1.5 * inter, rel=1e-4)
    assert terms["dist_intra"] == pytest.approx(16 * 0.5 * intra, rel=1e-4)


def test_dist_is_nothing_where_probabilities_are_proportional() -> None:
    # Pearson's correlation is blind to a + b x over a row: mixed with the uniform distribution, p still correlates
    task = classes(6)
    batch = example(task)
    p = torch.softmax(batch.outputs.detach() / 4.0, dim=1)
    mixed = 4.0 * torch.log(0.3 * p + 0.7 / 6)
    terms = numbers(method("dist", task).loss(dataclasses.replace(batch, teacher_outputs=mixed)))
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(
        {"dist_inter": 0.0, "dist_intra": 0.0}, abs=1e-4
    )


def standard(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)


def test_ls_kd_against_numpy() -> None:
    batch = example(classes(8))
    s, t = (softmax(standard(x) / 2.0, axis=1) for x in logits(batch))
    made = method("ls-kd", classes(8), student_temperature=50.0)  # student.temperature is not its own
    found = value(made, batch)
    assert found == pytest.approx(9 * 4 * entropy(t, s, axis=1).mean(), rel=1e-4)
    swapped = 9 * 4 * entropy(s, t, axis=1).mean()
    assert abs(found - swapped) > 1e-3 * swapped


def test_ls_dkd_is_dkd_on_standardised_logits() -> None:
    batch = example(classes(8))
    s, t = (standard(x) for x in logits(batch))
    rows = [parts(s[i], t[i], int(batch.targets[i]), 3.0) for i in range(len(s))]
    right = 9 * 9 * np.mean([target + 8 * rest for target, rest in rows])
    assert value(method("ls-dkd", classes(8), temperature=3.0), batch) == pytest.approx(right, rel=1e-4)


def test_ls_dist_is_dist_on_standardised_logits() -> None:
    batch = example(classes(8))
    p_s, p_t = (softmax(standard(x) / 3.0, axis=1) for x in logits(batch))
    images = np.mean([np.corrcoef(p_s[i], p_t[i])[0, 1] for i in range(len(p_s))])
    over_batch = np.mean([np.corrcoef(p_s[:, c], p_t[:, c])[0, 1] for c in range(8)])
    right = 4 * 9 * 2 * ((1 - images) + (1 - over_batch))
    assert value(method("ls-dist", classes(8), temperature=3.0), batch) == pytest.approx(right, rel=1e-4)


@pytest.mark.parametrize("name", ["ls-kd", "ls-dkd", "ls-dist", "ls-mlkd"])
def test_standardised_losses_see_no_range_of_logits(name: str) -> None:
    batch = example(classes(8))
    assert batch.teacher_outputs is not None
    other = dataclasses.replace(
        batch, outputs=3.0 * batch.outputs.detach() + 5.0, teacher_outputs=0.5 * batch.teacher_outputs - 1.0
    )
    made = method(name, classes(8))
    assert value(made, other) == pytest.approx(value(made, batch), rel=1e-3)


def test_equal_logits_have_a_finite_gradient() -> None:
    batch = example(classes(8))
    flat = torch.zeros_like(batch.outputs, requires_grad=True)
    sum(method("ls-kd", classes(8)).loss(dataclasses.replace(batch, outputs=flat)).values()).backward()
    assert torch.isfinite(flat.grad).all()


def mlkd(s: np.ndarray, t: np.ndarray, first: float) -> dict[str, float]:
    """The three terms at weight 9, by loops over images and classes."""
    rows, count = s.shape
    right = {"mlkd_instance": 0.0, "mlkd_batch": 0.0, "mlkd_class": 0.0}
    for temperature in (first, 2.0, 3.0, 5.0, 6.0):
        p, q = softmax(s / temperature, axis=1), softmax(t / temperature, axis=1)
        right["mlkd_instance"] += 9 * temperature**2 * entropy(q, p, axis=1).mean()
        for i in range(rows):
            for j in range(rows):
                gap = p[i] @ p[j] - q[i] @ q[j]
                right["mlkd_batch"] += 9 * gap**2 / rows * (64 / rows)
        for c in range(count):
            for d in range(count):
                gap = p[:, c] @ p[:, d] - q[:, c] @ q[:, d]
                right["mlkd_class"] += 9 * gap**2 / count * (64 / rows) ** 2
    return right


@pytest.mark.parametrize("count", [2, 10])
def test_mlkd_against_loops(count: int) -> None:
    batch = example(classes(count))
    terms = numbers(method("mlkd", classes(count)).loss(batch))
    assert terms == pytest.approx(mlkd(*logits(batch), 4.0), rel=1e-4)


def with_strong(count: int) -> tuple[DistillBatch, DistillBatch]:
    """A batch with a strong view of each image; and those views."""
    batch = example(classes(count))
    strong = dataclasses.replace(example(classes(count), seed=1), targets=batch.targets)
    return dataclasses.replace(batch, extra=strong), strong


@pytest.mark.parametrize("count", [2, 10])
def test_mlkds_strong_view_adds_the_first_term_and_the_label(count: int) -> None:
    batch, strong = with_strong(count)
    terms = numbers(method("mlkd", classes(count), strong=1.0).loss(batch))
    right = mlkd(*logits(batch), 4.0)
    right["mlkd_strong_instance"] = mlkd(*logits(strong), 4.0)["mlkd_instance"]
    logs = np.log(softmax(logits(strong)[0], axis=1))
    right["mlkd_strong_label"] = -logs[np.arange(7), batch.targets.numpy()].mean()
    assert terms == pytest.approx(right, rel=1e-4)


@pytest.mark.parametrize("strong_view", [0.0, 1.0])
def test_ls_mlkd_is_mlkd_on_standardised_logits_but_for_the_label(strong_view: float) -> None:
    batch, strong = with_strong(8)
    terms = numbers(method("ls-mlkd", classes(8), strong=strong_view, weight=0.5).loss(batch))
    right = {f"ls-{name}": 0.5 * term for name, term in mlkd(*map(standard, logits(batch)), 2.0).items()}
    if strong_view:
        instance = mlkd(*map(standard, logits(strong)), 2.0)["mlkd_instance"]
        logs = np.log(softmax(logits(strong)[0], axis=1))
        right["ls-mlkd_strong_instance"] = 0.5 * instance
        right["ls-mlkd_strong_label"] = -logs[np.arange(7), batch.targets.numpy()].mean()
    assert terms == pytest.approx(right, rel=1e-4)


def test_a_strong_view_belongs_to_its_image_and_view_whatever_the_batch() -> None:
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    index, view = torch.tensor([4, 9, 9, 1, 0, 7]), torch.tensor([0, 0, 1, 2, 3, 0])
    fake = torch.zeros(6, dtype=torch.bool)

    def drawn(rows: list[int], seed: int = 3, **own: float) -> torch.Tensor | None:
        shown = Batch(images[rows], index[rows], index[rows], view[rows], fake[rows])
        return method("mlkd", classes(10), **{"strong": 1.0, **own}).views(shown, seed)

    whole = drawn([0, 1, 2, 3, 4, 5])
    assert whole is not None
    assert whole.shape == images.shape
    assert float((whole - images).abs().max()) > 0.2
    part = drawn([2, 5])
    assert part is not None
    assert torch.equal(part, whole[[2, 5]])
    other = drawn([0, 1, 2, 3, 4, 5], seed=4)
    assert other is not None
    assert not torch.equal(other, whole)
    assert drawn([0], strong=0.0) is None


def test_a_strong_view_has_a_strength_from_0_to_1() -> None:
    with pytest.raises(UserError, match=r"mlkd\.strong = 1\.5; allowed: 0 to 1$"):
        method("mlkd", classes(3), strong=1.5)


@pytest.mark.parametrize("rows", [6, 7])
def test_atkd_against_loops(rows: int) -> None:
    batch = example(classes(5), rows)
    s, t = logits(batch)
    y, fake = batch.targets.numpy(), batch.fake.numpy()
    doubt = np.array([1 - softmax(t[i])[y[i]] for i in range(rows)])
    easy, hard = [], []
    for i in range(rows):
        target, rest = parts(s[i], t[i], y[i], 4.0)
        if doubt[i] < np.median(doubt[fake == fake[i]]):
            easy.append(rest)
        else:
            hard.append(target + rest)
    assert easy
    terms = numbers(method("atkd", classes(5)).loss(batch))
    assert terms["atkd_easy"] == pytest.approx(16 * 0.2 * np.mean(easy), rel=1e-4)
    assert terms["atkd_hard"] == pytest.approx(16 * 0.8 * np.mean(hard), rel=1e-4)


def test_atkd_tells_easy_from_hard_where_the_teacher_is_all_but_sure() -> None:
    batch, task = example(classes(5), 8), classes(5)
    gap = 40.0 + torch.arange(8)  # 1 - p is 0 in float32 for every image
    sure = dataclasses.replace(batch, teacher_outputs=gap[:, None] * torch.eye(5)[batch.targets])
    sure.outputs.retain_grad()
    method("atkd", task, easy=1.0).loss(sure)["atkd_easy"].backward()
    for kind in (batch.fake, ~batch.fake):
        rows = kind.nonzero()[:, 0]
        taught = sure.outputs.grad[rows].abs().sum(dim=1) > 0
        assert taught.tolist() == (torch.arange(len(rows)) >= (len(rows) + 1) // 2).tolist()


def test_medians_of_real_and_fake_are_apart() -> None:
    # the teacher is sure of all real images and doubts all fakes: one median for all would call every real one easy
    task, batch = classes(5), example(classes(5), 8)
    sure = torch.where(batch.fake[:, None], 1.0, 6.0) * torch.eye(5)[batch.targets]
    sure = sure + torch.linspace(0, 0.5, 8)[:, None] * torch.eye(5)[batch.targets]
    seen = dataclasses.replace(batch, teacher_outputs=sure)
    apart = numbers(method("atkd", task).loss(seen))
    together = numbers(method("atkd", task).loss(dataclasses.replace(seen, fake=torch.zeros(8, dtype=torch.bool))))
    target, rest = decoupled(seen.outputs, sure, seen.targets, 4.0)
    easy = torch.zeros(8, dtype=torch.bool)
    order = [(batch.fake == kind).nonzero()[:, 0] for kind in (False, True)]
    for rows in order:  # within each kind doubt falls with the row: the later half is easy
        easy[rows] = torch.arange(len(rows)) >= (len(rows) + 1) // 2
    assert apart["atkd_easy"] == pytest.approx(float(16 * 0.2 * rest[easy].mean().detach()), rel=1e-4)
    assert apart["atkd_hard"] == pytest.approx(float(16 * 0.8 * (target + rest)[~easy].mean().detach()), rel=1e-4)
    assert not math.isclose(apart["atkd_hard"], together["atkd_hard"], rel_tol=1e-3)
