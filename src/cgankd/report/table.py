"""The table of a run, for the terminal, Markdown and the page.

All texts such as ``mean ± spread`` and differences with their intervals are made here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich import box
from rich.table import Table
from rich.text import Text

from cgankd.core import run_text
from cgankd.core.numbers import written
from cgankd.core.terminal import on_one_line
from cgankd.metrics.statistics import spread
from cgankd.report import certainty, markdown, shipped

Verdict = Literal["control", "better", "worse", "undecided", "no interval", "none"]

WORDS: Mapping[str, str] = {
    "nokd": "student alone",
    "nokd_longer": "student alone, equal steps (control)",
    "augment": "stronger augmentation",
    "pseudo": "teacher-labelled real images",
    "kd": "plain KD",
    "fm": "function matching",
    "cgan": "cGAN-KD",
    "cgan_kd": "cGAN-KD + KD",
    "cgan_raw": "raw fakes",
    "cgan_subsample": "+ subsampling",
    "cgan_filter": "+ filter",
    "cgan_replace": "+ replaced labels",
}
NO_FAKES = "No row was trained on generated images; rows such as cgan+fm in compare.methods add some."
SHIPS = " *"
ONE_SEED = "One seed: no spread and no interval."
ATTACKS: Mapping[str, str] = {"pgd": "PGD", "autoattack": "AutoAttack"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table as text. verdict: the row's interval compared with the control.

    attacked: the score under each attack, if robustness was measured; the page shows it in a section of its own.
    ships: whether its student is the one that ships.
    """

    method: str
    words: str
    network: str
    steps: str
    images: str
    score: str
    difference: str
    verdict: Verdict
    attacked: tuple[str, ...] = ()
    ships: bool = False

    @property
    def marked(self) -> str:
        """The method's name, with a mark where its student ships."""
        return f"{self.method}{SHIPS if self.ships else ''}"


def words(method: str) -> str:
    """A method's name in a sentence.

    >>> words("cgan"), words("dkd"), words("cgan+dkd"), words("cgan+pseudo")
    ('cGAN-KD', 'dkd', 'cGAN-KD + dkd', 'cGAN-KD + teacher-labelled real images')
    """
    images, plus, loss = method.partition("+")
    if images not in ("cgan", "pseudo") or not plus:
        return WORDS.get(method, method)
    return f"{WORDS[images]} + {words(loss) if loss.startswith('pseudo') else loss}"


def plain_words(method: str) -> str:
    """:func:`words` without the remark on the control, also for the teacher: for figures and sentences.

    >>> plain_words("nokd_longer"), plain_words("teacher")
    ('student alone, equal steps', 'the teacher')
    """
    return "the teacher" if method == "teacher" else words(method).replace(" (control)", "")


def trained_again(method: str) -> str:
    """:func:`plain_words` of a row's student that was trained again on all labels."""
    return f"{plain_words(method)}, trained again"


def is_ablation(method: str) -> bool:
    """Whether a row is a step of cGAN-KD, not a method of its own."""
    return method in {"cgan_raw", "cgan_subsample", "cgan_filter", "cgan_replace"}


def compared(of: str) -> str:
    """The name of row ``of`` without generated images, with which it is compared.

    >>> compared("cgan_kd"), compared("cgan+kd+rkd@fake"), compared("cgan~mixup")
    ('kd', 'kd+rkd@fake', 'labels alone~mixup')
    """
    base, *views = of.split("~")
    return "~".join([{"cgan": "labels alone", "cgan_kd": "kd"}.get(base, base.removeprefix("cgan+")), *views])


def unit_of(results: Mapping[str, Any]) -> str:
    """The metric's unit, which is written after numbers: "%", "degrees", or nothing."""
    return str(results.get("unit") or "")


def difference_unit(results: Mapping[str, Any]) -> str:
    """The unit of differences: points for percentages."""
    unit = unit_of(results)
    return "points" if unit == "%" else unit


def metric_with_unit(results: Mapping[str, Any]) -> str:
    """The metric's name with its unit, for axes and columns."""
    name = run_text.metric_name(str(results["metric"]))
    unit = unit_of(results)
    return f"{name}, {unit}" if unit else name


