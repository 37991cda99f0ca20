"""The autopilot (``compare.methods: auto``): finds the row to ship by successive halving on the validation split.

Candidates (settings.CANDIDATES) share teacher, generator and generated images. Each is trained for a share of the
student's steps; the better half of them goes on to the next, larger share. Candidates without generated images go
first: where the best of them is at the level of a teacher that knows more than the labels, no generator is trained. Two
finalists are trained in full, because short trials favour rows that learn fast: the best candidate without and the best
with generated images, or the two best without. So is ``kd``, the usual choice. Validation decides between these. Only
the chosen one and the control are scored on the test split, so that nothing is chosen on it.

Successive halving: Jamieson and Talwalkar, arXiv 1502.07943. A trial starts anew at each share, because the learning
rate's schedule depends on the number of steps. A finalist's trial is the training of its row with the first seed, so
the last round costs one or two trainings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cgankd.core import run_text
from cgankd.core.store import Artifact
from cgankd.metrics.statistics import place_of_best
from cgankd.pipeline.comparisons import CONTROL, row
from cgankd.pipeline.gathering import scores, taught

if TYPE_CHECKING:
    from cgankd.pipeline.run import Run

SHARES = (0.25, 0.5)  # of the student's steps, for one round of trials each, before the finalists' full training
RIVAL = "kd"  # the usual choice, than which the chosen row must not be clearly worse


class Score(NamedTuple):
    """The score on the validation split, and the task's loss there, which orders scores that may be equal; None: not
    known."""

    val: float
    loss: float | None = None

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> Score:
        """The score of a trial."""
        return cls(float(summary["val"]), summary.get("val_loss"))


Trials = Callable[[Sequence[str], int], Sequence[Score]]  # (rows, steps) -> each row's score
Prepare = Callable[[Sequence[str], int], None]  # (rows, steps): makes the trials of a round, several at once


@dataclasses.dataclass(frozen=True)
class Record:
    """One candidate's score on the validation split, and its loss there, after a number of steps."""

    row: str
    steps: int
    val: float
    val_loss: float | None


