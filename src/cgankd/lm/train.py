"""The training loop of language models: for the teacher, and the student before and in its distillation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from cgankd.core import rng
from cgankd.core.profiling import part
from cgankd.core.store import Work
from cgankd.lm.methods import Lesson
from cgankd.lm.settings import TrainSettings
from cgankd.training.faults import NotFinite, not_finite
from cgankd.training.loop import one_cycle

LOG_POINTS = 10  # entries of a history, evenly spaced over the steps


def train(
    work: Work,
    model: nn.Module,
    lesson: Lesson,
    settings: TrainSettings,
    *,
    seed: int,
    validate: Callable[[], float],
) -> list[dict[str, Any]]:
    """Train ``model`` in place for ``settings.steps`` steps; the last weights are kept, not the best ones.

    Returns the history: step, loss, the numbers of the lesson, and ``val``, which ``validate()`` returns.
    Raises NotFinite where the loss or a weight is not finite.
    """
    fabric, checkpoint, title = work.fabric, work.checkpoint(), work.title
    model.to(fabric.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=settings.weight_decay
    )
    start, history = checkpoint.load({"model": model}, {"adamw": optimizer})
    log_every = max(1, settings.steps // LOG_POINTS)
    with rng.restored(fabric.device), work.progress.bar(title, settings.steps) as bar:
        for step in range(start, settings.steps):
            rng.seed_torch(rng.key(seed, "lm/train", step), work.fabric.device)  # dropout
            for group in optimizer.param_groups:
                group["lr"] = one_cycle(settings.learning_rate, step / settings.steps, settings.warmup)
            model.train()
            with fabric.autocast():
                loss, notes = lesson(step)
            with part("backward"):
                optimizer.zero_grad(set_to_none=True)
                fabric.backward(loss)
            with part("optimizer"):
                torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
                optimizer.step()

            done = step + 1
            if done % log_every == 0 or done == settings.steps:
                entry = {"step": done, "loss": float(loss.detach()), **notes}
                advice = f"a lower learning_rate than {settings.learning_rate:g} may help"
                if not math.isfinite(entry["loss"]):
                    raise NotFinite(f"{title}: the loss is {entry['loss']} at step {done}", advice)
                if (name := not_finite(model)) is not None:
                    raise NotFinite(f"{title}: weight {name} is not finite at step {done}", advice)
                history.append({**entry, "val": validate()})
                bar.log(history[-1])
            bar.to(done)
            if checkpoint.due():
                checkpoint.save(done, {"model": model}, {"adamw": optimizer}, history)
    model.eval()
    return history
