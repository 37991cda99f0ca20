"""The teacher, and further teachers that vote with it (the jury)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cgankd.config.settings.base import PathText, Settings
from cgankd.config.settings.training import FitSettings

OutputWord = Literal["auto", "logits", "probabilities", "log_probabilities", "scaled", "label_unit", "cosine_sine"]


class HttpSettings(Settings):
    """How a teacher is asked whose source is an address; not used for other teachers."""

    batch_size: int = Field(64, ge=1, description="most images in one request")
    timeout: float = Field(60.0, gt=0, description="seconds until a request counts as failed")
    tries: int = Field(6, ge=1, description="how often a request is sent before the run stops")
    wait: float = Field(
        1.0, ge=0, description="seconds before the second try; each further wait is twice as long, at most a minute"
    )
    token: str | None = Field(
        None,
        min_length=1,
        description="name of an environment variable that holds a token, which is sent as Authorization: Bearer; the "
        "token itself is never written to a file",
    )
    version: str = Field(
        "", description="any text; change it when the address has another model, and all answers are asked for again"
    )


class JurorSettings(Settings):
    """One teacher: trained here, loaded, or one that only gives predictions; each of a jury has its own seed."""

    source: PathText | None = Field(
        None,
        description="a teacher that only gives predictions: module:function, an .onnx file, or an address "
        "(http:// or https://); none: network",
    )
    http: HttpSettings = HttpSettings()
    network: str = Field("resnet8x4", description="a network of `cgankd networks`, timm/NAME, or module:function")
    weights: PathText | None = Field(None, description="a .safetensors file; then nothing is trained")
    start: PathText | None = Field(
        None,
        description="weights that training starts from: a .safetensors file, package:NAME, or timm/NAME (downloaded "
        "once); a head that is missing and layers of another shape start from random weights; none: all do",
    )

    outputs: OutputWord = Field(
        "auto",
        description="form of its outputs: logits, probabilities, log_probabilities; for scalars scaled (to [0, 1]) or "
        "label_unit; for labels that wrap cosine_sine; auto: recognised by its outputs on training images",
    )


class TeacherSettings(JurorSettings):
    """The strong network, and the jury that votes with it in the filter and in replaced labels."""

    source: PathText | None = Field(
        None,
        description="a teacher that only gives predictions, in place of a trained one: module:function, an .onnx "
        "file, an address (http:// or https://), or a .csv file of predictions; none: network",
    )
    trained_on: Literal["train", "pool"] = Field(
        "train", description="train: the labelled images; pool: all images of the training split"
    )
    fit: FitSettings = FitSettings()
    jury: tuple[JurorSettings, ...] = Field(
        (), description="more teachers; the filter uses the mean of all errors, replaced labels that of all predictions"
    )
    votes: Literal["first", "mean", "confidence"] = Field(
        "first",
        description="several teachers (jury): distillation matches the outputs of the first, the mean of all, or a "
        "mean weighted by each teacher's confidence in the image, which then weights errors and replaced labels too",
    )

    def knows_more(self, pool_has_more: bool) -> bool:
        """Whether a teacher that students learn from has learnt from more than the student's labelled images.

        pool_has_more: whether the pool has more images than those.
        """
        taught = self.all()[:1] if self.votes == "first" else self.all()
        return (self.trained_on == "pool" and pool_has_more) or any(j.source or j.weights or j.start for _, j in taught)

    def all(self) -> list[tuple[str, JurorSettings]]:
        """This teacher and its jury, each with the name of its setting."""
        return [("teacher", self), *((f"teacher.jury.{place}", juror) for place, juror in enumerate(self.jury))]
