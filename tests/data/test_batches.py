"""Batches and views: against a plain numpy pad, crop and mirror of every image, and plain counting."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from cgankd.config.settings import AugmentSettings
from cgankd.core import ranks, rng
from cgankd.core.errors import UserError
from cgankd.data.batches import Batch, Batches, Views, in_order
from cgankd.data.imageset import TARGET, ImageSet, Together, TrainingImages
from cgankd.tasks import Classification, Regression, Task

CPU = torch.device("cpu")
CLASSES = Classification(("a", "b", "c"))
Noise = Callable[..., ImageSet]


def batches(
    real: ImageSet, fake: ImageSet | Together | None = None, task: Task = CLASSES, size: int = 8, **settings
) -> Batches:
    share = settings.pop("share", None)
    seed = settings.pop("seed", 0)
    return Batches(TrainingImages(real, fake, real_share=share), task, size, AugmentSettings(**settings), seed, CPU)


def same(a: Batch, b: Batch) -> bool:
    names = ("images", "targets", "index", "view", "fake")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


def brute_force(image: np.ndarray, shift: int, down: int, right: int, mirrored: bool) -> np.ndarray:
    """uint8 [C, H, W]: black border, crop, mirror."""
    height, width = image.shape[1:]
    padded = np.pad(image, [(0, 0), (shift, shift), (shift, shift)])
    view = padded[:, down : down + height, right : right + width]
    return view[:, :, ::-1] if mirrored else view


@pytest.mark.parametrize(("channels", "size"), [(1, (16, 16)), (3, (17, 23))])
@pytest.mark.parametrize("shift", [0, 1, 3])
@pytest.mark.parametrize("flip", [True, False])
def test_a_view_is_pad_crop_and_mirror(
    noise: Noise, channels: int, size: tuple[int, int], shift: int, flip: bool
) -> None:
    images = noise(12, channels=channels, size=size).images
    views = Views([images[:2], images[2:]], AugmentSettings(shift=shift), flip, 5, CPU)
    index, view = torch.arange(12).repeat(6), torch.arange(6).repeat_interleave(12)
    found = views.draw(index, view).numpy()
    downs, rights, mirrors = set(), set(), set()
    for row in range(72):
        where = torch.tensor(int(index[row])), torch.tensor(int(view[row]))
        down = int(rng.integers(2 * shift + 1, 5, "view/down", *where))
        right = int(rng.integers(2 * shift + 1, 5, "view/right", *where))
        mirrored = flip and int(rng.integers(2, 5, "view/flip", *where)) == 1
        expected = brute_force(images[index[row]].numpy(), shift, down, right, mirrored)
        assert np.array_equal(found[row], expected.astype(np.float32) / 255)
        downs.add(down), rights.add(right), mirrors.add(mirrored)
    assert downs == rights == set(range(2 * shift + 1))  # every shift comes up
    assert mirrors == ({True, False} if flip else {False})
    assert np.array_equal(views.clean(torch.arange(12)).numpy(), images.numpy().astype(np.float32) / 255)


def test_a_shift_that_leaves_nothing_of_an_image_is_refused(noise: Noise) -> None:
    images = [noise(4, size=(16, 20)).images]
    assert Views(images, AugmentSettings(shift=15), False, 0, CPU).draw(torch.arange(4), torch.arange(4)).shape[2] == 16
    with pytest.raises(UserError, match=r"augment.shift=16, but images are 20x16 pixels.*; allowed: at most 15"):
        Views(images, AugmentSettings(shift=16), False, 0, CPU)


def test_views_are_channels_last_float32(noise: Noise) -> None:
    found = batches(noise(12, channels=3)).at(0).images
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("count", "size"), [(20, 4), (20, 8), (7, 3), (5, 8), (3, 10), (9, 9)])
def test_every_image_once_per_epoch(noise: Noise, count: int, size: int) -> None:
    made = batches(noise(count), size=size, views=0)
    epochs = 6
    index, epoch = [], []
    for step in range(math.ceil(epochs * count / size)):
        batch = made.at(step)
        assert len(batch.index) == size
        index.append(batch.index)
        epoch.append(batch.view)  # without recurring views, the view is the epoch
    flat = torch.cat(index)[: epochs * count].view(epochs, count)
    assert torch.equal(flat.sort(dim=1).values, torch.arange(count).expand(epochs, -1))
    expected = torch.arange(epochs).repeat_interleave(count)
    assert torch.equal(torch.cat(epoch)[: epochs * count], expected)
    assert len({tuple(row.tolist()) for row in flat}) > 1  # another order every epoch


def test_views_recur_after_v_epochs(noise: Noise) -> None:
    views, count, size = 3, 8, 5
    made = batches(noise(count), size=size, views=views)
    seen: dict[tuple[int, int], torch.Tensor] = {}
    for step in range(45):  # 225 images: 28 epochs and one image
        batch = made.at(step)
        assert batch.view.tolist() == [place // count % views for place in range(step * size, (step + 1) * size)]
        for image, index, view in zip(batch.images, batch.index.tolist(), batch.view.tolist(), strict=True):
            assert torch.equal(image, seen.setdefault((index, view), image))
    assert len(seen) == views * count
    pixels = torch.stack(list(seen.values())).flatten(1)
    assert len(pixels.unique(dim=0)) > 2 * count  # and the views of an image differ


@pytest.mark.parametrize("stronger", [{}, {"randaugment": 2, "cutmix": 1.0}, {"mixup": 1.0}])
def test_a_batch_does_not_depend_on_what_was_asked_before(noise: Noise, stronger: dict) -> None:
    real, fake = noise(10), noise(7, seed=1)
    for share in (None, 0.5):
        steps = [0, 1, 2, 5, 9, 30]
        alone = {step: batches(real, fake, share=share, size=6, **stronger).at(step) for step in steps}
        made = batches(real, fake, share=share, size=6, **stronger)
        for step in [*steps, *reversed(steps), 5, 5, 0]:
            assert same(made.at(step), alone[step])


def test_stronger_views_are_the_plain_ones_changed(noise: Noise) -> None:
    operations = {"operations": 1, "magnitude": 1.0}
    plain, stronger = batches(noise(30), size=30), batches(noise(30), size=30, randaugment=operations)
    before, after = plain.at(3), stronger.at(3)
    assert torch.equal(before.index, after.index)
    changed = stronger.views.randaugment(before.images, before.index, before.view)
    assert torch.equal(after.images, changed)
    assert ((changed - before.images).abs().amax(dim=(1, 2, 3)) > 0.01).float().mean() > 0.5
    assert torch.equal(after.targets, before.targets)


def test_mixed_batches_say_so(noise: Noise) -> None:
    mixed = batches(noise(12), size=12, cutmix=1.0).at(0)
    assert mixed.targets.shape == (12, 3)
    assert torch.allclose(mixed.targets.sum(dim=1), torch.ones(12))
    assert mixed.images.is_contiguous(memory_format=torch.channels_last)
    assert mixed.mixed
    assert not batches(noise(12), size=12).at(0).mixed


@pytest.mark.parametrize("share", [None, 0.5])
def test_mixed_batches_recur_after_v_mixes_for_each_image(noise: Noise, share: float | None) -> None:
    views, size = 3, 5
    made = batches(noise(10), noise(15, seed=1), size=size, mixed_views=views, mixup=1.0, share=share)
    period = views * (10 + 15) // size
    first = [made.at(step) for step in range(period)]
    assert [batch.number for batch in first] == list(range(period))
    pixels = torch.cat([batch.images for batch in first]).flatten(1)
    assert len(pixels.unique(dim=0)) == period * size  # all mixes differ
    for step in (0, 1, period - 1):
        again = made.at(step + 2 * period)
        assert same(again, first[step])
        assert again.number == step


def test_mixed_batches_never_recur_without_a_number_of_mixes(noise: Noise) -> None:
    made = batches(noise(8), size=8, mixup=1.0)
    pixels = torch.cat([made.at(step).images for step in range(20)]).flatten(1)
    assert len(pixels.unique(dim=0)) > 150  # an image that is its own partner may come up twice
    assert made.at(3).number is None


def test_another_seed_is_another_order_and_other_views(noise: Noise) -> None:
    one, two = (batches(noise(64), size=64, seed=seed).at(0) for seed in (0, 1))
    assert not torch.equal(one.index, two.index)
    a, b = one.images[one.index.argsort()], two.images[two.index.argsort()]
    assert not torch.equal(a, b)


@pytest.mark.parametrize(("share", "real_part"), [(0.5, 5), (0.25, 2), (0.01, 1), (0.99, 9), (0.3, 3)])
def test_real_share_counts(noise: Noise, share: float, real_part: int) -> None:
    made = batches(noise(12), noise(20, seed=1), share=share, size=10)
    reals: Counter[int] = Counter()
    fakes: Counter[int] = Counter()
    for step in range(12):
        batch = made.at(step)
        assert int((~batch.fake).sum()) == real_part
        assert torch.equal(batch.fake, batch.index >= 12)
        reals.update(batch.index[~batch.fake].tolist())
        fakes.update(batch.index[batch.fake].tolist())
    for seen, count, drawn in [(reals, 12, 12 * real_part), (fakes, 20, 12 * (10 - real_part))]:
        assert sum(seen.values()) == drawn
        assert max(seen.values()) == math.ceil(drawn / count)  # none a second time before all were seen once
        assert min(seen[number] for number in range(*((0, 12) if count == 12 else (12, 32)))) == drawn // count


def test_without_a_share_real_and_fake_are_seen_equally_often(noise: Noise) -> None:
    made = batches(noise(6), noise(18, seed=1), size=8)
    index = torch.cat([made.at(step).index for step in range(9)])  # three epochs of 24
    assert torch.bincount(index).tolist() == [3] * 24
    mixed = [int(made.at(step).fake.sum()) for step in range(9)]
    assert len(set(mixed)) > 1  # shuffled together, so the share varies


@pytest.mark.parametrize("share", [None, 0.5])
@pytest.mark.parametrize("settings", [{"views": 3}, {"views": 0}, {"mixup": 1.0, "mixed_views": 2}])
def test_several_kinds_together_are_as_one(noise: Noise, share: float | None, settings: dict[str, float]) -> None:
    real, one, two = noise(6), noise(18, seed=1), noise(9, seed=2)
    joined = batches(real, one.joined(two), share=share, **settings)
    apart = batches(real, Together((one, two)), share=share, **settings)
    assert [count for _, count in apart.sets] == [6, 18, 9]
    for step in range(9):
        assert same(joined.at(step), apart.at(step))
    for steps in (1, 4, 20, 200):
        once = joined.seen_once(steps)
        assert apart.seen_once(steps) == once | ({2} if 1 in once else set())
    assert apart.epochs(2, 10) == apart.epochs(1, 10) == joined.epochs(1, 10)


def test_images_and_targets_belong_together(noise: Noise) -> None:
    # The grey level is the image's number, and so is the label, real and fake alike.
    def plain(numbers: range) -> ImageSet:
        grey = torch.tensor(list(numbers), dtype=torch.uint8)
        return ImageSet(grey[:, None, None, None].expand(-1, 1, 16, 16).contiguous(), grey.float())

    task = Regression(low=0.0, high=200.0)
    made = batches(plain(range(0, 50)), plain(range(50, 120)), task=task, size=32, shift=0)
    for step in range(8):
        batch = made.at(step)
        assert torch.allclose(batch.images[:, 0, 3, 3] * 255, batch.index.float())
        assert torch.allclose(batch.targets * 200, batch.index.float(), atol=1e-4)


@pytest.mark.parametrize(
    ("task", "flip", "mirrors"),
    [(CLASSES, None, False), (CLASSES, True, True), (CLASSES, False, False), (Regression(0.0, 1.0), None, False),
     (Regression(0.0, 1.0), True, True)],
)  # fmt: skip
def test_mirrors_only_where_they_are_asked_for(task: Task, flip: bool | None, mirrors: bool) -> None:
    images = torch.zeros(40, 1, 16, 16, dtype=torch.uint8)
    images[..., :8] = 255  # the left half is white
    labels = torch.zeros(40) if task.continuous else torch.zeros(40, dtype=torch.int64)
    found = batches(ImageSet(images, labels), task=task, size=40, flip=flip, shift=0).at(0).images
    left = found[:, 0, 0, 0]
    assert set(left.tolist()) == ({0.0, 1.0} if mirrors else {1.0})


def test_probabilities_are_picked_from_where_they_are_and_labels_beside_them_are_one_hot(noise: Noise) -> None:
    real, fake = noise(5), noise(7)
    soft = torch.rand(7, 3)
    drawn = batches(real, dataclasses.replace(fake, columns={TARGET: soft}), share=0.5)
    assert drawn.targets[1].data_ptr() == soft.data_ptr()  # no copy, because they may be a mapped file
    for step in range(3):
        batch = drawn.at(step)
        for target, index in zip(batch.targets, batch.index.tolist(), strict=True):
            one_hot = [float(number == int(real.labels[min(index, 4)])) for number in range(3)]
            assert target.tolist() == (one_hot if index < 5 else soft[index - 5].tolist())


@pytest.mark.parametrize("processes", [1, 2])
def test_batches_in_order_are_those_of_their_steps(
    noise: Noise, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = batches(noise(10))
    expected = [made.at(step) for step in range(2, 6)]
    monkeypatch.setattr(ranks, "share", lambda: (0, processes))
    monkeypatch.setattr(ranks, "rows", lambda: slice(None))
    threads = set()
    at = made.at
    monkeypatch.setattr(made, "at", lambda step: (threads.add(threading.current_thread().name), at(step))[1])
    for batch, other in zip(in_order(made, 2, 6), expected, strict=True):
        assert same(batch, other)
    assert threads == {"batches_0" if processes == 1 else "MainThread"}


def test_a_fault_in_the_second_thread_is_raised_and_leaving_early_ends_the_thread(
    noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = batches(noise(10))
    with contextlib.closing(in_order(made, 0, 9)) as upcoming:
        next(upcoming)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]

    def fails(step: int) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(made, "at", fails)
    with pytest.raises(OSError, match="the disk is gone"):
        next(in_order(made, 0, 9))


@pytest.mark.parametrize(
    ("settings", "steps", "once"),
    [
        ({"views": 3}, 7, {0, 1}),  # 4 of 10 real images and 4 of 15 fakes in a batch: 3 and 2 epochs
        ({"views": 3}, 8, {1}),
        ({"views": 3}, 12, set()),
        ({"views": 0}, 999, {0, 1}),
        ({"views": 3, "share": None}, 9, {0, 1}),  # 8 of 25 images: 3 epochs
        ({"views": 3, "share": None}, 10, set()),
    ],
)
def test_sets_whose_views_are_seen_once(noise: Noise, settings: dict, steps: int, once: set[int]) -> None:
    made = batches(noise(10), noise(15, seed=1), **{"share": 0.5, **settings})
    assert made.seen_once(steps) == once
