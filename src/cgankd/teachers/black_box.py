"""Black-box teachers, of which only outputs are known: a user's function, an ONNX file, or stored predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgankd.core.errors import UserError
from cgankd.core.hashing import content_key
from cgankd.core.mapped_rows import Images
from cgankd.core.plugins import code_key, onnx_key, open_onnx, tried
from cgankd.core.runtime import Fabric
from cgankd.tasks import Task
from cgankd.tasks.outputs import OutputKind, why

SETTING = "teacher.source"


class BlackBox(ABC):
    """Float images [B, C, H, W] in [0, 1] -> outputs float32 [B, number of outputs], without features or gradients.

    Outputs are logits, or a scalar mapped to [0, 1] by the task's label range; ``gives`` converts outputs of another
    kind to these, which may be float64, because a label such as 1700000020 in its own unit is no float32.
    content_key depends on everything that the outputs depend on.
    """

    gives: OutputKind | None = None
    note = ""  # for the user: what is suspect about its outputs, and that they are converted
    own_key: str  # the content key without ``gives``

    @property
    def content_key(self) -> str:
        return self.own_key if self.gives is None else content_key(self.own_key, self.gives.content_key)

    def __call__(self, images: Tensor) -> Tensor:
        """The outputs, on the images' device. Raises UserError if their shape is wrong."""
        outputs = self.raw_outputs(images)
        return (outputs.float() if self.gives is None else self.gives(outputs)).to(images.device)

    def open(self, fabric: Fabric) -> BlackBox:
        """Returns itself; the interface is that of :class:`cgankd.nets.build.NetworkSource`."""
        return self

    @abstractmethod
    def raw_outputs(self, images: Tensor) -> Tensor:
        """The outputs before conversion by ``gives``, as precise as they come, on any device. Raises UserError if their
        shape is wrong."""

    def knows(self, images: Images) -> bool:
        """Whether it has outputs for all images, uint8 [N, C, H, W]."""
        return True


class FunctionTeacher(BlackBox):
    """``function(images) -> outputs``, both tensors, as in :class:`BlackBox`; it runs without gradients.

    It gets a copy of the images, so that it may change them.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], task: Task, name: str, setting: str = SETTING) -> None:
        self.function, self.width, self.name = function, task.num_outputs, f"{setting} {name}"
        self.own_key = code_key(name)

    @torch.no_grad()
    def raw_outputs(self, images: Tensor) -> Tensor:
        with _calling(self.name, images, self.width):
            return checked(self.function(images.clone()), len(images), self.width, self.name)


class OnnxTeacher(BlackBox):
    """An ONNX file with one input, float32 [B, C, H, W] in [0, 1], with a dynamic B. Its first output is used.

    It runs on the CPU. Raises UserError for any other file.
    """

    def __init__(self, path: Path, task: Task, setting: str = SETTING) -> None:
        self.session = open_onnx(path, setting)
        self.width, self.name, self.own_key = task.num_outputs, f"{setting} {path}", onnx_key(path)
        inputs = self.session.get_inputs()
        fits = len(inputs) == 1 and inputs[0].type == "tensor(float)" and len(inputs[0].shape) == 4
        if not fits or isinstance(inputs[0].shape[0], int):
            signature = ", ".join(f"{node.name} {node.type} {node.shape}" for node in inputs)
            raise UserError(
                f"{self.name}: has inputs {signature}; needed: one input tensor(float) ['B', C, H, W] with a dynamic B"
            )
        self.input, self.shape = inputs[0].name, inputs[0].shape[1:]

    def check_images(self, channels: int, size: tuple[int, int]) -> None:
        """UserError where the file takes images of another shape."""
        ours = (channels, *size)
        if any(isinstance(theirs, int) and theirs != own for theirs, own in zip(self.shape, ours, strict=True)):
            raise UserError(
                f"{self.name}: takes images {list(self.shape)}, but those of the data are {list(ours)} (channels, "
                "height, width); needed: another file, or data.channels and data.size"
            )

    def raw_outputs(self, images: Tensor) -> Tensor:
        pixels = images.detach().float().contiguous().cpu().numpy()
        with _calling(self.name, images, self.width):
            outputs = self.session.run(None, {self.input: pixels})[0]
            return checked(torch.from_numpy(outputs), len(images), self.width, self.name)


def _calling(name: str, images: Tensor, width: int) -> AbstractContextManager[None]:
    """What the user's function or file raises becomes a UserError, in the trial and in every later call."""
    shape = ", ".join(map(str, images.shape[1:]))
    return tried(
        f"{name}: calling it on {len(images)} images failed",
        f"it gets float images [B, {shape}] in [0, 1], for any B, and must return [B, {width}]",
    )


def checked(outputs: Any, images: int, width: int, name: str) -> Tensor:
    """The outputs as float32, or as float64 where they are.

    UserError, beginning with ``name``, if they are not finite numbers [images, width], or [images] where width is 1.
    """
    if not isinstance(outputs, Tensor):
        raise UserError(f"{name}: gives {type(outputs).__name__}; needed: a tensor [{images}, {width}]")
    if width == 1 and tuple(outputs.shape) == (images,):  # as the exported student of an earlier run gives scalars
        outputs = outputs[:, None]
    if tuple(outputs.shape) != (images, width):
        raise UserError(
            f"{name}: gives outputs {list(outputs.shape)} for {images} images; needed: [{images}, {width}], "
            f"{why(width)}"
        )
    outputs = outputs.detach()  # it may have enabled gradients itself
    outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
    if not torch.isfinite(outputs.float()).all():
        raise UserError(f"{name}: gives outputs that are not finite; finite numbers are needed")
    return outputs
