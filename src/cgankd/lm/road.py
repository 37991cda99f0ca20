"""The road of text: tokens -> teacher -> student that has read the text -> each method.

Every station is an artifact of the run's folder, as on the road of images (artifacts.py); those that hold a model
are folders that transformers reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from cgankd.core.checkpoint import Checkpoint
from cgankd.core.errors import UserError
from cgankd.core.files import save_tensors
from cgankd.core.hashing import content_key, file_key
from cgankd.core.progress import Progress
from cgankd.core.store import CHECKPOINT, Artifact, RunFolder
from cgankd.lm import judge, models, text
from cgankd.lm.methods import METHODS, Lesson, from_labels, from_teacher
from cgankd.lm.settings import LanguageRecipe, TrainedModelSettings, TrainSettings
from cgankd.lm.train import train
from cgankd.metrics import cost


class LanguageRoad:
    """One run's stations. What a seed changes is the student: its weights, its batches, its sampled text.

    parts: the documents of each split. tokenizer_folder: whose tokenizer is taken; None: one is made of the text.
    """

    def __init__(
        self,
        recipe: LanguageRecipe,
        parts: dict[str, list[str]],
        tokenizer_folder: Path | None,
        folder: RunFolder,
        fabric: Fabric,
        progress: Progress,
    ) -> None:
        self.recipe, self.folder, self.fabric, self.progress = recipe, folder, fabric, progress
        self.text = self._text(parts, tokenizer_folder)
        self.corpus = self._corpus()

    def _text(self, parts: dict[str, list[str]], folder: Path | None) -> Artifact:
        """The splits as tokens, and the tokenizer."""
        settings = self.recipe.text

        def build(work: Path) -> dict[str, Any]:
            if folder is None:
                tokenizer = text.make_tokenizer(parts["train"], settings.vocabulary)
                known = {"vocabulary": tokenizer.get_vocab_size(), "end": tokenizer.token_to_id(text.END)}
            else:
                tokenizer, known = text.read_tokenizer(folder), models.tokens(folder)
            tokenizer.save(str(work / text.TOKENIZER))
            rows = {name: text.encode(tokenizer, texts, known["end"]) for name, texts in parts.items()}
            save_tensors(work / "tokens.safetensors", rows)
            return {
                "vocabulary": known["vocabulary"],
                "end": known["end"],
                "documents": {name: len(texts) for name, texts in parts.items()},
                "tokens": {name: len(row) for name, row in rows.items()},
                "bytes": {name: sum(len(one.encode()) for one in texts) for name, texts in parts.items()},
            }

        described = settings.model_dump(mode="json", exclude={"source"})
        inputs = {"documents": content_key(parts)}
        if folder is not None:
            inputs |= {name: file_key(folder / name) for name in ("config.json", text.TOKENIZER)}
        version = 1 if folder is None else 2  # 1 cut texts as the tokenizer's file said
        return self.folder.stage("text", described, inputs, build, version)

    def _corpus(self) -> text.Corpus:
        known, window = self.text.summary, self.recipe.window
        for name, count in known["tokens"].items():
            if count < window:
                raise UserError(
                    f"sampling.prompt + sampling.length is {window}, but the {name} split of text.source has "
                    f"{count} tokens; allowed: as many at most"
                )
        return text.Corpus(self.text.tensors("tokens"), known["vocabulary"], known["end"], known["bytes"])

    def teacher(self) -> Artifact:
        """The large model, trained on the text by its labels, or read from a folder."""
        return self._reader("teacher", self.recipe.teacher, self.recipe.seeds[0])

    def student(self, seed: int) -> Artifact:
        """The small model before its distillation, trained on the text by its labels, or read from a folder."""
        return self._reader("student", self.recipe.student, seed)

    def distilled(self, method: str, seed: int) -> Artifact:
        """The student after the method, and how near it is to the teacher."""
        recipe, teacher, student = self.recipe, self.teacher(), self.student(seed)

        def build(work: Path) -> dict[str, Any]:
            model, taught_by = self.model(recipe.student, student), self.model(recipe.teacher, teacher)
            lesson = from_teacher(method, model, taught_by, self.corpus, recipe, seed)
            found = self._trained(f"{method} (seed {seed})", model, lesson, recipe.distil.fit, seed, work)
            return {**found, **judge.against_teacher(model, taught_by, self.corpus, recipe)}

        settings = {
            "method": method,
            "distil": recipe.distil.model_dump(mode="json", exclude={"methods"}),
            "sampling": recipe.sampling.model_dump(mode="json"),
            "test_prompts": recipe.test_prompts,
            "seed": seed,
        }
        inputs = {"text": self.text.key, "teacher": teacher.key, "student": student.key}
        return self.folder.stage("distilled", settings, inputs, build, METHODS[method].version)

    def model(self, settings: TrainedModelSettings, artifact: Artifact) -> nn.Module:
        """The model of a station, from the artifact or from the user's folder, on the device."""
        return models.load(_folder(settings) or artifact.folder).to(self.fabric.device)

    def _reader(self, name: str, settings: TrainedModelSettings, seed: int) -> Artifact:
        """The station of a model that has read the text."""
        window, corpus, own = self.recipe.window, self.corpus, _folder(settings)
        described: dict[str, Any] = {"window": window}
        inputs = {"text": self.text.key}
        if own is None:
            described |= {**settings.model_dump(mode="json", exclude={"folder"}), "seed": seed}
        else:
            inputs |= {file: file_key(own / file) for file in models.FILES}

        def build(work: Path) -> dict[str, Any]:
            if own is not None:
                return self._judged(models.load(own).to(self.fabric.device), [])
            model = models.create(settings, corpus.vocabulary, corpus.end, window, seed).to(self.fabric.device)
            lesson = from_labels(model, corpus, settings.fit.batch_size, window, seed)
            return self._trained(f"{name} (seed {seed})", model, lesson, settings.fit, seed, work)

        return self.folder.stage(name, described, inputs, build)

    def _trained(
        self, title: str, model: nn.Module, lesson: Lesson, settings: TrainSettings, seed: int, work: Path
    ) -> dict[str, Any]:
        """Train the model and keep it, as a folder that transformers reads."""
        history = train(
            model, lesson, settings, self.fabric, seed=seed,
            validate=lambda: judge.scores(model, self.corpus, "val", self.recipe.window)["bits_per_byte"],
            checkpoint=Checkpoint(work / CHECKPOINT, self.recipe.runtime.checkpoint_seconds, self.folder.deadline),
            progress=self.progress, title=title,
        )  # fmt: skip
        models.save(model, self.text.folder / text.TOKENIZER, work)
        return self._judged(model, history)

    def _judged(self, model: nn.Module, history: list[dict[str, Any]]) -> dict[str, Any]:
        scores = judge.scores(model, self.corpus, "test", self.recipe.window)
        return {"history": history, "parameters": cost.parameters(model), **scores}


def _folder(settings: TrainedModelSettings) -> Path | None:
    return None if settings.folder is None else Path(settings.folder).expanduser()
