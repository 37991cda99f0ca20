"""Methods that compare maps (fitnet, at, nst, vid, ab, ofd, ft, reviewkd): against loops in float64."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from forwards import LAYERS, SCALAR, STUDENT, TEACHER, classes, example, method, numbers, unbuilt, value
from scipy.signal import correlate2d
from scipy.special import expit
from torch import nn

from cgankd.config.settings import StudentSettings
from cgankd.core.errors import UserError
from cgankd.distill import METHODS, DistillBatch, Method, create
from cgankd.distill.maps import MapMethod, Norm
from cgankd.distill.methods.reviewkd import hierarchical

TASK = classes(3)
MAPS = sorted(name for name, made in METHODS.items() if issubclass(made, MapMethod))


def averaged(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """[B, C, H, W] averaged down to cells that cover the map, by loops."""
    found = np.empty((*x.shape[:2], height, width))
    for i in range(height):
        rows = slice(i * x.shape[2] // height, -(-(i + 1) * x.shape[2] // height))
        for j in range(width):
            columns = slice(j * x.shape[3] // width, -(-(j + 1) * x.shape[3] // width))
            found[:, :, i, j] = x[:, :, rows, columns].mean(axis=(2, 3))
    return found


def maps(batch: DistillBatch, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Both networks' maps of a layer at the smaller of their sizes."""
    s, t = (side[layer].detach().double().numpy() for side in (batch.student_features, batch.teacher_features))
    size = tuple(map(min, s.shape[2:], t.shape[2:]))
    return averaged(s, *size), averaged(t, *size)


def weights(made: Method) -> dict[str, np.ndarray]:
    return {name: kept.detach().double().numpy() for name, kept in made.state_dict().items()}


def conv(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """A convolution that keeps the size, by scipy."""
    pad = kernel.shape[2] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    found = np.zeros((len(x), len(kernel), *x.shape[2:]))
    for b in range(len(x)):
        for out in range(len(kernel)):
            for channel in range(x.shape[1]):
                found[b, out] += correlate2d(padded[b, channel], kernel[out, channel], mode="valid")
            found[b, out] += 0.0 if bias is None else bias[out]
    return found


def normed(x: np.ndarray) -> np.ndarray:
    """Batch normalisation in training, with scale 1 and shift 0."""
    mean, variance = x.mean(axis=(0, 2, 3), keepdims=True), x.var(axis=(0, 2, 3), keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5)


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.1 * x)


def test_a_map_is_averaged_down_to_the_smaller_of_two() -> None:
    made, batch = method("at", TASK), example(TASK)
    for layer, (s, t) in zip(("early", "late"), made.maps(batch), strict=True):
        right = maps(batch, layer)
        for found, expected in zip((s, t), right, strict=True):
            assert np.allclose(found.detach().numpy(), expected, atol=1e-6)
    assert made.maps(batch)[1][1].shape == (7, 6, 2, 2)  # the teacher's were 3x3


@pytest.mark.parametrize("task", [TASK, SCALAR])
def test_fitnet_against_loops(task) -> None:
    batch, made = example(task), method("fitnet", task)
    s, t = maps(batch, "late")
    guess = normed(conv(s, weights(made)["adapters.0.0.weight"]))
    assert value(made, batch) == pytest.approx(made.values["weight"] * ((guess - t) ** 2).mean(), rel=1e-4)


def test_fitnet_looks_at_the_middle() -> None:
    made = unbuilt("fitnet", TASK)
    assert made.taps(["a", "b", "c", "end"], ["v", "w", "x", "y", "z", "end"]) == (["b"], ["y"])
    assert made.taps(["a", "end"], ["x", "end"]) == (["a"], ["x"])


def test_at_against_loops() -> None:
    batch, right = example(TASK), 0.0
    for layer in ("early", "late"):
        both = maps(batch, layer)
        for i in range(7):
            s, t = ((x[i] ** 2).sum(axis=0).ravel() for x in both)
            s, t = s / np.linalg.norm(s), t / np.linalg.norm(t)
            right += ((s - t) ** 2).mean() / 7
    assert value(method("at", TASK), batch) == pytest.approx(1000 * right, rel=1e-4)


