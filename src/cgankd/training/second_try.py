"""A training that fails in bfloat16 is done once more in float32, from the same initial weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import nn

from cgankd.config.settings import FitSettings
from cgankd.core import ranks
from cgankd.core.files import read_json, write_json
from cgankd.core.runtime import in_float32
from cgankd.core.store import CHECKPOINT, Work
from cgankd.data.imageset import TrainingImages
from cgankd.distill import Objective
from cgankd.nets import inference
from cgankd.nets.precision import lowers
from cgankd.training.best import NOTHING, Kept
from cgankd.training.faults import NotFinite
from cgankd.training.loop import fit


def fit_with_second_try(
    work: Work,
    student: nn.Module,
    new_objective: Callable[[], Objective],
    images: TrainingImages,
    settings: FitSettings,
    *,
    seed: int,
    teacher: inference.Predictor | None = None,
    kept: Kept = NOTHING,
) -> tuple[list[dict[str, Any]], str | None]:
    """The same as :func:`cgankd.training.loop.fit`, with a second try in float32 where bfloat16 gives what is not
    finite. Returns the history, and a sentence on the second try; None where there was none.

    A file says that the first try has failed, so that a killed second try goes on as such. Raises NotFinite where
    float32 fails too.
    """
    mark = None if work.folder is None else work.folder / f"{CHECKPOINT}-float32.json"
    sentence = ranks.first_of_team(lambda: str(read_json(mark)) if mark is not None and mark.is_file() else None)
    if sentence is None:
        lowered = lowers(work.fabric)
        initial = {name: value.detach().clone() for name, value in student.state_dict().items()} if lowered else {}
        try:
            history = fit(work, student, new_objective(), images, settings, seed=seed, teacher=teacher, kept=kept)
            return history, None
        except NotFinite as error:
            if not lowered:
                raise
            sentence = f"{error.fault} in bfloat16, so it was trained once more from the start, in float32."
        student.load_state_dict(initial)
        if kept.best is not None:
            kept.best.forget()
        if mark is not None:
            write_json(mark, sentence)
        work.progress.say(sentence)
    exact = dataclasses.replace(work, fabric=in_float32(work.fabric)).within("float32")
    own = Kept(best=kept.best)  # outputs of the teacher that are kept for all trainings were computed in bfloat16
    history = fit(exact, student, new_objective(), images, settings, seed=seed, teacher=teacher, kept=own)
    return history, sentence
