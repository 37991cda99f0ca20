"""The one exception for what a user can mend; the command line turns it into a sentence and exit code 2."""

from __future__ import annotations


class UserError(Exception):
    """Something the user gave can't be used.

    The message is one sentence: what was found, where (file, row or key), and what is allowed.
    """


class TrainingError(Exception):
    """A training run can't go on (a loss that is not finite, a collapsed generator); says what was seen."""
