"""Training a conditional GAN: one loop for classes and scalars, because the label space draws the batches."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cgankd.config.settings import GanSettings, ScalarLabelSettings
from cgankd.core import rng
from cgankd.core.errors import TrainingError
from cgankd.core.runtime import to_device
from cgankd.core.store import Work
from cgankd.data.imageset import ImageSet
from cgankd.gan.diffaugment import diffaugment
from cgankd.gan.generator import GanSampler, from_uint8, new_networks
from cgankd.gan.losses import LOSSES, LeCam, mode_seeking, squared_gradient
from cgankd.labels import LabelSpace, label_embedding, label_space
from cgankd.nets import inference
from cgankd.tasks import Task

LOG_POINTS = 50
STATISTICS_BATCHES = 20  # generator batches over which its final batch-norm statistics are computed


def train_gan(
    work: Work,
    train: ImageSet,
    task: Task,
    settings: GanSettings,
    scalar: ScalarLabelSettings | None = None,
    *,
    seed: int,
) -> tuple[GanSampler, list[dict[str, Any]]]:
    """Train on ``train``. Returns the moving average of the generator, and the history of losses and logits.

    Raises TrainingError where a loss is not finite or all generated images are alike.
    """
    checkpoint, fabric = work.checkpoint(), work.fabric
    space = label_space(task, task.to_target(train.labels), scalar)
    with work.random_state():
        torch.manual_seed(rng.key(seed, "gan/weights"))
        embedding = label_embedding(task, scalar, settings.label_dim)
        if not checkpoint.there:
            space.train_embedding(work, embedding, train, task, seed)
        generator, discriminator = new_networks(settings, embedding.cpu(), train.channels, train.size)
    inference.place(generator, fabric)
    inference.place(discriminator, fabric)
    average = copy.deepcopy(generator).requires_grad_(False)
    gan = _Gan(generator, discriminator, average, train, space, settings, fabric, seed)
    modules = {"generator": generator, "discriminator": discriminator, "average": average}
    if settings.lecam:
        modules["lecam"] = gan.lecam
    optimizers = {"generator": gan.generator_optimizer, "discriminator": gan.discriminator_optimizer}
    start, history = checkpoint.load(modules, optimizers)
    log_every = max(1, settings.steps // LOG_POINTS)
    with work.progress.bar("generator", settings.steps) as bar:
        bar.images = settings.batch_size
        for step in range(start, settings.steps):
            values = gan.step(step)
            done = step + 1
            if done % log_every == 0 or done == settings.steps:
                entry = {"step": done, **{name: float(value) for name, value in values.items()}}
                _check(entry)
                history.append(entry)
                bar.log(entry)
            bar.to(done)
            if checkpoint.due():
                checkpoint.save(done, modules, optimizers, history)
    _settle_statistics(average, generator, space, settings, fabric, seed)
    return GanSampler(average, settings.latent, fabric), history


class _Gan:
    """The two networks, their optimisers, and one step of both."""

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        average: nn.Module,
        train: ImageSet,
        space: LabelSpace,
        settings: GanSettings,
        fabric: Fabric,
        seed: int,
    ) -> None:
        self.generator, self.discriminator, self.average = generator, discriminator, average
        self.space, self.settings, self.fabric, self.seed = space, settings, fabric, seed
        self.images = train.images
        self.generator_weights = [p for p in generator.parameters() if p.requires_grad]
        self.discriminator_weights = [p for p in discriminator.parameters() if p.requires_grad]
        fused = fabric.device.type in {"cpu", "cuda"}
        self.generator_optimizer = torch.optim.Adam(
            self.generator_weights, settings.generator_rate, settings.betas, fused=fused
        )
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminator_weights, settings.discriminator_rate, settings.betas, fused=fused
        )
        self.discriminator_loss, self.generator_loss = LOSSES[settings.loss]
        self.lecam = LeCam().to(fabric.device)
        self.update_average = get_ema_multi_avg_fn(settings.ema)

    def step(self, step: int) -> dict[str, Tensor]:
        """``discriminator_steps`` steps of D and one of G. Returns losses and logits as tensors, without waiting
        for the device."""
        settings, size = self.settings, self.settings.batch_size
        host = rng.generator("cpu", self.seed, "gan/draw", step)
        torch_rng = rng.generator(self.fabric.device, self.seed, "gan/noise", step)
        for number in range(step * settings.discriminator_steps, (step + 1) * settings.discriminator_steps):
            values = self._discriminator_step(number, size, host, torch_rng)

        half = size // 2 if settings.mode_seeking else 0  # then images half a batch apart share a label
        targets = self.space.generator_draw(size - half, host)
        targets = to_device(torch.cat([targets, targets[:half]]), self.fabric.device)
        z = self._latents(size, torch_rng)
        self.discriminator.requires_grad_(False)  # its weights' gradients are not needed here
        with self.fabric.autocast():
            fake = self.generator(z, targets)
            logits = self.discriminator(diffaugment(fake, settings.diffaugment, torch_rng), targets).float()
        loss = self.generator_loss(logits)
        if half:
            first, second = fake.float()[:half], fake.float()[-half:]
            loss = loss + settings.mode_seeking * mode_seeking(first, second, z[:half], z[-half:])
        self.generator_optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.generator_optimizer.step()
        for weight in self.discriminator_weights:
            weight.requires_grad_(True)
        self._average(step)
        spread = fake.detach().float().std(dim=0).mean()
        return {**values, "generator_loss": loss.detach(), "spread": spread}

    def _discriminator_step(
        self, number: int, size: int, host: torch.Generator, torch_rng: torch.Generator
    ) -> dict[str, Tensor]:
        settings = self.settings
        device = self.fabric.device
        draw = self.space.discriminator_draw(size, host)
        condition = to_device(draw.condition, device)
        with self.fabric.autocast():
            with torch.no_grad():
                fake = self.generator(self._latents(size, torch_rng), to_device(draw.fake_targets, device))
            real = to_device(self.images[draw.real], device).to(memory_format=torch.channels_last)
            # One pass over both, because spectral norm's power iteration must not run twice before one backward.
            both = diffaugment(torch.cat([from_uint8(real), fake]), settings.diffaugment, torch_rng)
            logits = self.discriminator(both, torch.cat([condition, condition])).float()
        real_logits, fake_logits = logits.chunk(2)
        weights = [w if w is None else to_device(w, device) for w in (draw.real_weight, draw.fake_weight)]
        loss = self.discriminator_loss(real_logits, fake_logits, *weights)
        if settings.lecam:
            loss = loss + settings.lecam * self.lecam(real_logits, fake_logits)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if settings.r1 and number % settings.r1.every == 0:
            # A second pass, after the backward of the first. At full precision, because squares of small gradients
            # are tiny; on the augmented images, because D sees no others.
            penalty = settings.r1.gamma / 2 * squared_gradient(self.discriminator, both[:size].float(), condition)
            self.fabric.backward(penalty * settings.r1.every)
        self.discriminator_optimizer.step()
        return {
            "discriminator_loss": loss.detach(),
            "real_logit": real_logits.detach().mean(),
            "fake_logit": fake_logits.detach().mean(),
        }

    def _latents(self, size: int, torch_rng: torch.Generator) -> Tensor:
        return torch.randn(size, self.settings.latent, generator=torch_rng, device=self.fabric.device)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        pairs = zip(self.average.parameters(), self.generator.parameters(), strict=True)
        averaged: list[Tensor] = [mean for mean, weight in pairs if weight.requires_grad]
        if step >= self.settings.ema_start:
            self.update_average(averaged, list(self.generator_weights), step)
            return
        for mean, weight in zip(averaged, self.generator_weights, strict=True):
            mean.copy_(weight)


def _check(entry: dict[str, float]) -> None:
    for name, value in entry.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"generator: {name} is {value} at step {entry['step']}; lower generator.generator_rate and "
                "generator.discriminator_rate, or set runtime.precision=fp32"
            )
    if entry["spread"] < 1e-3:
        raise TrainingError(
            f"generator: all images are alike at step {entry['step']} (their standard deviation per pixel is "
            f"{entry['spread']:.1e}); lower generator.discriminator_rate or raise generator.batch_size"
        )


@torch.no_grad()
def _settle_statistics(
    average: nn.Module,
    generator: nn.Module,
    space: LabelSpace,
    settings: GanSettings,
    fabric: Fabric,
    seed: int,
) -> None:
    """Compute the batch-norm statistics of the averaged weights over STATISTICS_BATCHES batches.

    Each batch is also one power iteration of their spectral norms, which start from those of the trained generator.
    """
    for buffer, trained in zip(average.buffers(), generator.buffers(), strict=True):
        buffer.copy_(trained)
    norms = [module for module in average.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    average.train()
    for number in range(STATISTICS_BATCHES):
        host = rng.generator("cpu", seed, "gan/statistics", number)
        torch_rng = rng.generator(fabric.device, seed, "gan/statistics", number)
        z = torch.randn(settings.batch_size, settings.latent, generator=torch_rng, device=fabric.device)
        with fabric.autocast():
            average(z, space.generator_draw(settings.batch_size, host).to(fabric.device))
    average.eval()
