"""What the speed claims rest on: each line is measured against its floor in the same run, in alternating pairs.

Prints ``NAME ratio=R goal=G``; R is the median over the pairs, and is met where R >= G. Nothing is asserted: a
busy machine changes times, less so ratios.
"""

from __future__ import annotations

import copy
import functools
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from cgankd import distill
from cgankd.config.settings import (
    AugmentSettings,
    DataSettings,
    FitSettings,
    GanSettings,
    HardVicinity,
)
from cgankd.core.runtime import Fabric, has_bf16, make_fabric
from cgankd.core.store import Work
from cgankd.data import sources
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.gan.generator import new_networks
from cgankd.gan.losses import discriminator_hinge, generator_hinge
from cgankd.gan.step import GanStep, Networks
from cgankd.labels import label_embedding, label_space
from cgankd.labels.vicinity import Vicinity
from cgankd.nets import inference, zoo
from cgankd.nets.compiled import Compiled
from cgankd.nets.precision import MixedPrecision
from cgankd.training.best import NOTHING, Kept
from cgankd.training.loop import fit

PAIRS = 5


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def line(name: str, goal: float, fast: Callable[[], object], slow: Callable[[], object], note: str = "") -> None:
    """How many times faster ``fast`` is than ``slow``: a floor against us, or us against the usual way."""
    for work in (fast, slow):
        work()  # warm up: thread pools, kernels, caches
    pairs = [(seconds(fast), seconds(slow)) for _ in range(PAIRS)]
    ratio = statistics.median(b / a for a, b in pairs)
    if goal < 1.0:  # a floor: we are the slow side, and say what share of its speed is reached
        ratio = 1.0 / ratio
    print(f"{name} ratio={ratio:.2f} goal={goal:g}{note}", flush=True)


def student_loops(fabric: Fabric) -> None:
    """The training loop against forward + backward + step on a batch that already lies there, and the usual loop.

    kd has augmented views, real and generated images, and the teacher's outputs, which it keeps for recurring views.
    """
    steps, splits = 125, sources.load(DataSettings(source="fashion", train_size=1000))
    settings = FitSettings(steps=steps, augment=AugmentSettings(shift=2, flip=True, views=2))
    student, teacher = (zoo.create(name, 1, 10, (32, 32)) for name in ("cnn16", "cnn40_grid"))
    network = inference.place(student, fabric).train()
    images = torch.rand(settings.batch_size, 1, 32, 32, device=fabric.device)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = torch.randint(10, (settings.batch_size,), device=fabric.device)
    floor = functools.partial(_bare_steps, fabric, copy.deepcopy(network), images, targets, steps)

    def loop(method: str, images: TrainingImages, kept: Kept = NOTHING) -> Callable[[], object]:
        objective = lambda: distill.create(method, splits.task)  # noqa: E731
        return lambda: fit(
            Work(fabric), network, objective(), images, settings, seed=0, teacher=teacher, kept=kept
        )  # fmt: skip

    real = TrainingImages(splits.train)
    line("student_loop", 0.95, floor, loop("supervised", real))
    both = TrainingImages(splits.train, splits.val, real_share=0.5)  # further real images in the place of fakes
    with tempfile.TemporaryDirectory() as folder:
        kd = loop("kd", both, Kept(Path(folder)))
        line("kd_loop", 0.95, floor, kd)
        usual = functools.partial(_usual_kd, splits.train, copy.deepcopy(student), teacher, settings)
        line("kd_loop_against_the_usual", 2.0, kd, usual)
    line("rkd_against_fitnet", 0.8, loop("fitnet", real), loop("rkd", real), note=" (both ask the teacher)")


def _bare_steps(fabric: Fabric, network: nn.Module, images: Tensor, targets: Tensor, steps: int) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, fused=True)
    for _ in range(steps):
        with fabric.autocast():
            output = network(images)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(output.float(), targets).backward()
        optimizer.step()


