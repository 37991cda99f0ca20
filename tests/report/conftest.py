"""Writes the folder of a run as the pipeline leaves it, with made-up but plausible numbers and blobs for images."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from cgankd.tasks import Classification, Regression

T_975 = {2: 12.706, 3: 4.303}  # Student's t by number of seeds


def blobs(labels: np.ndarray, rng: np.random.Generator, side: int, channels: int, noise: float) -> np.ndarray:
    """Bars turned by their label (in turns of pi), uint8 [n, C, side, side]."""
    axis = np.linspace(-1, 1, side)
    x, y = np.meshgrid(axis, axis)
    angle = (labels + rng.normal(0, 0.02 + noise / 10, len(labels)))[:, None, None] * np.pi
    across = x * np.sin(angle) - y * np.cos(angle)
    along = x * np.cos(angle) + y * np.sin(angle)
    image = np.exp(-((across / 0.18) ** 2) - (along / 0.8) ** 4) + rng.normal(0, noise, (len(labels), side, side))
    tint = rng.uniform(0.5, 1.0, (len(labels), channels, 1, 1))
    return (np.clip(image[:, None] * tint, 0, 1) * 255).astype(np.uint8)


def results_of(
    task: str, seeds: int = 3, gain: float = 0.8, ablation: bool = False, bare: bool = False, **changes: Any
) -> dict[str, Any]:
    """A results.json.

    gain: how much better cGAN-KD is than the control, in the metric's unit. bare: without times, and scores per bin of
    rows, for pages of which a test wants other sections: each figure takes a tenth of a second.
    """
    scalar = task == "regression"
    made = Regression(0.0, 180.0, "degrees") if scalar else Classification(tuple(f"digit {c}" for c in range(10)))
    names = [f"{18 * k} to {18 * k + 18}" for k in range(10)] if scalar else list(made.class_names)
    sign, base = (-1, 6.0) if scalar else (1, 84.9)
    rng = np.random.default_rng(5)
    shift = {"nokd": -0.9, "nokd_longer": 0.0, "kd": 0.3, "cgan": gain, "cgan_kd": gain + 0.3}
    if ablation:
        shift |= {"cgan_raw": -1.5, "cgan_subsample": 0.2, "cgan_filter": 0.5, "cgan_replace": 0.6}
    control = base + rng.normal(0, 0.1, seeds)
    rows = []
    for method, better in shift.items():
        values = control if better == 0 else control + sign * better + rng.normal(0, 0.08, seeds)
        change = values - control
        half = T_975[seeds] * change.std(ddof=1) / math.sqrt(seeds) if seeds > 1 else None
        mean = float(change.mean())
        difference = {"to": "nokd_longer", "values": change.tolist(), "mean": mean}
        difference |= {"low": None, "high": None} if half is None else {"low": mean - half, "high": mean + half}
        rows.append({
            "method": method, "network": "resnet8", "parameters": 78042,
            "steps": 2000 if method == "nokd" else 4000, "real_images": 7000,
            "fake_images": 50000 if method.startswith("cgan") else 0,
            "values": values.tolist(), "mean": float(values.mean()),
            "std": float(values.std(ddof=1)) if seeds > 1 else None,
            "difference": None if method == "nokd_longer" else difference,
            "per_bin": (values.mean() + rng.normal(0, 0.2 * base**0.5, len(names))).tolist(),
        })  # fmt: skip
    timed = {
        "latency_ms": {"resnet8": 0.81, "resnet8x4": 4.2},
        "seconds": {"data": 2.1, "teacher": 310.0, "generator": 1450.0, "ratio": 20.0, "synthesis": 95.0,
                    "students": 2100.0, "evaluate": 12.0},
    }  # fmt: skip
    if bare:
        timed = {}
        for row in rows:
            del row["per_bin"]
    return {
        "cgankd": "0.1.0", "recipe": "bars", "description": "Bars turned by their label.", "demonstration": False,
        "task": task, "task_settings": made.to_json(), "metric": made.metric, "unit": made.metric_unit,
        "higher_is_better": made.higher_is_better, "dataset": "bars", "seeds": list(range(seeds)),
        "vary": "student", "control": "nokd_longer", "rows": rows, "bins": names,
        "teacher": {"network": "resnet8x4", "parameters": 1233540, "trained_on": "train", "images": 7000,
                    "test": base + sign * 3, "val": base + sign * 3.2, "values": [base + sign * 3],
                    "per_bin": [base + sign * 3.0] * len(names)},
        "generator": {"parameters": 2000000, "teacher_metric_on_fakes": base - sign * 4},
        "ratio": {"mean_on_fakes": 1.02, "mean_on_real": 1.41},
        **timed, "warnings": [], "notes": [], "artifacts": {}, **changes,
    }  # fmt: skip


def artifact(run: Path, name: str, summary: dict[str, Any], **tensors: dict[str, np.ndarray]) -> str:
    """Write one stage's folder; returns its path in the run."""
    folder = run / "artifacts" / name
    folder.mkdir(parents=True)
    content = {"stage": name.split("-")[0], "key": "0" * 8, "seconds": 1.0, "summary": summary}
    (folder / "artifact.json").write_text(json.dumps(content))
    for file, values in tensors.items():
        save_file({key: np.ascontiguousarray(value) for key, value in values.items()}, folder / f"{file}.safetensors")
    return f"artifacts/{name}"


