"""Draw the pictures of docs/method.md into docs/images/.

    cgankd run digits --out runs/digits
    python tools/draw_method.py runs/digits

The road is a diagram; the vicinity is computed from the labels of the recipe rotated-fashion; density ratio and filter
show images of the finished run of the recipe digits, so their numbers are those of a demonstration.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from safetensors.numpy import load_file

from cgankd.config import recipe
from cgankd.config.settings import HardVicinity, PaperWidth, SoftVicinity
from cgankd.data import sources
from cgankd.labels.vicinity import Vicinity
from cgankd.report.figures import LIGHT, dress

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
WIDTH = 9.0  # inches


def main(run: Path) -> None:
    """Draw all four pictures."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    save(draw_road(), "method-road.png")
    save(draw_ratio(run, results), "method-density-ratio.png")
    save(draw_filter(run, results), "method-filter.png")
    save(draw_vicinity(), "method-vicinity.png")


def save(figure: Figure, name: str) -> None:
    """Write one picture."""
    figure.savefig(IMAGES / name, dpi=140, facecolor="white")
    print(IMAGES / name)


def draw_road() -> Figure:
    """The stations of a run, from labelled images to the student."""
    figure = Figure(figsize=(WIDTH, 4.4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 100), ylim=(0, 50))
    axes.axis("off")
    boxes = {
        "real": (2, 18, 15, 8, "labelled images\nx, y", "muted"),
        "teacher": (24, 32, 15, 8, "teacher\np(y | x)", "orange"),
        "gan": (24, 18, 15, 8, "conditional GAN\nG(z, y)", "blue"),
        "ratio": (46, 32, 17, 8, "density ratio\nh = p_real / p_fake", "green"),
        "m1": (46, 18, 17, 8, "M1: subsampling\nkeep with h / M", "green"),
        "m2": (70, 18, 14, 8, "M2: filter,\nreplace labels", "orange"),
        "student": (84, 3, 14, 8, "student", "red"),
    }
    for x, y, width, height, text, colour in boxes.values():
        style = "round,pad=0.3,rounding_size=1.5"
        axes.add_patch(FancyBboxPatch((x, y), width, height, style, fc="white", ec=LIGHT[colour], lw=2))
        axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=10.5, color=LIGHT["ink"])
    arrows = (
        ((17.6, 22), (23.4, 22), ""), ((11, 26.6), (23.4, 36), ""), ((39.6, 22), (45.4, 22), "fakes"),
        ((39.6, 36), (45.4, 36), "features"), ((54.5, 31.4), (54.5, 26.6), ""), ((63.6, 22), (69.4, 22), "kept"),
        ((83.5, 20), (91, 11.6), ""),
    )  # fmt: skip
    for start, end, text in arrows:
        arrow(axes, start, end, text)
    arrow(axes, (36, 40.6), (77, 26.6), "errors, predictions", "arc3,rad=-0.5", (69, 43))
    arrow(axes, (9, 17.4), (83.4, 6), "the labelled images themselves", place=(42, 10.5))
    axes.text(92, 16, "generated images", ha="center", fontsize=8.5, color=LIGHT["muted"])
    return figure


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str, bend: str = "arc3",
    place: tuple[float, float] | None = None,
) -> None:  # fmt: skip
    """An arrow with a text above its middle, or at ``place``."""
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=LIGHT["muted"], connectionstyle=bend)
    )
    x, y = place or ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 1.2)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    axes.text(x, y, text, ha="center", fontsize=8.5, color=LIGHT["muted"], bbox=box if text else None)


def draw_ratio(run: Path, results: dict[str, object]) -> Figure:
    """How often fakes have which density ratio, and images with a low and with a high one."""
    artifacts = results["artifacts"]
    burn_in = load_file(next((run / "artifacts").glob("burn_in-*")) / "ratios.safetensors")
    samples = load_file(run / artifacts["synthesis"]["cgan"] / "samples.safetensors")
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    left, right = figure.add_gridspec(1, 2, width_ratios=(1.15, 1))
    axes = figure.add_subplot(left)
    dress(axes, "density ratio h of a generated image", "images", grid="y")
    axes.hist(burn_in["ratio"], bins=40, color=LIGHT["sky"])
    axes.axvline(1, color=LIGHT["ink"], lw=1.2, ls="--", label="1: as likely real as generated")
    axes.axvline(burn_in["ratio"].max(), color=LIGHT["red"], lw=1.6, label="M: such an image is always kept")
    axes.legend(frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(0, 1))
    sets = [name for name in ("kept", "dropped", "rejected") if f"{name}_images" in samples]
    images = np.concatenate([samples[f"{name}_images"] for name in sets])
    ratios = np.concatenate([samples[f"{name}_ratios"] for name in sets])
    order = np.argsort(ratios)
    rows = (("lowest h: mostly left out", order[:16]), ("highest h: nearly always kept", order[::-1][:16]))
    for place, (title, chosen) in zip(right.subgridspec(2, 1), rows, strict=True):
        tiles(figure, place, images[chosen], [f"{value:.1f}" for value in ratios[chosen]], title, columns=8)
    return figure


