"""The stations of the road, one method each: settings and inputs in, an artifact of the run's folder out.

A station names its settings and its inputs, so that the folder can tell whether the result is there already, and
otherwise calls the function that does the work. Those of teachers and students are in training.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from cgankd import distill
from cgankd.config.recipe import Recipe
from cgankd.config.settings import SynthesisSettings
from cgankd.core import rng
from cgankd.core.files import save_tensors
from cgankd.core.progress import Progress
from cgankd.core.store import Artifact, RunFolder
from cgankd.data import preview
from cgankd.data.imageset import ImageSet, Splits
from cgankd.gan.train import train_gan
from cgankd.metrics import cost, robustness
from cgankd.metrics.judge import Processed, judge
from cgankd.nets import inference
from cgankd.pipeline.comparisons import row, strong_views, student_network
from cgankd.pipeline.search import Choice, search
from cgankd.pipeline.training import Training
from cgankd.pipeline.workshop import source_key
from cgankd.synthesis import checks
from cgankd.synthesis.density_ratio import Pairs, RatioNetwork, real_and_fakes, train_ratio
from cgankd.synthesis.synthesize import synthesize


class Road(Training):
    """One run's stations. ``seed`` is always the seed of the station's own random numbers."""

    def __init__(
        self, recipe: Recipe, splits: Splits, folder: RunFolder, fabric: Fabric, progress: Progress
    ) -> None:
        super().__init__(recipe, splits, folder, fabric, progress)
        self._choices: dict[int, Choice] = {}

    def data(self) -> Artifact:
        """Counts, label histograms and a few images, for the report."""

        def build(work: Path) -> dict[str, Any]:
            save_tensors(work / "preview.safetensors", preview.examples(self.splits.train, self.task))
            return preview.describe(self.splits)

        return self.folder.stage("data", {**self.base, "name": self.splits.name}, self.keys, build)

    def generator(self, seed: int) -> Artifact:
        """The conditional GAN, trained on the owner's images, or what the recipe puts in its place."""
        settings = self.recipe.generator
        inputs = {"train": self.keys["train"]}
        if self.source is not None:
            inputs["source"] = source_key(settings.source or "", self.source)

        def build(work: Path) -> dict[str, Any]:
            sampler, parameters = self.source, None
            history: list[dict[str, Any]] = []
            if sampler is None:
                sampler, history = train_gan(
                    self.splits.train,
                    self.task,
                    self.space,
                    settings,
                    self.fabric,
                    seed=seed,
                    checkpoint=self.checkpoint(work),
                    progress=self.progress,
                )
                sampler.save(work / "weights.safetensors")
                parameters = cost.parameters(sampler.network)
            labels = preview.examples(self.splits.train, self.task)["labels"]
            images = sampler.sample(self.task.to_target(labels), torch.arange(len(labels)), seed)
            shown = {"images": images, "labels": labels, "bin": self.task.bins(labels)[1]}
            save_tensors(work / "preview.safetensors", shown)
            return {"parameters": parameters, "history": history}

        if settings.source is not None:  # what is in it is among the inputs, wherever it lies
            settings = settings.model_copy(update={"source": Path(settings.source).name})
        described = {**self.base, "generator": settings.model_dump(mode="json"), "seed": seed}
        return self.folder.stage("generator", described, inputs, build)

    def ratio(self, seed: int) -> Artifact:
        """The conditional density ratio, on features that are computed once."""
        settings = self.recipe.ratio
        generator = self.generator(seed)

        def build(work: Path) -> dict[str, Any]:
            observer = self._observer(seed, asks=settings.vicinity_gaps is not None)
            sampler = self.sampler(generator)

            def look(images: ImageSet, stream: str) -> Pairs:
                numbers = rng.key(seed, stream)
                return real_and_fakes(
                    images, self.task, self.space, sampler, observer, settings, numbers, self.progress
                )

            train, held_out = look(self.splits.train, "train"), look(self.splits.val, "held out").with_fakes()
            observer.close()
            embedding = self.space.ratio_embedding(RatioNetwork.LABEL_DIM)
            network, history = train_ratio(
                train, embedding, settings, self.fabric, seed=seed, held_out=held_out, progress=self.progress
            )
            save_tensors(work / "weights.safetensors", network.state_dict())
            pools = self.space.pools(held_out.targets)
            found = checks.check(*network.values(held_out), held_out.valid, pools)
            return {"history": history, "left_out": train.left_out, **found}

        described = {**self.base, "ratio": settings.model_dump(mode="json"), "seed": seed}
        inputs = {
            "train": self.keys["train"],
            "val": self.keys["val"],
            "generator": generator.key,
            "features": self._features(seed).key,
        }
        if settings.vicinity_gaps is not None:
            inputs["teacher"] = self.teacher(seed).key  # it reads the fakes' labels
        return self.folder.stage("ratio", described, inputs, build, version=2)

    def fell_back(self, seed: int) -> list[str]:
        """Why images are not subsampled though the recipe says so: the checks that the density ratio fails."""
        settings = self.recipe.synthesis
        return [] if settings.subsampling == "none" else checks.settled(settings, self.ratio(seed).summary)[1]

    def synthesis(self, seed: int, changes: dict[str, Any]) -> Artifact:
        """Generated images that passed what the settings ask for, with the teacher's predictions beside them."""
        return self._synthesis(seed, self.processing(seed).model_copy(update=changes))

    def candidates(self, seed: int, count: int) -> Artifact:
        """Generated images for a teacher that is yet to be asked: subsampled, not filtered."""
        changes = {"images": count, "filter": False, "replace": "auto"}
        return self._synthesis(seed, self.recipe.synthesis.model_copy(update=changes), asks=False)

    def _synthesis(self, seed: int, settings: SynthesisSettings, asks: bool = True) -> Artifact:
        # Labels are replaced where the student sees them; here it matters only whether probabilities are kept.
        settings = settings.model_copy(update={"replace": "soft" if self.replace == "soft" else "auto"})
        generator = self.generator(seed)
        if settings.subsampling != "none":
            settings, _ = checks.settled(settings, self.ratio(seed).summary)
        ratio = self.ratio(seed) if settings.subsampling != "none" else None

        def build(work: Path) -> dict[str, Any]:
            observer = self._observer(seed, asks=asks, jury=True)
            made = synthesize(
                self.sampler(generator),
                observer,
                None if ratio is None else self.ratio_network(ratio),
                self.space.plan(settings, self.held),
                self.task,
                settings,
                seed=seed,
                folder=work,
                progress=self.progress,
                title="synthesis" if settings.filter else "synthesis (ablation)",
            )
            observer.close()
            save_tensors(work / "columns.safetensors", {"labels": made.fakes.labels, **made.fakes.columns})
            save_tensors(work / "samples.safetensors", made.samples)
            return made.summary

        described = {**self.base, "synthesis": settings.model_dump(mode="json"), "seed": seed}
        inputs = {
            "train": self.keys["train"],
            "generator": generator.key,
            "features": self._features(seed).key,
            "ratio": "" if ratio is None else ratio.key,
        }
        if asks:
            inputs |= {"teacher": self.teacher(seed).key, **self._jurors(seed)}
            if self.recipe.teacher.votes == "confidence":
                described["votes"] = "confidence"
        return self.folder.stage("synthesis", described, inputs, build)

    def pseudo(self, seed: int) -> Artifact:
        """The teacher's labels for the real images that nobody labelled for the owner; no true label is read."""
        teacher = self.teacher(seed)

        def build(work: Path) -> dict[str, Any]:
            outputs = inference.outputs(self.predictor(teacher), self.splits.unlabelled, self.fabric)
            save_tensors(work / "columns.safetensors", {"labels": self.task.predict(outputs)})
            return {"images": len(outputs)}

        inputs = {"train": self.keys["train"], "pool": self.keys["pool"], "teacher": teacher.key}
        return self.folder.stage("pseudo", self.base, inputs, build)

    def processing(self, seed: int) -> SynthesisSettings:
        """The synthesis settings of the recipe, or what the search on the validation split made of them."""
        choice = self.search(seed)
        return self.recipe.synthesis if choice is None else choice.settings

    def search(self, seed: int) -> Choice | None:
        """rho, label law and M by the validation split; None where the recipe doesn't ask for it."""
        settings = self.recipe.search
        if not settings.enabled:
            return None
        if seed not in self._choices:
            student = self.recipe.student
            steps = {"steps": settings.steps or student.transfer_steps}

            def trial(synthesis: SynthesisSettings | None) -> float:
                fakes = None if synthesis is None else self._synthesis(seed, synthesis)
                fit_settings, start = self._transfer(seed, steps)
                tried = self._fit(
                    f"search (seed {seed})", student.network, distill.SUPERVISED, seed, fit_settings, fakes=fakes,
                    replace=self.replace, start=start,
                )  # fmt: skip
                return float(tried.summary["val"])

            self._choices[seed] = search(settings, self.recipe.synthesis, self.task, trial)
        return self._choices[seed]

    def student(self, name: str, seed: int) -> Artifact:
        """The student of row ``name``."""
        wanted, settings, upstream = row(name), self.recipe.student, self.upstream(seed)
        if not wanted.longer:
            return self.nokd(seed)
        views = {"augment": strong_views(settings)} if wanted.strong else {}
        fit_settings, start = self._transfer(seed, {"steps": settings.transfer_steps, **views})
        fakes = self.synthesis(upstream, wanted.changes) if wanted.fakes else None
        return self._fit(
            f"{name} (seed {seed})",
            student_network(name, settings),
            wanted.method,
            seed,
            fit_settings,
            fakes=fakes,
            replace=wanted.changes.get("replace", self.replace),
            pseudo=self.pseudo(upstream) if wanted.pseudo else None,
            upstream=upstream if wanted.method != distill.SUPERVISED else None,
            start=start,
        )

    def metrics(self, seed: int) -> Artifact:
        """How good the generated images are, whether they are copies, and the error bound's terms."""
        settings, real_share = self.recipe.metrics, self.recipe.student.real_share
        made, generator = self.synthesis(seed, row("cgan").changes), self.generator(seed)
        teacher, seen_by = self.teacher(seed), {}
        if self.black_box is None:
            seen_by["teacher"] = teacher
        if "nokd" in settings.features:
            seen_by["nokd"] = self.nokd(seed)

        def build(work: Path) -> dict[str, Any]:
            asked, taught = self.fakes(made, "none"), self.fakes(made, self.replace)
            assert asked is not None
            assert taught is not None
            found, pairs = judge(
                self.splits,
                self.sampler(generator),
                Processed(asked, taught.labels, self.replace != "none", real_share),
                {name: self.network(artifact) for name, artifact in seen_by.items()},
                settings,
                self.fabric,
                seed=seed,
                teacher=self.black_box,
                progress=self.progress,
            )
            save_tensors(work / "pairs.safetensors", pairs)
            return found

        described = {
            **self.base,
            "metrics": settings.model_dump(mode="json", exclude={"robustness"}),
            "replace": self.replace,
            "real_share": real_share,
            "seed": seed,
        }
        inputs = {name: self.keys[name] for name in ("train", "pool", "val")}
        inputs |= {name: artifact.key for name, artifact in seen_by.items()}
        inputs |= {"teacher": teacher.key, "generator": generator.key, "synthesis": made.key}
        return self.folder.stage("metrics", described, inputs, build)

    def robustness(self, network: Artifact, attack: str) -> Artifact:
        """What is left of a teacher's or student's score where test images are changed to mislead it."""
        settings, seed = self.recipe.metrics.robustness, self.recipe.data.seed  # which chooses images there too

        def build(work: Path) -> dict[str, Any]:
            return robustness.measure(
                self.network(network),
                self.splits.test,
                self.task,
                settings,
                attack,
                self.fabric,
                seed=seed,
                progress=self.progress,
                title=f"{attack} on {network.summary['network']}",
            )

        described = {**self.base, **robustness.described(settings, attack), "seed": seed}
        inputs = {"network": network.key, "test": self.keys["test"]}
        return self.folder.stage("robustness", described, inputs, build)
