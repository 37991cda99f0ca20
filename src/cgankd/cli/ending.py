"""How a command ends: its exit code, and the sentence for the user. The codes are listed in docs/running.md."""

from __future__ import annotations

import errno
import os

import typer

from cgankd.core.errors import OutOfTime, TrainingError, UserError
from cgankd.core.status_file import same_command

FAILED, USER, WAITING, INTERRUPTED = 1, 2, 75, 130  # 75: EX_TEMPFAIL of sysexits.h


def ending(error: BaseException) -> tuple[int, str] | None:
    """The exit code and the sentence for an error; None for one that nobody foresaw, which is shown in full."""
    match error:
        case UserError():
            return USER, str(error)
        case TrainingError():
            return FAILED, str(error)
        case OutOfTime():
            return WAITING, f"stopped, because {error}; the same command goes on: {same_command()}"
        case typer.Abort() | KeyboardInterrupt():
            return INTERRUPTED, f"stopped; the same command goes on: {same_command()}"
        case OSError() if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS}:
            where = f" while writing {error.filename}" if error.filename else ""
            return USER, (
                f"{os.strerror(error.errno or 0)}{where}; free space or allow writing there, then the same command "
                f"goes on: {same_command()}"
            )
    if _is_click_error(error):
        return USER, error.format_message()  # type: ignore[attr-defined]
    return None


def _is_click_error(error: BaseException) -> bool:
    """Whether typer's parser raised the error: an unknown option, a missing argument."""
    return callable(getattr(error, "format_message", None)) and hasattr(error, "exit_code")
