"""The figure of the time that each stage of a run took."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from cgankd.core.run_text import duration
from cgankd.report.figures import LIGHT, beside, canvas, name_bins

STAGES = {  # stage's function -> its title
    "import": "imports",
    "describe_data": "data",
    "train_network": "teacher",
    "train_module": "teacher",
    "load_network": "teacher, read",
    "score_teacher": "teacher, tested",
    "score_black_box": "teacher, scored",
    "score_vote": "vote, scored",
    "train_student": "students",
    "score_student": "students, scored",
    "train_generator": "generator",
    "show_generator": "generator, shown",
    "draw_along_labels": "along labels",
    "train_encoder": "encoder",
    "train_density_ratio": "density ratio",
    "burn_in": "burn-in",
    "calibrate_filter": "calibration",
    "make_images": "synthesis",
    "pseudo_label": "pseudo-labels",
    "measure_generator": "image quality",
    "attack_network": "attacks",
    "find_worst_answers": "worst test images",
}


def times(seconds: Mapping[str, float]) -> Figure:
    """Time per stage, as bars with numbers."""
    figure, axes = canvas(0.6 + 0.27 * len(seconds), x="time, s", grid="x")
    places = -np.arange(len(seconds))
    values = list(seconds.values())
    axes.barh(places, values, height=0.6, color=LIGHT["blue"])
    for place, value in enumerate(values):
        beside(axes, value, -place, duration(value))
    axes.set_xlim(0, max([*values, 1e-9]) * 1.2)
    name_bins(axes, [STAGES.get(stage, stage.replace("_", " ")) for stage in seconds])
    return figure
