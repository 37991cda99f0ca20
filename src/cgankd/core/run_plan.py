"""The stations of a run, known before it starts: which are done, and how long the others will take."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Station:
    """One stage that a run needs.

    key: its artifact's. kind: the stage function's name. alike: stations with the same text take time in proportion to
    their ``amount``; amounts of others are only roughly comparable. seconds: what it took, where it is finished.
    """

    key: str
    title: str
    kind: str
    alike: str = ""
    amount: float = 0.0
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Expected:
    """What is known of a run before it starts. budget: the time that its recipe was made for, as it was typed.

    seconds: that the run was measured to take; None where settings were changed since.
    """

    budget: str
    budget_seconds: float
    seconds: float | None


class RunPlan:
    """The stations of the whole run, each once, in their order."""

    def __init__(self) -> None:
        self._stations: dict[str, Station] = {}
        self._ended: dict[str, Station] = {}  # those that ended in this process
        self._skipped = 0  # stations that were planned and turned out to be unnecessary; they count as done

    def replace(self, stations: Sequence[Station]) -> int:
        """Use these stations from now on; what ended in this process stays done.

        Returns how many more stations there are than before. A negative number: so many are skipped, and the total
        stays, because a total that shrinks while a run advances looks like a fault.
        """
        before = self.total
        self._stations = {station.key: station for station in stations}
        change = self.total - before
        self._skipped += max(0, -change)
        return change

    def __contains__(self, key: str) -> bool:
        return key in self._stations

    def station(self, key: str) -> Station | None:
        return self._stations.get(key)

    def add(self, station: Station) -> None:
        """A station that was not foreseen."""
        self._stations[station.key] = station

    def end(self, station: Station, seconds: float) -> None:
        self._ended[station.key] = dataclasses.replace(station, seconds=seconds)

    def found(self, key: str, seconds: float) -> None:
        """A station is done, whose result took ``seconds``, also in earlier and in other processes."""
        station = self._stations.get(key)
        if station is not None and station.seconds is None:
            self._ended[key] = dataclasses.replace(station, seconds=seconds)

    def _all(self) -> dict[str, Station]:
        return {**self._stations, **self._ended}

    @property
    def total(self) -> int:
        return len(self._all()) + self._skipped

    @property
    def done(self) -> int:
        """Stations that are finished, in this process or an earlier one, and skipped ones."""
        return sum(station.seconds is not None for station in self._all().values()) + self._skipped

    @property
    def spent(self) -> float:
        """Seconds of the finished stations."""
        return sum(station.seconds or 0.0 for station in self._all().values())

    def left(
        self,
        running: Station | None,
        elapsed: float,
        running_left: float | None,
        expected: float | None = None,
        settled: bool = True,
    ) -> float | None:
        """Seconds until the last station ends; None where nothing is known yet.

        The time of a station that has not begun is estimated from those that are finished: their seconds, scaled by
        the amount of work (training steps times batch size, or images), from stations that are alike where there are
        any, else from all. Of those that are alike, the ones of this process count first, because an earlier one may
        have run on another machine, or beside other programs. elapsed, running_left: seconds of the running station,
        those of earlier processes too; None: its end is not known. settled: whether these say something about other
        stations. expected: seconds that the whole run was measured to take before it began; it counts while some kind
        of station that waits was not measured yet. The page and the exported student, a few seconds at the end, are not
        included.
        """
        stations = self._all()
        here = [station for station in self._ended.values() if station.amount > 0]
        if running is not None and running.amount > 0 and running_left is not None and settled:
            here.append(dataclasses.replace(running, seconds=elapsed + running_left))
        before = [station for key, station in self._stations.items() if key not in self._ended]
        before = [station for station in before if station.seconds is not None and station.amount > 0]
        waiting = [station for station in stations.values() if station.seconds is None]
        waiting = [station for station in waiting if running is None or station.key != running.key]
        known_kinds = {station.alike for station in (*here, *before)}
        if expected is not None and any(station.amount and station.alike not in known_kinds for station in waiting):
            rest = expected - self.spent - elapsed
            if rest > (running_left or 0.0):
                return rest
        further = [_expected(station, here, before) for station in waiting]
        if running is not None and running_left is None:
            whole = _expected(running, here, before)
            running_left = None if whole is None else max(0.0, whole - elapsed)
        times = [*further, 0.0 if running is None else running_left]
        known = [seconds for seconds in times if seconds is not None]
        return sum(known) if len(known) == len(times) else None


def _expected(station: Station, here: Sequence[Station], before: Sequence[Station]) -> float | None:
    """The seconds that a station will take; None where nothing comparable was measured, in this process or before."""
    alike_here, alike_before = ([other for other in part if other.alike == station.alike] for part in (here, before))
    alike = alike_here or alike_before or [*here, *before]
    amount = sum(other.amount for other in alike)
    if station.amount == 0:
        return 0.0
    return station.amount * sum(other.seconds or 0.0 for other in alike) / amount if amount else None
