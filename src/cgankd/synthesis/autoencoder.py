"""Features for the density ratio: the code of a sparse auto-encoder that also predicts the label.

Paper, section 3.2 (its features for regression): L = reconstruction MSE + 1e-3 mean(code) + label loss.
The label loss is the task's, so the auto-encoder also works for classes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.config.settings import AugmentSettings
from cgankd.core import rng
from cgankd.core.errors import TrainingError
from cgankd.core.profiling import part
from cgankd.core.runtime import Fabric, fused
from cgankd.core.store import Stored, Work
from cgankd.data.batches import Batches
from cgankd.data.imageset import ImageSet, TrainingImages
from cgankd.nets import inference
from cgankd.nets.build import WEIGHTS, Architecture, fresh_network
from cgankd.nets.layers import conv_bn_relu, initialise
from cgankd.tasks import Task

CODE = 256  # numbers in the code, which are the outputs of any network of the zoo
SPARSITY = 1e-3  # paper
LABEL_WEIGHT = 1.0  # paper
LEARNING_RATE = 1e-3  # of Adam, with cosine decay to 0
LOG_POINTS = 25


class SparseAutoencoder(nn.Module):
    """Float images in [0, 1], [B, C, H, W], to outputs [B, num_outputs]; the penultimate layer is the code.

    encoder: any network with outputs [B, CODE]; their ReLU is the code. The decoder starts at an eighth of the image
    size and doubles it three times; its largest map has ``width`` channels.
    """

    def __init__(
        self, encoder: nn.Module, channels: int, size: tuple[int, int], num_outputs: int, width: int = 16
    ) -> None:
        super().__init__()
        self.encoder, self.size = encoder, size
        small = [math.ceil(side / 8) for side in size]
        self.branch = nn.Linear(CODE, num_outputs)
        self.decoder = nn.Sequential(
            nn.Linear(CODE, 4 * width * small[0] * small[1]),
            nn.Unflatten(1, (4 * width, *small)),
            *_doubled(4 * width, 4 * width),
            *_doubled(4 * width, 2 * width),
            *_doubled(2 * width, width),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Sigmoid(),
        )
        initialise(self.decoder)

    def code(self, images: Tensor) -> Tensor:
        """[B, CODE], none below 0."""
        return F.relu(self.encoder(images))

    def decode(self, code: Tensor) -> Tensor:
        """[B, CODE] -> images in [0, 1], [B, C, H, W]."""
        images: Tensor = self.decoder(code)
        return images[..., : self.size[0], : self.size[1]]  # sides not divisible by 8 were rounded up

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.branch(self.code(images))
        return outputs


def autoencoder_loss(task: Task, images: Tensor, decoded: Tensor, code: Tensor, outputs: Tensor, y: Tensor) -> Tensor:
    """mean (x - x')^2 + SPARSITY mean |code| + LABEL_WEIGHT loss(outputs, y); the code is never below 0."""
    return F.mse_loss(decoded, images) + SPARSITY * code.mean() + LABEL_WEIGHT * task.loss(outputs, y)


def train_autoencoder(
    work: Work,
    network: SparseAutoencoder,
    task: Task,
    train: ImageSet,
    steps: int,
    batch_size: int,
    augment: AugmentSettings,
    *,
    seed: int,
) -> list[dict[str, Any]]:
    """Train in place on ``train``. Returns the history.

    Raises TrainingError where the loss is not finite.
    """
    fabric, checkpoint = work.fabric, work.checkpoint()
    inference.place(network, fabric).train()
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, fused=fused(fabric.device))
    batches = Batches(TrainingImages(train), task, batch_size, augment, seed, fabric.device)
    start, history = checkpoint.load({"network": network}, {"adam": optimizer})
    log_every = max(1, steps // LOG_POINTS)
    with rng.restored(fabric.device), work.progress.bar("auto-encoder", steps) as bar:
        bar.images = batch_size
        for step in range(start, steps):
            rng.seed_torch(rng.key(seed, "autoencoder", step), work.fabric.device)  # dropout, if the encoder has any
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * 0.5 * (1.0 + math.cos(math.pi * step / steps))
            with part("batch"):
                batch = batches.at(step)
            with part("forward"):
                with fabric.autocast():
                    code = network.code(batch.images)
                    decoded = network.decode(code)
                outputs = network.branch(code.float())  # bfloat16 is too coarse for a scalar
                loss = autoencoder_loss(task, batch.images, decoded.float(), code.float(), outputs, batch.targets)
            with part("backward"):
                optimizer.zero_grad(set_to_none=True)
                fabric.backward(loss)
            with part("optimizer"):
                optimizer.step()
            done = step + 1
            if done % log_every == 0 or done == steps:
                history.append({"step": done, "loss": float(loss.detach())})
                if not math.isfinite(history[-1]["loss"]):
                    raise TrainingError(
                        f"auto-encoder: the loss is {history[-1]['loss']} at step {done}; another ratio.features, such "
                        "as teacher, or runtime.precision=fp32 may help"
                    )
                bar.log(history[-1])
            bar.to(done)
            if checkpoint.due():
                checkpoint.save(done, {"network": network}, {"adam": optimizer}, history)
    network.eval()
    return history


def _doubled(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.Upsample(scale_factor=2.0), *conv_bn_relu(in_channels, out_channels)]


def new_autoencoder(network: Architecture, images: ImageSet, task: Task, seed: int) -> SparseAutoencoder:
    """A network with random weights from ``seed``; its inputs are normalised by the statistics of ``images``."""
    encoder = fresh_network(network, images, CODE, seed)
    with rng.seeded(seed, "autoencoder/weights"):
        return SparseAutoencoder(encoder, images.channels, images.size, task.num_outputs)


class StoredAutoencoder(Stored):
    """The auto-encoder that a stage saved with :func:`cgankd.nets.build.keep_network`."""

    def open(self, fabric: Fabric) -> nn.Module:
        """In eval mode, on the device."""
        built = self.artifact.summary["built"]
        channels, size = built["channels"], tuple(built["size"])
        encoder = Architecture(built["network"]).create(channels, size, CODE)
        network = SparseAutoencoder(encoder, channels, size, built["outputs"])
        network.load_state_dict(self.artifact.tensors(WEIGHTS))
        return inference.place(network, fabric).eval()