def write(run: Path, results: dict[str, Any], stages: bool = True, side: int = 32) -> Path:
    """Write a run's folder; without ``stages`` only results.json."""
    run.mkdir(parents=True, exist_ok=True)
    if stages:
        _stages(run, results, side)
        (run / "recipe.yaml").write_text("name: bars\nseeds: [0, 1, 2]\ndata:\n  source: bars\n")
    (run / "results.json").write_text(json.dumps(results))
    return run


def _stages(run: Path, results: dict[str, Any], side: int) -> None:
    rng = np.random.default_rng(7)
    scalar, names = results["task"] == "regression", results["bins"]
    bins = len(names)
    span = 180.0 if scalar else 1.0
    channels = 3 if scalar else 1

    def drawn(n: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        place = np.arange(n) % bins
        unit = (place + (rng.uniform(0, 1, n) if scalar else 0.0)) / bins
        labels = (unit * span).astype(np.float32) if scalar else place.astype(np.int64)
        return blobs(unit, rng, side, channels, noise), labels, place.astype(np.int64)

    def preview(noise: float) -> dict[str, np.ndarray]:
        return dict(zip(("images", "labels", "bin"), drawn(8 * bins, noise), strict=True))

    def fitted(final: float) -> dict[str, Any]:
        def val(step: int) -> float | None:
            early = -1.5 if scalar else 0.3
            return None if step % 400 else final * (1 - early * math.exp(-step / 700))

        history = [
            {"step": s, "loss": 2 * math.exp(-s / 900) + 0.05 + 0.02 * float(rng.random()), "val": val(s)}
            for s in range(100, 4001, 100)
        ]
        return {"network": "resnet8", "parameters": 78042, "val": final, "test": final, "history": history}

    share = [(900 + 40 * k) for k in range(bins)]
    counts = {"train": 7000, "pool": 54000, "val": 700, "test": 10000}
    shares = {split: share[::-1] if split == "test" else share for split in counts}
    histogram = {split: [round(v * n / sum(share)) for v in shares[split]] for split, n in counts.items()}
    paths: dict[str, Any] = results["artifacts"]
    described = {
        "name": "bars", "counts": counts, "channels": channels, "size": [side, side], "bins": names,
        "notes": ["3 images were not square and were cropped."], "histogram": histogram,
    }  # fmt: skip
    paths["data"] = artifact(run, "data-0", described, preview=preview(0.03))
    paths["teacher"] = artifact(run, "teacher-0", fitted(results["teacher"]["test"]))
    middle = {"generator_loss": 0.3, "discriminator_loss": 1.6, "real_logit": 0.5, "fake_logit": -0.4}
    gan = [
        {"step": s, **{key: value + 0.15 * float(rng.normal()) for key, value in middle.items()}}
        for s in range(50, 3001, 50)
    ]
    paths["generator"] = artifact(run, "generator-0", {"history": gan}, preview=preview(0.15))
    ratio = [{"step": s, "loss": -0.4 - 0.3 * (1 - math.exp(-s / 400))} for s in range(20, 2001, 20)]
    paths["ratio"] = artifact(run, "ratio-0", {"history": ratio, **results["ratio"]})
    results["synthesis"] = {
        "requested": 50000, "generated": 140000, "kept": 50000, "acceptance": 0.41,
        "replace": "hard" if scalar else "none", "filter_quantile": 0.7 if scalar else 0.9,
        "thresholds": [0.031] if scalar else rng.uniform(0.2, 2.0, bins).tolist(),
        "per_label": [{"label": n, "requested": 5000, "generated": 14000, "accepted": 4000 + 500 * k, "kept": 5000}
                      for k, n in enumerate(names)],
        "effective_sample_size": 0.6}  # fmt: skip
    samples: dict[str, np.ndarray] = {}
    for kind, n, noise in (("kept", 300, 0.1), ("dropped", 80, 0.3), ("rejected", 60, 0.4)):
        samples[f"{kind}_images"], labels, _ = drawn(n, noise)
        samples[f"{kind}_labels"] = labels
        if kind == "rejected":
            samples["rejected_ratios"] = rng.exponential(0.3, n).astype(np.float32)
            continue
        wrong = rng.normal(0, 2 if kind == "kept" else 18, n)
        moved = np.clip(labels + wrong, 0, 180) if scalar else (labels + (kind == "dropped")) % bins
        samples[f"{kind}_predictions"] = moved.astype(labels.dtype)
        samples[f"{kind}_errors"] = np.abs(wrong).astype(np.float32) / (180 if scalar else 10)
    errors = np.abs(rng.normal(0, 0.03, 5000)) if scalar else np.exp(rng.normal(-3, 2, 5000))
    samples["calibration_errors"] = errors.astype(np.float32)
    paths["synthesis"] = {"cgan": artifact(run, "synthesis-0", results["synthesis"], samples=samples)}
    paths["students"] = {}
    for row in results["rows"]:
        if row["method"] == "cgan_raw":
            raw = {"requested": 50000, "generated": 50000, "kept": 50000, "acceptance": 1.0}
            paths["synthesis"]["cgan_raw"] = artifact(run, "synthesis-1", raw)
        paths["students"][row["method"]] = [
            artifact(run, f"student-{row['method']}-{seed}", fitted(value)) for seed, value in enumerate(row["values"])
        ]


@pytest.fixture(scope="session")
def make_results() -> Callable[..., dict[str, Any]]:
    """:func:`results_of`, for tests."""
    return results_of


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """:func:`write`, for tests."""
    return write


@pytest.fixture(scope="session")
def write_artifact() -> Callable[..., str]:
    """:func:`artifact`, for tests."""
    return artifact
