"""The generator's contract, and the trained GAN that fulfils it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd import counter, evaluate
from cgankd.files import load_tensors, save_tensors
from cgankd.gan import sngan
from cgankd.labels import LabelSpace
from cgankd.recipe import GeneratorSettings

UNBOUNDED = torch.iinfo(torch.int64).max


class Sampler(Protocol):
    """What synthesis needs of a generator: a trained GAN, a callable, a folder of images made elsewhere.

    Image ``indices[j]`` of label ``targets[j]`` is the same whoever draws it, in whatever batch.
    """

    def sample(self, targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        """targets [B] (class index, or scalar in [0, 1]), indices int64 [B] -> uint8 images [B, C, H, W]."""


def available(generator: Sampler, targets: Tensor) -> Tensor:
    """How many distinct images each label has, int64 [B]; UNBOUNDED where there is always another."""
    held = getattr(generator, "available", None)
    return torch.full(targets.shape, UNBOUNDED) if held is None else held(targets)


class GanSampler:
    """A trained conditional generator. Latents are a pure function of (seed, label, index)."""

    def __init__(self, network: nn.Module, latent: int, fabric: Fabric) -> None:
        self.network = evaluate.place(network, fabric).eval()
        self.latent, self.fabric = latent, fabric

    @torch.no_grad()
    def sample(self, targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        label = targets if not targets.is_floating_point() else targets.float().view(torch.int32)
        z = counter.normal(seed, "latent", label, indices, width=self.latent).to(self.fabric.device)
        with self.fabric.autocast():
            images = self.network(z, targets.to(self.fabric.device))
        return to_uint8(images.float()).cpu()

    def save(self, path: Path) -> None:
        """Weights as safetensors."""
        save_tensors(path, self.network.state_dict())


def new_networks(
    settings: GeneratorSettings, space: LabelSpace, embedding: nn.Module, channels: int, size: tuple[int, int]
) -> tuple[nn.Module, nn.Module]:
    """An untrained generator and discriminator, each with its own copy of the label embedding."""
    label_dim = settings.label_dim
    generator = sngan.Generator(
        copy.deepcopy(embedding), settings.channels, settings.latent, label_dim, channels, size
    )
    discriminator = sngan.Discriminator(
        copy.deepcopy(embedding), settings.channels, label_dim, channels, size, settings.pooling
    )
    return generator, discriminator


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


class CallableSampler:
    """Any function ``(targets, indices, seed) -> uint8 images`` in a trained GAN's place."""

    def __init__(self, function: Callable[[Tensor, Tensor, int], Tensor]) -> None:
        self.function = function

    def sample(self, targets: Tensor, indices: Tensor, seed: int) -> Tensor:
        return self.function(targets, indices, seed)


def to_uint8(images: Tensor) -> Tensor:
    """float [-1, 1] -> uint8."""
    return ((images + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """uint8 -> float32 [-1, 1]."""
    return images.float().div(127.5).sub(1.0)