def generates(results: Mapping[str, Any]) -> bool:
    """Whether the run has generated images, also where all of them were filtered out."""
    return "generator" in results or any(row.get("fake_images") for row in results["rows"])


def improvement(results: Mapping[str, Any], difference: float) -> float:
    """A difference of scores, with the sign changed so that positive is better.

    >>> improvement({"higher_is_better": False}, -0.5)
    0.5
    """
    return difference if results["higher_is_better"] else -difference


def number(value: float | None, decimals: int, signed: bool = False) -> str:
    """A number with a typographic minus sign, never a negative zero; a dash for None.

    >>> number(0.84, 1, signed=True), number(-0.04, 1), number(None, 1), number(-7.8e-8, 9)
    ('+0.8', '0.0', '–', '−7.8e-08')
    """
    if value is None or not math.isfinite(value):
        return "–" if value is None else "not finite"
    rounded = round(value, decimals) + 0.0
    sign = "−" if rounded < 0 else "+" if signed and rounded else ""
    return sign + written(abs(rounded), decimals)


def count(value: float | None) -> str:
    """A whole number with thousands separated by commas; a dash for None."""
    return "–" if value is None else f"{int(value):,}"


def decimals(results: Mapping[str, Any]) -> int:
    """Of the table's scores, by their size; one more where a spread would be 0. Below 0 for millions."""
    rows = results["rows"]
    sizes = [abs(row["mean"]) for row in rows if row.get("mean")]
    smallest, three = min(sizes, default=1.0), 2 - math.floor(math.log10(max(sizes, default=1.0)))  # digits
    share = unit_of(results) == "%" and results.get("higher_is_better", True)  # an accuracy, or 100 minus one
    base = 1 if share or smallest >= 10 else 2 if smallest >= 1 else max(3, three)
    base = base if smallest < 1e6 else 2 - math.floor(math.log10(smallest))
    small: list[float] = [row["std"] for row in rows if row.get("std")]
    for row in rows:
        gain = row.get("difference") or {}
        small += [abs(gain[name]) for name in ("mean", "low", "high") if gain.get(name)]
    return base + any(round(value, base) == 0 for value in small)


def score(results: Mapping[str, Any], mean: float | None, std: float | None) -> str:
    """``85.7 ± 0.2 %``, or ``85.7 %`` where there is no spread."""
    unit = unit_of(results) if mean is not None else ""
    return f"{mean_and_spread({'mean': mean, 'std': std}, decimals(results))}{' ' if unit else ''}{unit}"


def mean_and_spread(scored: Mapping[str, Any], places: int) -> str:
    """``85.7 ± 0.2`` from ``mean`` and ``std``; ``std`` may be None.

    >>> mean_and_spread({"mean": 85.71, "std": None}, 1)
    '85.7'
    """
    spread = "" if scored["std"] is None else f" ± {number(scored['std'], places)}"
    return number(scored["mean"], places) + spread


def difference(gain: Mapping[str, Any], places: int, unit: str = "") -> str:
    """``+2.0 [+1.0, +3.0]``, with a unit after the first number."""
    mean = number(gain["mean"], places, signed=True) + (f" {unit}" if unit else "")
    if gain.get("low") is None:
        return f"{mean} (no interval)"
    low, high = (number(gain[end], places, signed=True) for end in ("low", "high"))
    return f"{mean} [{low}, {high}]"


def verdict(results: Mapping[str, Any], row: Mapping[str, Any]) -> Verdict:
    """A row compared with the control: better or worse only where its 95% interval excludes zero."""
    if row["method"] == results.get("control"):
        return "control"
    difference = row.get("difference")
    if not difference:
        return "none"
    low, high = difference.get("low"), difference.get("high")
    if low is None or high is None:
        return "no interval"
    if low <= 0 <= high:
        return "undecided"
    return "better" if (low > 0) == bool(results["higher_is_better"]) else "worse"


def rows(results: Mapping[str, Any]) -> list[Row]:
    """The table's rows as text, the teacher last."""
    texts = [_row(results, row) for row in results["rows"]]
    if again := results.get("refit"):
        same = _row(results, again)
        name, named = shipped.all_labels(same.method), trained_again(same.method)
        texts.append(dataclasses.replace(same, method=name, words=named, difference="–", verdict="none"))
    teacher = results.get("teacher")
    return [*texts, _teacher_row(results, teacher)] if teacher else texts


