"""The settings of a run on text, and where its recipes are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from cgankd.config import yaml_config
from cgankd.config.settings import PathText, RuntimeSettings, Seeds, Settings

Method = Literal["sft", "kd", "atkd", "onpolicy", "skd"]


class TextSettings(Settings):
    """The documents and the tokenizer."""

    source: PathText = Field(
        "pydoc", description="pydoc (the documentation that comes with Python), a folder of .txt files, or one .txt"
    )
    vocabulary: int = Field(
        1024, ge=258, le=65_536, description="tokens of the byte-level BPE made of the training text"
    )
    val_share: float = Field(0.1, gt=0, lt=0.5, description="of the text, in whole documents")
    test_share: float = Field(0.1, gt=0, lt=0.5, description="of the text, in whole documents")


class ModelSettings(Settings):
    """A causal language model: a new one, or one from a folder."""

    folder: PathText | None = Field(
        None,
        description="a local folder with config.json, model.safetensors and tokenizer.json; this model is not trained "
        "before the distillation, and its tokenizer is used",
    )
    architecture: Literal["llama", "gpt2"] = Field("llama", description="kind of a new model")
    width: int = Field(64, ge=8, multiple_of=2, description="length of a token's vector; a multiple of 2 heads")
    layers: int = Field(2, ge=1, description="number of transformer blocks")
    heads: int = Field(4, ge=1, description="attention heads of each block")
    dropout: float = Field(0.0, ge=0, lt=1, description="for llama in attention only")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> ModelSettings:
        if self.width % (2 * self.heads):
            raise ValueError(f"{self.heads} heads need a width that is a multiple of {2 * self.heads}")
        return self


class TrainSettings(Settings):
    """Training with AdamW and a one-cycle learning rate."""

    steps: int = Field(300, ge=1, description="optimiser steps")
    batch_size: int = Field(16, ge=1, description="sequences")
    learning_rate: float = Field(3e-3, gt=0, description="the peak of the schedule")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's, for all parameters")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps before the peak")
    clip_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")


class TrainedModelSettings(ModelSettings):
    """A model, and its training on text before the distillation, by cross-entropy."""

    fit: TrainSettings = TrainSettings()

    @property
    def model(self) -> ModelSettings:
        """The model alone."""
        return ModelSettings(**{name: getattr(self, name) for name in ModelSettings.model_fields})


class SamplingSettings(Settings):
    """How sequences are generated. The prompt is real text; the method decides which model samples the rest."""

    prompt: int = Field(16, ge=1, description="tokens of real text that each sequence begins with")
    length: int = Field(48, ge=1, description="tokens after the prompt; the distillation loss is over these alone")
    gamma: int = Field(5, ge=1, description="tokens that the student proposes before the teacher checks them")
    top_k: int = Field(25, ge=0, description="K: a proposed token is accepted if it is among the teacher's K best")
    temperature: float = Field(1.0, gt=0, description="of the student's and the teacher's sampling")


class LessonSettings(Settings):
    """The losses of the methods; all start from the same student and train for the same number of steps."""

    divergence: Literal["forward", "reverse", "jsd"] = Field(
        "forward", description="per token, of kd, onpolicy and skd: KL(t||s), KL(s||t), or Jensen-Shannon"
    )
    easy: float = Field(0.2, ge=0, le=1, description="atkd: the weight of tokens that are easy for the teacher")
    fit: TrainSettings = TrainSettings(steps=200, learning_rate=1e-3)


class DistilSettings(LessonSettings):
    """The rows of the table, and their losses."""

    methods: tuple[Method, ...] = Field(
        ("sft", "kd", "atkd", "onpolicy", "skd"),
        min_length=1,
        description="sft: cross-entropy (the control); kd, atkd: the teacher on real text; onpolicy: the teacher on "
        "the student's text; skd: the teacher on text that student and teacher interleave",
    )

    @property
    def lesson(self) -> LessonSettings:
        """The settings without the rows."""
        return LessonSettings(divergence=self.divergence, easy=self.easy, fit=self.fit)

    @field_validator("methods")
    @classmethod
    def _methods_differ(cls, methods: tuple[Method, ...]) -> tuple[Method, ...]:
        if len(set(methods)) != len(methods):
            raise ValueError("a method is listed twice; allowed: distinct methods")
        return methods


class LanguageRecipe(Settings):
    """One run on text."""

    name: str = Field("custom", description="name of the run: heading of the report and default folder under runs/")
    description: str = Field("", description="one sentence, which `cgankd recipes` prints")
    demonstration: bool = Field(False, description="too short to prove anything; a warning says so")
    seeds: Seeds = Field(
        (0, 1, 2), description="one run of every row for each seed: first weights of a new student, order of the text"
    )

    text: TextSettings = TextSettings()
    teacher: TrainedModelSettings = TrainedModelSettings(width=160, layers=4, heads=5)
    student: TrainedModelSettings = TrainedModelSettings()
    sampling: SamplingSettings = SamplingSettings()
    distil: DistilSettings = DistilSettings()
    test_prompts: int = Field(64, ge=1, description="prompts from the test split, for kl and acceptance")
    runtime: RuntimeSettings = RuntimeSettings()

    @property
    def window(self) -> int:
        """Tokens of a sequence: the prompt and the tokens after it."""
        return self.sampling.prompt + self.sampling.length


def ready() -> dict[str, Path]:
    """Name -> file of every recipe for text that comes with the package."""
    return yaml_config.ready("cgankd.lm")


def load(name_or_path: str, overrides: Iterable[str] = ()) -> LanguageRecipe:
    """A ready recipe by name, or a YAML file, with ``key=value`` overrides; UserError as yaml_config.load."""
    return yaml_config.load(LanguageRecipe, ready(), name_or_path, overrides)
