"""How a command ends: its exit code, and the sentence for the user. The codes are listed in docs/running.md."""

from __future__ import annotations

import dataclasses
import errno
import os

import typer

from cgankd.core.errors import LostProcess, OutOfTime, TrainingError, UserError
from cgankd.core.status_file import same_command

FAILED, USER, WAITING, INTERRUPTED = 1, 2, 75, 130  # 75: EX_TEMPFAIL of sysexits.h


@dataclasses.dataclass(frozen=True)
class Ending:
    """reason: a sentence without its full stop. continues: whether the same command goes on where this one ended."""

    code: int
    reason: str
    continues: bool = False

    @property
    def sentence(self) -> str:
        """For the user."""
        return f"{self.reason}; the same command goes on: {same_command()}" if self.continues else self.reason


def ending(error: BaseException) -> Ending | None:
    """How the command ends after an error; None for an error that nobody foresaw, which is shown in full."""
    match error:
        case UserError():
            return Ending(USER, str(error))
        case TrainingError():
            return Ending(FAILED, str(error))
        case LostProcess():
            return Ending(FAILED, str(error), continues=True)
        case OutOfTime():
            return Ending(WAITING, f"stopped, because {error}", continues=True)
        case typer.Abort() | KeyboardInterrupt():
            return Ending(INTERRUPTED, "stopped by Ctrl-C", continues=True)
        case OSError() if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS}:
            where = f" while writing {error.filename}" if error.filename else ""
            text = f"{os.strerror(error.errno or 0)}{where}; free space or allow writing there"
            return Ending(USER, text, continues=True)
    if _is_click_error(error):
        return Ending(USER, error.format_message())  # type: ignore[attr-defined]
    return None


def _is_click_error(error: BaseException) -> bool:
    """Whether typer's parser raised the error: an unknown option, a missing argument."""
    return callable(getattr(error, "format_message", None)) and hasattr(error, "exit_code")
