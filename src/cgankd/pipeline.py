"""The road: data -> teacher, NOKD student -> generator -> density ratio -> synthesis -> students -> results.

The file to read first. Each method of :class:`Road` is a station: it names its settings and its inputs, so that the
run's folder can tell whether the result is there already, and otherwise calls the function that does the work.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import math
import time
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from cgankd import counter, distill, evaluate, results
from cgankd.artifacts import CHECKPOINT, Artifact, RunFolder, content_key, file_key
from cgankd.checkpoint import Checkpoint
from cgankd.data import preview, sources
from cgankd.data.imageset import ImageSet, Splits
from cgankd.errors import UserError
from cgankd.features import Observer
from cgankd.files import save_tensors, write_json, write_text
from cgankd.fit import check_views, fit
from cgankd.gan.adapters import StoredImages, open_source
from cgankd.gan.generator import Sampler, load_sampler, new_networks
from cgankd.gan.train import train_gan
from cgankd.labels import label_space
from cgankd.metrics.judge import Processed, judge
from cgankd.nets import timm_bridge, weights, zoo
from cgankd.progress import SILENT, Progress
from cgankd.recipe import AugmentSettings, FitSettings, Recipe, StudentSettings, SynthesisSettings
from cgankd.runtime import environment, make_fabric
from cgankd.search import Choice, search
from cgankd.synthesis import adjust, checks
from cgankd.synthesis.autoencoder import CODE, SparseAutoencoder, train_autoencoder
from cgankd.synthesis.density_ratio import Pairs, RatioNetwork, real_and_fakes, train_ratio
from cgankd.synthesis.store import open_images
from cgankd.synthesis.synthesize import synthesize


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table: what the student minimises, what it sees, and for how long."""

    method: str = "supervised"
    fakes: bool = False
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)  # to the synthesis settings
    pseudo: bool = False  # in the fakes' place: the real images nobody labelled, with the teacher's labels
    strong: bool = False  # views by student.strong_augment
    longer: bool = True  # transfer_steps, as the control; else the NOKD student's own steps


ROWS = {
    "nokd": Row(longer=False),
    "nokd_longer": Row(),
    "augment": Row(strong=True),
    "pseudo": Row(pseudo=True),
    "kd": Row(method="kd"),
    "cgan_raw": Row(fakes=True, changes={"subsampling": "none", "filter": False, "replace": "none"}),
    "cgan_subsample": Row(fakes=True, changes={"filter": False, "replace": "none"}),
    "cgan_filter": Row(fakes=True, changes={"filter": True, "replace": "none"}),
    "cgan_replace": Row(fakes=True, changes={"filter": True, "replace": "hard"}),
    "cgan": Row(fakes=True),
    "cgan_kd": Row(method="kd", fakes=True),
}


def run(
    recipe: Recipe,
    out: Path,
    progress: Progress = SILENT,
    *,
    deadline: float = math.inf,
    artifacts: Path | None = None,
) -> dict[str, Any]:
    """Go the whole road for every seed of the recipe and write recipe.yaml and results.json to ``out``.

    What is finished there already is used again. ``artifacts`` is a folder that several runs share, so that what
    one has trained the others need not; none: ``out``. Raises UserError for what the user can mend, and OutOfTime
    where time.monotonic has passed ``deadline``: at the next checkpoint of a loop, or before the next stage.
    """
    started = time.monotonic()
    fabric = make_fabric(recipe.runtime)
    with progress.bar("import", 1) as bar:
        splits = sources.load(recipe.data, lambda done, total: bar.to(done / total))
    import_seconds = time.monotonic() - started
    check(recipe, splits)
    folder = RunFolder(out, environment(fabric), deadline, artifacts)
    try:
        write_text(out / "recipe.yaml", recipe.to_yaml())
        found = results.collect(Road(recipe, splits, folder, fabric, progress), ROWS)
        found["seconds"] = {"import": import_seconds}
        for artifact in {artifact.key: artifact for artifact in folder.used}.values():
            stage = artifact.folder.name.rsplit("-", 1)[0]
            found["seconds"][stage] = found["seconds"].get(stage, 0.0) + artifact.seconds
        write_json(out / "results.json", found)
    finally:
        folder.close()
    return found


