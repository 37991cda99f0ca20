"""The teacher, and those that vote beside it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cgankd.config.settings.base import PathText, Settings
from cgankd.config.settings.training import FitSettings

OutputWord = Literal["auto", "logits", "probabilities", "log_probabilities", "scaled", "label_unit"]


class JurorSettings(Settings):
    """One teacher, trained here or loaded, or what only answers in its place; one of a jury, by its own seed."""

    source: PathText | None = Field(
        None, description="what only answers in a network's place: module:function or an .onnx file; none: network"
    )
    network: str = "resnet8x4"
    weights: PathText | None = Field(None, description="a .safetensors file; then nothing is trained")
    start: PathText | None = Field(
        None,
        description="weights that training starts from: a .safetensors file or package:NAME; layers whose shapes "
        "differ, as the head's may, and a head that is not there start anew; none: random",
    )

    outputs: OutputWord = Field(
        "auto",
        description="what it gives: logits, probabilities, log_probabilities; a scalar scaled to [0, 1], or in its "
        "label_unit; auto: told by its outputs on training images",
    )


class TeacherSettings(JurorSettings):
    """The strong network, and those that vote beside it in the filter and in replaced labels."""

    source: PathText | None = Field(
        None,
        description="what stands in the trained teacher's place and only answers: module:function, an .onnx "
        "file, or a .csv file of predictions; none: network",
    )
    trained_on: Literal["train", "pool"] = Field(
        "train", description="train: the owner's labelled images; pool: all of the training split"
    )
    fit: FitSettings = FitSettings()
    jury: tuple[JurorSettings, ...] = Field(
        (), description="more teachers; the filter takes the mean of all errors, labels that of all votes"
    )
    votes: Literal["first", "mean", "confidence"] = Field(
        "first",
        description="several teachers (jury): whose outputs distillation matches; the mean of all, or one weighted "
        "for each image by how sure each teacher is (confidence), as then are errors and replaced labels too",
    )

    def all(self) -> list[tuple[str, JurorSettings]]:
        """This one and its jurors, each with the setting that it stands under."""
        return [("teacher", self), *((f"teacher.jury.{place}", one) for place, one in enumerate(self.jury))]
