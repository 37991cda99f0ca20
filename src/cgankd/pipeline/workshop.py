"""What the stations of the road share: the run's data and settings, its networks made and read back, its keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from cgankd.config.recipe import Recipe
from cgankd.core import rng
from cgankd.core.checkpoint import Checkpoint
from cgankd.core.plugins import code_key, onnx_key
from cgankd.core.progress import Progress
from cgankd.core.store import CHECKPOINT, Artifact, RunFolder
from cgankd.data.imageset import ImageSet, Splits
from cgankd.gan.adapters import StoredImages, open_source
from cgankd.gan.generator import Sampler, load_sampler
from cgankd.labels import label_space
from cgankd.metrics import cost
from cgankd.nets import inference, weights
from cgankd.nets.build import fresh_network
from cgankd.pipeline.preflight import check_answers
from cgankd.synthesis import adjust
from cgankd.synthesis.autoencoder import CODE, SparseAutoencoder
from cgankd.synthesis.density_ratio import RatioNetwork
from cgankd.synthesis.store import open_images
from cgankd.teachers.black_box import BlackBox
from cgankd.teachers.opening import open_teacher
from cgankd.training import scoring


class Workshop:
    """One run's data, settings and folder, and how its networks and images are made and read back."""

    def __init__(
        self, recipe: Recipe, splits: Splits, folder: RunFolder, fabric: Fabric, progress: Progress
    ) -> None:
        self.recipe, self.splits, self.folder = recipe, splits, folder
        self.fabric, self.progress = fabric, progress
        self.task = splits.task
        self.keys = {name: getattr(splits, name).key() for name in ("train", "pool", "val", "test")}
        self.base = {"task": self.task.to_json()}
        targets = self.task.to_target(splits.train.labels)
        self.space = label_space(self.task, targets, recipe.generator)
        source, train, column = recipe.generator.source, splits.train, recipe.data.label_column
        self.source = None if source is None else open_source(source, self.task, train.channels, train.size, column)
        self.answering = {  # those that only answer, by what they are called
            one.source: open_teacher(one.source, self.task, train.channels, train.size, f"{setting}.source")
            for setting, one in recipe.teacher.all()
            if one.source is not None
        }
        self.black_box = self.answering.get(recipe.teacher.source or "")
        check_answers(self.black_box, self.source, splits)
        self.held = None if self.source is None else self.source.held
        self.replace = adjust.replacement(recipe.synthesis, self.task)  # what cannot be is refused before training

    def checkpoint(self, work: Path) -> Checkpoint:
        return Checkpoint(work / CHECKPOINT, self.recipe.runtime.checkpoint_seconds, self.folder.deadline)

    def scored(self, network: inference.Predictor, name: str) -> dict[str, Any]:
        """Scores, size and time; None for what a teacher that only answers does not tell."""
        shape = (self.splits.test.channels, *self.splits.test.size)
        whole = network if isinstance(network, nn.Module) else None
        test, per_bin = self._score(network, self.splits.test)
        return {
            "network": name,
            "parameters": None if whole is None else cost.parameters(whole),
            "val": self._score(network, self.splits.val)[0],
            "test": test,
            "test_per_bin": per_bin,
            "latency_ms": None if whole is None else cost.latency_ms(whole, shape),
        }

    def _score(
        self, network: inference.Predictor, images: ImageSet
    ) -> tuple[float, list[float | None]] | tuple[None, None]:
        if isinstance(network, BlackBox) and not network.knows(images.images):
            return None, None
        return scoring.metric(network, images, self.task, self.fabric)

    def new_network(self, name: str, seed: int, outputs: int | None = None) -> nn.Module:
        """Random weights that are the same for every row of a seed; normalisation fixed from the real images.

        outputs: how many; None: as many as the task has.
        """
        return fresh_network(name, self.splits.train, outputs or self.task.num_outputs, seed)

    def new_autoencoder(self, seed: int) -> SparseAutoencoder:
        train = self.splits.train
        encoder = self.new_network(self.recipe.ratio.feature_network, seed, CODE)
        with torch.random.fork_rng([]):
            torch.manual_seed(rng.key(seed, "autoencoder/weights"))
            return SparseAutoencoder(encoder, train.channels, train.size, self.task.num_outputs)

    def network(self, artifact: Artifact) -> nn.Module:
        network = self.new_network(artifact.summary["network"], 0)
        weights.load_weights(network, artifact.folder / "weights.safetensors")
        return inference.place(network, self.fabric).eval()

    def predictor(self, artifact: Artifact) -> inference.Predictor:
        """A network, or what stands in the teacher's place and only answers."""
        if artifact.summary.get("only_answers"):
            return next(one for one in self.answering.values() if one.key == artifact.summary["source_key"])
        return self.network(artifact)

    def sampler(self, generator: Artifact) -> Sampler:
        if self.source is not None:
            return self.source
        train = self.splits.train
        path = generator.folder / "weights.safetensors"
        return load_sampler(path, self.recipe.generator, self.space, train.channels, train.size, self.fabric)

    def ratio_network(self, artifact: Artifact) -> RatioNetwork:
        tensors = artifact.tensors("weights")
        settings = self.recipe.ratio
        embedding = self.space.ratio_embedding(RatioNetwork.LABEL_DIM)
        network = RatioNetwork(len(tensors["mean"]), embedding, settings.widths, settings.dropout)
        network.load_state_dict(tensors)
        return network.to(self.fabric.device).eval()

    def fakes(self, artifact: Artifact | None, replace: str) -> ImageSet | None:
        if artifact is None:
            return None
        columns = artifact.tensors("columns")
        train = self.splits.train
        images = open_images(artifact.folder / "images.u8", (train.channels, *train.size))
        return adjust.relabelled(ImageSet(images, columns.pop("labels"), columns), replace)

    def pseudo_labelled(self, artifact: Artifact) -> ImageSet:
        return ImageSet(self.splits.unlabelled, artifact.tensors("columns")["labels"])


def source_key(source: str, sampler: Sampler) -> str:
    """The key of what ``generator.source`` holds: images with labels, an ONNX file, or the user's code."""
    if isinstance(sampler, StoredImages):
        return sampler.key
    path = Path(source).expanduser()
    return onnx_key(path) if path.is_file() else code_key(source)
