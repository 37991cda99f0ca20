"""One step of a conditional GAN: the discriminator's steps, then the generator's.

Where several processes share a batch (core/shared_rows.py), random numbers are drawn for all rows, the networks run on
the rows of this process, and losses see what they say of all rows.
"""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cgankd.config.settings import GanSettings
from cgankd.core import profiling, rng
from cgankd.core.runtime import Fabric, fused, to_device
from cgankd.core.shared_rows import add_gradients, all_rows, batch_statistics, own_rows, var_mean
from cgankd.data.imageset import ImageSet
from cgankd.gan.diffaugment import diffaugment
from cgankd.gan.generator import from_uint8
from cgankd.gan.guidance import Guidance
from cgankd.gan.losses import LOSSES, LeCam, mode_seeking, squared_gradient
from cgankd.gan.residual import ProjectionDiscriminator, ResidualGenerator, Verdict
from cgankd.labels import LabelSpace


@dataclasses.dataclass(frozen=True)
class Networks:
    """average: the moving average of the generator."""

    generator: ResidualGenerator
    discriminator: ProjectionDiscriminator
    average: ResidualGenerator


class GanStep:
    """The two networks' optimisers, and one step of both.

    labels: targets [N] of ``train``. guidance: the teacher in the generator's loss; None: without.
    """

    def __init__(
        self,
        networks: Networks,
        train: ImageSet,
        labels: Tensor,
        space: LabelSpace,
        settings: GanSettings,
        fabric: Fabric,
        seed: int,
        guidance: Guidance | None = None,
    ) -> None:
        self.generator, self.discriminator, self.average = networks.generator, networks.discriminator, networks.average
        self.space, self.settings, self.fabric, self.seed = space, settings, fabric, seed
        self.images, self.labels, self.guidance = train.images, labels, guidance
        self.generator_weights = [p for p in self.generator.parameters() if p.requires_grad]
        self.discriminator_weights = [p for p in self.discriminator.parameters() if p.requires_grad]
        adam = functools.partial(torch.optim.Adam, betas=settings.betas, fused=fused(fabric.device))
        self.generator_optimizer = adam(self.generator_weights, settings.generator_rate)
        self.discriminator_optimizer = adam(self.discriminator_weights, settings.discriminator_rate)
        self.losses = LOSSES[settings.loss]
        self.lecam = LeCam().to(fabric.device)
        self.update_average = get_ema_multi_avg_fn(settings.ema)

    def slow_down(self, share: float) -> None:
        """Take this share of both learning rates of the settings from now on."""
        settings = self.settings
        for optimizer, rate in (
            (self.generator_optimizer, settings.generator_rate),
            (self.discriminator_optimizer, settings.discriminator_rate),
        ):
            for group in optimizer.param_groups:
                group["lr"] = share * rate

    def step(self, step: int) -> dict[str, Tensor]:
        """``discriminator_steps`` steps of D and one of G. Returns losses and logits as tensors, without waiting
        for the device."""
        settings = self.settings
        self.generator.label_strength = label_strength(step, settings)
        host = rng.generator("cpu", self.seed, "gan/draw", step)
        torch_rng = rng.generator(self.fabric.device, self.seed, "gan/noise", step)
        for number in range(step * settings.discriminator_steps, (step + 1) * settings.discriminator_steps):
            with profiling.part("discriminator step"):
                values = self._discriminator_step(number, host, torch_rng)
        with profiling.part("generator step"):
            values |= self._generator_step(host, torch_rng)
        with profiling.part("average"):
            self._average(step)
        return values

    # --- the generator --------------------------------------------------------------------------------------------

    def _generator_step(self, host: torch.Generator, torch_rng: torch.Generator) -> dict[str, Tensor]:
        settings, size = self.settings, self.settings.batch_size
        half = size // 2 if settings.mode_seeking else 0  # then images half a batch apart share a label
        real, targets, weight = self._real_and_targets(size - half, host)
        targets = to_device(torch.cat([targets, targets[:half]]), self.fabric.device)
        if weight is not None:
            weight = to_device(torch.cat([weight, weight[:half]]), self.fabric.device)
        z = self._latents(size, torch_rng)
        self.discriminator.requires_grad_(False)  # its weights' gradients are not needed here
        with self.fabric.autocast():
            with profiling.part("forward"):
                fake = self._generated(z, targets)
            shown = fake if real is None else torch.cat([fake, self._real(torch.cat([real, real[:half]]))])
            shown = self._augmented(shown, 1 if real is None else 2, torch_rng)
            with profiling.part("forward"):
                verdict = self._verdict(shown, targets)
        loss = self._generator_loss(verdict if real is None else verdict.chunk(2), targets, weight)
        if half:
            images = all_rows(fake.float(), size)
            loss = loss + settings.mode_seeking * mode_seeking(images[:half], images[-half:], z[:half], z[-half:])
        if self.guidance is not None:
            loss = loss + self.generator.label_strength * self.guidance.loss(fake.float(), targets)
        with profiling.part("backward"):
            self.generator_optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(loss)
            add_gradients(self.generator)
        with profiling.part("optimizer"):
            self.generator_optimizer.step()
        for weight in self.discriminator_weights:
            weight.requires_grad_(True)
        variance, _ = var_mean(fake.detach().float(), dim=(0,))
        return {"generator_loss": loss.detach(), "spread": (variance * size / (size - 1)).sqrt().mean()}

    def _real_and_targets(self, size: int, host: torch.Generator) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Labels of generated images; where the loss compares pairs, rows of real images with the same labels, and
        their weights."""
        if not self.losses.pairs:
            return None, self.space.generator_draw(size, host), None
        draw = self.space.discriminator_draw(size, host)
        return draw.real, draw.condition, draw.real_weight

    def _generator_loss(
        self, verdict: Verdict | list[Verdict], targets: Tensor, real_weight: Tensor | None = None
    ) -> Tensor:
        pair = [verdict] if isinstance(verdict, Verdict) else verdict
        weights = [] if real_weight is None else [real_weight]
        strength, settings = self.generator.label_strength, self.settings
        loss = strength * self.losses.generator(*(part.logits for part in pair), *weights)
        if pair[0].unconditional is not None:
            loss = loss + self.losses.generator(*(part.unconditional for part in pair), *weights)
        if pair[0].label is not None:
            loss = loss + strength * settings.auxiliary * (pair[0].label - targets).abs().mean()
        return loss

    # --- the discriminator ----------------------------------------------------------------------------------------

    def _discriminator_step(self, number: int, host: torch.Generator, torch_rng: torch.Generator) -> dict[str, Tensor]:
        settings, size = self.settings, self.settings.batch_size
        device = self.fabric.device
        draw = self.space.discriminator_draw(size, host)
        condition = to_device(draw.condition, device)
        with self.fabric.autocast():
            with profiling.part("forward"), torch.no_grad():
                fake = self._generated(self._latents(size, torch_rng), to_device(draw.fake_targets, device))
            plain = torch.cat([self._real(draw.real), fake])
            # One pass over all, because spectral norm's power iteration must not run twice before one backward.
            shown = self._augmented(plain, 2, torch_rng)
            with profiling.part("forward"):
                verdict = self._verdict(shown, condition)
        real, fakes = verdict.chunk(2)
        weights = [w if w is None else to_device(w, device) for w in (draw.real_weight, draw.fake_weight)]
        loss = self.generator.label_strength * self.losses.discriminator(real.logits, fakes.logits, *weights)
        if real.unconditional is not None:
            loss = loss + self.losses.discriminator(real.unconditional, fakes.unconditional, *weights)
        if verdict.label is not None:
            labels = to_device(torch.cat([self.labels[draw.real], draw.fake_targets]), device)
            loss = loss + settings.auxiliary * (verdict.label - labels).square().mean()
        if settings.lecam:
            loss = loss + settings.lecam * self.lecam(real.regularised, fakes.regularised)
        with profiling.part("backward"):
            self.discriminator_optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(loss)
            self._penalise(number, shown, condition)
            add_gradients(self.discriminator)
        with profiling.part("optimizer"):
            self.discriminator_optimizer.step()
        return {
            "discriminator_loss": loss.detach(),
            "real_logit": real.logits.detach().mean(),
            "fake_logit": fakes.logits.detach().mean(),
        }

    def _penalise(self, number: int, both: Tensor, condition: Tensor) -> None:
        """Add the gradients of R1, and of R2 if asked for.

        A further pass, after the backward of the first. At full precision, because squares of small gradients are
        tiny; on the augmented images, because D sees no others. both: real and generated images of this process.
        """
        r1, own = self.settings.r1, own_rows(condition)
        if r1 is None or number % r1.every:
            return
        parts = 2 if r1.fakes else 1

        def logits(images: Tensor, targets: Tensor) -> Tensor:
            return self.discriminator.verdict(images, targets).regularised

        penalty = squared_gradient(logits, both[: parts * len(own)].float(), own.repeat(parts))
        penalty = penalty * (len(own) / len(condition))  # the means of all processes, weighted, add up to one mean
        self.fabric.backward(parts * r1.gamma / 2 * penalty * r1.every)  # the mean over both parts, times 2: R1 + R2

    # --- rows of the batch ----------------------------------------------------------------------------------------

    def _real(self, rows: Tensor) -> Tensor:
        """Real images [b, C, H, W] in [-1, 1]: this process's part of ``rows``."""
        images = to_device(self.images[own_rows(rows)], self.fabric.device).to(memory_format=torch.channels_last)
        return from_uint8(images)

    def _generated(self, z: Tensor, targets: Tensor) -> Tensor:
        """Generated images [b, C, H, W] of this process; z, targets: of all."""
        with batch_statistics():
            return self.generator(own_rows(z), own_rows(targets))  # type: ignore[no-any-return]

    def _augmented(self, images: Tensor, batches: int, torch_rng: torch.Generator) -> Tensor:
        """Images of this process, from so many batches, as the discriminator sees them."""
        settings = self.settings
        return diffaugment(images, settings.diffaugment, torch_rng, batches * settings.batch_size, batches)

    def _verdict(self, images: Tensor, condition: Tensor) -> Verdict:
        """The verdict on the images of all processes, float32.

        images: of this process, of several batches one after the other; condition [B]: the labels of each batch.
        """
        own = own_rows(condition)
        copies = len(images) // len(own)
        verdict = self.discriminator.verdict(images, own.repeat(copies))
        return verdict.each(lambda outputs: all_rows(outputs.float(), len(condition), copies))

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


def label_strength(step: int, settings: GanSettings) -> float:
    """The weight of the label during a transition, from 0 to 1; 1 without one (Shahbazi et al., arXiv 2201.06578)."""
    transition = settings.transition
    if transition is None:
        return 1.0
    share = (step / settings.steps - transition.start) / (transition.end - transition.start)
    return min(1.0, max(0.0, share))
