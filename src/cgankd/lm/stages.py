"""The stages of a run on text: tokens -> teacher -> student trained on the text -> each method.

A stage that trains a model writes a folder that transformers can load.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from cgankd.core.errors import UserError
from cgankd.core.hashing import content_key, file_key
from cgankd.core.store import Artifact, Store, Stored, Work, stage
from cgankd.lm import models, scoring, text
from cgankd.lm.methods import METHODS, Lesson, from_labels, from_teacher
from cgankd.lm.settings import (
    LanguageRecipe,
    LessonSettings,
    ModelSettings,
    SamplingSettings,
    TextSettings,
    TrainedModelSettings,
    TrainSettings,
)
from cgankd.lm.train import train
from cgankd.metrics import cost


@dataclasses.dataclass(frozen=True)
class Documents:
    """The texts of each split. The artifact's description holds their hash instead of them."""

    of: dict[str, list[str]]

    @property
    def content_key(self) -> str:
        return content_key(self.of)


@dataclasses.dataclass(frozen=True)
class ModelFolder:
    """A model in a folder of the user. Its content key is the hash of its files."""

    folder: Path

    @property
    def content_key(self) -> str:
        return content_key({name: file_key(self.folder / name) for name in models.FILES})


class Corpus(Stored):
    """The text as :func:`read_text` saved it."""

    @property
    def tokenizer(self) -> Path:
        """The file of the tokenizer."""
        return self.artifact.folder / text.TOKENIZER

    def open(self) -> text.Corpus:
        """The tokens of each split."""
        summary = self.artifact.summary
        return text.Corpus(self.artifact.tensors("tokens"), summary["vocabulary"], summary["end"], summary["bytes"])


@stage(version=3)  # version 2 read the characters of the end token as that token
def read_text(
    work: Work, *, documents: Documents, settings: TextSettings, tokens_of: ModelFolder | None
) -> dict[str, Any]:
    """The splits as tokens, and the tokenizer. tokens_of: the model whose tokenizer is used; None: a new one."""
    if tokens_of is None:
        tokenizer = text.make_tokenizer(documents.of["train"], settings.vocabulary)
        known = {"vocabulary": tokenizer.get_vocab_size(), "end": tokenizer.token_to_id(text.END)}
    else:
        tokenizer, known = text.read_tokenizer(tokens_of.folder), models.tokens(tokens_of.folder)
    tokenizer.save(str(work.path(text.TOKENIZER)))
    rows = {name: text.encode(tokenizer, texts, known["end"]) for name, texts in documents.of.items()}
    work.save("tokens", rows)
    return {
        "vocabulary": known["vocabulary"],
        "end": known["end"],
        "documents": {name: len(texts) for name, texts in documents.of.items()},
        "tokens": {name: len(row) for name, row in rows.items()},
        "bytes": {name: sum(len(document.encode()) for document in texts) for name, texts in documents.of.items()},
    }


@stage()
def train_model(
    work: Work, *, corpus: Corpus, settings: ModelSettings, fit: TrainSettings, window: int, seed: int
) -> dict[str, Any]:
    """A model trained on the text by cross-entropy: the teacher, or a student before its distillation."""
    tokens = corpus.open()
    model = models.create(settings, tokens.vocabulary, tokens.end, window, seed).to(work.fabric.device)
    lesson = from_labels(model, tokens, fit.batch_size, window, seed)
    return _train(work, model, lesson, corpus, fit, window, seed)


@stage()
def score_model(work: Work, *, corpus: Corpus, model: ModelFolder, window: int) -> dict[str, Any]:
    """The scores of a model of the user, without training."""
    loaded = models.load(model.folder).to(work.fabric.device)
    return {"history": [], **_scores(loaded, corpus.open(), window)}


@dataclasses.dataclass(frozen=True)
class Method:
    """One of METHODS by name. Its content key holds its version."""

    name: str

    @property
    def content_key(self) -> str:
        return content_key(self.name, METHODS[self.name].version)