class Road:
    """One run's stations. ``seed`` is always the seed of the station's own random numbers."""

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
        source, train = recipe.generator.source, splits.train
        self.source = None if source is None else open_source(source, self.task, train.channels, train.size)
        self.replace = adjust.replacement(recipe.synthesis, self.task)  # what cannot be is refused before training
        self._choices: dict[int, Choice] = {}

    # --- stations ---------------------------------------------------------------------------------------------

    def data(self) -> Artifact:
        """Counts, label histograms and a few images, for the report."""

        def build(work: Path) -> dict[str, Any]:
            save_tensors(work / "preview.safetensors", preview.examples(self.splits.train, self.task))
            return preview.describe(self.splits)

        return self.folder.stage("data", {**self.base, "name": self.splits.name}, self.keys, build)

    def teacher(self, seed: int) -> Artifact:
        """The strong network: trained here on the owner's images or on the pool, or loaded from a file."""
        settings = self.recipe.teacher
        return self._teacher(f"teacher (seed {seed})", settings.network, settings.weights, seed)

    def jury(self, seed: int) -> list[Artifact]:
        """The teachers that vote beside the first; each that is trained here has a seed of its own."""
        return [
            self._teacher(f"juror {number}", juror.network, juror.weights, counter.key(seed, "juror", number))
            for number, juror in enumerate(self.recipe.teacher.jury, start=1)
        ]

    def generator(self, seed: int) -> Artifact:
        """The conditional GAN, trained on the owner's images, or what the recipe puts in its place."""
        settings = self.recipe.generator
        inputs = {"train": self.keys["train"]}
        if self.source is not None:
            inputs["source"] = _source_key(settings.source or "", self.source)

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
                    checkpoint=self._checkpoint(work),
                    progress=self.progress,
                )
                sampler.save(work / "weights.safetensors")
                parameters = evaluate.parameters(sampler.network)
            labels = preview.examples(self.splits.train, self.task)["labels"]
            images = sampler.sample(self.task.to_target(labels), torch.arange(len(labels)), seed)
            shown = {"images": images, "labels": labels, "bin": self.task.bins(labels)[1]}
            save_tensors(work / "preview.safetensors", shown)
            return {"parameters": parameters, "history": history}

        described = {**self.base, "generator": settings.model_dump(mode="json"), "seed": seed}
        return self.folder.stage("generator", described, inputs, build)

    def ratio(self, seed: int) -> Artifact:
        """The conditional density ratio, on features that are computed once."""
        settings = self.recipe.ratio
        generator = self.generator(seed)

        def build(work: Path) -> dict[str, Any]:
            observer, sampler = self._observer(seed), self._sampler(generator)

            def look(images: ImageSet, stream: str) -> Pairs:
                numbers = counter.key(seed, stream)
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

    def autoencoder(self, seed: int) -> Artifact:
        """The sparse auto-encoder whose code the density ratio may see, trained on the owner's images."""
        settings, fit_settings = self.recipe.ratio, self.recipe.student.fit

        def build(work: Path) -> dict[str, Any]:
            network = self._new_autoencoder(seed)
            history = train_autoencoder(
                network,
                self.task,
                self.splits.train,
                settings.feature_steps,
                fit_settings,
                self.fabric,
                seed=seed,
                checkpoint=self._checkpoint(work),
                progress=self.progress,
            )
            save_tensors(work / "weights.safetensors", network.state_dict())
            return {"history": history, "parameters": evaluate.parameters(network)}

        described = {
            **self.base,
            "network": settings.feature_network,
            "steps": settings.feature_steps,
            "fit": fit_settings.model_dump(mode="json", include={"batch_size", "augment"}),
            "seed": seed,
        }
        inputs = {"train": self.keys["train"], **_code(settings.feature_network)}
        return self.folder.stage("autoencoder", described, inputs, build)

    def fell_back(self, seed: int) -> list[str]:
        """Why images are not subsampled though the recipe says so: the checks that the density ratio fails."""
        settings = self.recipe.synthesis
        return [] if settings.subsampling == "none" else checks.settled(settings, self.ratio(seed).summary)[1]

    def synthesis(self, seed: int, changes: dict[str, Any]) -> Artifact:
        """Generated images that passed what the settings ask for, with the teacher's predictions beside them."""
        return self._synthesis(seed, self.processing(seed).model_copy(update=changes))

    def _synthesis(self, seed: int, settings: SynthesisSettings) -> Artifact:
        # Labels are replaced where the student sees them; here it matters only whether probabilities are kept.
        settings = settings.model_copy(update={"replace": "soft" if self.replace == "soft" else "auto"})
        generator = self.generator(seed)
        if settings.subsampling != "none":
            settings, _ = checks.settled(settings, self.ratio(seed).summary)
        ratio = self.ratio(seed) if settings.subsampling != "none" else None

        def build(work: Path) -> dict[str, Any]:
            observer = self._observer(seed, jury=True)
            made = synthesize(
                self._sampler(generator),
                observer,
                None if ratio is None else self._ratio_network(ratio),
                self.space.plan(settings),
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
            "teacher": self.teacher(seed).key,
            "features": self._features(seed).key,
            "ratio": "" if ratio is None else ratio.key,
            **{f"juror {number}": juror.key for number, juror in enumerate(self.jury(seed), start=1)},
        }
        return self.folder.stage("synthesis", described, inputs, build)

    def pseudo(self, seed: int) -> Artifact:
        """The teacher's labels for the real images that nobody labelled for the owner; no true label is read."""
        teacher = self.teacher(seed)

        def build(work: Path) -> dict[str, Any]:
            outputs = evaluate.outputs(self._network(teacher), self.splits.unlabelled, self.fabric)
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
                    f"search (seed {seed})", student.network, "supervised", seed, fit_settings, fakes=fakes,
                    replace=self.replace, start=start,
                )  # fmt: skip
                return float(tried.summary["val"])

            self._choices[seed] = search(settings, self.recipe.synthesis, self.task, trial)
        return self._choices[seed]

    def student(self, name: str, seed: int) -> Artifact:
        """The student of row ``name``."""
        row, settings, upstream = ROWS[name], self.recipe.student, self.upstream(seed)
        fit_settings, start = settings.fit, None
        if row.longer:
            views = {"augment": strong_views(settings)} if row.strong else {}
            fit_settings, start = self._transfer(seed, {"steps": settings.transfer_steps, **views})
        fakes = self.synthesis(upstream, row.changes) if row.fakes else None
        return self._fit(
            f"{name} (seed {seed})",
            settings.network,
            row.method,
            seed,
            fit_settings,
            fakes=fakes,
            replace=row.changes.get("replace", self.replace),
            pseudo=self.pseudo(upstream) if row.pseudo else None,
            teacher=self.teacher(upstream) if row.method != "supervised" else None,
            start=start,
        )

    def metrics(self, seed: int) -> Artifact:
        """How good the generated images are, whether they are copies, and the error bound's terms."""
        settings, real_share = self.recipe.metrics, self.recipe.student.real_share
        made, generator = self.synthesis(seed, ROWS["cgan"].changes), self.generator(seed)
        seen_by = {"teacher": self.teacher(seed)}
        if "nokd" in settings.features:
            seen_by["nokd"] = self.student("nokd", seed)

        def build(work: Path) -> dict[str, Any]:
            asked, taught = self._fakes(made, "none"), self._fakes(made, self.replace)
            assert asked is not None
            assert taught is not None
            found, pairs = judge(
                self.splits,
                self._sampler(generator),
                Processed(asked, taught.labels, self.replace != "none", real_share),
                {name: self._network(artifact) for name, artifact in seen_by.items()},
                settings,
                self.fabric,
                seed=seed,
                progress=self.progress,
            )
            save_tensors(work / "pairs.safetensors", pairs)
            return found

        described = {
            **self.base,
            "metrics": settings.model_dump(mode="json"),
            "replace": self.replace,
            "real_share": real_share,
            "seed": seed,
        }
        inputs = {name: self.keys[name] for name in ("train", "pool", "val")}
        inputs |= {name: artifact.key for name, artifact in seen_by.items()}
        inputs |= {"generator": generator.key, "synthesis": made.key}
        return self.folder.stage("metrics", described, inputs, build)

    # --- what the stations share ------------------------------------------------------------------------------

    def _transfer(self, seed: int, changes: dict[str, Any]) -> tuple[FitSettings, Artifact | None]:
        """How a row that is compared is trained, and what it starts from."""
        settings, start = self.recipe.student, None
        if settings.start == "nokd":
            start = self.student("nokd", seed)
            changes = {**changes, "learning_rate": settings.finetune_learning_rate}
        return settings.fit.model_copy(update=changes), start

    def upstream(self, seed: int) -> int:
        """The seed of teacher and generator for a student's seed."""
        return seed if self.recipe.vary == "everything" else self.recipe.seeds[0]

    def _checkpoint(self, work: Path) -> Checkpoint:
        return Checkpoint(work / CHECKPOINT, self.recipe.runtime.checkpoint_seconds, self.folder.deadline)

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
        teacher: Artifact | None = None,
        start: Artifact | None = None,
        stage: str = "student",
    ) -> Artifact:
        """Train one network and score it on the test split."""
        student = self.recipe.student
        described: dict[str, Any] = {
            **self.base,
            "network": network_name,
            "method": method_name,
            "fit": settings.model_dump(mode="json"),
            "seed": seed,
        }
        inputs = {"real": self.keys[real], "val": self.keys["val"], "test": self.keys["test"]}
        inputs |= _code(network_name)
        if fakes is not None:
            described |= {"replace": replace, "real_share": student.real_share}
            inputs["fakes"] = fakes.key
        if pseudo is not None:
            described["real_share"] = student.real_share
            inputs["pseudo"] = pseudo.key
        if teacher is not None:
            described["method_settings"] = student.model_dump(
                mode="json", include={"temperature", "label_weight", "teacher_weight"}
            )
            if student.method_settings:
                described["method_settings"]["own"] = student.method_settings
            inputs["teacher"] = teacher.key
        if start is not None:
            inputs["start"] = start.key

        def build(work: Path) -> dict[str, Any]:
            train: ImageSet = getattr(self.splits, real)
            network = self._new_network(network_name, seed)
            if start is not None:
                weights.load_weights(network, start.folder / "weights.safetensors")
            history = fit(
                network,
                distill.create(method_name, self.task, student),
                self.task,
                train,
                settings,
                self.fabric,
                seed=seed,
                fake=self._fakes(fakes, replace) if pseudo is None else self._pseudo_labelled(pseudo),
                real_share=student.real_share,
                teacher=None if teacher is None else self._network(teacher),
                validation=self.splits.val,
                checkpoint=self._checkpoint(work),
                progress=self.progress,
                title=title,
            )
            save_tensors(work / "weights.safetensors", network.state_dict())
            return {**self._scored(network, network_name), "history": history, "images": len(train)}

        return self.folder.stage(stage, described, inputs, build)

    def _teacher(self, title: str, network: str, path: str | None, seed: int) -> Artifact:
        if path is not None:
            return self._loaded_teacher(network, Path(path))
        settings = self.recipe.teacher
        real = settings.trained_on
        return self._fit(title, network, "supervised", seed, settings.fit, real=real, stage="teacher")

    def _loaded_teacher(self, name: str, path: Path) -> Artifact:
        def build(work: Path) -> dict[str, Any]:
            network = self._new_network(name, 0)
            weights.load_weights(network, path)
            save_tensors(work / "weights.safetensors", network.state_dict())
            return {**self._scored(network, name), "history": [], "images": None}

        described = {**self.base, "network": name}
        if not path.is_file():
            raise UserError(f"teacher.weights = {path} does not exist; a .safetensors file is needed")
        inputs = {**_code(name), "weights": file_key(path), "val": self.keys["val"], "test": self.keys["test"]}
        return self.folder.stage("teacher", described, inputs, build)

    def _scored(self, network: nn.Module, name: str) -> dict[str, Any]:
        test, per_bin = evaluate.metric(network, self.splits.test, self.task, self.fabric)
        shape = (self.splits.test.channels, *self.splits.test.size)
        return {
            "network": name,
            "parameters": evaluate.parameters(network),
            "val": evaluate.metric(network, self.splits.val, self.task, self.fabric)[0],
            "test": test,
            "test_per_bin": per_bin,
            "latency_ms": evaluate.latency_ms(network, shape),
        }

    def _new_network(self, name: str, seed: int, outputs: int | None = None) -> nn.Module:
        """Random weights that are the same for every row of a seed; normalisation fixed from the real images.

        outputs: how many; None: as many as the task has.
        """
        train = self.splits.train
        with torch.random.fork_rng([]):
            torch.manual_seed(counter.key(seed, "weights"))
            network = zoo.create(name, train.channels, outputs or self.task.num_outputs, train.size)
        pixels = train.images.float().div(255.0)
        zoo.fix_normalisation(network, pixels.mean(dim=(0, 2, 3)), pixels.std(dim=(0, 2, 3)))
        return network

    def _new_autoencoder(self, seed: int) -> SparseAutoencoder:
        train = self.splits.train
        encoder = self._new_network(self.recipe.ratio.feature_network, seed, CODE)
        with torch.random.fork_rng([]):
            torch.manual_seed(counter.key(seed, "autoencoder/weights"))
            return SparseAutoencoder(encoder, train.channels, train.size, self.task.num_outputs)

    def _network(self, artifact: Artifact) -> nn.Module:
        network = self._new_network(artifact.summary["network"], 0)
        weights.load_weights(network, artifact.folder / "weights.safetensors")
        return evaluate.place(network, self.fabric).eval()

    def _observer(self, seed: int, jury: bool = False) -> Observer:
        teacher = self._network(self.teacher(seed))
        others = [self._network(juror) for juror in self.jury(seed)] if jury else []
        return Observer(teacher, self.fabric, self._shows_features(seed), others)

    def _features(self, seed: int) -> Artifact:
        """The network whose penultimate layer the density ratio sees."""
        settings = self.recipe.ratio
        if settings.features == "classifier":
            fit_settings = self.recipe.student.fit.model_copy(update={"steps": settings.feature_steps})
            name = settings.feature_network
            return self._fit("ratio's features", name, "supervised", seed, fit_settings, stage="features")
        if settings.features == "autoencoder":
            return self.autoencoder(seed)
        return self.teacher(seed) if settings.features == "teacher" else self.student("nokd", seed)

    def _shows_features(self, seed: int) -> nn.Module | None:
        """That network; None where it is the teacher itself."""
        if self.recipe.ratio.features == "teacher":
            return None
        artifact = self._features(seed)
        if self.recipe.ratio.features != "autoencoder":
            return self._network(artifact)
        network = self._new_autoencoder(seed)
        network.load_state_dict(artifact.tensors("weights"))
        return network

    def _sampler(self, generator: Artifact) -> Sampler:
        if self.source is not None:
            return self.source
        train = self.splits.train
        path = generator.folder / "weights.safetensors"
        return load_sampler(path, self.recipe.generator, self.space, train.channels, train.size, self.fabric)

    def _ratio_network(self, artifact: Artifact) -> RatioNetwork:
        tensors = artifact.tensors("weights")
        settings = self.recipe.ratio
        embedding = self.space.ratio_embedding(RatioNetwork.LABEL_DIM)
        network = RatioNetwork(len(tensors["mean"]), embedding, settings.widths, settings.dropout)
        network.load_state_dict(tensors)
        return network.to(self.fabric.device).eval()

    def _fakes(self, artifact: Artifact | None, replace: str) -> ImageSet | None:
        if artifact is None:
            return None
        columns = artifact.tensors("columns")
        train = self.splits.train
        images = open_images(artifact.folder / "images.u8", (train.channels, *train.size))
        return adjust.relabelled(ImageSet(images, columns.pop("labels"), columns), replace)

    def _pseudo_labelled(self, artifact: Artifact) -> ImageSet:
        return ImageSet(self.splits.unlabelled, artifact.tensors("columns")["labels"])


