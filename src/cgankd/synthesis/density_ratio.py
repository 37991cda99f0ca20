"""The conditional density ratio h(x, y), about p_real(x | y) / p_fake(x | y), on features of x (paper, 3.2)."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd import counter
from cgankd.data.imageset import ImageSet
from cgankd.errors import TrainingError
from cgankd.features import Observer
from cgankd.gan.generator import Sampler
from cgankd.progress import SILENT, Progress
from cgankd.recipe import RatioSettings
from cgankd.task import Task

LOG_POINTS = 25


class RatioNetwork(nn.Module):
    """MLP on [standardised features; label embedding]; the final ReLU keeps h >= 0."""

    LABEL_DIM = 128

    def __init__(self, feature_dim: int, embedding: nn.Module, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.embedding = embedding
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("scale", torch.ones(feature_dim))
        layers: list[nn.Module] = []
        for width_in, width_out in itertools.pairwise([feature_dim + self.LABEL_DIM, *hidden]):
            layers += [nn.Linear(width_in, width_out), nn.GroupNorm(8, width_out), nn.ReLU(), nn.Dropout(dropout)]
        last = nn.Linear(hidden[-1], 1)
        nn.init.ones_(last.bias)  # starts around h = 1, where most of the ReLU is alive
        self.layers = nn.Sequential(*layers, last, nn.ReLU())

    mean: Tensor
    scale: Tensor

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """features [B, F], targets [B] -> h [B]."""
        features = (features - self.mean) / self.scale
        h: Tensor = self.layers(torch.cat([features, self.embedding(targets)], dim=1)).squeeze(1)
        return h

    @torch.no_grad()
    def values(self, real: Tensor, targets: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """h on real images (float32 [N, F]) and on fakes at their labels (float32 [N, K, F]): [N] and [N, K]."""
        device = self.mean.device
        real, targets, fake = real.to(device), targets.to(device), fake.to(device)
        on_fake = [self(fake[:, number], targets) for number in range(fake.shape[1])]
        return self(real, targets), torch.stack(on_fake, dim=1)

    def loss(self, real: Tensor, targets: Tensor, fake: Tensor, penalty: float) -> float:
        """The loss on images given as in :meth:`values`."""
        h_real, h_fake = self.values(real, targets, fake)
        return float(ratio_loss(h_real, h_fake.flatten(), penalty))


def ratio_loss(h_real: Tensor, h_fake: Tensor, penalty: float) -> Tensor:
    """Softplus Bregman divergence, and a penalty that holds the fakes' mean ratio at 1.

    L = E_fake[s(h) h - softplus(h)] - E_real[s(h)] + lambda (E_fake[h] - 1)^2, s the sigmoid (paper, equation 5).
    """
    s = torch.sigmoid(h_fake)
    divergence = (s * h_fake - F.softplus(h_fake)).mean() - torch.sigmoid(h_real).mean()
    return divergence + penalty * (h_fake.mean() - 1.0) ** 2


def fakes_at_labels(
    generator: Sampler, observer: Observer, targets: Tensor, count: int, seed: int, progress: Progress = SILENT
) -> Tensor:
    """Features of ``count`` fakes at each of N labels, float32 [N, count, F]; the images are not kept."""
    stream = counter.key(seed, "ratio/fakes")
    row = torch.arange(len(targets))
    features = []
    with progress.bar("fakes for the ratio", count * len(targets)) as bar:
        for number in range(count):
            for rows in row.split(500):
                # The index counts over all rows: two images that share a label get different fakes.
                images = generator.sample(targets[rows], rows * count + number, stream)
                features.append(observer(images)[1].cpu())
            bar.to((number + 1) * len(targets))
    return torch.cat(features).view(count, len(targets), -1).transpose(0, 1).contiguous()


def real_and_fakes(
    images: ImageSet,
    task: Task,
    generator: Sampler,
    observer: Observer,
    count: int,
    seed: int,
    progress: Progress = SILENT,
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`train_ratio` takes: features of real images, targets, features of ``count`` fakes at each."""
    targets = task.to_target(images.labels)
    fake = fakes_at_labels(generator, observer, targets, count, seed, progress)
    return observer.all(images.images)[1].cpu(), targets, fake


def train_ratio(
    real: Tensor,
    targets: Tensor,
    fake: Tensor,
    embedding: nn.Module,
    settings: RatioSettings,
    fabric: Fabric,
    *,
    seed: int,
    held_out: tuple[Tensor, Tensor, Tensor] | None = None,
    progress: Progress = SILENT,
) -> tuple[RatioNetwork, list[dict[str, Any]]]:
    """Train h on features that were computed once.

    held_out: the same three for images that neither generator nor h was trained on. The weights of lowest loss
    there are kept [ours]: with few real images h soon tells them from fakes by heart, and would accept nothing new.
    real: float32 [N, F]. targets: [N], the real labels. fake: float32 [N, K, F], K fakes at each real label.
    embedding: targets [B] -> [B, 128]. Returns the network in eval mode and the history.
    """
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices), progress.bar("density ratio", settings.steps) as bar:
        torch.manual_seed(counter.key(seed, "ratio/weights"))
        for layer in embedding.modules():
            if isinstance(layer, nn.Embedding):
                layer.reset_parameters()  # drawn by the caller from torch's global generator, which nobody seeds
        network = RatioNetwork(real.shape[1], embedding, settings.widths, settings.dropout)
        network.mean.copy_(real.mean(dim=0))
        network.scale.copy_(real.std(dim=0).clamp(min=1e-3))
        network.to(fabric.device).train()
        real, targets, fake = (t.to(fabric.device) for t in (real, targets, fake))
        optimizer = torch.optim.Adam(
            network.parameters(), settings.learning_rate, settings.betas, weight_decay=settings.weight_decay
        )
        history: list[dict[str, Any]] = []
        best: tuple[float, dict[str, Tensor]] | None = None
        log_every = max(1, settings.steps // LOG_POINTS)
        for step in range(settings.steps):
            torch.manual_seed(counter.key(seed, "ratio/step", step))  # dropout
            rate = settings.learning_rate * 0.1 ** sum(step >= m * settings.steps for m in settings.milestones)
            for group in optimizer.param_groups:
                group["lr"] = rate
            rng = counter.generator("cpu", seed, "ratio/draw", step)
            row = torch.randint(len(real), (settings.batch_size,), generator=rng)
            which = torch.randint(fake.shape[1], (settings.batch_size,), generator=rng)
            features = torch.cat([real[row], fake[row, which]])
            h = network(features, targets[row].repeat(2))
            h_real, h_fake = h.chunk(2)
            loss = ratio_loss(h_real, h_fake, settings.penalty)
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(loss)
            optimizer.step()
            if (step + 1) % log_every == 0 or step + 1 == settings.steps:
                history.append({"step": step + 1, "loss": float(loss.detach())})
                if not math.isfinite(history[-1]["loss"]):
                    raise TrainingError(f"density ratio: the loss is {history[-1]['loss']} at step {step + 1}")
                if held_out is not None:
                    history[-1]["held_out"] = network.eval().loss(*held_out, penalty=settings.penalty)
                    network.train()
                    if best is None or history[-1]["held_out"] < best[0]:
                        best = history[-1]["held_out"], copy.deepcopy(network.state_dict())
                bar.to(step + 1, f"loss {history[-1]['loss']:.3f}")
    if best is not None:
        network.load_state_dict(best[1])
    return network.eval(), history