def draw_filter(run: Path, results: dict[str, object]) -> Figure:
    """The teacher's error of one class with its cut-off, and images that were kept and dropped."""
    artifacts, names = results["artifacts"], results["bins"]
    errors = load_file(next((run / "artifacts").glob("calibrate_filter-*")) / "errors.safetensors")
    samples = load_file(run / artifacts["synthesis"]["cgan"] / "samples.safetensors")
    label = int(np.bincount(samples["dropped_labels"]).argmax())  # the class with the most examples
    values = np.clip(errors["error"][errors["group"] == label], 1e-4, None)
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    left, right = figure.add_gridspec(1, 2, width_ratios=(1.15, 1))
    axes = figure.add_subplot(left)
    dress(axes, f"the teacher's error on fakes of label {names[label]}: cross-entropy, nats", "images", grid="y")
    cut = np.quantile(values, results["synthesis"]["filter_quantile"])
    axes.hist(values, bins=np.geomspace(values.min(), values.max(), 40).tolist(), color=LIGHT["sky"])
    axes.axvline(
        cut, color=LIGHT["red"], lw=1.6, label=f"cut-off: quantile rho = {results['synthesis']['filter_quantile']}"
    )
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(0, 1))
    for place, name in zip(right.subgridspec(2, 1), ("kept", "dropped"), strict=True):
        chosen = np.arange(min(16, len(samples[f"{name}_images"])))
        asked, seen = samples[f"{name}_labels"][chosen], samples[f"{name}_predictions"][chosen]
        seen = seen.argmax(axis=-1) if seen.ndim > 1 else seen.astype(int)
        texts = [f"{names[a]}→{names[s]}" for a, s in zip(asked, seen, strict=True)]
        tiles(
            figure, place, samples[f"{name}_images"][chosen], texts, f"{name}: label asked for → predicted", columns=8
        )
    return figure


def tiles(figure: Figure, place: object, images: np.ndarray, texts: list[str], title: str, columns: int) -> None:
    """Small grey images in a grid, each with a text below; the title above all."""
    side, gap = images.shape[-1], images.shape[-1] // 2
    rows = -(-len(images) // columns)
    sheet = np.full((rows * (side + gap), columns * (side + 2)), 255, np.uint8)
    axes = figure.add_subplot(place)
    for number, (image, text) in enumerate(zip(images, texts, strict=True)):
        y, x = (number // columns) * (side + gap), (number % columns) * (side + 2)
        sheet[y : y + side, x : x + side] = image[0]
        axes.text(x + side / 2, y + side + gap / 2 - 1, text, ha="center", va="center", fontsize=7)
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    axes.axis("off")
    axes.set_title(title, fontsize=9, loc="left", color=LIGHT["ink"])


def draw_vicinity() -> Figure:
    """Which of the 400 labelled angles of rotated-fashion count as near a target, by each rule."""
    data = recipe.load("rotated-fashion").data
    splits = sources.load(data)
    low, high = float(splits.train.labels.min()), float(splits.train.labels.max())
    labels = (splits.train.labels.float() - low) / (high - low)
    targets = torch.tensor([0.03, 0.4, 0.75])
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.add_subplot()
    dress(axes, f"angle, degrees ({len(labels)} labelled images)", "weight of an image", grid="y")
    position = torch.linspace(0, 1, 2000)
    rules = (
        ("hard, robust width: the 30 nearest", HardVicinity(), "blue", "-"),
        ("soft, robust width", SoftVicinity(), "green", "-"),
        ("hard, the paper's width: 5 widest gaps", HardVicinity(width=PaperWidth()), "orange", "--"),
    )
    for name, settings, colour, line in rules:
        vicinity = Vicinity(labels, settings)
        for number, (target, width) in enumerate(zip(targets, vicinity.half_width(targets), strict=True)):
            away = (position - target) / width
            weight = torch.exp(-(away**2)) if isinstance(settings, SoftVicinity) else (away.abs() <= 1).float()
            axes.plot(
                low + (high - low) * position,
                weight,
                line,
                color=LIGHT[colour],
                lw=1.5,
                label=name if not number else None,
            )
    axes.plot(low + (high - low) * labels, torch.full_like(labels, -0.06), "|", color=LIGHT["ink"], ms=9, mew=0.5)
    axes.plot(
        low + (high - low) * targets, torch.full_like(targets, 1.06), "v", color=LIGHT["red"], label="target label"
    )
    axes.legend(frameon=False, fontsize=8.5, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.25))
    return figure


if __name__ == "__main__":
    main(Path(sys.argv[1]))
