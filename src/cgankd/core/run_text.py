"""What is known of a run as text: the lines of a log, of ``cgankd status`` and of the live view."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

SHOWN = ("val", "held_out")  # values of a history that are shown, beside losses
MOST = 2


def duration(seconds: float) -> str:
    """Rounded as a person would say it.

    >>> [duration(seconds) for seconds in (0.4, 59.7, 100, 3599, 7260, 200000)]
    ['0 s', '1 min', '2 min', '1 h', '2 h 1 min', '2 d 7 h']
    """
    if seconds < 59.5:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def finite(value: Any) -> Any:
    """The value without numbers that JSON does not have.

    >>> finite({"loss": float("nan"), "step": 3})
    {'loss': None, 'step': 3}
    """
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def rounded(value: float, digits: int = 4) -> str:
    """A number with ``digits`` significant digits; a large one with all before its point, and no exponent.

    >>> rounded(95.254), rounded(0.01234567), rounded(9999.7), rounded(123456.7), rounded(1234.5, 3)
    ('95.25', '0.01235', '10,000', '123,457', '1,234')
    """
    return f"{value:.{digits}g}" if abs(value) < 10**digits - 0.5 else f"{value:,.0f}"


def digits_for(low: float, high: float) -> int:
    """The significant digits in which numbers of a range differ: a thousandth of the range, four or more.

    >>> digits_for(0.0, 90.0), digits_for(2459000.0, 2459001.0), digits_for(-1.7e308, 1.7e308)
    (4, 10, 4)
    """
    half = high / 2 - low / 2  # the whole range may be larger than any float
    return 4 if half == 0 else max(4, 3 + math.ceil(math.log10(max(abs(low), abs(high)) / 2 / half)))


def metric_name(metric: str) -> str:
    """The name of a metric in a sentence.

    >>> metric_name("mae"), metric_name("accuracy")
    ('MAE', 'accuracy')
    """
    return {"mae": "MAE"}.get(metric, metric)


def values(now: Mapping[str, Any]) -> str:
    """The losses and the validation score of the last entry of a history, with the score's metric and unit.

    >>> values({"values": {"loss": 0.1234, "rate": 0.1, "val": 95.25}, "metric": "accuracy", "metric_unit": "%"})
    'loss 0.123, validation accuracy 95.2 %'
    """
    entry = now["values"]
    names = [name for name in entry if (name.endswith("loss") or name in SHOWN) and entry[name] is not None]
    words = {"val": f"validation {metric_name(now.get('metric', ''))}".strip(), "held_out": "held-out loss"}
    units = {"val": now.get("metric_unit", "")}  # .get: the status file of an older version has no metric
    return ", ".join(
        f"{words.get(name, name.replace('_', ' '))} {rounded(entry[name], 3)} {units.get(name, '')}".strip()
        for name in names[:MOST]
    )


def changed_plan(change: int) -> str:
    """A sentence on stages that came or went while a run went on. change: how many more there are; below 0: fewer.

    >>> changed_plan(-1)
    '1 stage is skipped: by the results so far, it is not needed'
    >>> changed_plan(2)
    '2 more stages: by the results so far, they are needed'
    """
    count = abs(change)
    stages, it, is_ = ("stage", "it", "is") if count == 1 else ("stages", "they", "are")
    if change < 0:
        return f"{count} {stages} {is_} skipped: by the results so far, {it} {is_} not needed"
    return f"{count} more {stages}: by the results so far, {it} {is_} needed"


def too_long(seconds: float, budget: str) -> str:
    """The sentence on a run that takes much longer than the time that its recipe was made for.

    >>> too_long(36000.0, "10m")
    'the whole run will take about 10 h, but its recipe was made for --budget 10m; Ctrl-C stops it'
    """
    return (
        f"the whole run will take about {duration(seconds)}, but its recipe was made for --budget {budget}; Ctrl-C "
        "stops it"
    )


def place(now: Mapping[str, Any]) -> str:
    """Which stage of how many.

    >>> place({"number": 3, "of": 9, "run": {"number": 1, "of": 2, "name": "a"}}), place({"number": 3, "of": None})
    ('run 1/2 [3/9]', '[3]')
    """
    run, number, of = now.get("run"), now["number"], now["of"]
    parts = [f"run {run['number']}/{run['of']}"] if run else []
    if number is not None:
        parts.append(f"[{number}/{of}]" if of else f"[{number}]")
    return " ".join(parts)


def count(now: Mapping[str, Any]) -> str:
    """How far the loop is; nothing where there is no loop.

    >>> count({"done": 1200, "total": 6000, "unit": "steps"}), count({"done": 0.5, "total": 1})
    ('1200/6000 steps', '50% done')
    """
    if now["done"] is None or now["total"] == 0:  # no loop, or one whose length is not known
        return ""
    if now["total"] == 1:  # a share
        return f"{now['done']:.0%} done"  # a bare percentage would read like a score
    return f"{now['done']:.0f}/{now['total']:.0f} {now['unit']}"


def line(now: Mapping[str, Any]) -> str:
    """One line of a log."""
    stage, loop = now["stage"], now["loop"]
    title = stage if loop in (None, stage) else f"{stage}, {loop}"
    head = " ".join(part for part in (place(now), title, count(now)) if part)
    speed, left, whole = now["images_per_second"], now["stage_left"], now["left"]
    parts = [
        head,
        f"{speed:,.0f} images/s" if speed else "",
        now["note"],
        values(now),
        f"{duration(left)} left" if left else "",
    ]
    text = ", ".join(part for part in parts if part)
    return text if whole is None else f"{text}; whole run {duration(whole)} left"


def score(fields: Mapping[str, Any]) -> str:
    """The score of a row, with its metric and unit.

    >>> score({"row": "kd", "seed": 0, "validation": 4.31, "test": 5.2, "metric": "mae", "metric_unit": "degrees"})
    'kd (seed 0): validation MAE 4.31 degrees, test MAE 5.2 degrees'
    """
    unit = f" {fields['metric_unit']}" if fields["metric_unit"] else ""
    metric = f" {metric_name(fields['metric'])}" if fields["metric"] else ""
    known = [name for name in ("validation", "test") if fields.get(name) is not None]
    scores = ", ".join(f"{name}{metric} {rounded(fields[name])}{unit}" for name in known)
    return f"{fields['row']} (seed {fields['seed']}): {scores}"
