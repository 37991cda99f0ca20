"""``cgankd doctor``: what this installation and this machine can do, and what to do about each problem.

Nothing is imported at the top that an incomplete installation may lack, because then the command must still answer.
"""

from __future__ import annotations

import dataclasses
import importlib
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from cgankd._version import __version__
from cgankd.core import extras, machine

GIB = 2**30
LITTLE_MEMORY, LITTLE_DISK = 2 * GIB, 2 * GIB
FOR_DEVELOPERS = {"dev", "docs", "dist"}
OTHER_NAMES = {"pyyaml": "yaml", "pillow": "PIL", "scikit-learn": "sklearn"}  # distribution -> what is imported


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something to mend. needed: without it runs don't work here."""

    text: str
    needed: bool


@dataclasses.dataclass
class Findings:
    """Facts by section and name, and the problems."""

    facts: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    problems: list[Problem] = dataclasses.field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether nothing that is needed is broken."""
        return not any(problem.needed for problem in self.problems)

    def add(self, section: str, **facts: Any) -> None:
        """Facts of a section."""
        self.facts.setdefault(section, {}).update(facts)

    def problem(self, text: str, needed: bool = False) -> None:
        """A problem: what it is, and what to do."""
        self.problems.append(Problem(text, needed))

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        problems = [dataclasses.asdict(problem) for problem in self.problems]
        return {"usable": self.usable, **self.facts, "problems": problems}


def examine(seconds: float = 2.0) -> Findings:
    """All facts and problems. seconds: how long the speed is measured."""
    findings = Findings()
    check_python(findings)
    check_packages(findings, metadata.requires("cgankd") or [])
    check_memory(findings, *machine.memory())
    if any(problem.needed for problem in findings.problems):
        return findings  # what follows imports torch and others
    check_processor(findings)
    check_gpus(findings)
    check_folders(findings)
    check_speed(findings, seconds)
    return findings


def check_python(findings: Findings) -> None:
    """Python and this package."""
    findings.add("versions", cgankd=__version__, python=platform.python_version(), system=platform.platform())


def check_packages(findings: Findings, requirements: Iterable[str]) -> None:
    """What cgankd needs: importable and new enough. The extras: installed, or how to install them."""
    extras: dict[str, list[str]] = {}
    for requirement in map(Requirement, requirements):
        marker = str(requirement.marker or "")
        extra = marker.partition("extra == ")[2].strip("\"'")
        if extra in FOR_DEVELOPERS:
            continue
        version = _version(requirement.name)
        if extra:
            extras.setdefault(extra, [])
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                extras[extra].append(requirement.name)
            continue
        findings.add("versions", **{requirement.name: version or "missing"})
        if sentence := _what_is_wrong(requirement, version):
            findings.problem(sentence, needed=True)
    for extra, missing in extras.items():
        findings.add("extras", **{extra: f"pip install 'cgankd[{extra}]'" if missing else "installed"})


def check_processor(findings: Findings) -> None:
    """The processor's name and features, cores, and threads."""
    import torch

    from cgankd.core.runtime import has_bf16

    cores, limit, threads = machine.cores(), machine.core_limit(), torch.get_num_threads()
    findings.add(
        "processor",
        name=machine.processor(),
        features=torch.backends.cpu.get_cpu_capability(),
        bf16="yes" if has_bf16("cpu") else "no, so precision auto is fp32 here",
        cores=cores,
        core_limit="none" if limit is None else round(limit, 2),
        threads=threads,
    )
    usable = cores if limit is None else min(cores, max(1, int(limit)))
    if threads > usable:
        findings.problem(
            f"torch starts {threads} threads, but this process may use {usable} core(s), which makes every step "
            f"slower: set runtime.threads={usable}, or OMP_NUM_THREADS={usable} in the environment"
        )


