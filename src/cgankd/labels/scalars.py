"""Scalar labels: embeddings of a number in [0, 1], and CcGAN's vicinity."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.config.settings import (
    ILI,
    NLI,
    AugmentSettings,
    DistinctLabels,
    EvenLabels,
    ScalarLabelSettings,
    SynthesisSettings,
)
from cgankd.core import rng
from cgankd.core.runtime import Fabric, to_device
from cgankd.core.store import Work
from cgankd.data.batches import Batches
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.labels.space import DiscriminatorDraw, LabelPlan, LabelSpace, shares, spread
from cgankd.labels.vicinity import Vicinity
from cgankd.nets import inference, zoo
from cgankd.tasks import Task
from cgankd.tasks.axis import LINE, Line

POOLS = 20  # number of equal parts of the range; labels in one part share a burn-in


class ScalarLabels(LabelSpace):
    """targets: float32 [N] on the axis, of the training split."""

    def __init__(self, targets: Tensor, settings: ScalarLabelSettings, axis: Line = LINE) -> None:
        self.targets, self.label_input, self.axis = targets, settings.label_input, axis
        self.vicinity = Vicinity(targets, settings.vicinity, axis)

    def train_embedding(self, work: Work, embedding: nn.Module, train: ImageSet, task: Task, seed: int) -> None:
        if isinstance(self.label_input, ILI):  # NLI is learnt inside the GAN
            assert isinstance(embedding, ILIEmbedding)
            embedding.train_on(work.within("label embedding"), train, task, self.label_input.steps, seed)

    def discriminator_draw(self, size: int, torch_rng: torch.Generator) -> DiscriminatorDraw:
        draw = self.vicinity.draw(size, torch_rng)
        return DiscriminatorDraw(draw.real, draw.fake, draw.target, draw.real_weight, draw.fake_weight)

    def generator_draw(self, size: int, torch_rng: torch.Generator) -> Tensor:
        return self.vicinity.noisy(size, torch_rng)

    def plan(self, settings: SynthesisSettings, held: tuple[Tensor, Tensor] | None = None) -> LabelPlan:
        """Labels by ``settings.labels``; one filter threshold (Algorithm 2), or one per label or per bin."""
        if held is not None:  # ready images keep their own labels and frequencies
            targets, counts = held
            quota = shares(counts, settings.images)
        elif isinstance(settings.labels, EvenLabels):
            targets = self.axis.grid(min(settings.labels.count, settings.images))
            quota = spread(settings.images, len(targets))
        else:
            targets, counts = self.targets.unique(return_counts=True)
            even = isinstance(settings.labels, DistinctLabels)
            quota = spread(settings.images, len(targets)) if even else shares(counts, settings.images)
        by = "all" if settings.filter is None else settings.filter.by
        if by == "label":
            group = torch.arange(len(targets))
        elif isinstance(by, int):
            group = _parts(targets, by).unique(return_inverse=True)[1]
        else:
            group = torch.zeros_like(quota)
        return LabelPlan(targets, quota, self.pools(targets).unique(return_inverse=True)[1], group)

    def pools(self, targets: Tensor) -> Tensor:
        return _parts(targets, POOLS)

    def near(self, predicted: Tensor, targets: Tensor, gaps: float) -> Tensor:
        return self.axis.distance(predicted, targets) <= gaps * self.vicinity.widest_gap


class FourierEmbedding(nn.Module):
    """[ours] Sines and cosines of pi y k, for the label y and k = 1 .. dim / 2, divided by k^2. It is not trained.

    On a circle of 2 pi y k, so that the embedding has the label's period.

    The factor 1 / k^2 keeps networks smooth in the label. With few images, large high frequencies would let a network
    memorise single labels.
    """

    def __init__(self, dim: int, axis: Line = LINE) -> None:
        super().__init__()
        self.half_waves = axis.half_waves
        self.register_buffer("waves", torch.arange(1, dim // 2 + 1, dtype=torch.float32), persistent=False)

    waves: Tensor

    def forward(self, targets: Tensor) -> Tensor:
        """[B] -> [B, dim]."""
        angle = self.half_waves * math.pi * targets.float()[:, None] * self.waves
        return torch.cat([angle.sin(), angle.cos()], dim=1) / self.waves.repeat(2) ** 2


class ILIEmbedding(nn.Module):
    """Improved label input (CcGAN): maps a label to a regressor's features for it, [B] -> [B, dim].

    Two networks. T1 = image -> h -> y learns to predict the label. T2 = y -> h is trained so that T1's head reads the
    noisy, clipped label from it: head(T2(y + e)) = clip(y + e, 0, 1), e ~ N(0, 0.2^2). For a label that wraps, both
    give and take cosine and sine, and nothing is clipped. G and D are conditioned on T2(y). It is fixed after this
    training, and normalised to mean 0 and variance 1 over the label range [ours].
    """

    NOISE = 0.2

    def __init__(self, dim: int, axis: Line = LINE) -> None:
        super().__init__()
        self.axis = axis
        layers: list[nn.Module] = [nn.Linear(axis.width, dim), nn.GroupNorm(_groups(dim), dim), nn.ReLU()]
        for _ in range(3):
            layers += [nn.Linear(dim, dim), nn.GroupNorm(_groups(dim), dim), nn.ReLU()]
        self.label_to_h = nn.Sequential(*layers, nn.Linear(dim, dim), nn.ReLU())
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.requires_grad_(False)

    mean: Tensor
    scale: Tensor

    def forward(self, targets: Tensor) -> Tensor:
        h = self.label_to_h(self.axis.coordinates(targets.float()))
        return (h - self.mean) / self.scale

    def train_on(self, work: Work, train: ImageSet, task: Task, steps: int, seed: int) -> None:
        """Train T1 on the images, then T2 with T1's fixed head; ``steps`` steps each."""
        dim, fabric, checkpoint = len(self.mean), work.fabric, work.checkpoint()
        with rng.seeded(seed, "ili", fabric.device):
            body = nn.Sequential(zoo.create("cnn16_grid", train.channels, dim, train.size), nn.ReLU())
            head = nn.Linear(dim, self.axis.width)
        inference.place(body, fabric)
        inference.place(head, fabric)
        batches = Batches(TrainingImages(train), task, 128, AugmentSettings(views=0), seed, fabric.device)
        self.requires_grad_(True)
        self.to(fabric.device)
        from_images = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-3)
        from_labels = torch.optim.Adam(self.parameters(), lr=1e-3)
        modules = {"body": body, "head": head, "embedding": self}
        optimizers = {"from images": from_images, "from labels": from_labels}
        labels = task.to_target(train.labels)
        start, _ = checkpoint.load(modules, optimizers)
        with work.progress.bar("label embedding (ILI)", 2 * steps) as bar:
            for step in range(start, 2 * steps):
                if step < steps:
                    batch = batches.at(step)
                    with fabric.autocast():
                        features = body(batch.images)
                    output = head(features.float())  # at float32, because bfloat16 is too coarse for a scalar
                    _descend(F.mse_loss(output, self.axis.coordinates(batch.targets)), from_images, fabric)
                else:
                    head.requires_grad_(False)
                    torch_rng = rng.generator("cpu", seed, "ili/noise", step - steps)
                    y = labels[torch.randint(len(labels), (256,), generator=torch_rng)]
                    y = to_device(y + self.NOISE * torch.randn(256, generator=torch_rng), fabric.device)
                    output = head(self.label_to_h(self.axis.coordinates(y)))
                    _descend(F.mse_loss(output, self.axis.coordinates(self.axis.clip(y))), from_labels, fabric)
                bar.to(step + 1)
                if checkpoint.due():
                    checkpoint.save(step + 1, modules, optimizers)
        self.requires_grad_(False)
        with torch.no_grad():
            h = self.label_to_h(self.axis.coordinates(torch.linspace(0, 1, 1001, device=fabric.device)))
            self.mean.copy_(h.mean(dim=0))
            self.scale.copy_(h.std(dim=0).clamp(min=1e-2))