def test_nst_against_loops() -> None:
    batch, right = example(TASK), 0.0

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([[(x @ y) ** 2 for x in a] for y in b]))

    for layer in ("early", "late"):
        both = [x.reshape(*x.shape[:2], -1) for x in maps(batch, layer)]
        for i in range(7):
            s, t = ([channel / np.linalg.norm(channel) for channel in x[i]] for x in both)
            right += (kernel(s, s) + kernel(t, t) - 2 * kernel(s, t)) / 7
    assert value(method("nst", TASK), batch) == pytest.approx(50 * right, rel=1e-4)


def test_nst_is_the_distance_of_the_gram_matrices_over_pixels() -> None:
    batch, right = example(TASK), 0.0
    for layer in ("early", "late"):
        grams = []
        for x in maps(batch, layer):
            f = x.reshape(*x.shape[:2], -1)
            f = f / np.linalg.norm(f, axis=2, keepdims=True)
            grams.append(np.einsum("bcp,bcq->bpq", f, f) / f.shape[1])
        right += ((grams[0] - grams[1]) ** 2).sum(axis=(1, 2)).mean()
    assert value(method("nst", TASK), batch) == pytest.approx(50 * right, rel=1e-4)


def test_vid_is_a_normal_likelihood() -> None:
    batch, made = example(TASK), method("vid", TASK)
    with torch.no_grad():
        for raw in made.raw:
            raw.add_(torch.linspace(-1, 1, len(raw))[:, None, None])
    kept, right = weights(made), 0.0
    for place, layer in enumerate(("early", "late")):
        s, t = maps(batch, layer)
        names = [f"adapters.{place}.{number}" for number in (0, 2, 4)]
        for name in names:
            s = conv(s if name == names[0] else np.maximum(s, 0), kept[f"{name}.weight"], kept[f"{name}.bias"])
        variance = np.log1p(np.exp(kept[f"raw.{place}"])) + 1e-5
        density = np.exp(-((t - s) ** 2) / (2 * variance)) / np.sqrt(2 * math.pi * variance)
        right += -np.log(density).mean() - math.log(2 * math.pi) / 2  # the constant is left out
    assert value(made, batch) == pytest.approx(right, rel=1e-4)


def test_vids_variance_is_five_at_first() -> None:
    made = method("vid", TASK)
    assert [raw.shape for raw in made.raw] == [(5, 1, 1), (6, 1, 1)]
    for raw in made.raw:
        assert torch.allclose(nn.functional.softplus(raw) + 1e-5, torch.tensor(5.0))


@pytest.mark.parametrize("after_activation", [False, True])
def test_ab_against_loops(after_activation: bool) -> None:
    batch, made = example(TASK), method("ab", TASK, margin=0.7)
    if after_activation:  # ReLU does not move the boundary
        fired = {layer: feature.relu() for layer, feature in batch.teacher_features.items()}
        batch = dataclasses.replace(batch, teacher_features={**batch.teacher_features, "early": fired["early"]})
    kept, right = weights(made), 0.0
    for place, layer in enumerate(("early", "late")):
        s, t = maps(batch, layer)
        s = normed(conv(s, kept[f"adapters.{place}.0.weight"]))
        for a, b in zip(s.ravel(), t.ravel(), strict=True):
            if b > 0 and a < 0.7:
                right += 2.0 ** (place - 1) * (0.7 - a) ** 2 / 7
            if b <= 0 and a > -0.7:
                right += 2.0 ** (place - 1) * (0.7 + a) ** 2 / 7
    assert value(made, batch) == pytest.approx(0.003 * right, rel=1e-4)