def strong_views(student: StudentSettings) -> AugmentSettings:
    """The views of row ``augment``; what the recipe says of mirrors for the other rows holds here too."""
    strong = student.strong_augment
    return strong.model_copy(update={"flip": student.fit.augment.flip}) if strong.flip is None else strong


def check(recipe: Recipe, splits: Splits) -> None:
    """Raise UserError for what can't be run on these images: it must not show after hours of training."""
    _check_networks(recipe, splits)
    _check_rows(recipe, splits)


def _check_networks(recipe: Recipe, splits: Splits) -> None:
    """Make each network once, and fill the teachers: what can't be made must not show after hours of training."""
    teacher, ratio = recipe.teacher, recipe.ratio
    named = [(teacher.network, teacher.weights), (recipe.student.network, None)]
    named += [(juror.network, juror.weights) for juror in teacher.jury]
    if ratio.features in {"classifier", "autoencoder"}:
        named.append((ratio.feature_network, None))
    train = splits.train
    with torch.random.fork_rng([]):
        for name, path in named:
            network = zoo.create(name, train.channels, splits.task.num_outputs, train.size)
            if path is not None:
                weights.load_weights(network, path)
        if recipe.generator.source is None:
            space = label_space(splits.task, splits.task.to_target(train.labels), recipe.generator)
            embedding = space.new_embedding(recipe.generator.label_dim)
            new_networks(recipe.generator, space, embedding, train.channels, train.size)


