"""Where the runs of a table and the trials of a run are computed: the options of run, table and ablate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cgankd.core.errors import UserError

if TYPE_CHECKING:  # a package that commands import late
    from cgankd.experiments.executors import Executor

Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        help="runs, or trials of the autopilot, at once; default 1 for processes, all for slurm and ray",
    ),
]
OnExecutor = Annotated[
    str, typer.Option("--executor", help="where runs or trials are computed: processes of this machine, slurm or ray")
]
Resources = Annotated[
    str,
    typer.Option("--resources", help="for slurm: 'timeout_min=240 slurm_partition=gpu'; for ray: 'num_gpus=1'"),
]


def executor(kind: str, jobs: int | None, resources: str) -> Executor:
    """As the options say; values of resources are read as YAML."""
    import yaml

    from cgankd.experiments.executors import Executor

    pairs = [word.partition("=") for word in resources.split()]
    if wrong := [word for word, equals, _ in pairs if not equals]:
        raise UserError(f"--resources: {wrong[0]!r} is not of the form KEY=VALUE, such as timeout_min=240")
    return Executor(kind, jobs, {key: yaml.safe_load(value) for key, _, value in pairs})