def test_ab_may_come_first_and_the_labels_after_it() -> None:
    batch = example(TASK)
    made, joint = (
        create("ab", TASK, StudentSettings(method_settings={"ab": {"alone": share}})) for share in (0.5, 0.0)
    )
    for objective in (made, joint):
        mine, theirs = objective.taps(LAYERS, LAYERS)
        torch.manual_seed(0)
        objective.build({one: STUDENT[one] for one in mine}, {one: TEACHER[one] for one in theirs})
    both = numbers(joint.loss(batch))
    early, late = (numbers(made.loss(dataclasses.replace(batch, done=done))) for done in (0.49, 0.5))
    assert early == {"label": 0.0, "ab": pytest.approx(both["ab"])}
    assert late == {"label": pytest.approx(both["label"]), "ab": 0.0}


def test_ofd_against_loops() -> None:
    batch, made = example(TASK), method("ofd", TASK)
    margins = [-torch.rand(width, generator=torch.Generator().manual_seed(width)) for width in (5, 6)]
    for name, margin in zip(made.margins, margins, strict=True):
        made.get_buffer(name).copy_(margin[:, None, None])
    kept, right = weights(made), 0.0
    for place, layer in enumerate(("early", "late")):
        s, t = maps(batch, layer)
        s = normed(conv(s, kept[f"adapters.{place}.0.weight"]))
        for where in np.ndindex(*s.shape):
            target = max(t[where], float(margins[place][where[1]]))
            if not s[where] <= target <= 0:
                right += 2.0 ** (place - 1) * (s[where] - target) ** 2 / 7
    assert value(made, batch) == pytest.approx(0.001 * right, rel=1e-4)


def test_ft_against_loops() -> None:
    batch, made = example(TASK), method("ft", TASK)
    s, t = maps(batch, "late")
    kept = weights(made)
    assert kept["encoder.4.weight"].shape == (3, 3, 3, 3)  # half of the teacher's 6 channels
    for first, number in ((0, 0), (3, 2), (6, 4)):
        s = conv(s if not number else leaky(s), *(kept[f"adapters.0.{first}.{x}"] for x in ("weight", "bias")))
        s = normed(s)
        t = conv(t if not number else leaky(t), *(kept[f"encoder.{number}.{x}"] for x in ("weight", "bias")))
    gaps = [np.abs(a / np.linalg.norm(a) - b / np.linalg.norm(b)).mean() for a, b in zip(s, t, strict=True)]
    assert value(made, batch) == pytest.approx(500 * np.mean(gaps), rel=1e-4)