def _code(name: str) -> dict[str, str]:
    """What a network's key holds besides its name: a user's own code, or the version of timm."""
    if name.startswith(timm_bridge.PREFIX):
        return {"network": f"timm {importlib.metadata.version('timm')}"}
    return {"network": _users_code(name)} if ":" in name else {}


def _check_rows(recipe: Recipe, splits: Splits) -> None:
    """Refuse what a row can't do with these images and settings, before anything is trained."""
    student = recipe.student
    for name in recipe.rows:
        row = ROWS[name]
        augment = strong_views(student) if row.strong else student.fit.augment
        check_views(distill.create(row.method, splits.task, student), splits.task, augment)
        if row.pseudo and not len(splits.unlabelled):
            raise UserError(
                f"compare.methods holds {name}, but {splits.name} has no unlabelled images, as all "
                f"{len(splits.pool):,} are the owner's; allowed: data.train_size under {len(splits.pool)}, or the "
                "other methods"
            )


def _users_code(name: str) -> str:
    """The key of the file that a network ``module:function`` comes from: an edited file makes a new network."""
    try:
        spec = importlib.util.find_spec(name.partition(":")[0])
    except (ImportError, ValueError):
        spec = None
    path = Path(spec.origin) if spec and spec.origin else None
    return file_key(path) if path and path.is_file() else content_key(name)


def _source_key(source: str, sampler: Sampler) -> str:
    """The key of what ``generator.source`` holds: images with labels, an ONNX file, or the user's code."""
    if isinstance(sampler, StoredImages):
        return sampler.key
    path = Path(source).expanduser()
    return file_key(path) if path.is_file() else _users_code(source)
