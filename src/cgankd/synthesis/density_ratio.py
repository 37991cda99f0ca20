"""The conditional density ratio: h(x, y) estimates p_real(x | y) / p_fake(x | y) on features of x (paper, 3.2)."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.config.settings import RatioFitSettings
from cgankd.core import rng
from cgankd.core.blockwise import BLOCK, blockwise
from cgankd.core.errors import UserError
from cgankd.core.profiling import part
from cgankd.core.runtime import Fabric, to_device
from cgankd.core.shared_calls import RowFunction, Rows
from cgankd.core.store import Stored, Work
from cgankd.data.imageset import ImageSet
from cgankd.gan.generator import Sampler
from cgankd.labels import LabelSpace, ratio_embedding
from cgankd.nets.build import WEIGHTS
from cgankd.nets.feature_extractor import FeatureExtractor
from cgankd.nets.inference import images_at_once
from cgankd.tasks import Task, from_json
from cgankd.training.faults import NotFinite, not_finite

LOG_POINTS = 25


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Features of N real images and of K fakes at the label of each."""

    real: Tensor  # float32 [N, F]
    targets: Tensor  # [N], the real labels
    fake: Tensor  # float32 [N, K, F]
    valid: Tensor  # bool [N, K]: which fakes count

    def take(self, rows: Tensor) -> Pairs:
        """The real images at ``rows`` (int64, or bool [N]), with their fakes."""
        return Pairs(self.real[rows], self.targets[rows], self.fake[rows], self.valid[rows])

    @functools.cached_property
    def usable(self) -> Tensor:
        """The rows of real images with at least one valid fake, int64."""
        return self.valid.any(dim=1).nonzero().squeeze(1)

    @functools.cached_property
    def all_count(self) -> bool:
        """Whether every fake is valid."""
        return bool(self.valid.all())

    @property
    def left_out(self) -> float:
        """The share of the fakes that is not valid."""
        return 1.0 - float(self.valid.float().mean())

    def draw(self, size: int, torch_rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random rows of real images, and for each the column of a random valid fake in its row; int64 [size]."""
        row = self.usable[torch.randint(len(self.usable), (size,), generator=torch_rng)]
        if self.all_count:
            return row, torch.randint(self.valid.shape[1], (size,), generator=torch_rng)
        inside = self.valid[row]
        place = (
            torch.rand(size, generator=torch_rng, dtype=torch.float64) * inside.sum(dim=1)
        ).long()  # the number of the fake among the valid ones
        return row, (inside.cumsum(dim=1) > place[:, None]).float().argmax(dim=1)


class RatioNetwork(nn.Module):
    """An MLP on [standardised features; label embedding]; the final ReLU keeps h >= 0."""

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
        nn.init.ones_(last.bias)  # h starts near 1, so that the ReLU rarely outputs 0
        self.layers = nn.Sequential(*layers, last, nn.ReLU())

    mean: Tensor
    scale: Tensor

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """features [B, F], targets [B] -> h [B]."""
        features = (features - self.mean) / self.scale
        h: Tensor = self.layers(torch.cat([features, self.embedding(targets)], dim=1)).squeeze(1)
        return h

    @torch.no_grad()
    def values(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """h on the real images [N] and on the fakes at their labels [N, K]."""
        device = self.mean.device
        real, targets, fake = pairs.real.to(device), pairs.targets.to(device), pairs.fake.to(device)
        on_fake = [self(fake[:, number], targets) for number in range(fake.shape[1])]
        return self(real, targets), torch.stack(on_fake, dim=1)

    def loss(self, pairs: Pairs, penalty: float) -> float:
        """:func:`ratio_loss` on all real images with a valid fake, and their valid fakes (:func:`row_by_row`)."""
        pairs = pairs.take(pairs.usable)
        h_real, h_fake = self.values(pairs)
        return float(ratio_loss(h_real, row_by_row(h_fake, pairs.valid.to(h_fake.device)), penalty))


def row_by_row(values: Tensor, valid: Tensor) -> Tensor:
    """``values`` [N, K], in which each row repeats its valid ones in place of the others; each row has some.

    So all rows count the same, as in training (:meth:`Pairs.draw`). Without this, the fakes would have other labels
    than the real images, namely those at which the generator hits the label more often.
    """
    order = valid.long().argsort(dim=1, descending=True, stable=True)  # the valid ones first
    place = torch.arange(valid.shape[1], device=valid.device) % valid.sum(dim=1, keepdim=True)
    return values.gather(1, order.gather(1, place))


class StoredRatio(Stored):
    """The density ratio that a stage saved with :func:`keep_ratio`."""

    def open(self, fabric: Fabric) -> RatioNetwork:
        """In eval mode, on the device."""
        built, tensors = self.artifact.summary["built"], self.artifact.tensors(WEIGHTS)
        with rng.restored():  # for weights that are overwritten
            embedding = ratio_embedding(from_json(built["task"]), RatioNetwork.LABEL_DIM)
            network = RatioNetwork(len(tensors["mean"]), embedding, tuple(built["hidden"]), built["dropout"])
        network.load_state_dict(tensors)
        return network.to(fabric.device).eval()


def keep_ratio(work: Work, network: RatioNetwork, settings: RatioFitSettings, task: Task) -> dict[str, Any]:
    """Save the weights. Returns the entries of the summary that :class:`StoredRatio` needs to load them."""
    work.save(WEIGHTS, network.state_dict())
    return {"built": {"task": task.to_json(), "hidden": list(settings.widths), "dropout": settings.dropout}}


def ratio_loss(h_real: Tensor, h_fake: Tensor, penalty: float) -> Tensor:
    """Softplus Bregman divergence, and a penalty that keeps the mean ratio of the fakes near 1.

    L = E_fake[s(h) h - softplus(h)] - E_real[s(h)] + lambda (E_fake[h] - 1)^2, s the sigmoid (paper, equation 5).
    """
    s = torch.sigmoid(h_fake)
    divergence = (s * h_fake - F.softplus(h_fake)).mean() - torch.sigmoid(h_real).mean()
    return divergence + penalty * (h_fake.mean() - 1.0) ** 2


@dataclasses.dataclass(frozen=True)
class Reader:
    """Gives the features of real images and of fakes, row by row.

    real: sets of real images, by name. by_all: :meth:`rows`, computed by several processes.
    """

    generator: Sampler
    extractor: FeatureExtractor
    real: Mapping[str, ImageSet]
    by_all: RowFunction | None = None

    @contextmanager
    def shared(self) -> Iterator[Reader]:
        """In this block, which only the first process of a run enters, all of them read the images."""
        with self.extractor.shared(self.rows) as by_all:
            yield dataclasses.replace(self, by_all=by_all)

    def __call__(self, targets: Tensor, index: Tensor, source: int | str) -> Rows:
        return (self.by_all or self.rows)(targets, index, source)

    def rows(self, targets: Tensor, index: Tensor, source: int | str) -> Rows:
        """Features, and for fakes outputs, of images ``index`` at ``targets``, both [B].

        source: the seed of fakes, or the name of a set of real images.
        """
        if isinstance(source, str):
            return {"features": self.extractor(self.real[source].images[index])[1]}
        outputs, features = self.extractor(self.generator.sample(targets, index, source))
        return {"features": features, "outputs": outputs}


def fakes_at_labels(
    work: Work,
    reader: Reader,
    targets: Tensor,
    count: int,
    seed: int,
    counts: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Features of ``count`` fakes at each of N labels; neither images nor outputs are stored.

    counts: takes the teacher's outputs for fakes [B, O] and their targets [B], and says which fakes count, bool [B];
    None: all. Returns features float32 [N, count, F], and bool [N, count]: which of the fakes count and exist, because
    a generator of ready images may hold none at a label. Features of missing fakes are 0.
    """
    stream = rng.key(seed, "ratio/fakes")
    held = reader.generator.available(targets)[:, None]
    # The index counts over all rows, so that two images with the same label get different fakes, if there are enough.
    index = (torch.arange(len(targets))[:, None] * count + torch.arange(count)) % held.clamp(min=1)
    there = (held > 0).expand_as(index)
    blocks = [
        number * len(targets) + rows
        for number in range(count)
        for rows in there[:, number].nonzero().squeeze(1).split(BLOCK)
        if len(rows)
    ]
    if not blocks:
        raise UserError("the generator holds no image at any label of the real images; at some there must be one")

    def compute(places: Tensor) -> dict[str, Tensor]:
        rows, number = places % len(targets), places // len(targets)
        read = reader(targets[rows], index[rows, number], stream)
        valid = torch.ones(len(rows), dtype=torch.bool)
        if counts is not None:
            valid = counts(read["outputs"].cpu(), targets[rows])
        return {"features": read["features"], "valid": valid}

    table = blockwise(work, "fakes for the density ratio", there.numel(), compute, blocks)
    features = table["features"].view(count, len(targets), -1).transpose(0, 1)
    return features, table["valid"].view(count, len(targets)).T


def real_and_fakes(
    work: Work, reader: Reader, name: str, task: Task, space: LabelSpace, settings: RatioFitSettings, seed: int
) -> Pairs:
    """Features of the real images called ``name``, and of ``settings.fakes_per_image`` fakes at the label of each.

    With ``settings.vicinity_gaps`` (paper: zeta), a fake is valid only if the teacher's prediction for it is that near
    to the label that it was generated at.
    """
    images, gaps = reader.real[name].images, settings.vicinity_gaps
    targets = task.to_target(reader.real[name].labels)

    def near(outputs: Tensor, asked: Tensor) -> Tensor:
        assert gaps is not None
        return space.near(task.to_target(task.predict(outputs)), asked, gaps)

    features, valid = fakes_at_labels(
        work, reader, targets, settings.fakes_per_image, seed, None if gaps is None else near
    )
    if gaps is not None and not valid.any():
        raise UserError(
            f"ratio.vicinity_gaps = {gaps:g} leaves no fake at any real label; a larger number is needed, or none"
        )

    def compute(rows: Tensor) -> dict[str, Tensor]:
        return reader(targets[rows], rows, name)

    real = blockwise(work, "real images for the ratio", len(targets), compute, images_at_once(images))
    return Pairs(real["features"], targets, features, valid)


def train_ratio(
    work: Work,
    pairs: Pairs,
    embedding: nn.Module,
    settings: RatioFitSettings,
    *,
    seed: int,
    held_out: Pairs | None = None,
) -> tuple[RatioNetwork, list[dict[str, Any]]]:
    """Train h on stored features. Returns the network in eval mode, and the history.

    embedding: targets [B] -> [B, 128]. held_out: images that trained neither the generator nor h. The weights with the
    lowest loss there are kept [ours], because with few real images h soon memorises them and would accept no fake.
    Raises NotFinite where a loss or a weight is not finite, and UserError where only one real image has a valid fake,
    because features of one image have no spread to be standardised by.
    """
    fabric, checkpoint = work.fabric, work.checkpoint()
    with rng.restored(fabric.device), work.progress.bar("density ratio", settings.steps) as bar:
        network = _new_network(pairs, embedding, settings, seed).to(fabric.device).train()
        real, targets, fake = (t.to(fabric.device) for t in (pairs.real, pairs.targets, pairs.fake))
        optimizer = torch.optim.Adam(
            network.parameters(), settings.learning_rate, settings.betas, weight_decay=settings.weight_decay
        )
        modules, optimizers = {"network": network}, {"adam": optimizer}
        start, history = checkpoint.load(modules, optimizers)
        best = {name: tensor.to(fabric.device) for name, tensor in checkpoint.tensors.items()}
        log_every = max(1, settings.steps // LOG_POINTS)
        for step in range(start, settings.steps):
            rng.seed_torch(rng.key(seed, "ratio/step", step), work.fabric.device)  # dropout
            rate = settings.learning_rate * 0.1 ** sum(step >= m * settings.steps for m in settings.milestones)
            for group in optimizer.param_groups:
                group["lr"] = rate
            torch_rng = rng.generator("cpu", seed, "ratio/draw", step)
            with part("batch"):
                row, which = (to_device(r, fabric.device) for r in pairs.draw(settings.batch_size, torch_rng))
                features = torch.cat([real[row], fake[row, which]])
            with part("forward"):
                h_real, h_fake = network(features, targets[row].repeat(2)).chunk(2)
                loss = ratio_loss(h_real, h_fake, settings.penalty)
            with part("backward"):
                optimizer.zero_grad(set_to_none=True)
                fabric.backward(loss)
            with part("optimizer"):
                optimizer.step()
            done = step + 1
            if done % log_every == 0 or done == settings.steps:
                entry = {"step": done, "loss": float(loss.detach())}
                if held_out is not None:
                    entry["held_out"] = network.eval().loss(held_out, settings.penalty)
                    network.train()
                _check(entry, network, settings)
                if held_out is not None and all(entry["held_out"] < earlier["held_out"] for earlier in history):
                    best = copy.deepcopy(network.state_dict())
                history.append(entry)
                bar.log(entry)
            bar.to(done)
            if checkpoint.due():
                checkpoint.save(done, modules, optimizers, history, best)
    if best:
        network.load_state_dict(best)
    return network.eval(), history


def _check(entry: Mapping[str, float], network: nn.Module, settings: RatioFitSettings) -> None:
    """NotFinite for a loss or a weight that is not finite."""
    advice = f"a lower ratio.learning_rate than {settings.learning_rate:g}, or synthesis.subsampling=none, may help"
    names = {"loss": "the loss", "held_out": "the loss on held-out images"}
    for name, words in names.items():
        if not math.isfinite(entry.get(name, 0.0)):
            raise NotFinite(f"density ratio: {words} is {entry[name]} at step {entry['step']}", advice)
    if (weight := not_finite(network)) is not None:
        raise NotFinite(f"density ratio: weight {weight} is not finite at step {entry['step']}", advice)


def _new_network(pairs: Pairs, embedding: nn.Module, settings: RatioFitSettings, seed: int) -> RatioNetwork:
    """An untrained network that standardises features by the usable real images. Seeds torch's global generator."""
    if len(pairs.usable) < 2:
        raise UserError(
            "density ratio: only one training image has generated images that count at its label; needed: two; "
            "ratio.vicinity_gaps=null, generated images at more labels, or synthesis.subsampling=none may help"
        )
    torch.manual_seed(rng.key(seed, "ratio/weights"))
    for layer in embedding.modules():
        if isinstance(layer, nn.Embedding):
            layer.reset_parameters()  # because the caller drew its weights without a seed
    network = RatioNetwork(pairs.real.shape[1], embedding, settings.widths, settings.dropout)
    usable = pairs.real[pairs.usable]
    network.mean.copy_(usable.mean(dim=0))
    network.scale.copy_(usable.std(dim=0).clamp(min=1e-3))
    return network
