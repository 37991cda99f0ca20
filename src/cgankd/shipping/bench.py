"""What a student costs where it runs: size, arithmetic, latency, memory."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from cgankd.core.profiling import peak_memory
from cgankd.core.runtime import OneDevice
from cgankd.metrics.cost import fastest_ms, parameters
from cgankd.shipping.deployed import INPUT, Deployed, example
from cgankd.shipping.export import stem
from cgankd.shipping.finished import FinishedRun, Student, refuse_choice
from cgankd.shipping.formats import OnnxStudent

BATCHES = (1, 32)


def bench(model: Path, row: str | None = None, seed: int | None = None) -> dict[str, Any]:
    """Of a run's student, or of an exported file, which holds one student. UserError where that is chosen by row."""
    if model.is_dir():
        return bench_run(model, row, seed)
    refuse_choice(model, row, seed)
    return {model.name: bench_onnx(model)}


def bench_run(folder: Path, row: str | None = None, seed: int | None = None) -> dict[str, Any]:
    """Of the PyTorch student on this processor; and of its ONNX file, where the folder has it."""
    run = FinishedRun.open(folder)
    student = run.student(OneDevice(), row, seed)
    module = Deployed(student.network, student.task, "float32")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(example(student, "float32", 1))
    facts: dict[str, Any] = {
        "student": dict(student.facts),
        "threads": torch.get_num_threads(),
        "parameters": parameters(student.network),
        "megaflops": counter.get_total_flops() / 1e6,  # two for each multiplication and addition
        "pytorch": {},
    }
    for size in BATCHES:
        images = example(student, "float32", size)
        with torch.no_grad():
            facts["pytorch"][f"batch {size}, ms"] = fastest_ms(functools.partial(module, images))
    if (file := folder / f"{stem(run, student, seed)}.onnx").is_file() and _is_of(student, OnnxStudent(file)):
        facts[file.name] = bench_onnx(file)
    if peak := peak_memory():
        facts["peak memory of this process, MB"] = peak / 1e6
    return facts


def _is_of(student: Student, exported: OnnxStudent) -> bool:
    """False for a file of an earlier run in this folder, with other settings."""
    about, names = exported.description, ("row", "seed", "network", "weights", "labelled")
    same = all(about["student"].get(name) == student.facts.get(name) for name in names)
    return same and about["input"]["plan"] == student.plan._asdict()


def bench_onnx(path: Path) -> dict[str, Any]:
    """Of an exported file by onnxruntime."""
    student = OnnxStudent(path)
    shape = student.description["input"]["shape"][1:]
    facts: dict[str, Any] = {"file, kB": path.stat().st_size / 1e3}
    for size in BATCHES:
        images = np.zeros((size, *shape), student.kind)
        facts[f"batch {size}, ms"] = fastest_ms(functools.partial(student.session.run, None, {INPUT: images}))
    return facts
