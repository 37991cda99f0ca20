"""A finished run, opened without its data set: its students, its generator, and how images are brought to its shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cgankd import tasks
from cgankd.config import recipe as recipes
from cgankd.config.recipe import Recipe
from cgankd.core.errors import UserError, did_you_mean
from cgankd.core.files import read_json
from cgankd.core.paths import ARTIFACT, RECIPE
from cgankd.core.progress import SILENT, Progress
from cgankd.core.run_folder import read_results
from cgankd.core.runtime import Fabric
from cgankd.core.store import Artifact, open_artifact
from cgankd.data import sources
from cgankd.data.imageset import Splits
from cgankd.data.listing import Plan
from cgankd.gan.generator import Sampler, TrainedGenerator
from cgankd.metrics.statistics import place_of_best
from cgankd.nets.build import BEST, WEIGHTS, StoredNetwork
from cgankd.report import shipped
from cgankd.tasks import Task

NEEDED = ("task_settings", "artifacts", "rows", "best")
WITH_FAKES = "needed: the same run with such a row, for example compare.methods=[cgan+fm]"


def refuse_choice(file: Path, row: str | None, seed: int | None) -> None:
    """UserError where a student is chosen of an exported file."""
    if row is not None or seed is not None:
        raise UserError(f"--row and --seed choose a student of a run; {file} is a file, which holds one")


@dataclasses.dataclass(frozen=True)
class Student:
    """One trained student of a run.

    plan: the shape that images are brought to before the network sees them.
    """

    network: nn.Module
    task: Task
    plan: Plan
    facts: Mapping[str, Any]  # row, seed, network, its training images in words, and its scores with their unit


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """The folder of a run that has reached its end."""

    folder: Path
    results: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> FinishedRun:
        """Raises UserError where the folder holds no finished run."""
        return cls(folder, read_results(folder, NEEDED))

    @property
    def task(self) -> Task:
        return tasks.from_json(self.results["task_settings"])

    @property
    def plan(self) -> Plan:
        return Plan(**self._artifact("data").summary["plan"])

    def student(self, fabric: Fabric, row: str | None = None, seed: int | None = None) -> Student:
        """The student of a row and seed, in eval mode. Both None: the one that ships; one None: the best by validation.

        Raises UserError for a row or seed that the run has not.
        """
        students, seeds, best = self.results["artifacts"]["students"], self.results["seeds"], self.results["best"]
        again = self.results.get("refit") or {}
        if row is None and seed is None and again.get("ships"):
            return self._on_all_labels(fabric, again)
        row = best["row"] if row is None else row
        if row not in students:
            raise UserError(
                f"{self.folder} has no row {row!r}{did_you_mean(row, students)}; rows: {', '.join(students)}"
            )
        scores = next(entry for entry in self.results["rows"] if entry["method"] == row)
        if seed is None:
            val = scores["val"]
            place = place_of_best(val["values"], self.results["higher_is_better"], val.get("losses", []))
        elif seed in seeds:
            place = seeds.index(seed)
        else:
            raise UserError(f"{self.folder} has no seed {seed}; seeds: {', '.join(map(str, seeds))}")
        ships = scores.get("weights", {}).get("ships", "last")  # older results have the last weights alone
        network = StoredNetwork(open_artifact(self.folder / students[row][place]), BEST if ships == "best" else WEIGHTS)
        facts = {
            "row": row,
            "seed": seeds[place],
            "network": scores["network"],
            "weights": ships,
            "trained_on": shipped.trained_on(scores),
            "metric": self.results["metric"],
            "unit": self.results["unit"],
            "validation": scores["val"]["values"][place],
            "test": scores["values"][place],
        }
        return Student(network.open(fabric), self.task, self.plan, facts)

    def _on_all_labels(self, fabric: Fabric, again: Mapping[str, Any]) -> Student:
        """The student that was trained again, with the validation images among the labelled ones."""
        facts = {
            "row": again["method"],
            "seed": again["seed"],
            "network": again["network"],
            "weights": "last",
            "trained_on": shipped.trained_on(again),
            "metric": self.results["metric"],
            "unit": self.results["unit"],
            "labelled": shipped.labelled(again),
            "test": again["mean"],
        }
        return Student(StoredNetwork(self._artifact("refit")).open(fabric), self.task, self.plan, facts)

    def generator(self, fabric: Fabric) -> Sampler:
        """The trained generator; UserError where the run trained none."""
        if "generator" not in self.results["artifacts"]:
            raise UserError(f"{self.folder} has no row with generated images, and so no generator; {WITH_FAKES}")
        artifact = self._artifact("generator")
        if "built" not in artifact.summary:
            raise UserError(f"{self.folder} took its generated images from generator.source; ask that for more")
        return TrainedGenerator(artifact).open(fabric)

    def recipe(self) -> Recipe:
        """The settings of the run; UserError where they are not in its folder any more."""
        file = self.folder / RECIPE
        if not file.is_file():
            raise UserError(f"{self.folder} holds no {file.name}; the command of the run writes it again")
        return recipes.load(str(file))

    @property
    def data_summary(self) -> Mapping[str, Any]:
        """Counts, label histograms and sizes of the run's images."""
        return self._artifact("data").summary

    def images(self, recipe: Recipe, progress: Progress = SILENT) -> tuple[Splits | None, str]:
        """The images that the run was trained on; or None, and a sentence that says why they can't be had."""
        try:
            splits = sources.load(recipe.data, progress=progress)
        except UserError as error:
            return None, f"the data set of the run can't be read ({error})"
        record = read_json(self._artifact("data").folder / ARTIFACT)
        if splits.train.content_key != next(iter(record["arguments"]["splits"]["train"].values())):
            return None, "the data set has changed since the run, so its images are not those of the training"
        return splits, ""

    def examples(self) -> Tensor:
        """The few labelled images that the run keeps for its report, uint8 [N, C, H, W]."""
        return self._artifact("data").tensors("preview")["images"]

    def _artifact(self, name: str) -> Artifact:
        return open_artifact(self.folder / self.results["artifacts"][name])
