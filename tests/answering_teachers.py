"""What these tests ask: a linear map of the pixels, as a function and as an ONNX file; and a tiny recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cgankd.config import recipe
from cgankd.config.recipe import Recipe

MODULE = """
import torch

def linear(images):
    if images.dtype != torch.float32 or images.min() < 0 or images.max() > 1:
        raise TypeError("float32 images in [0, 1] were promised")
    return images.flatten(1) @ torch.from_numpy(WEIGHT) + 0.5

def array(images):
    return linear(images).numpy()

def narrow(images):
    return linear(images)[:, :0]

def flat(images):
    return linear(images)[:, 0]

def broken(images):
    raise RuntimeError("out of ink")

def probable(images):
    return linear(images).softmax(1)

def endless(images):
    return linear(images) / 0.0
"""


def weight(outputs: int, pixels: int = 256) -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).normal(0.0, 1.0, (pixels, outputs)).astype(np.float32) * (
        1.0 if outputs > 1 else 0.02
    )


def write_module(folder: Path, name: str, outputs: int) -> None:
    """``folder``/NAME.py with the functions above, of so many outputs."""
    np.save(folder / f"{name}.npy", weight(outputs))
    head = f"import numpy\nWEIGHT = numpy.load({str(folder / name)!r} + '.npy')\n"
    (folder / f"{name}.py").write_text(head + MODULE)


def onnx_file(path: Path, outputs: int, batch: Any = "B", rank: int = 4) -> None:
    """The same linear map of [B, 1, 16, 16]."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("Add", ["product", "half"], ["logits"]),
    ]
    shape = [batch, 1, 16, 16] if rank == 4 else [batch, 256]
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("pixels", kinds.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", kinds.FLOAT, [batch, outputs])],
        [onnx.numpy_helper.from_array(value, name) for name, value in
         (("w", weight(outputs)), ("half", np.asarray(np.float32(0.5))))],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


TINY = {
    "seeds": [0], "demonstration": True, "data": {"source": "digits", "train_size": 60, "val_size": 10},
    "teacher": {"network": "cnn8", "fit": {"steps": 4, "batch_size": 16}},
    "student": {"network": "cnn8", "fit": {"steps": 3, "batch_size": 16}, "transfer_steps": 3},
    "generator": {"channels": 8, "latent": 8, "label_dim": 8, "steps": 4, "batch_size": 16, "ema_start": 2,
                  "scalar": {"label_input": {"steps": 3}}},
    "ratio": {"hidden": [32], "steps": 4, "batch_size": 32, "fakes_per_image": 1},
    "synthesis": {"images": 40, "filter": {"calibration": 20}, "subsampling": {"burn_in": 20}, "max_draws": 4,
                  "labels": {"count": 20}},
    "metrics": {"generator": {"images": 50}},
    "compare": {"methods": ["nokd_longer", "cgan"]}, "runtime": {"threads": 1, "precision": "fp32"},
}  # fmt: skip


def tiny(*overrides: str) -> Recipe:
    return recipe.from_tree(json.loads(json.dumps(TINY)), overrides)


def stages(out: Path, name: str) -> list[Path]:
    """The folders of a stage's artifacts."""
    return sorted((out / "artifacts").glob(f"{name}-*"))