def check_gpus(findings: Findings) -> None:
    """The GPUs that torch can use, and why it can't."""
    import torch

    gpus = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if (properties.major, properties.minor) >= (8, 0) else "no bf16"
        gpus.append(f"{properties.name}, {properties.total_memory / GIB:.0f} GiB, {bf16}")
    mps = ["Apple GPU (runtime.device=mps; not tested)"] if torch.backends.mps.is_available() else []
    findings.add("gpus", found=gpus + mps or "none; runs use the processor")
    if not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        build = "has no CUDA" if torch.version.cuda is None else f"is for CUDA {torch.version.cuda}"
        findings.problem(
            f"an NVIDIA driver is installed, but torch {torch.__version__} can't use it (this build {build}): install "
            "the torch build for the driver's CUDA version, as pytorch.org lists them; until then the processor is used"
        )
    if len(gpus) > 1:
        findings.add("gpus", note="a run uses one, or N with --devices N; CUDA_VISIBLE_DEVICES chooses which")


def check_memory(findings: Findings, total: int | None, free: int | None) -> None:
    """Memory in all and free, in bytes."""
    findings.add("memory", total_gib=_gib_number(total), free_gib=_gib_number(free))
    if free is not None and free < LITTLE_MEMORY:
        findings.problem(
            f"only {_gib(free)} of memory are free: end other programs, or use fewer images at once "
            "(student.fit.batch_size, generator.batch_size, synthesis.batch_size)"
        )


def check_folders(findings: Findings) -> None:
    """Room and write rights: the current folder, where runs are written by default, and that of public data sets."""
    from cgankd.data import public

    where = {
        "runs": (Path.cwd(), True, "go to another folder, or give --out a folder with room that you may write to"),
        "public data sets": (
            public.home(), False, f"set {public.VARIABLE} to a folder with room that you may write to"
        ),
    }  # fmt: skip
    for name, (folder, needed, advice) in where.items():
        nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
        writable, free = _can_write(nearest), shutil.disk_usage(nearest).free
        findings.add("folders", **{name: f"{folder}: {_gib(free)} free{'' if writable else ', not writable'}"})
        if not writable:
            findings.problem(f"{nearest} can't be written to, where {name} go: {advice}", needed=needed)
        elif free < LITTLE_DISK:
            findings.problem(f"{nearest} has {_gib(free)} left, where {name} go: free some, or {advice}")


def check_speed(
    findings: Findings, seconds: float, measure: Callable[[str, float], Mapping[str, float]] | None = None
) -> None:
    """Training steps a second, and whether the precision that ``auto`` chooses is the faster one."""
    import torch

    from cgankd.core.runtime import has_bf16
    from cgankd.planning import step_speed

    device = "cuda" if torch.cuda.is_available() else "cpu"
    speeds = (measure or step_speed.steps_per_second)(device, seconds)
    network = f"{step_speed.NETWORK}, {step_speed.BATCH} images of {step_speed.SIDE}x{step_speed.SIDE}"
    findings.add("steps a second", of=f"{network}, on {device}", **{k: round(v, 1) for k, v in speeds.items()})
    chosen = "bf16" if has_bf16(device) else "fp32"
    other = "fp32" if chosen == "bf16" else "bf16"
    best = {kind: max(v for k, v in speeds.items() if k.startswith(kind)) for kind in (chosen, other)}
    if best[other] > 1.3 * best[chosen]:
        findings.problem(
            f"precision auto is {chosen} here, but {other} is {best[other] / best[chosen]:.1f} times as fast: "
            f"set runtime.precision={other}"
        )


def _what_is_wrong(requirement: Requirement, version: str | None) -> str:
    """One sentence with what to do; empty: nothing is wrong."""
    name = requirement.name
    install = f"pip install '{name}{requirement.specifier}'"
    if version is None:
        return f"{name} is missing: {install}"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{name} {version} is not {requirement.specifier}: {install}"
    extras.report_nothing()
    try:
        importlib.import_module(OTHER_NAMES.get(name.lower(), name.lower().replace("-", "_")))
    except Exception as error:  # a broken library may fail in any way
        reason = " ".join(str(error).split())
        public = version.partition("+")[0]  # 2.13.0+cpu: package indexes know only 2.13.0
        return f"{name} {version} can't be imported ({reason}): pip install --force-reinstall '{name}=={public}'"
    return ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _can_write(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def _gib_number(size: int | None) -> float | str:
    return "not known" if size is None else round(size / GIB, 1)
