"""The stations that train or load a network which reads images: teacher, jury, students, the ratio's features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from cgankd import distill
from cgankd.config.settings import FitSettings, JurorSettings
from cgankd.core import rng
from cgankd.core.errors import UserError
from cgankd.core.files import save_tensors
from cgankd.core.hashing import file_key
from cgankd.core.store import Artifact
from cgankd.data.imageset import ImageSet
from cgankd.metrics import cost
from cgankd.nets import attention, pretrained, weights
from cgankd.nets.build import network_code
from cgankd.nets.feature_extractor import Observer
from cgankd.pipeline.workshop import Workshop
from cgankd.synthesis.autoencoder import train_autoencoder
from cgankd.teachers.jury import as_one
from cgankd.training import scoring
from cgankd.training.loop import fit


class Training(Workshop):
    """How a run's networks are trained or loaded, and scored; ``seed`` is that of their own random numbers."""

    def teacher(self, seed: int) -> Artifact:
        """The strong network, trained on the owner's images or on the pool, or loaded; or what only answers."""
        return self._teacher(f"teacher (seed {seed})", self.recipe.teacher, seed)

    def jury(self, seed: int) -> list[Artifact]:
        """The teachers that vote beside the first; each that is trained here has a seed of its own."""
        return [
            self._teacher(f"juror {number}", juror, rng.key(seed, "juror", number))
            for number, juror in enumerate(self.recipe.teacher.jury, start=1)
        ]

    def nokd(self, seed: int) -> Artifact:
        """The student that nobody teaches: trained on the owner's images alone."""
        settings = self.recipe.student
        return self._fit(f"nokd (seed {seed})", settings.network, distill.SUPERVISED, seed, settings.fit)

    def autoencoder(self, seed: int) -> Artifact:
        """The sparse auto-encoder whose code the density ratio may see, trained on the owner's images."""
        settings, fit_settings = self.recipe.ratio, self.recipe.student.fit

        def build(work: Path) -> dict[str, Any]:
            network = self.new_autoencoder(seed)
            history = train_autoencoder(
                network,
                self.task,
                self.splits.train,
                settings.feature_steps,
                fit_settings,
                self.fabric,
                seed=seed,
                checkpoint=self.checkpoint(work),
                progress=self.progress,
            )
            save_tensors(work / "weights.safetensors", network.state_dict())
            return {"history": history, "parameters": cost.parameters(network)}

        described = {
            **self.base,
            "network": settings.feature_network,
            "steps": settings.feature_steps,
            "fit": fit_settings.model_dump(mode="json", include={"batch_size", "augment"}),
            "seed": seed,
        }
        inputs = {"train": self.keys["train"], **network_code(settings.feature_network)}
        return self.folder.stage("autoencoder", described, inputs, build)

    def upstream(self, seed: int) -> int:
        """The seed of teacher and generator for a student's seed."""
        return seed if self.recipe.vary == "everything" else self.recipe.seeds[0]

    def _transfer(self, seed: int, changes: dict[str, Any]) -> tuple[FitSettings, Artifact | None]:
        """How a row that is compared is trained, and what it starts from."""
        settings, start = self.recipe.student, None
        if settings.start == "nokd":
            start = self.nokd(seed)
            changes = {**changes, "learning_rate": settings.finetune_learning_rate}
        return settings.fit.model_copy(update=changes), start

    def _fit(
        self,
        title: str,
        network_name: str,
        method_name: str,
        seed: int,
        settings: FitSettings,
        *,
        real: str = "train",
        fakes: Artifact | None = None,
        replace: str = "none",
        pseudo: Artifact | None = None,
        upstream: int | None = None,
        start: Artifact | str | None = None,
        stage: str = "student",
    ) -> Artifact:
        """Train one network, from the teachers of seed ``upstream`` if from any, and score it on the test split.

        start: a network of the same name that was trained here, or the weights that :mod:`cgankd.nets.pretrained`
        finds; None: random weights.
        """
        student, votes = self.recipe.student, self.recipe.teacher.votes
        described: dict[str, Any] = {
            **self.base,
            "network": network_name,
            "method": method_name,
            "fit": settings.model_dump(mode="json"),
            "seed": seed,
        }
        inputs = {"real": self.keys[real], "val": self.keys["val"], "test": self.keys["test"]}
        inputs |= network_code(network_name)
        if fakes is not None:
            described |= {"replace": replace, "real_share": student.real_share}
            inputs["fakes"] = fakes.key
        if pseudo is not None:
            described["real_share"] = student.real_share
            inputs["pseudo"] = pseudo.key
        teachers: list[Artifact] = []
        if upstream is not None:
            teachers.append(self.teacher(upstream))
            described["method_settings"] = student.model_dump(
                mode="json", include={"temperature", "label_weight", "teacher_weight"}
            )
            if changed := distill.versions(method_name, self.task.name):
                described["method_versions"] = changed
            numbers = student.method_settings
            if own := {one: numbers[one] for one in distill.involved(method_name) if one in numbers}:
                described["method_settings"]["own"] = own
            inputs["teacher"] = teachers[0].key
            if votes != "first":
                described["votes"] = votes
                inputs |= self._jurors(upstream)
                teachers += self.jury(upstream)
        said_by = {"votes": votes, **{f"teacher {place}": one.key for place, one in enumerate(teachers)}}
        if start is not None:
            inputs["start"] = start.key if isinstance(start, Artifact) else pretrained.key(start)

        def build(work: Path) -> dict[str, Any]:
            train: ImageSet = getattr(self.splits, real)
            network = self.new_network(network_name, seed)
            if isinstance(start, Artifact):
                weights.load_weights(network, start.folder / "weights.safetensors", may_lack=f"{attention.HOME}.")
            anew = {"started_anew": pretrained.start_from(network, start)} if isinstance(start, str) else {}
            history = fit(
                network,
                distill.create(method_name, self.task, student),
                self.task,
                train,
                settings,
                self.fabric,
                seed=seed,
                fake=self.fakes(fakes, replace) if pseudo is None else self.pseudo_labelled(pseudo),
                real_share=student.real_share,
                teacher=as_one([self.predictor(one) for one in teachers], votes, self.task, self.fabric),
                validation=self.splits.val,
                answers=self.folder.cache("answers", said_by) if teachers else None,
                checkpoint=self.checkpoint(work),
                progress=self.progress,
                title=title,
            )
            save_tensors(work / "weights.safetensors", network.state_dict())
            found = {**self.scored(network, network_name), **anew, "history": history, "images": len(train)}
            if gates := attention.gates(network):
                seen = scoring.attention_per_bin(network, self.splits.val, self.task, self.fabric)
                save_tensors(work / "attention.safetensors", seen)
                found["attention"] = {"stages": [gate.stage for gate in gates.values()]}
            return found

        return self.folder.stage(stage, described, inputs, build)

    def _teacher(self, title: str, one: JurorSettings, seed: int) -> Artifact:
        if one.source is not None:
            return self._asked_teacher(one.source)
        if one.weights is not None:
            return self._loaded_teacher(one.network, Path(one.weights))
        settings = self.recipe.teacher
        return self._fit(
            title, one.network, distill.SUPERVISED, seed, settings.fit, real=settings.trained_on, start=one.start,
            stage="teacher",
        )  # fmt: skip

    def _loaded_teacher(self, name: str, path: Path) -> Artifact:
        def build(work: Path) -> dict[str, Any]:
            network = self.new_network(name, 0)
            weights.load_weights(network, path)
            save_tensors(work / "weights.safetensors", network.state_dict())
            return {**self.scored(network, name), "history": [], "images": None}

        described = {**self.base, "network": name}
        if not path.is_file():
            raise UserError(f"teacher.weights = {path} does not exist; a .safetensors file is needed")
        inputs = {
            **network_code(name),
            "weights": file_key(path),
            "val": self.keys["val"],
            "test": self.keys["test"],
        }
        return self.folder.stage("teacher", described, inputs, build)

    def _asked_teacher(self, source: str) -> Artifact:
        teacher, name = self.answering[source], Path(source).name  # what is in it is its key, wherever it lies

        def build(work: Path) -> dict[str, Any]:
            found = self.scored(teacher, name)
            return {**found, "only_answers": True, "source_key": teacher.key, "history": [], "images": None}

        inputs = {"source": teacher.key, "val": self.keys["val"], "test": self.keys["test"]}
        return self.folder.stage("teacher", {**self.base, "source": name}, inputs, build, version=2)

    def _jurors(self, seed: int) -> dict[str, str]:
        """The jurors' keys, as inputs of a stage."""
        return {f"juror {number}": juror.key for number, juror in enumerate(self.jury(seed), start=1)}

    def _observer(self, seed: int, *, asks: bool = True, jury: bool = False) -> Observer:
        """What looks at images; where outputs count for nothing, no teacher is asked, if another shows features."""
        shown = self._shows_features(seed)
        if shown is not None and not asks:
            return Observer(shown, self.fabric)
        others = [self.predictor(juror) for juror in self.jury(seed)] if jury else []
        by_confidence = self.recipe.teacher.votes == "confidence"
        return Observer(self.predictor(self.teacher(seed)), self.fabric, shown, others, by_confidence=by_confidence)

    def _features(self, seed: int) -> Artifact:
        """The network whose penultimate layer the density ratio sees."""
        settings = self.recipe.ratio
        if settings.features == "classifier":
            fit_settings = self.recipe.student.fit.model_copy(update={"steps": settings.feature_steps})
            name = settings.feature_network
            return self._fit("ratio's features", name, distill.SUPERVISED, seed, fit_settings, stage="features")
        if settings.features == "autoencoder":
            return self.autoencoder(seed)
        return self.teacher(seed) if settings.features == "teacher" else self.nokd(seed)

    def _shows_features(self, seed: int) -> nn.Module | None:
        """That network; None where it is the teacher itself."""
        if self.recipe.ratio.features == "teacher":
            return None
        artifact = self._features(seed)
        if self.recipe.ratio.features != "autoencoder":
            return self.network(artifact)
        network = self.new_autoencoder(seed)
        network.load_state_dict(artifact.tensors("weights"))
        return network
