"""The stages of the pipeline: plain functions of their arguments, called through the store (core/store.py).

Each writes its results to ``work`` and returns a summary that can be written as JSON. The results of earlier stages are
arguments (a trained network, a generator, stored images), which are opened when needed.
"""

from __future__ import annotations

from cgankd.pipeline.stages.generator import (
    draw_along_labels,
    show_generator,
    train_density_ratio,
    train_encoder,
    train_generator,
)
from cgankd.pipeline.stages.images import burn_in, calibrate_filter, make_images, pseudo_label
from cgankd.pipeline.stages.measurements import attack_network, find_worst_answers, measure_generator
from cgankd.pipeline.stages.networks import (
    describe_data,
    load_network,
    score_black_box,
    score_student,
    score_teacher,
    score_vote,
    train_module,
    train_network,
    train_student,
    with_scores,
)

__all__ = [
    "attack_network",
    "burn_in",
    "calibrate_filter",
    "describe_data",
    "draw_along_labels",
    "find_worst_answers",
    "load_network",
    "make_images",
    "measure_generator",
    "pseudo_label",
    "score_black_box",
    "score_student",
    "score_teacher",
    "score_vote",
    "show_generator",
    "train_density_ratio",
    "train_encoder",
    "train_generator",
    "train_module",
    "train_network",
    "train_student",
    "with_scores",
]
