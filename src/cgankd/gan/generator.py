"""The interface of all generators, :class:`Sampler`, and the trained GAN behind it."""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cgankd.config.settings import SNGAN, GanSettings, ScalarLabelSettings
from cgankd.core import rng
from cgankd.core.runtime import Fabric
from cgankd.core.store import Stored, Work
from cgankd.data.imageset import ImageSet
from cgankd.data.resizing import resized
from cgankd.gan import biggan, sagan, sngan
from cgankd.gan.blocks import attention_level, map_widths
from cgankd.gan.residual import Maps, ProjectionDiscriminator, ResidualGenerator
from cgankd.labels import label_embedding
from cgankd.nets import inference
from cgankd.nets.build import WEIGHTS
from cgankd.tasks import Task, from_json

UNBOUNDED = torch.iinfo(torch.int64).max


class Sampler(ABC):
    """What synthesis needs of a generator: a trained GAN, a callable, or a folder of ready images.

    Image ``indices[j]`` of label ``targets[j]`` is always the same, in every batch.
    """

    content_key: str  # identifies what it samples; needed only where the sampler is its own GeneratorSource

    @abstractmethod
    def sample(self, targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        """targets [B] (class index, or scalar in [0, 1]), indices int64 [B] -> uint8 images [B, C, H, W]."""

    one_latent = False  # does `along` change nothing but the label?

    def along(self, targets: Tensor, index: int, seed: int) -> Tensor:
        """Image number ``index`` at each of several labels: targets [B] -> uint8 images [B, C, H, W].

        With ``one_latent`` all have the latent of the first label, so only what the label controls changes.
        """
        return self.sample(targets, torch.full((len(targets),), index), seed)

    held: tuple[Tensor, Tensor] | None = None  # ready images: their distinct labels, and how many each has

    def available(self, targets: Tensor) -> Tensor:
        """How many distinct images each label has, int64 [B]; UNBOUNDED where there is no limit."""
        return torch.full(targets.shape, UNBOUNDED)

    def one_each(self, targets: Tensor, numbers: Tensor, seed: int) -> Tensor:
        """One image for each of B labels: targets [B], numbers int64 [B] -> uint8 images [B, C, H, W].

        Equal labels with other numbers get other images, as far as there are enough. Of ready images with scalar labels
        a larger index would be one of another label.
        """
        return self.sample(targets, numbers % self.available(targets).clamp(min=1), seed)

    def open(self, fabric: Fabric) -> Sampler:
        """The sampler itself."""
        return self


class GeneratorSource(Protocol):
    """A generator that a stage opens when it needs it."""

    @property
    def content_key(self) -> str:
        """Identifies what it samples."""

    def open(self, fabric: Fabric) -> Sampler:
        """Ready to sample, on the device of ``fabric``."""


class TrainedGenerator(Stored):
    """The generator that a stage saved with :func:`keep_generator`; opening it needs no data set."""

    def open(self, fabric: Fabric) -> Sampler:
        built = self.artifact.summary["built"]
        settings, scalar = GanSettings.model_validate(built["gan"]), built["scalar"]
        with rng.restored():  # for weights that are overwritten
            embedding = label_embedding(
                from_json(built["task"]),
                ScalarLabelSettings.model_validate(scalar) if scalar else None,
                settings.label_dim,
            )
            network = new_generator(settings, embedding, built["channels"], tuple(built["size"]))
        network.load_state_dict(self.artifact.tensors(WEIGHTS))
        size = built.get("enlarged_to")  # older artifacts have none
        return GanSampler(network, settings.latent, fabric, None if size is None else tuple(size))


def keep_generator(
    work: Work,
    sampler: GanSampler,
    settings: GanSettings,
    scalar: ScalarLabelSettings | None,
    task: Task,
    images: ImageSet,
) -> dict[str, Any]:
    """Save the weights. Returns the entries of the summary that :class:`TrainedGenerator` needs to load them."""
    work.save(WEIGHTS, sampler.network.state_dict())
    return {
        "built": {
            "gan": settings.model_dump(mode="json"),
            "scalar": None if scalar is None else scalar.model_dump(mode="json"),
            "task": task.to_json(),
            "channels": images.channels,
            "size": list(images.size),
            "enlarged_to": None if sampler.size is None else list(sampler.size),
        }
    }


class GanSampler(Sampler):
    """A trained conditional generator.

    size: (H, W) to which its images are resized (:func:`cgankd.data.resizing.resized`); None: as they are drawn.
    """

    def __init__(self, network: nn.Module, latent: int, fabric: Fabric, size: tuple[int, int] | None = None) -> None:
        self.network = inference.place(network, fabric).eval()
        self.latent, self.fabric, self.size = latent, fabric, size

    def sample(self, targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        return self._images(latents(targets, indices, seed, self.latent), targets)

    one_latent = True

    def along(self, targets: Tensor, index: int, seed: int) -> Tensor:
        z = latents(targets[:1], torch.tensor([index]), seed, self.latent)
        return self._images(z.expand(len(targets), -1), targets)

    @torch.no_grad()
    def _images(self, z: Tensor, targets: Tensor) -> Tensor:
        device = self.fabric.device
        images = self.network(z.to(device), targets.to(device))  # at float32, because images are stored
        drawn = to_uint8(images.float()).cpu()
        return drawn if self.size is None else resized(drawn, self.size)


def latents(targets: Tensor, indices: Tensor, seed: int, width: int) -> Tensor:
    """Standard normal z, float32 [B, width], which depends on (seed, label, index) alone."""
    return rng.normal(seed, "latent", rng.label_counters(targets), indices, width=width)


_NETWORKS: dict[str, tuple[Callable[..., ResidualGenerator], Callable[..., ProjectionDiscriminator]]] = {
    "sngan": (sngan.Generator, sngan.Discriminator),
    "sagan": (sagan.Generator, sagan.Discriminator),
    "biggan": (biggan.Generator, biggan.Discriminator),
}


def new_networks(
    settings: GanSettings, embedding: nn.Module, channels: int, size: tuple[int, int]
) -> tuple[ResidualGenerator, ProjectionDiscriminator]:
    """An untrained generator and discriminator, each with its own copy of the label embedding.

    Raises UserError where the settings don't fit images of this size.
    """
    generator = new_generator(settings, embedding, channels, size)
    discriminator = _NETWORKS[settings.network.kind][1]
    maps = _maps(settings, settings.discriminator_channels or settings.channels, channels, size)
    return generator, discriminator(copy.deepcopy(embedding), maps, settings.pooling, _heads(settings))


@functools.lru_cache(maxsize=8)
def check_networks(
    settings: GanSettings, scalar: ScalarLabelSettings | None, task: Task, channels: int, size: tuple[int, int]
) -> None:
    """UserError where the settings don't fit such images. Remembered, because the runs of a table have few GANs."""
    new_networks(settings, label_embedding(task, scalar, settings.label_dim), channels, size)


def new_generator(
    settings: GanSettings, embedding: nn.Module, channels: int, size: tuple[int, int]
) -> ResidualGenerator:
    """The untrained generator alone, because a discriminator's spectral norms take longer to make."""
    maps = _maps(settings, settings.channels, channels, size)
    generator = _NETWORKS[settings.network.kind][0]
    return generator(copy.deepcopy(embedding), maps, settings.latent, shared=settings.shared_embedding)


def _maps(settings: GanSettings, base: int, channels: int, size: tuple[int, int]) -> Maps:
    attention = None
    if not isinstance(settings.network, SNGAN) and settings.network.attention != 0:
        attention = attention_level(size, settings.network.attention)
    return Maps(map_widths(size, base, settings.multipliers), size, channels, settings.label_dim, attention)


def _heads(settings: GanSettings) -> list[str]:
    """The discriminator's outputs besides its logits."""
    wanted = {"unconditional": settings.transition is not None, "label": settings.auxiliary > 0}
    return [name for name, used in wanted.items() if used]


def to_uint8(images: Tensor) -> Tensor:
    """float [-1, 1] -> uint8."""
    return ((images + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """uint8 -> float32 [-1, 1]."""
    return images.float().div(127.5).sub(1.0)
