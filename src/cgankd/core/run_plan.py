"""The stations of a run, known before it starts: which are done, and how long the others will take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

# The part of a measured plan (planning/plan.py) that a stage function's time is counted in.
PARTS = {
    "train_network": "teacher",
    "train_student": "students",
    "train_generator": "generator",
    "train_encoder": "density ratio",
    "train_density_ratio": "density ratio",
    "burn_in": "generated images",
    "calibrate_filter": "generated images",
    "make_images": "generated images",
    "measure_generator": "measurements",
    "attack_network": "attacks",
}


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

    parts: seconds by part, that the run was measured to take; empty where settings were changed since.
    """

    budget: str
    budget_seconds: float
    parts: Mapping[str, float]


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
        parts: Mapping[str, float] = MappingProxyType({}),
        settled: bool = True,
    ) -> float | None:
        """Seconds until the last station ends; None where nothing is known yet.

        Stations that have not begun are estimated by :meth:`usual`. elapsed, running_left: seconds of the running
        station, those of earlier processes too; None: its end is not known. settled: whether these say something about
        other stations. The page and the exported student, a few seconds at the end, are not included.
        """
        here = list[Station]()
        if running is not None and running.amount > 0 and running_left is not None and settled:
            share = elapsed / max(elapsed + running_left, 1e-9)  # so that what has only begun weighs little
            here.append(dataclasses.replace(running, amount=share * running.amount, seconds=elapsed))
        waiting = [station for station in self._all().values() if station.seconds is None]
        waiting = [station for station in waiting if running is None or station.key != running.key]
        further = [self.usual(station, parts, here) for station in waiting]
        if running is not None and running_left is None:
            whole = self.usual(running, parts)
            running_left = None if whole is None else max(0.0, whole - elapsed)
        times = [*further, 0.0 if running is None else running_left]
        known = [seconds for seconds in times if seconds is not None]
        return sum(known) if len(known) == len(times) else None

    def usual(self, station: Station, parts: Mapping[str, float], here: Sequence[Station] = ()) -> float | None:
        """The seconds that a station takes, by others; None where nothing comparable is known.

        They are those of finished stations that are alike, scaled by the amount of work (training steps times batch
        size, or images). Those of this process count first, because an earlier one may have run on another machine, or
        beside other programs. Where there are none, the station has its share of what its part was measured to take
        before the run (``parts``), and where that is not known, the pace of all that is finished. here: stations that
        count as finished in this process.
        """
        if station.amount == 0:
            return 0.0
        ended = [*(other for other in self._ended.values() if other.amount > 0), *here]
        before = [other for key, other in self._stations.items() if key not in self._ended]
        before = [other for other in before if other.seconds is not None and other.amount > 0]
        of_here, of_before = ([other for other in done if other.alike == station.alike] for done in (ended, before))
        part = parts.get(PARTS.get(station.kind, ""), 0.0)
        if not (of_here or of_before) and part:
            of_part = [other for other in self._all().values() if PARTS.get(other.kind) == PARTS[station.kind]]
            return part * station.amount / sum(other.amount for other in of_part)
        alike = of_here or of_before or [*ended, *before]
        amount = sum(other.amount for other in alike)
        return station.amount * sum(other.seconds or 0.0 for other in alike) / amount if amount else None
