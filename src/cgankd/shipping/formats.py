"""The files that a student leaves as, which say what they are: ONNX (also 8-bit weights), torch.export, safetensors."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cgankd.core import extras
from cgankd.core.errors import UserError, said
from cgankd.core.files import STUDENT_FILES, replacing, save_tensors
from cgankd.core.mapped_rows import Images
from cgankd.core.paths import check_there
from cgankd.core.plugins import open_onnx
from cgankd.shipping.deployed import INPUT, Deployed, InputKind, description, example
from cgankd.shipping.finished import Student

DESCRIPTION = "cgankd"  # the key of the description among an ONNX file's metadata
OPSET = 17
BATCH = 64


def write_onnx(student: Student, path: Path, kind: InputKind) -> None:
    """An ONNX file with its description in the metadata; the batch is free."""
    onnx = _library("onnx")
    deployed = Deployed(student.network, student.task, kind).cpu()
    name = student.task.deployed_name
    with replacing(path) as temporary, _quiet(), _exporting(student, "onnx"):
        torch.onnx.export(
            deployed,
            (example(student, kind),),
            str(temporary),
            input_names=[INPUT],
            output_names=[name],
            dynamic_axes={INPUT: {0: "batch"}, name: {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnx.load(str(temporary))
        _describe(onnx, model, description(student, kind))
        onnx.save(model, str(temporary))


def write_torch_export(student: Student, path: Path, kind: InputKind) -> None:
    """A program of torch.export (.pt2), opened with torch alone: ``torch.export.load(path).module()(images)``."""
    deployed = Deployed(student.network, student.task, kind).cpu()
    batch = torch.export.Dim("batch", min=1)
    with replacing(path) as temporary, _quiet(), _exporting(student, "torch-export"):
        program = torch.export.export(deployed, (example(student, kind),), dynamic_shapes={"images": {0: batch}})
        renamed = temporary.with_suffix(".pt2")  # torch.export refuses other suffixes
        torch.export.save(program, renamed, extra_files={"cgankd.json": json.dumps(description(student, kind))})
        renamed.replace(temporary)


def write_safetensors(student: Student, path: Path, kind: InputKind) -> None:
    """The weights alone, with the description in the metadata; the network is made by the program that opens it."""
    metadata = {DESCRIPTION: json.dumps(description(student, kind))}
    save_tensors(path, student.network.state_dict(), metadata)


def write_int8(student: Student, source: Path, path: Path, images: Images) -> None:
    """The ONNX file ``source`` with 8-bit weights and activations, calibrated on ``images`` (uint8 [N, C, H, W]).

    By onnxruntime's static quantiser, a scale for each channel of a weight.
    """
    onnx = _library("onnx")
    quantization = _library("onnxruntime.quantization")
    _library("onnxruntime.quantization.shape_inference")  # which it imports only when it is used
    kind = _kind(open_onnx(source, "--int8"))

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            self.blocks = iter(images.split(BATCH))

        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            block = next(self.blocks, None)
            return None if block is None else {INPUT: _as_input(block, kind)}

    with replacing(path) as temporary, tempfile.TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        quantization.shape_inference.quant_pre_process(str(source), str(prepared))
        quantization.quantize_static(
            str(prepared),
            str(temporary),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        model = onnx.load(str(temporary))
        _describe(onnx, model, {**description(student, kind), "weights": "int8"})
        onnx.save(model, str(temporary))


class OnnxStudent:
    """An ONNX file that cgankd wrote, opened with onnxruntime."""

    def __init__(self, path: Path) -> None:
        """Raises UserError for any other file."""
        if not path.is_file():
            check_there(path, "an .onnx file of cgankd export")
        self.session = open_onnx(path, "student")
        text = self.session.get_modelmeta().custom_metadata_map.get(DESCRIPTION)
        if text is None:
            raise UserError(f"{path} does not say what its outputs mean; needed: a file that cgankd export wrote")
        self.description: dict[str, Any] = json.loads(text)
        self.kind = _kind(self.session)

    def __call__(self, images: Images) -> Tensor:
        """uint8 images [N, C, H, W] -> the deployed output, [N, classes] or [N]."""
        parts = [self.session.run(None, {INPUT: _as_input(block, self.kind)})[0] for block in images.split(BATCH)]
        return torch.from_numpy(np.concatenate(parts))


def _kind(session: Any) -> InputKind:
    return "uint8" if session.get_inputs()[0].type == "tensor(uint8)" else "float32"


def _as_input(images: Tensor, kind: InputKind) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = images.contiguous().numpy()
    return values if kind == "uint8" else values.astype(np.float32) / np.float32(255.0)


def _describe(onnx: ModuleType, model: Any, facts: Mapping[str, Any]) -> None:
    for number in reversed(range(len(model.metadata_props))):
        if model.metadata_props[number].key == DESCRIPTION:
            del model.metadata_props[number]
    entry = model.metadata_props.add()
    entry.key, entry.value = DESCRIPTION, json.dumps(facts, ensure_ascii=False)
    model.producer_name = "cgankd"
    onnx.checker.check_model(model)


def _library(name: str) -> Any:
    return extras.opened(name, "an ONNX file", "export")


@contextlib.contextmanager
def _exporting(student: Student, to: str) -> Iterator[None]:
    """Turns whatever an exporter raises about a network into a UserError."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:  # each exporter has its own kinds of errors
        others = ", ".join(name for name in STUDENT_FILES if name != to)
        raise UserError(
            f"{student.facts['network']} can't be written as {to} ({said(error)}); allowed: --to {others}"
        ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A block without the exporters' own warnings, which tell nothing that a user could act on."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


WRITERS = {"onnx": write_onnx, "torch-export": write_torch_export, "safetensors": write_safetensors}