def _row(results: Mapping[str, Any], row: Mapping[str, Any]) -> Row:
    gain = row.get("difference")
    if row["method"] == results.get("control"):
        text = "control"
    else:
        text = difference(gain, decimals(results)) if gain else "–"
    return Row(
        method=str(row["method"]),
        words=words(str(row["method"])),
        network=str(row.get("network", "–")),
        steps=count(row.get("steps")),
        images=count(row.get("real_images")) + (f" + {count(row.get('fake_images') or 0)}" * generates(results)),
        score=score(results, row["mean"], row.get("std")),
        difference=text,
        verdict=verdict(results, row),
        attacked=_attacked(results, row),
        ships=row is shipped.shipped(results),
    )


def _teacher_row(results: Mapping[str, Any], teacher: Mapping[str, Any]) -> Row:
    values = teacher.get("values") or []
    return Row(
        method="teacher",
        words="the teacher" + (", trained on the whole pool" if teacher.get("trained_on") == "pool" else ""),
        network=str(teacher.get("network", "–")),
        steps="–",
        images=count(teacher.get("images")),
        score=score(results, teacher.get("test"), spread(values)["std"]),
        difference="–",
        verdict="none",
        attacked=_attacked(results, teacher),
    )


def attacks(results: Mapping[str, Any]) -> list[str]:
    """The attacks with which robustness was measured; [] where it was not."""
    return list((results.get("robustness") or {}).get("attacks") or [])


