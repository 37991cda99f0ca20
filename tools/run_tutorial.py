"""Run every command of docs/tutorial.md, in order, in an empty folder. Takes about 15 minutes on two idle cores.

    python tools/run_tutorial.py [FOLDER]

``pip install`` is left out: cgankd and python are those of the environment that runs this program.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TUTORIAL = Path(__file__).resolve().parent.parent / "docs" / "tutorial.md"


def main(folder: Path) -> int:
    """Run all; the exit code of the first command that fails, else 0."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        print(f"{folder} is not empty")
        return 2
    text = TUTORIAL.read_text(encoding="utf-8")
    program = re.search(r"save it as `(\w+\.py)`:\s+```python\n(.*?)```", text, re.DOTALL)
    if program is None:
        print("the tutorial has no program any more")
        return 2
    (folder / program[1]).write_text(program[2], encoding="utf-8")
    bin_folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    for command in re.findall(r"^    ((?:cgankd|python) .*)$", text, re.MULTILINE):
        print(f"\n$ {command}", flush=True)
        begin = time.monotonic()
        done = subprocess.run(command, shell=True, cwd=folder, env=environment, check=False)
        print(f"[exit code {done.returncode}, {time.monotonic() - begin:.0f} s]", flush=True)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as empty:
        sys.exit(main(Path(empty)))
