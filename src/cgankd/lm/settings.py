"""The settings of a run on text, typed; reading.py reads and checks them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from cgankd.config import yaml_config
from cgankd.config.settings import PathText, RuntimeSettings, Seeds, Settings

Method = Literal["sft", "kd", "atkd", "onpolicy", "skd"]


class TextSettings(Settings):
    """Which documents, and how they become tokens."""

    source: PathText = Field(
        "pydoc", description="pydoc (the documentation that comes with Python), a folder of .txt files, or one .txt"
    )
    vocabulary: int = Field(
        1024, ge=258, le=65_536, description="tokens of the byte-level BPE made of the training text"
    )
    val_share: float = Field(0.1, gt=0, lt=0.5, description="of the text, in whole documents")
    test_share: float = Field(0.1, gt=0, lt=0.5, description="likewise")


class ModelSettings(Settings):
    """A causal language model: made here, or loaded."""

    folder: PathText | None = Field(
        None,
        description="a local folder with config.json, model.safetensors and tokenizer.json; then it is not trained "
        "before the distillation, and the tokens are its own",
    )
    architecture: Literal["llama", "gpt2"] = "llama"
    width: int = Field(64, ge=8, multiple_of=2)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1, description="llama: of attention only")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> ModelSettings:
        if self.width % (2 * self.heads):
            raise ValueError(f"{self.heads} heads need a width that is a multiple of {2 * self.heads}")
        return self


class TrainSettings(Settings):
    """One training with AdamW and a one-cycle rate."""

    steps: int = Field(300, ge=1)
    batch_size: int = Field(16, ge=1, description="sequences")
    learning_rate: float = Field(3e-3, gt=0, description="the peak")
    weight_decay: float = Field(0.1, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps before the peak")
    clip_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")


class TrainedModelSettings(ModelSettings):
    """A model and how it learns the text, labels only, before anything is distilled."""

    fit: TrainSettings = TrainSettings()

    @property
    def model(self) -> ModelSettings:
        """The model alone."""
        return ModelSettings(**{name: getattr(self, name) for name in ModelSettings.model_fields})


class SamplingSettings(Settings):
    """How sequences are made: the prompt is real text, the rest is sampled, by whom depends on the method."""

    prompt: int = Field(16, ge=1, description="tokens of real text that each sequence begins with")
    length: int = Field(48, ge=1, description="tokens after the prompt; they alone count in the distillation's loss")
    gamma: int = Field(5, ge=1, description="tokens that the student proposes before the teacher looks")
    top_k: int = Field(25, ge=0, description="K: a proposed token stays if it is among the teacher's K best")
    temperature: float = Field(1.0, gt=0, description="of the student's and the teacher's sampling")


class LessonSettings(Settings):
    """What the methods minimise; all go on from the same student for as many steps."""

    divergence: Literal["forward", "reverse", "jsd"] = Field(
        "forward", description="per token, of kd, onpolicy and skd: KL(t||s), KL(s||t), or Jensen and Shannon's"
    )
    easy: float = Field(0.2, ge=0, le=1, description="atkd: the weight of tokens that are easy for the teacher")
    fit: TrainSettings = TrainSettings(steps=200, learning_rate=1e-3)


class DistilSettings(LessonSettings):
    """The rows of the table, and what they minimise."""

    methods: tuple[Method, ...] = Field(
        ("sft", "kd", "atkd", "onpolicy", "skd"),
        min_length=1,
        description="sft: labels (the control); kd, atkd: the teacher on real text; onpolicy: the teacher on the "
        "student's text; skd: on text that student and teacher interleave",
    )

    @property
    def lesson(self) -> LessonSettings:
        """Without the rows."""
        return LessonSettings(divergence=self.divergence, easy=self.easy, fit=self.fit)

    @field_validator("methods")
    @classmethod
    def _methods_differ(cls, methods: tuple[Method, ...]) -> tuple[Method, ...]:
        if len(set(methods)) != len(methods):
            raise ValueError("one method stands twice; allowed: distinct methods")
        return methods


class LanguageRecipe(Settings):
    """One run on text."""

    name: str = "custom"
    description: str = ""
    demonstration: bool = Field(False, description="too short to prove anything; the table says so")
    seeds: Seeds = (0, 1, 2)

    text: TextSettings = TextSettings()
    teacher: TrainedModelSettings = TrainedModelSettings(width=160, layers=4, heads=5)
    student: TrainedModelSettings = TrainedModelSettings()
    sampling: SamplingSettings = SamplingSettings()
    distil: DistilSettings = DistilSettings()
    test_prompts: int = Field(64, ge=1, description="prompts from the test split that the students are judged on")
    runtime: RuntimeSettings = RuntimeSettings()

    @property
    def window(self) -> int:
        """Tokens of a sequence: prompt and what follows."""
        return self.sampling.prompt + self.sampling.length


def ready() -> dict[str, Path]:
    """Name -> file of every recipe for text that comes with the package."""
    return yaml_config.ready("cgankd.lm")


def load(name_or_path: str, overrides: Iterable[str] = ()) -> LanguageRecipe:
    """A ready recipe by name, or a YAML file, with ``key=value`` overrides; UserError as reading.load."""
    return yaml_config.load(LanguageRecipe, ready(), name_or_path, overrides)
