"""The recipe that ``cgankd init`` writes: short, commented, and only what differs from the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from cgankd.core.run_text import duration
from cgankd.planning import units
from cgankd.planning.look import Look
from cgankd.planning.plan import Plan, trained

COMMENTS = {
    "seeds": "[0, 1, 2] gives a spread over students",
    "teacher": "trained here on the labelled images; your own: docs/teachers.md",
    "student": "the network that you ship; cgankd networks lists others",
    "generator": "the conditional GAN, trained on the same images",
    "ratio": "the density ratio between real and generated images",
    "synthesis": "generated images that are kept",
    "compare": "rows of the table; cgankd methods lists more",
}


def as_yaml(looked: Look, plan: Plan) -> str:
    """The recipe with its reasons as comments."""
    parts = "; ".join(f"{name} {duration(seconds)}" for name, seconds in plan.seconds.items() if seconds >= 30)
    lines = [f"# About {duration(plan.total)} on this machine ({parts})."]
    if plan.share < 1:
        lines.append(
            f"# Students have {plan.share:.0%} of the usual steps, to keep to the budget; --budget gives more time."
        )
    trained_here = plan.recipe.generator.source is None
    if not plan.with_fakes:
        short = "to train their generator" if trained_here else "for them"
        lines.append(f"# Without generated images, because the time is too short {short}.")
    for name, value in plan.tree.items():
        if name == "data":
            lines += ["data:", *_data(value, looked.reasons), *_no_unit(looked)]
            continue
        given = (name == "teacher" and not trained(plan.recipe.teacher)) or (name == "generator" and not trained_here)
        comment = f"  # {COMMENTS[name]}" if name in COMMENTS and not given else ""
        if name == "student" and plan.recipe.student.refit:
            comment += "; refit: at the end the best one learns the validation images too"
        lines.append(f"{name}: {_flow(value)}{comment}")
    return "\n".join(lines) + "\n"


def _data(values: Mapping[str, Any], reasons: Mapping[str, str]) -> list[str]:
    return [
        f"  {name}: {_flow(value)}" + (f"  # {' '.join(reasons[name].split())}" if name in reasons else "")
        for name, value in values.items()
    ]


def _no_unit(looked: Look) -> list[str]:
    """A line to complete, where the unit of a scalar is not known."""
    task = looked.splits.task
    if not task.continuous or task.metric_unit:
        return []
    return [f"  # unit: {units.example(looked.settings.circular)}  # the label's unit, for tables; not known here"]


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()