def _attacked(results: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[str, ...]:
    robustness = row.get("robustness") or {}
    scores = [robustness.get(attack) or {} for attack in attacks(results)]
    return tuple(score(results, attacked.get("mean"), attacked.get("std")) for attacked in scores)


def _under_attack(results: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The columns for attacks in the terminal and in Markdown, and their footnote."""
    columns = [f"under {ATTACKS.get(attack, attack)}" for attack in attacks(results)]
    if not columns:
        return [], []
    settings = results["robustness"]
    note = (
        f"Under attack: {count(settings['images'])} test images, each pixel (0 to 1) changed by up to "
        f"{settings['eps']:.3g} to mislead the network; for each image the worse score counts, changed or not."
    )
    return columns, [note]


def header(results: Mapping[str, Any]) -> list[str]:
    """The columns' names, in the order of :class:`Row`'s fields."""
    unit = difference_unit(results)
    difference = f"difference to the control{', ' if unit else ''}{unit} [95% interval]"
    images = "images, real + fake" if generates(results) else "images"
    return ["method", "in words", "network", "steps", images, metric_with_unit(results), difference]


def cells(row: Row) -> list[str]:
    """A row's texts in the order of :func:`header`."""
    return [row.marked, row.words, row.network, row.steps, row.images, row.score, row.difference]


def footnotes(results: Mapping[str, Any]) -> list[str]:
    """The meaning and the limits of a table's numbers, one sentence each. A table of several runs has no rows here."""
    seeds = results.get("seeds") or []
    better = "higher" if results["higher_is_better"] else "lower"
    notes = [*(results.get("autopilot") or {}).get("reasons", []), *shipped.footnotes(results)]
    notes += [*certainty.footnotes(results, score), f"Measured on the test split; {better} is better."]
    if constant := results.get("constant"):
        notes.append(f"Always answering {constant['label']} would score {score(results, constant['test'], None)}.")
    if (balanced := (results.get("best") or {}).get("balanced")) is not None:
        notes.append(f"Balanced accuracy (each class counts alike) of row *: {score(results, balanced, None)}.")
    if "rows" in results and not generates(results) and not results.get("autopilot"):
        notes.append(NO_FAKES)
    if len(seeds) < 2:
        said = any(str(warning).startswith(ONE_SEED.rstrip(".")) for warning in results.get("warnings") or [])
        return notes if said else [*notes, ONE_SEED]  # terminal and page print the warnings too
    elsewhere = (results.get("teacher") or {}).get("trained_on") == "elsewhere"  # so it is the same for all seeds
    covers = (
        "the student alone, so neither the spread nor the interval covers another teacher or generator"
        if results.get("vary", "student") == "student"
        else "generator and student, but not the teacher"
        if elsewhere
        else "teacher, generator and student"
    )
    notes.append(f"Mean ± standard deviation over {len(seeds)} seeds; a seed changes {covers}.")
    control = results.get("control")
    if control and any(row["method"] == control for row in results.get("rows", [{"method": control}])):
        unit = f", in {difference_unit(results)}" if difference_unit(results) else ""
        notes.append(
            f"Difference{unit}: the row's score minus that of {control} (the control), paired by seed; "
            "95% t interval, not corrected for the number of rows."
        )
    return notes


def table(results: Mapping[str, Any]) -> Table:
    """The table for the terminal: a row in one line of 80 characters, with the words for methods below."""
    under, note = _under_attack(results)
    texts = rows(results)
    networks = {row.network for row in texts if row.method != "teacher"}
    output = Table(
        title=Text(_title(results)),
        caption=Text("\n".join([*footnotes(results), *note, _legend(texts, with_networks=len(networks) == 1)])),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    _, _, network, steps, images, metric, _ = header(results)
    columns = {"network": network} if len(networks) > 1 else {}
    columns |= {} if under else {"steps": steps, "images": images.replace("images, ", "images,\n")}
    has_interval = any(row.difference.endswith("]") for row in texts)
    columns |= {"score": metric, "difference": "difference\n[95% interval]" if has_interval else "difference"}
    output.add_column("method", overflow="fold")
    for name, title in columns.items():
        justify: Literal["left", "right"] = "left" if name == "network" else "right"
        output.add_column(Text(title), justify=justify, no_wrap=name != "score" or unit_of(results) == "%")
    for name in under:
        output.add_column(Text(name), justify="right")
    colours: dict[Verdict, str] = {"better": "bold green", "worse": "bold red"}
    for row in texts:
        short = dataclasses.replace(
            row,
            score=_without_unit(results, row.score),
            difference=row.difference.removesuffix(" (no interval)"),
        )
        cells_ = {name: Text(on_one_line(getattr(short, name))) for name in columns}
        cells_["difference"].stylize(colours.get(row.verdict, ""))
        attacked = [Text(_without_unit(results, text)) for text in row.attacked]
        output.add_row(Text(on_one_line(row.marked)), *cells_.values(), *attacked)
    return output


def _title(results: Mapping[str, Any]) -> str:
    """The name of the run, and that of the data set if it differs."""
    name, dataset = str(results.get("recipe", "run")), str(results.get("dataset") or "")
    return name if dataset in ("", name) else f"{name}: {dataset}"


def _without_unit(results: Mapping[str, Any], text: str) -> str:
    """A score without its unit, which the column's title has; a percent sign stays."""
    unit = unit_of(results)
    return text if unit == "%" or not unit else text.removesuffix(f" {unit}")


def _legend(texts: Sequence[Row], with_networks: bool) -> str:
    """What the methods' names mean, and where all students have one network, its name and the teacher's."""
    names = [f"{row.method} = {row.words}" for row in texts if row.words != row.method and row.method != "teacher"]
    networks = [f"students = {texts[0].network}"] if with_networks else []
    teacher = texts[-1] if texts[-1].method == "teacher" else None
    if teacher is not None:
        words_ = teacher.words.removeprefix("the teacher").lstrip(", ")
        networks.append("teacher = " + ", ".join(part for part in (with_networks * teacher.network, words_) if part))
    return on_one_line("; ".join(part for part in [*names, *networks] if not part.endswith("= ")) + ".")


def as_markdown(results: Mapping[str, Any]) -> str:
    """The same table in GitHub Markdown, with its footnotes; ends with a newline."""
    under, note = _under_attack(results)
    lines = [markdown.line([*header(results), *under])]
    lines += ["| --- | --- | --- | ---: | ---: | ---: | ---: |" + " ---: |" * len(under)]
    lines += [markdown.line([*cells(row), *row.attacked]) for row in rows(results)]
    return "\n".join([*lines, "", markdown.bullets([*footnotes({**results, "warnings": []}), *note]), ""])