@dataclasses.dataclass(frozen=True)
class Flight:
    """What the autopilot tried and chose. teacher: its score on the validation split; None: not known."""

    chosen: str
    trials: tuple[Record, ...]
    teacher: float | None
    with_fakes: bool  # whether candidates with generated images were tried

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows of the table."""
        return (CONTROL, self.chosen)

    def to_json(self, unit: str) -> dict[str, Any]:
        """For results.json. unit: of a score."""
        return {
            **dataclasses.asdict(self),
            "reasons": reasons(self, lambda value: f"{run_text.rounded(value)} {unit}".rstrip()),
        }


def fly(
    candidates: Sequence[str],
    steps: int,
    teacher: Score | None,
    higher_is_better: bool,
    trials: Trials,
    stops: bool = True,
    images: int | None = None,
) -> Flight:
    """Find the best of ``candidates``. steps: of a full training. teacher: its score; None: not known.

    stops: whether a student at the teacher's level has nothing left to gain. False where the teacher learnt from the
    same labels, because students pass such a teacher (docs/research-notes.md). images: for validation; accuracies on
    them within a standard error of the best one count as equal to it.

    Of candidates with equal scores that of the lowest loss is taken. Where losses are not known, or equal too, the
    earlier one is taken, and one without generated images before one with them.
    """

    def ranked(records: Sequence[Record]) -> list[Record]:
        """The best first."""
        left, order = list(records), list[Record]()
        while left:
            vals, losses = [record.val for record in left], [record.val_loss for record in left]
            order.append(left.pop(place_of_best(vals, higher_is_better, losses, images)))
        return order

    def tried(names: Sequence[str], reached: int) -> list[Record]:
        return [Record(name, reached, *score) for name, score in zip(names, trials(names, reached), strict=True)]

    real = [name for name in candidates if not row(name).fakes and name != CONTROL]
    fakes = [name for name in candidates if row(name).fakes]
    records, best_real = _halve(real, steps, ranked, tried)
    done = stops and bool(best_real) and teacher is not None and _at_level(best_real[0], teacher, higher_is_better)
    finalists = best_real[:2]
    if fakes and not done:
        further, best_fakes = _halve(fakes, steps, ranked, tried)
        records, finalists = records + further, best_real[:1] + best_fakes[:1]
    names = [record.row for record in finalists] + [name for name in real if name == RIVAL]
    last = ranked(tried(list(dict.fromkeys(names)), steps))
    level = None if teacher is None else teacher.val
    trained = (*records, *reversed(last))
    return Flight(last[0].row, trained, level, with_fakes=bool(fakes) and not done)


def _halve(
    names: Sequence[str],
    steps: int,
    ranked: Callable[[Sequence[Record]], list[Record]],
    tried: Callable[[Sequence[str], int], list[Record]],
) -> tuple[list[Record], list[Record]]:
    """The trials of all rounds, and those of the last round, the best first."""
    records, last = list[Record](), list[Record]()
    for share in SHARES:
        last = ranked(tried(names, max(1, round(share * steps))))
        records += reversed(last)
        names = [record.row for record in last[: max(1, len(last) // 2)]]
    return records, last


def _at_level(record: Record, teacher: Score, higher_is_better: bool) -> bool:
    """Whether a student is at its teacher's level: by the score, and by the loss where both are known.

    With few validation images equal scores alone say little: 20 of 20 may be 95 % or 100 % of all images.
    """
    reached = record.val >= teacher.val if higher_is_better else record.val <= teacher.val
    if record.val_loss is None or teacher.loss is None:
        return reached
    return reached and record.val_loss <= teacher.loss


def choose(
    run: Run, score: Callable[[Artifact], Score] | None = None, prepare: Prepare = lambda rows, steps: None
) -> Flight:
    """The autopilot of a run. Trials use the run's first seed.

    score: reads a trial's score; None: the score on the validation split, which is then announced. prepare: called
    before each round; the trials that it leaves undone are made here, one after the other.
    """
    recipe, seed = run.recipe, run.recipe.seeds[0]
    known = taught(run, run.upstream(seed))
    teacher = Score.of(known) if known.get("val") is not None else None

    def trial(name: str, steps: int) -> Score:
        artifact = run.trial(name, seed, steps)
        if score is not None:
            return score(artifact)
        found = Score.of(scores(run, artifact))  # of the weights that would ship
        value = f"{run_text.metric_name(run.task.metric)} {run_text.rounded(found.val)} {run.task.metric_unit}".rstrip()
        run.store.progress.say(f"{name} after {steps:,} steps: validation {value}")
        return found

    def trials(names: Sequence[str], steps: int) -> list[Score]:
        prepare(names, steps)
        return [trial(name, steps) for name in names]

    stops = recipe.teacher.knows_more(pool_has_more=len(run.splits.pool) > len(run.splits.train))
    images, steps = len(run.splits.val), recipe.student.transfer_steps
    return fly(recipe.rows, steps, teacher, run.task.higher_is_better, trials, stops, images)


def reasons(flight: Flight, scored: Callable[[float], str]) -> list[str]:
    """What was chosen and why, in three sentences. scored: a score with its unit."""
    last = {record.row: record for record in flight.trials}  # each row's longest trial
    chosen = last[flight.chosen]
    others = [record for record in last.values() if record.row != chosen.row and record.steps == chosen.steps]
    beside = ", ".join(f"{record.row} {scored(record.val)}{_order(record, chosen)}" for record in reversed(others))
    first = (
        f"Of {len(last)} candidates, validation chose row {chosen.row}: {scored(chosen.val)} there after "
        f"{chosen.steps:,} steps" + (f" ({beside})." if beside else ".")
    )
    level = "not known" if flight.teacher is None else scored(flight.teacher)
    second = f"The teacher's score there is {level}."
    if not flight.with_fakes:
        third = (
            "No generated images were tried, because the student is at the teacher's level: nothing is left to gain."
        )
    elif any(record.val == chosen.val and row(record.row).fakes != row(chosen.row).fakes for record in others):
        third = "Generated images were tried and do not change the score here, by validation and with one seed."
    elif row(flight.chosen).fakes and any(_order(record, chosen) and not row(record.row).fakes for record in others):
        third = (
            "Generated images were tried and are better by the loss alone, because the scores differ by no more than "
            "chance explains, by validation and with one seed."
        )
    elif row(flight.chosen).fakes:
        third = (
            "Generated images were tried and are better than the candidates without, by validation and with one seed."
        )
    else:
        third = "Generated images were tried and are not better here, by validation and with one seed."
    return [first, second, third]


def _order(record: Record, chosen: Record) -> str:
    """Why a row with the same score, or a larger one that may be chance, was not chosen."""
    too = " too" if record.val == chosen.val else ""
    if record.val_loss is None or chosen.val_loss is None or record.val_loss == chosen.val_loss:
        return too
    larger = record.val > chosen.val and record.val_loss > chosen.val_loss
    return f"{too}, with a higher loss" if too or larger else ""
