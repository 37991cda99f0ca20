"""Answers of a service, kept on disk by the pixels of each image, so that no image is sent twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cgankd.core.errors import UserError

AT_ONCE = 500  # keys in one query; SQLite allows 999


class KeptAnswers:
    """A map from keys of images to outputs, float64 [K]. path: an SQLite file; None: in memory.

    The file is made with the first answers, and each call of :meth:`keep` is written completely or not at all. Raises
    UserError for a file that is damaged or can't be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._memory: dict[bytes, npt.NDArray[np.float64]] = {}
        self._open: sqlite3.Connection | None = None

    def of(self, keys: Sequence[bytes]) -> dict[bytes, npt.NDArray[np.float64]]:
        """The known ones among ``keys``, with their outputs."""
        if self.path is None or not (self._open or self.path.is_file()):
            return {key: self._memory[key] for key in keys if key in self._memory}
        known: dict[bytes, npt.NDArray[np.float64]] = {}
        try:
            for start in range(0, len(keys), AT_ONCE):
                part = keys[start : start + AT_ONCE]
                query = f"SELECT image, outputs FROM answers64 WHERE image IN ({','.join('?' * len(part))})"
                rows = self._connection().execute(query, part).fetchall()
                known |= {image: np.frombuffer(outputs, "<f8") for image, outputs in rows}
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from None
        return known

    def keep(self, answers: Mapping[bytes, npt.NDArray[np.float64]]) -> None:
        """Add these answers."""
        if self.path is None:
            self._memory.update(answers)
            return
        rows = [(key, outputs.astype("<f8").tobytes()) for key, outputs in answers.items()]
        try:
            with self._connection() as connection:
                connection.executemany("INSERT OR REPLACE INTO answers64 VALUES (?, ?)", rows)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from None

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            assert self.path is not None
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open = sqlite3.connect(self.path, check_same_thread=False)
            self._open.execute("CREATE TABLE IF NOT EXISTS answers64 (image BLOB PRIMARY KEY, outputs BLOB NOT NULL)")
        return self._open

    def _unusable(self, error: Exception) -> UserError:
        return UserError(
            f"{self.path}: the kept answers of the teacher can't be read or written ({error}); needed: free space, or "
            "another file (if this one is removed, the teacher is asked again)"
        )
