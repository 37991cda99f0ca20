"""The generator's contract, and the trained GAN that fulfils it."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.config.settings import GeneratorSettings
from cgankd.core import rng
from cgankd.core.errors import UserError
from cgankd.core.files import load_tensors, save_tensors
from cgankd.gan import biggan, sagan, sngan
from cgankd.gan.blocks import attention_level, map_widths
from cgankd.labels import LabelSpace
from cgankd.nets import inference

UNBOUNDED = torch.iinfo(torch.int64).max


class Sampler(ABC):
    """What synthesis needs of a generator: a trained GAN, a callable, a folder of images made elsewhere.

    Image ``indices[j]`` of label ``targets[j]`` is the same whoever draws it, in whatever batch.
    """

    @abstractmethod
    def sample(self, targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        """targets [B] (class index, or scalar in [0, 1]), indices int64 [B] -> uint8 images [B, C, H, W]."""

    held: tuple[Tensor, Tensor] | None = None  # ready images: their distinct labels, and how many each has

    def available(self, targets: Tensor) -> Tensor:
        """How many distinct images each label has, int64 [B]; UNBOUNDED where there is always another."""
        return torch.full(targets.shape, UNBOUNDED)


class GanSampler(Sampler):
    """A trained conditional generator."""

    def __init__(self, network: nn.Module, latent: int, fabric: Fabric) -> None:
        self.network = inference.place(network, fabric).eval()
        self.latent, self.fabric = latent, fabric

    @torch.no_grad()
    def sample(self, targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        z = latents(targets, indices, seed, self.latent).to(self.fabric.device)
        with self.fabric.autocast():
            images = self.network(z, targets.to(self.fabric.device))
        return to_uint8(images.float()).cpu()

    def save(self, path: Path) -> None:
        """Weights as safetensors."""
        save_tensors(path, self.network.state_dict())


def latents(targets: Tensor, indices: Tensor, seed: int, width: int) -> Tensor:
    """Standard normal z, float32 [B, width]: a pure function of (seed, label, index)."""
    label = targets if not targets.is_floating_point() else targets.float().view(torch.int32)
    return rng.normal(seed, "latent", label, indices, width=width)


_NETWORKS: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "sngan": (sngan.Generator, sngan.Discriminator),
    "sagan": (sagan.Generator, sagan.Discriminator),
    "biggan": (biggan.Generator, biggan.Discriminator),
}


def new_networks(
    settings: GeneratorSettings, space: LabelSpace, embedding: nn.Module, channels: int, size: tuple[int, int]
) -> tuple[nn.Module, nn.Module]:
    """An untrained generator and discriminator, each with its own copy of the label embedding.

    Raises UserError where the settings don't fit images of this size.
    """
    generator, discriminator = _NETWORKS[settings.network]
    attention = {}
    if settings.network != "sngan":
        attention["attention"] = None if settings.attention == 0 else attention_level(size, settings.attention)
    elif settings.attention is not None:
        raise UserError("generator.attention is set, but sngan has none; allowed with network sagan or biggan")
    base, label_dim = settings.channels, settings.label_dim
    widths = map_widths(size, base, settings.multipliers)
    others = map_widths(size, settings.discriminator_channels or base, settings.multipliers)
    return (
        generator(
            copy.deepcopy(embedding), widths, settings.latent, label_dim, channels, size,
            shared=settings.shared_embedding, **attention,
        ),
        discriminator(
            copy.deepcopy(embedding), others, label_dim, channels, size, settings.pooling, **attention
        ),
    )  # fmt: skip


def load_sampler(
    path: Path,
    settings: GeneratorSettings,
    space: LabelSpace,
    channels: int,
    size: tuple[int, int],
    fabric: Fabric,
) -> GanSampler:
    """The trained generator at ``path``, built from the settings it was trained with."""
    network, _ = new_networks(settings, space, space.new_embedding(settings.label_dim), channels, size)
    network.load_state_dict(load_tensors(path)[0])
    return GanSampler(network, settings.latent, fabric)


def to_uint8(images: Tensor) -> Tensor:
    """float [-1, 1] -> uint8."""
    return ((images + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """uint8 -> float32 [-1, 1]."""
    return images.float().div(127.5).sub(1.0)
