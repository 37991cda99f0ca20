"""What a run may end with: the user's to mend (exit code 2), failed training (1), or time that is over (75)."""

from __future__ import annotations


class UserError(Exception):
    """Something the user gave can't be used.

    The message is one sentence: what was found, where (file, row or key), and what is allowed.
    """


class OutOfTime(Exception):
    """The time that a run was given is over; what is done is saved, and the same command goes on from there."""


class TrainingError(Exception):
    """A training run can't go on (a loss that is not finite, a collapsed generator); says what was seen."""
