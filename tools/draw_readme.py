"""Draw the picture of README.md from a finished run of a scalar task: what goes in, what is generated, what comes out.

cgankd run rotated-fashion --out runs/rotated-fashion student.transfer_steps=10000 compare.ablation=false \
  compare.methods='[nokd_longer, fm, cgan+fm]'
python tools/draw_readme.py runs/rotated-fashion
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from cgankd.report.figures import LIGHT, dress

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "readme.png"
COLUMNS, ROWS = 6, 4
NAMES = {
    "nokd_longer": "labels alone",
    "kd": "+ teacher (KD)",
    "fm": "+ teacher, mixed images (FM)",
    "cgan_kd": "+ generated images, KD",
    "cgan+fm": "+ generated images, FM",
}


def main(run: Path) -> None:
    """Three panels side by side."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    artifacts = results["artifacts"]
    real = load_file(run / artifacts["data"] / "preview.safetensors")
    kept = load_file(run / next(iter(artifacts["synthesis"].values())) / "samples.safetensors")
    figure = Figure(figsize=(12, 3.7), layout="constrained")
    grids = figure.add_gridspec(1, 3, width_ratios=(1, 1, 1.25), wspace=0.08)
    labelled = next(row["real_images"] for row in results["rows"])
    unit = results["unit"]
    tiles(figure, grids[0], real["images"], real["labels"], f"in: {labelled:,} labelled images\nand a teacher", unit)
    title = "generated images, kept and\nrelabelled by the teacher"
    tiles(figure, grids[1], kept["kept_images"], kept["kept_predictions"], title, unit)
    bars(figure, grids[2], results)
    figure.savefig(PICTURE, dpi=150, facecolor="white")
    print(PICTURE)


def tiles(
    figure: Figure, place: object, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.float32], title: str, unit: str
) -> None:
    """Images in the order of their labels, each with its label below."""
    chosen = np.argsort(labels.ravel())[np.linspace(0, len(labels) - 1, COLUMNS * ROWS).round().astype(int)]
    side = images.shape[-1]
    step_x, step_y = side + 4, side + 14
    sheet = np.full((ROWS * step_y, COLUMNS * step_x), 255, np.uint8)
    axes = figure.add_subplot(place)  # type: ignore[call-overload]
    for number, image in enumerate(chosen):
        y, x = (number // COLUMNS) * step_y, (number % COLUMNS) * step_x
        sheet[y : y + side, x : x + side] = images[image][0]
        text = f"{labels.ravel()[image]:.0f}" + ("°" if unit == "degrees" else "")
        axes.text(x + side / 2, y + side + 6, text, ha="center", va="center", fontsize=9, color=LIGHT["ink"])
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=11, loc="left", color=LIGHT["ink"])
    axes.axis("off")


def bars(figure: Figure, place: object, results: dict[str, object]) -> None:
    """The test error of each row, with its spread over seeds, and the teacher's."""
    rows = {row["method"]: row for row in results["rows"]}  # type: ignore[attr-defined]
    names = [name for name in NAMES if name in rows]
    axes = figure.add_subplot(place)  # type: ignore[call-overload]
    dress(axes, f"mean absolute error on test images, {results['unit']}", "", grid="x")
    for number, name in enumerate(names):
        row = rows[name]
        colour = LIGHT["blue"] if name.startswith("cgan") else LIGHT["muted"]
        axes.barh(number, row["mean"], color=colour, height=0.62, xerr=row["std"] or None, ecolor=LIGHT["ink"])
        spread = f" ± {row['std']:.2f}" if row["std"] else ""
        text = f"{row['mean']:.2f}{spread}"
        axes.text(0.06, number, text, va="center", fontsize=9.5, color="white")  # away from the teacher's line
    teacher = results["teacher"]["test"]  # type: ignore[index]
    axes.axvline(teacher, color=LIGHT["orange"], lw=1.6)
    parameters = results["teacher"]["parameters"], rows[names[0]]["parameters"]  # type: ignore[index]
    axes.text(teacher, -0.52, f" the teacher {teacher:.2f}", fontsize=9, va="bottom", color=LIGHT["ink"])
    axes.set_yticks(range(len(names)), [NAMES[name] for name in names], fontsize=9.5)
    axes.set_ylim(len(names) - 0.4, -0.85)
    axes.set_xlim(0, max(rows[name]["mean"] for name in names) * 1.15)
    title = f"out: a student of {parameters[1]:,} parameters\n(the teacher has {parameters[0]:,})"
    axes.set_title(title, fontsize=11, loc="left", color=LIGHT["ink"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
