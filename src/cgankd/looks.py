"""What a user of ``Distiller`` looks at between its steps: generated images, dropped ones, counts, curves, scores."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy.typing as npt
import torch
from torch import Tensor, nn

from cgankd.core.errors import UserError
from cgankd.core.run_text import metric_name
from cgankd.core.runtime import plain_torch
from cgankd.core.store import Artifact
from cgankd.data.given import as_tensor
from cgankd.data.imageset import ImageSet
from cgankd.gan.generator import Sampler
from cgankd.report import shown
from cgankd.report.curves import gan_losses
from cgankd.report.shown import ShownFigure, ShownTable
from cgankd.report.table import number
from cgankd.tasks import Task

LABELS = 10  # numbers at which a generator is shown, evenly over the label range
CHECKS = {  # of the density ratio, by name in its summary
    "mean_on_fakes": "mean over generated images (right: 1)",
    "mean_on_real": "mean over real images (higher than over generated ones)",
    "auc": "share of pairs of a real and a generated image in which the real one has the higher ratio",
    "effective_sample_share": "effective number of generated images, weighted by the ratio, as a share",
    "calibration_error": "calibration error (a dash: too few images)",
}
Outcome = Literal["kept", "dropped", "rejected"]


class Looks(ABC):
    """Methods of ``Distiller`` that show results and change nothing.

    history: of the generator that was trained last, empty where none was. synthesis: the last one; None before it.
    """

    data: ImageSet
    synthesis: Artifact | None
    history: list[dict[str, Any]]
    seed: int

    def __repr__(self) -> str:
        kept = "no images synthesized yet" if self.synthesis is None else f"{self.synthesis.summary['kept']:,} kept"
        return f"{type(self).__name__}({self._task.name}, {self.data!r}, {kept})"

    @property
    @abstractmethod
    def _task(self) -> Task:
        """What is predicted."""

    @abstractmethod
    def _sampler(self) -> Sampler:
        """The generator, which is trained first where it is not."""

    @property
    @abstractmethod
    def ratio_check(self) -> dict[str, Any] | None:
        """The results of the checks of the density ratio; None where it was not checked."""

    @abstractmethod
    def score(self, network: nn.Module, images: npt.ArrayLike | Tensor, labels: npt.ArrayLike | Tensor) -> float:
        """The metric of a network on images."""

    def named(self, images: ImageSet) -> ImageSet:
        """The same images, which show the classes' names in place of numbers."""
        return dataclasses.replace(images, names=self._task.answer_names)

    @plain_torch()
    def generate(
        self, labels: npt.ArrayLike | Tensor | None = None, per_label: int = 4, seed: int | None = None
    ) -> ImageSet:
        """Images of the generator as it is: not subsampled, not filtered. It is trained first where it is not.

        labels: classes, or numbers in the label's unit; None: all classes, or ten numbers over the label range.
        seed: another seed gives other images; None: that of the Distiller.
        """
        if not hasattr(per_label, "__index__") or per_label < 1:  # numpy's whole numbers have it too
            raise UserError(f"per_label is {per_label!r}; allowed: a whole number from 1 on")
        per_label = int(per_label)
        task, own = self._task, self.data.labels
        if labels is not None:
            given = as_tensor(labels, "labels").reshape(-1)
            chosen = given.to(task.label_dtype)
            task.check_labels(chosen, "labels")
            if not task.continuous and not torch.equal(chosen.to(given.dtype), given):
                raise UserError(f"labels are {given.tolist()}; allowed: whole numbers, 0 to {task.num_outputs - 1}")
        elif task.continuous:
            chosen = torch.linspace(float(own.min()), float(own.max()), LABELS).to(task.label_dtype)
        else:
            chosen = torch.arange(task.num_outputs)
        repeated = chosen.repeat_interleave(per_label)
        index = torch.arange(per_label).repeat(len(chosen))
        seed = self.seed if seed is None else seed
        return self.named(ImageSet(self._sampler().sample(task.to_target(repeated), index, seed), repeated))

    def examples(self, outcome: Outcome = "dropped") -> ImageSet:
        """A few images that the synthesis kept, that its filter dropped, or that the density ratio rejected.

        Columns: ``predictions`` of the teachers, ``errors``, ``ratios``. UserError before ``synthesize``, and where
        there are none.
        """
        samples = self._synthesis().tensors("samples")
        if f"{outcome}_images" not in samples:
            there = [name for name in get_args(Outcome) if f"{name}_images" in samples]
            raise UserError(f"the last synthesis has no {outcome!r} images; it has: {', '.join(there)}")
        known = {name.removeprefix(f"{outcome}_"): part for name, part in samples.items() if name.startswith(outcome)}
        images, labels = known.pop("images"), known.pop("labels")
        return self.named(ImageSet(images, labels, known))

    @property
    def counts(self) -> ShownTable:
        """How many images of each label the last synthesis generated, accepted and kept."""
        return shown.counts(self._synthesis().summary)

    @property
    def checks(self) -> ShownTable:
        """The checks of the density ratio on ``held_out``. UserError where it was not checked."""
        measured = self.ratio_check
        if measured is None:
            raise UserError("the density ratio was not checked; needed: Distiller(held_out=..), train_density_ratio()")
        rows = [[words, number(measured[name], 3)] for name, words in CHECKS.items()]
        reasons = measured["reasons"] or ["All checks are passed."]
        return ShownTable(["density ratio on held-out images", "value"], rows, reasons)

    def _synthesis(self) -> Artifact:
        if self.synthesis is None:
            raise UserError("no images were synthesized yet; call synthesize() first")
        return self.synthesis

    def curves(self) -> ShownFigure:
        """The GAN's losses over its training. UserError before ``train_generator``."""
        if not self.history:
            raise UserError("no generator was trained here yet; call train_generator() first")
        figure = gan_losses(self.history)
        if figure is None:
            raise UserError("the training of the generator was too short to draw a curve")
        return ShownFigure(figure, "losses of the GAN")

    def compare(
        self, networks: Mapping[str, nn.Module], images: npt.ArrayLike | Tensor, labels: npt.ArrayLike | Tensor
    ) -> ShownTable:
        """A table of the scores of networks on the same unseen images. networks: by the names for the table."""
        if not isinstance(networks, Mapping) or not networks:
            raise UserError("networks is no dict; needed: names and networks, as in {'kd': student}")
        task = self._task
        unit = f", {task.metric_unit}" if task.metric_unit else ""
        scores = {name: self.score(network, images, labels) for name, network in networks.items()}
        better = "higher" if task.higher_is_better else "lower"
        rows = [[name, number(value, 3 if task.continuous else 1)] for name, value in scores.items()]
        return ShownTable(["network", f"{metric_name(task.metric)}{unit}"], rows, [f"{better} is better"])