@stage()
def distil(
    work: Work,
    *,
    corpus: Corpus,
    method: Method,
    student: Artifact | ModelFolder,
    teacher: Artifact | ModelFolder,
    settings: LessonSettings,
    sampling: SamplingSettings,
    test_prompts: int,
    seed: int,
) -> dict[str, Any]:
    """The student trained by the method, with its scores and its distance to the teacher."""
    tokens, window = corpus.open(), sampling.prompt + sampling.length
    student_model, teacher_model = (models.load(model.folder).to(work.fabric.device) for model in (student, teacher))
    lesson = from_teacher(method.name, student_model, teacher_model, tokens, settings, sampling, seed)
    summary = _train(work, student_model, lesson, corpus, settings.fit, window, seed)
    return {**summary, **scoring.against_teacher(student_model, teacher_model, tokens, sampling, test_prompts)}


def _train(
    work: Work, model: nn.Module, lesson: Lesson, corpus: Corpus, fit: TrainSettings, window: int, seed: int
) -> dict[str, Any]:
    """Train the model, save it and score it."""
    tokens = corpus.open()
    history = train(
        work,
        model,
        lesson,
        fit,
        seed=seed,
        validate=lambda: scoring.scores(model, tokens, "val", window)["bits_per_byte"],
    )
    assert work.folder is not None
    models.save(model, corpus.tokenizer, work.folder)
    return {"history": history, **_scores(model, tokens, window)}


def _scores(model: nn.Module, tokens: text.Corpus, window: int) -> dict[str, Any]:
    return {"parameters": cost.parameters(model), **scoring.scores(model, tokens, "test", window)}


class LanguageRun:
    """Which stage gets which arguments. A seed changes the student: its weights, its batches, its sampled text.

    documents: of each split. tokens_of: the folder whose tokenizer is used; None: a new one is trained on the text.
    """

    def __init__(
        self, recipe: LanguageRecipe, documents: dict[str, list[str]], tokens_of: Path | None, store: Store
    ) -> None:
        self.recipe, self.store = recipe, store
        self.text = store.call(
            read_text,
            documents=Documents(documents),
            settings=recipe.text.model_copy(update={"source": ""}),  # because the key holds the documents themselves
            tokens_of=None if tokens_of is None else ModelFolder(tokens_of),
        )
        self.corpus = Corpus(self.text)
        for name, count in self.text.summary["tokens"].items():
            if count < recipe.window:
                raise UserError(
                    f"sampling.prompt + sampling.length is {recipe.window}, but the {name} split of text.source has "
                    f"{count} tokens; allowed: as many at most"
                )

    def teacher(self) -> Artifact:
        """The large model, trained on the text or read from a folder."""
        return self._model("teacher", self.recipe.teacher, self.recipe.seeds[0])

    def student(self, seed: int) -> Artifact:
        """The small model before its distillation, trained on the text or read from a folder."""
        return self._model("student", self.recipe.student, seed)

    def _model(self, name: str, settings: TrainedModelSettings, seed: int) -> Artifact:
        store = self.store.titled(f"{name} (seed {seed})")
        if settings.folder is not None:
            model = ModelFolder(Path(settings.folder))
            return store.call(score_model, corpus=self.corpus, model=model, window=self.recipe.window)
        return store.call(
            train_model,
            corpus=self.corpus,
            settings=settings.model,
            fit=settings.fit,
            window=self.recipe.window,
            seed=seed,
        )

    def distilled(self, method: str, seed: int) -> Artifact:
        """The student trained by the method."""
        recipe = self.recipe
        return self.store.titled(f"{method} (seed {seed})").call(
            distil,
            corpus=self.corpus,
            method=Method(method),
            student=_folder(recipe.student) or self.student(seed),
            teacher=_folder(recipe.teacher) or self.teacher(),
            settings=recipe.distil.lesson,
            sampling=recipe.sampling,
            test_prompts=recipe.test_prompts,
            seed=seed,
        )


def _folder(settings: TrainedModelSettings) -> ModelFolder | None:
    return None if settings.folder is None else ModelFolder(Path(settings.folder))
