"""The road for people with their own arrays and modules: the stages as functions, each with sensible settings.

A module, teacher or student, takes float images [B, C, H, W] in [0, 1] and gives logits [B, classes], or [B, 1]:
the label mapped to [0, 1] by the task's range (``LabelUnit`` wraps a module that predicts in the label's own unit).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd import distill as methods
from cgankd.config.settings import FitSettings, GeneratorSettings, RatioSettings, StudentSettings, SynthesisSettings
from cgankd.config.yaml_config import from_tree
from cgankd.core import rng
from cgankd.core.errors import UserError
from cgankd.core.hashing import content_key
from cgankd.core.progress import SILENT, Progress
from cgankd.core.runtime import make_fabric
from cgankd.data.imageset import ImageSet
from cgankd.gan.adapters import CallableSampler, open_source
from cgankd.gan.generator import Sampler
from cgankd.gan.train import train_gan
from cgankd.labels import LabelSpace, label_space
from cgankd.nets import inference
from cgankd.nets.feature_extractor import Observer
from cgankd.synthesis import adjust, checks
from cgankd.synthesis.density_ratio import Pairs, RatioNetwork, real_and_fakes, train_ratio
from cgankd.synthesis.synthesize import Synthesis, synthesize
from cgankd.tasks import Classification, Regression, Task
from cgankd.teachers.jury import as_one
from cgankd.training.loop import fit
from cgankd.training.rehearsal import rehearse
from cgankd.training.scoring import metric

METHOD_NUMBERS = {"temperature", "label_weight", "teacher_weight", "method_settings"}  # of StudentSettings


class LabelUnit(nn.Module):
    """A regressor in the label's own unit, made to speak the task's: [B, 1] or [B] -> [B, 1] in [0, 1]."""

    def __init__(self, network: nn.Module, task: Regression) -> None:
        super().__init__()
        self.network, self.low, self.span = network, task.low, task.span

    def forward(self, images: Tensor) -> Tensor:
        return (self.network(images).reshape(-1, 1) - self.low) / self.span


@dataclasses.dataclass
class Distiller:
    """Labelled images, a teacher, and the road between them.

    images: uint8 [N, H, W], [N, H, W, C] or [N, C, H, W]. labels: whole numbers [N] (classes) or decimals [N] (a
    scalar of any range and sign). teacher: a module, or any callable on float images in [0, 1]; a callable shows no
    features, so ``features_of`` must then be a module that was trained on the images. jury: more teachers, whose
    votes count in the filter and in replaced labels. votes: whose outputs distillation matches: first, mean or
    confidence, by which errors and replaced labels are weighed then too (``teacher.votes`` of a recipe).
    held_out: a few more images and labels, by which the density ratio's weights are chosen and checked
    (``ratio_check``); without them it may learn its images by heart, and nobody would see.

    Stages run when they are first needed, or when called by name to give them settings.
    """

    images: npt.ArrayLike | Tensor
    labels: npt.ArrayLike | Tensor
    teacher: inference.Predictor
    task: Task | None = None
    features_of: nn.Module | None = None
    jury: Sequence[inference.Predictor] = ()
    votes: str = "first"
    held_out: tuple[npt.ArrayLike | Tensor, npt.ArrayLike | Tensor] | None = None
    seed: int = 0
    fabric: Fabric | None = None
    progress: Progress = SILENT

    def __post_init__(self) -> None:
        self.data, found = image_set(self.images, self.labels)
        self.task = self.task or found
        self.task.check_labels(self.data.labels, "labels")
        self.device: Fabric = self.fabric or make_fabric()
        _ = self._asked  # votes that are not known are refused at once
        observer = self._observer()  # what teachers can't give must not show after the GAN is trained
        width = observer.votes(self.data.images[:2])[0].shape[2]
        observer.close()
        if width != self.task.num_outputs:
            raise UserError(f"the teacher gives {width} output(s) an image; {self.task.num_outputs} are needed")
        self.targets = self.task.to_target(self.data.labels)
        self._space: LabelSpace | None = None
        self._generator: Sampler | None = None
        self._ratio: RatioNetwork | None = None
        self.ratio_check: dict[str, Any] | None = None
        self.synthesis: Synthesis | None = None

    @property
    def _task(self) -> Task:
        assert self.task is not None
        return self.task

    @property
    def space(self) -> LabelSpace:
        """How labels are embedded and which images are near one."""
        return self._space or label_space(self._task, self.targets, GeneratorSettings())

    def train_generator(self, **settings: Any) -> Sampler:
        """Train the conditional GAN; keywords are those of GeneratorSettings."""
        chosen = from_tree(GeneratorSettings, settings, where="train_generator")
        self._ratio = self.ratio_check = None  # it weighs another generator's images
        self._space = label_space(self._task, self.targets, chosen)
        self._generator, self.history = train_gan(
            self.data, self._task, self._space, chosen, self.device, seed=self.seed, progress=self.progress
        )
        return self._generator

    def use_generator(self, generator: Callable[[Tensor, Tensor, int], Tensor] | Sampler | str) -> None:
        """Put any generator in the GAN's place.

        generator: a function ``(targets, indices, seed) -> uint8 [B, C, H, W]``, a Sampler, or a source as the
        recipe's ``generator.source`` names it: "module:function", an .onnx file, or ready images with labels.
        """
        channels, size = self.data.channels, self.data.size
        if isinstance(generator, str):
            generator = open_source(generator, self._task, channels, size)
        elif not isinstance(generator, Sampler):
            generator = CallableSampler(generator, (channels, *size))
        self._generator = generator
        self._ratio = self.ratio_check = None

    def train_density_ratio(self, **settings: Any) -> RatioNetwork:
        """Train h(x, y) on real images and fakes at their labels; keywords are those of RatioSettings."""
        chosen = from_tree(RatioSettings, settings, where="train_density_ratio")
        if chosen.features != "teacher":
            raise UserError(
                f"features = {chosen.features} is a recipe's; here the features are the teacher's or those of "
                "Distiller(features_of=a module)"
            )
        generator, observer = self._generator or self.train_generator(), self._observer()

        def look(images: ImageSet, stream: str) -> Pairs:
            numbers = rng.key(self.seed, stream)
            return real_and_fakes(
                images, self._task, self.space, generator, observer, chosen, numbers, self.progress
            )

        train = look(self.data, "train")
        held_out = None if self.held_out is None else look(_arrays(*self.held_out), "held out").with_fakes()
        observer.close()
        embedding = self.space.ratio_embedding(RatioNetwork.LABEL_DIM)
        self._ratio, _ = train_ratio(
            train, embedding, chosen, self.device, seed=self.seed, held_out=held_out, progress=self.progress
        )
        if held_out is not None:
            values = self._ratio.values(held_out)
            self.ratio_check = checks.check(*values, held_out.valid, self.space.pools(held_out.targets))
        return self._ratio

    def synthesize(self, images: int = 10_000, **settings: Any) -> ImageSet:
        """Subsample, filter and relabel; keywords are those of SynthesisSettings. What happened: ``synthesis``."""
        chosen = from_tree(SynthesisSettings, {"images": images, **settings}, where="synthesize")
        replace = adjust.replacement(chosen, self._task)
        generator = self._generator or self.train_generator()
        ratio = (self._ratio or self.train_density_ratio()) if chosen.subsampling != "none" else None
        chosen, fell_back = checks.settled(chosen, self.ratio_check)
        observer = self._observer()
        self.synthesis = synthesize(
            generator, observer, None if fell_back else ratio, self.space.plan(chosen, generator.held), self._task,
            chosen, seed=self.seed, progress=self.progress,
        )  # fmt: skip
        self.synthesis.summary["fell_back"] = fell_back
        observer.close()
        self.fakes = adjust.relabelled(self.synthesis.fakes, replace)
        return self.fakes

    def distill(
        self,
        student: nn.Module,
        method: str = "supervised",
        real_share: float | None = None,
        *,
        answers: Path | None = None,
        **settings: Any,
    ) -> nn.Module:
        """Train the student on real images and processed fakes; further keywords are those of FitSettings.

        method: "supervised" (cGAN-KD: the knowledge is in the images), "kd" (and the teacher's outputs besides), or
        any other, stacked as in a recipe; UserError where it can't serve these networks, before any training.
        answers: a folder for what teachers say of augmented views: another call with it asks only about what is
        new. Teachers are told apart there by what they say of a few images. Among the keywords may be those of
        StudentSettings that are about methods: temperature, label_weight, teacher_weight and method_settings, as in
        ``{"crd": {"weight": 0.8}}``.
        """
        numbers = {name: settings.pop(name) for name in METHOD_NUMBERS & set(settings)}
        own = from_tree(StudentSettings, numbers, where="distill")
        chosen = from_tree(FitSettings, settings, where="distill")
        one = self._asked
        rehearse(
            student,
            one,
            methods.create(method, self._task, own),
            self._task,
            self.data,
            chosen.augment,
            self.device,
        )
        if answers is not None and one is not None:
            answers = answers / self._said_by(one)
        fakes = self.fakes if self.synthesis is not None else self.synthesize()
        fit(
            student,
            methods.create(method, self._task, own),
            self._task,
            self.data,
            chosen,
            self.device,
            seed=self.seed,
            fake=fakes,
            real_share=real_share,
            teacher=one,
            answers=answers,
            progress=self.progress,
        )
        return student

    def score(self, network: nn.Module, images: npt.ArrayLike | Tensor, labels: npt.ArrayLike | Tensor) -> float:
        """Accuracy in %, or the mean absolute error in the label's unit, on images the network has not seen."""
        seen = _arrays(images, labels)
        if isinstance(self._task, Classification):
            self._task.check_labels(seen.labels, "labels")
        return metric(network, seen, self._task, self.device)[0]

    @property
    def _asked(self) -> inference.Predictor | None:
        """Whose outputs distillation matches."""
        return as_one([self.teacher, *self.jury], self.votes, self._task, self.device)

    def _said_by(self, one: inference.Predictor) -> str:
        """A name for whoever gives these outputs: a callable shows no weights that could be compared."""
        said = inference.outputs(one, self.data.images[:: max(1, len(self.data) // 16)], self.device)
        return content_key(said.tolist())

    def _observer(self) -> Observer:
        sure = self.votes == "confidence"
        return Observer(self.teacher, self.device, self.features_of, self.jury, by_confidence=sure)


def image_set(images: npt.ArrayLike | Tensor, labels: npt.ArrayLike | Tensor) -> tuple[ImageSet, Task]:
    """Arrays as an ImageSet, and the task their labels suggest: whole numbers are classes, decimals a scalar."""
    found = _arrays(images, labels)
    if found.labels.is_floating_point():
        return found, Regression(float(found.labels.min()), float(found.labels.max()))
    return found, Classification(tuple(str(number) for number in range(int(found.labels.max()) + 1)))


def _arrays(images: npt.ArrayLike | Tensor, labels: npt.ArrayLike | Tensor) -> ImageSet:
    pixels, values = torch.as_tensor(images), torch.as_tensor(labels).flatten()
    if pixels.ndim == 3:
        pixels = pixels.unsqueeze(1)
    elif pixels.ndim == 4 and pixels.shape[1] not in (1, 3) and pixels.shape[3] in (1, 3):
        pixels = pixels.permute(0, 3, 1, 2)
    if values.is_floating_point() and not torch.isfinite(values).all():
        row = int((~torch.isfinite(values)).nonzero()[0])
        raise UserError(f"labels: found {values[row].item()} at row {row}; finite numbers are needed")
    return ImageSet(pixels.contiguous(), values.float() if values.is_floating_point() else values.long())