def _usual_kd(train: ImageSet, student: nn.Module, teacher: nn.Module, settings: FitSettings) -> None:
    """A DataLoader with transforms of single images, float32, contiguous tensors, and the teacher at every step."""

    def changed(row: int) -> tuple[Tensor, int]:
        image = ImageOps.expand(Image.fromarray(train.images[row][0].numpy()), 2)
        left, top = random.randrange(5), random.randrange(5)
        image = image.crop((left, top, left + 32, top + 32))
        if random.random() < 0.5:
            image = ImageOps.mirror(image)
        return torch.from_numpy(np.asarray(image)).unsqueeze(0) / 255.0, int(train.labels[row])

    loader: DataLoader[int] = DataLoader(
        cast("Dataset[int]", range(len(train))), settings.batch_size, shuffle=True, drop_last=True,
        collate_fn=lambda rows: default_collate([changed(row) for row in rows]),
    )  # fmt: skip
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    student.train()
    done = 0
    while done < settings.steps:
        for images, targets in itertools.islice(loader, settings.steps - done):
            with torch.no_grad():
                soft = torch.log_softmax(teacher(images) / 4.0, dim=1)
            outputs = student(images)
            imitation = F.kl_div(torch.log_softmax(outputs / 4.0, dim=1), soft, log_target=True, reduction="batchmean")
            loss = 0.9 * 16.0 * imitation + 0.1 * F.cross_entropy(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1


def gan_step(fabric: Fabric) -> None:
    """One generator and one discriminator step against the same networks on tensors that already lie there."""
    splits = sources.load(DataSettings(source="fashion", train_size=1000))
    settings = GanSettings(channels=24)
    space = label_space(splits.task, splits.train.labels)
    networks = new_networks(settings, label_embedding(splits.task, None, settings.label_dim), 1, (32, 32))
    for network in networks:
        inference.place(network, fabric)
    generator, discriminator = networks
    average = copy.deepcopy(generator).requires_grad_(False)
    used = Networks(generator, discriminator, average)
    gan, bare = (
        GanStep(copied, splits.train, splits.train.labels, space, settings, fabric, seed=0)
        for copied in (used, copy.deepcopy(used))
    )
    size, device = settings.batch_size, fabric.device
    both = torch.rand(2 * size, 1, 32, 32, device=device)
    targets = torch.randint(10, (size,), device=device)
    z = torch.randn(size, settings.latent, device=device)

    def floor() -> None:
        for _ in range(5):
            with fabric.autocast():
                with torch.no_grad():
                    bare.generator(z, targets)
                logits = bare.discriminator(both, targets.repeat(2)).float()
            bare.discriminator_optimizer.zero_grad(set_to_none=True)
            discriminator_hinge(*logits.chunk(2)).backward()
            bare.discriminator_optimizer.step()
            bare.discriminator.requires_grad_(False)
            with fabric.autocast():
                logits = bare.discriminator(bare.generator(z, targets), targets).float()
            bare.generator_optimizer.zero_grad(set_to_none=True)
            generator_hinge(logits).backward()
            bare.generator_optimizer.step()
            for weight in bare.discriminator_weights:
                weight.requires_grad_(True)

    step = lambda: [gan.step(settings.ema_start + number) for number in range(5)]  # noqa: E731
    line("gan_step", 0.95, floor, step)


def vicinity_draw() -> None:
    """One discriminator draw against the usual loop over samples; 14,760 labels, batch 512."""
    labels = (torch.rand(14_760) * 2000).round() / 2000
    vicinity = Vicinity(labels, HardVicinity(width="paper"))
    half = float(vicinity.half_width(labels[:1]))

    def loop() -> None:
        for target in vicinity.noisy(512, torch.Generator().manual_seed(0)):
            inside = ((labels - target).abs() <= half).nonzero()
            if len(inside):
                inside[torch.randint(len(inside), (1,))]
            low, high = max(float(target) - half, 0.0), min(float(target) + half, 1.0)
            low + torch.rand(1) * (high - low)

    line("vicinity_draw", 30, lambda: vicinity.draw(512, torch.Generator().manual_seed(0)), loop)


def precision(fabric: Fabric) -> None:
    """A training step in bf16 and channels last against float32 and contiguous."""
    if not has_bf16(fabric.device.type):
        print("bf16_channels_last: the processor has no bf16; not measured")
        return
    images, targets = (
        torch.rand(128, 3, 32, 32, device=fabric.device),
        torch.randint(10, (128,), device=fabric.device),
    )
    network = zoo.create("resnet20", 3, 10, (32, 32)).to(fabric.device)
    fast_network = inference.place(copy.deepcopy(network), fabric)
    fast_images = images.contiguous(memory_format=torch.channels_last)

    def fast() -> None:
        for _ in range(4):
            with fabric.autocast():
                output = fast_network(fast_images)
            F.cross_entropy(output.float(), targets).backward()

    def slow() -> None:
        for _ in range(4):
            F.cross_entropy(network(images), targets).backward()

    line("bf16_channels_last", 1.5, fast, slow)


def compiled_teacher(fabric: Fabric) -> None:
    """A teacher's pass through torch.compile against the same pass without it, at the training precision."""
    for name in ("cnn40_grid", "resnet20", "wrn_16_2"):
        network = inference.place(zoo.create(name, 3, 10, (32, 32)), fabric).eval()
        precision = MixedPrecision(network, fabric, 3, (32, 32))
        compiled = Compiled(network, precision)
        images = torch.rand(128, 3, 32, 32, device=fabric.device).contiguous(memory_format=torch.channels_last)

        @torch.no_grad()
        def passes(call: Callable[[Tensor], Tensor], precision: MixedPrecision, images: Tensor) -> None:
            for _ in range(10):
                with precision.autocast():
                    call(images)

        start = seconds(functools.partial(passes, compiled, precision, images))
        fast, slow = (functools.partial(passes, call, precision, images) for call in (compiled, network))
        line(f"compiled_teacher_{name}", 1.3, fast, slow, note=f" (ready after {start:.0f} s)")
        compiled.close()
        precision.close()


if __name__ == "__main__":
    shared = make_fabric()
    student_loops(shared)
    gan_step(shared)
    vicinity_draw()
    precision(shared)
    compiled_teacher(shared)