class NLIEmbedding(nn.Module):
    """Naive label input (CcGAN): the scalar itself, [B] -> [B, dim], by one linear layer that the GAN learns.

    In CcGAN, G adds the scalar to the latent's first feature map, and D has a linear layer for the label of the
    projection. Both are linear in the scalar. The same is true here, where G and D each have a copy of this layer: G's
    first layer is linear in [z, embedding], so it adds a multiple of the scalar to each element of the first map; D's
    projection is linear in the embedding. A label that wraps enters as cosine and sine. As in ILI, the scalar is
    normalised to mean 0 and variance 1 over the label range [ours].
    """

    def __init__(self, dim: int, axis: Line = LINE) -> None:
        super().__init__()
        self.axis = axis
        self.linear = nn.Linear(axis.width, dim)
        nn.init.normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, targets: Tensor) -> Tensor:
        return self.linear(self.axis.standardised(targets.float()))  # type: ignore[no-any-return]


def new_embedding(label_input: ILI | NLI, dim: int, axis: Line = LINE) -> nn.Module:
    """An untrained embedding of scalar labels, [B] -> [B, dim]."""
    return ILIEmbedding(dim, axis) if isinstance(label_input, ILI) else NLIEmbedding(dim, axis)


def _parts(targets: Tensor, parts: int) -> Tensor:
    """The number of the part, of ``parts`` equal parts of [0, 1], that each target is in, int64 [N]."""
    return (targets * parts).long().clamp(0, parts - 1)


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer, fabric: Fabric) -> None:
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(loss)
    optimizer.step()


def _groups(dim: int) -> int:
    # In groups of one or two values, normalisation would remove the information.
    return 8 if dim % 8 == 0 and dim >= 32 else 1