def repeated(x: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = (np.arange(n) * old // n for n, old in ((height, x.shape[2]), (width, x.shape[3])))
    return x[:, :, rows][:, :, :, columns]


def test_reviewkd_against_loops() -> None:
    batch, made = example(TASK), method("reviewkd", TASK, warmup=0.0)
    kept, right, below = weights(made), 0.0, None
    for place in (2, 1, 0):
        layer, name = LAYERS[place], f"fusions.{place}"
        s, t = (side[layer].detach().double().numpy() for side in (batch.student_features, batch.teacher_features))
        s, t = (x.reshape(*x.shape, 1, 1) if x.ndim == 2 else x for x in (s, t))
        x = normed(conv(s, kept[f"{name}.narrow.0.weight"]))
        if below is not None:
            y = repeated(below, *x.shape[2:])
            both = np.concatenate([x, y], axis=1)
            share = expit(conv(both, kept[f"{name}.attention.weight"], kept[f"{name}.attention.bias"]))
            x = x * share[:, :1] + y * share[:, 1:]
        below = repeated(x, *t.shape[2:])
        guess = normed(conv(below, kept[f"{name}.widen.0.weight"]))
        terms, scales = [((guess - t) ** 2).mean()], [1.0]
        for cells in (4, 2, 1):
            if cells < t.shape[2]:
                gap = averaged(guess, cells, cells) - averaged(t, cells, cells)
                terms.append((gap**2).mean())
                scales.append(scales[-1] / 2)
        right += np.average(terms, weights=scales)
    assert value(made, batch) == pytest.approx(5 * right, rel=1e-4)


@pytest.mark.parametrize(("done", "share"), [(0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.9, 1.0)])
def test_reviewkd_grows_in_its_warmup(done: float, share: float) -> None:
    made = method("reviewkd", TASK, warmup=0.2)
    full = value(made, example(TASK, done=1.0))
    assert value(made, example(TASK, done=done)) == pytest.approx(share * full, rel=1e-5)


def test_reviewkds_scales_by_hand() -> None:
    # everywhere 2 apart: every scale says 4, whatever the weights; and a pattern that averages out counts less
    flat = torch.zeros(1, 1, 8, 8)
    assert float(hierarchical(flat + 2, flat)) == pytest.approx(4.0)
    board = ((torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1)[None, None]
    assert float(hierarchical(flat + board, flat)) == pytest.approx(1 / (1 + 1 / 2 + 1 / 4 + 1 / 8))


def test_one_pixel_of_one_image_is_normalised_by_what_was_learnt() -> None:
    norm = Norm(2)
    for _ in range(200):
        norm(torch.tensor([3.0, -1.0]).view(1, 2, 1, 1) + torch.randn(64, 2, 1, 1))
    found = norm(torch.tensor([4.0, -1.0]).view(1, 2, 1, 1)).flatten()
    assert torch.allclose(found, torch.tensor([1.0, 0.0]), atol=0.3)
    many = torch.randn(5, 2, 3, 3)
    assert torch.equal(Norm(2)(many), nn.BatchNorm2d(2)(many))


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("rows", [1, 2])
def test_maps_of_one_pixel_of_few_images(name: str, rows: int) -> None:
    made = unbuilt(name, TASK)
    mine, theirs = made.taps(LAYERS, LAYERS)
    small = [{**side, "late": (side["late"][0], 1, 1)} for side in (STUDENT, TEACHER)]
    made.build({layer: small[0][layer] for layer in mine}, {layer: small[1][layer] for layer in theirs})
    batch = example(TASK, rows)
    s, t = (
        {layer: f[:, :, :1, :1] if layer == "late" else f for layer, f in side.items()}
        for side in (batch.student_features, batch.teacher_features)
    )
    found = numbers(made.loss(dataclasses.replace(batch, student_features=s, teacher_features=t)))
    assert all(map(math.isfinite, found.values()))


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize(("student", "teacher", "who"), [(["end"], LAYERS, "student"), (LAYERS, ["end"], "teacher")])
def test_a_network_without_maps_is_refused(name: str, student: list[str], teacher: list[str], who: str) -> None:
    with pytest.raises(UserError, match=f"'{name}' compares feature maps, but the {who}'s network has none; allowed"):
        unbuilt(name, TASK).taps(student, teacher)


@pytest.mark.parametrize("name", MAPS)
def test_adapters_learn_and_what_is_frozen_does_not(name: str) -> None:
    made = method(name, TASK)
    sum(made.loss(example(TASK)).values()).backward()
    frozen = {key for key, weight in made.named_parameters() if not weight.requires_grad}
    assert frozen == {key for key, _ in made.named_parameters() if key.startswith(("encoder", "decoder"))}
    for key, weight in made.named_parameters():
        assert (weight.grad is None) == (key in frozen)
        if key not in frozen:
            assert torch.isfinite(weight.grad).all()
    slopes = [float(weight.grad.abs().sum()) for weight in made.parameters() if weight.grad is not None]
    assert not slopes or sum(slopes) > 1e-6


@pytest.mark.parametrize("name", ["at", "nst"])
def test_where_pixels_are_compared_maps_of_one_are_left_out(name: str) -> None:
    made = unbuilt(name, TASK)
    mine, theirs = made.taps(LAYERS, LAYERS)
    small = [{**side, "late": (side["late"][0], 1, 1)} for side in (STUDENT, TEACHER)]
    made.build({layer: small[0][layer] for layer in mine}, {layer: small[1][layer] for layer in theirs})
    assert made.pairs == [("early", "early")]
    late = {layer: shape for layer, shape in small[0].items() if layer == "late"}
    with pytest.raises(UserError, match=f"'{name}' compares the pixels of feature maps, .* 2 or more; allowed: larger"):
        unbuilt(name, TASK).build(late, late)
