"""Install the wheel and the sdist of dist/ into empty environments, and run a recipe with few steps there.

    python tools/try_distribution.py python3.10 python3.13

Each Python gets one environment: the wheel with all it needs, then the sdist in its place. torch is several GB.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSIDE = (  # files that are not Python and without which the package does not work
    "py.typed", "config/recipes/digits.yaml", "continual/recipes/continual-fashion.yaml", "lm/recipes/pydoc.yaml",
    "data/builtin/fashion.npz", "data/builtin/FASHION-MNIST-LICENSE.txt", "report/page.html.jinja",
)  # fmt: skip
FEW = [
    "seeds=[0]", "data.train_size=100", "teacher.network=cnn8", "teacher.fit.steps=40", "student.fit.steps=20",
    "student.transfer_steps=25", "generator.channels=8", "generator.steps=30", "generator.batch_size=16",
    "ratio.steps=30", "synthesis.images=200", "synthesis.subsampling.burn_in=20", "synthesis.filter.calibration=20",
]  # fmt: skip


def main(pythons: list[str]) -> int:
    """Try both distributions on each Python; raises CalledProcessError where a command fails."""
    wheel, sdist = (one_of(pattern) for pattern in ("*.whl", "*.tar.gz"))
    missing = missing_files(wheel)
    if missing:
        print(f"{wheel.name} lacks {', '.join(missing)}")
        return 1
    for python in pythons:
        with tempfile.TemporaryDirectory() as folder:
            environment, empty = Path(folder, "env"), Path(folder, "empty")
            empty.mkdir()
            subprocess.run([python, "-m", "venv", environment], check=True)
            pip = [environment / "bin" / "python", "-m", "pip", "install", "--quiet"]
            for file, options in ((wheel, []), (sdist, ["--force-reinstall", "--no-deps"])):
                subprocess.run([*pip, *options, file], check=True)
                run(environment / "bin" / "cgankd", empty / file.suffix.strip("."))
                print(f"{python}: {file.name} works", flush=True)
    return 0


def run(cgankd: Path, folder: Path) -> None:
    """Doctor, and a run of seconds, in a new folder."""
    folder.mkdir()
    subprocess.run([cgankd, "doctor"], cwd=folder, check=True)
    subprocess.run([cgankd, "run", "digits", "--quiet", *FEW], cwd=folder, check=True)
    for name in ("results.json", "report.html", "student.safetensors"):
        if not (folder / "runs" / "digits" / name).is_file():
            raise SystemExit(f"the run wrote no {name}")


def missing_files(wheel: Path) -> list[str]:
    """Which files of INSIDE the wheel lacks."""
    names = set(zipfile.ZipFile(wheel).namelist())
    return [name for name in INSIDE if f"cgankd/{name}" not in names]


def one_of(pattern: str) -> Path:
    """The one file of dist/ that matches."""
    files = sorted((ROOT / "dist").glob(pattern))
    if len(files) != 1:
        raise SystemExit(f"dist/ holds {len(files)} files {pattern}; make dist writes one")
    return files[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or [sys.executable]))
