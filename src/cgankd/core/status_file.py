"""The status file of a run, which ``cgankd status`` reads from another terminal or another machine."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cgankd.core import run_text
from cgankd.core.addresses import masked
from cgankd.core.errors import UserError
from cgankd.core.paths import ABLATION, LOCK, RESULTS, TABLE, check_there
from cgankd.core.stopping import ORDERLY
from cgankd.core.watching import Output, Watched

NAME = "status.json"
EVERY = 3.0  # seconds between two writes
SILENT_AFTER = 600.0  # seconds; a run on another host that has written nothing for longer may be dead


def same_command() -> str:
    """The command of this process, as one types it into a shell.

    Dots stand for a password in an address, and for torchrun's own options.
    """
    name = Path(sys.argv[0]).name
    start = ["torchrun", ".."] if "TORCHELASTIC_RUN_ID" in os.environ else [_python()]
    words = [*([*start, "-m", "cgankd"] if name == "__main__.py" else [name]), *map(masked, sys.argv[1:])]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _python() -> str:
    """This interpreter: its name where a shell finds it by that, and not one of another environment, else its path."""
    found = shutil.which("python")
    return "python" if found is not None and Path(found).absolute() == Path(sys.executable) else sys.executable


class _Earlier:
    """A file as it was: its content and the time of its last change; or that there was none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = path.read_bytes() if path.is_file() else None
        self.changed = path.stat().st_mtime_ns if path.is_file() else 0

    def put_back(self) -> None:
        if self.content is None:
            self.path.unlink(missing_ok=True)
            return
        from cgankd.core.files import replacing

        with replacing(self.path, durable=False) as temporary:
            temporary.write_bytes(self.content)
        os.utime(self.path, ns=(self.changed, self.changed))


class StatusFile(Output):
    """Writes the status of a run to its folder: every few seconds, and when it ends.

    While a run is prepared (its images are read and looked at) the file says so. If no run begins, the file that was
    there before comes back, because a refused run must not leave files behind. Where it was stopped and there was such
    a file, the file says so, because that one tells of an earlier run.
    """

    every = EVERY

    def __init__(self) -> None:
        self._record: dict[str, Any] = {}
        self._last: dict[str, Any] = {}  # what was known before the end, which also ends loops and stages
        self._begun = False
        self._before: _Earlier | None = None  # the file that was there before this run was prepared

    def event(self, event: str, fields: Mapping[str, Any], watched: Watched) -> None:
        match event:
            case "run_started" | "stage_started" | "stage_ended":
                self._begun = True
                self._write(watched, "running")
            case "opened" | "loop_started" if not self._begun:
                self._write(watched, "running")
            case "closed" | "stopped" if not self._begun:
                self._put_back()
                if event == "stopped" and fields["code"] in ORDERLY and _is_there(watched.folder):
                    self._write(watched, "waiting", **fields)
            case "done" if self._begun:
                self._write(watched, "done", **fields)
            case "stopped":
                self._write(watched, "waiting" if fields["code"] in ORDERLY else "failed", **fields)

    def tick(self, watched: Watched) -> None:
        self._write(watched, "running")

    def _put_back(self) -> None:
        """The status file as it was before a run was prepared."""
        before, self._before = self._before, None
        if before is not None:
            with contextlib.suppress(OSError):
                before.put_back()

    def _write(self, watched: Watched, state: str, **fields: Any) -> None:
        if watched.folder is None:
            return
        path = watched.folder / NAME
        if not self._begun and self._before is None:
            self._before = _Earlier(path)
        if not self._record:
            self._record = {
                "command": same_command(),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "process_started": process_started(os.getpid()),
                "started": watched.started,
            }
        from cgankd.core.files import write_json

        if state == "running":
            self._last = watched.now()
        known = watched.at_error or self._last
        times = {"updated": time.time(), "seconds": watched.seconds, "preparing": not self._begun}
        record = {"state": state, **self._record, **times, **known, **fields}
        try:
            write_json(path, run_text.finite(record), durable=False)
        except OSError:  # such as a full disk: the run goes on as long as its own files can be written
            return


def _is_there(folder: Path | None) -> bool:
    return folder is not None and (folder / NAME).is_file()


def process_started(pid: int) -> str | None:
    """When a process of this machine started, because numbers of processes are used again; None: there is none.

    An empty text means that this machine can't tell (Windows).
    """
    if os.name == "nt":
        return ""
    stat = Path(f"/proc/{pid}/stat")
    try:
        fields = stat.read_text().rpartition(")")[2].split()  # the name before may contain anything
        return None if fields[0] in "ZX" else fields[19]  # a zombie does nothing any more
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return None
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip() or None


def read_status(folder: Path) -> dict[str, Any]:
    """The status of the run in ``folder``, with what became of its process.

    ``state``: running; done; waiting (stopped in an orderly way: the same command goes on); failed; killed; silent (on
    another host, without news); unknown (a run without a status file that has not finished). ``results``: their path;
    None where they were deleted. Raises UserError where the folder is not one of a run.
    """
    check_there(folder)
    path = folder / NAME
    if not path.is_file():
        if (folder / RESULTS).is_file():
            return {"state": "done", "results": str(folder / RESULTS)}
        lock = folder / LOCK
        if lock.is_file() and lock.stat().st_size:  # an empty one: a run was refused or stopped before it began
            return {"state": "unknown", "updated": lock.stat().st_mtime}
        raise UserError(f"{folder} is not the folder of a run: it has no {NAME} and no {RESULTS}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = None
    if not isinstance(record, dict) or "state" not in record:
        raise UserError(f"{path} is not the status of a run")
    if record["state"] == "running":
        record["state"] = _state(record)
    own = folder / Path(record.get("results") or "").name
    if own.is_file():  # the run may have been started in another folder, or its own was moved since
        record["results"] = str(own)
    elif own.name in {RESULTS, TABLE, ABLATION} and not Path(record["results"]).is_file():
        record["results"] = None
    return record


def _state(record: Mapping[str, Any]) -> str:
    """What became of a process that was running when it wrote its status."""
    if record["host"] == socket.gethostname():
        started = process_started(record["pid"])
        if started != "":
            return "running" if started == record["process_started"] else "killed"
    return "running" if time.time() - record["updated"] < SILENT_AFTER else "silent"


def as_lines(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """The status for a person."""
    state = record["state"]
    if "pid" not in record:
        return [_without_file(folder, record)]
    ago = f"{_since(record)} ago"
    began = f"{run_text.duration(record.get('seconds', 0.0))}"
    again = f"the same command goes on: {record['command']}"
    results = f"results: {record.get('results')}"
    if record.get("results", "") is None:
        results = f"its results are missing; the same command writes them anew: {record['command']}"
    words = {
        "running": f"running for {began} (process {record['pid']} on {record['host']}), last news {ago}",
        "done": f"done {ago}, after {began}{_in_all(record)}; {results}",
        "waiting": f"{record.get('reason')} ({ago}); {again}",
        "failed": f"failed {ago}: {record.get('reason')}",
        "killed": f"killed: process {record['pid']} ended without a word after its last news {ago}; {again}",
        "silent": f"no news from {record['host']} since {ago.removesuffix(' ago')}; it may have been killed",
    }
    lines = [f"{folder}: {words[state]}"]
    where = run_text.line(record if state == "running" else _still(record)) if record.get("stage") else ""
    if record.get("preparing"):
        where = f"before the run{where and ': '}{where}"
    if where and state != "done":
        lines.append(where if state == "running" else f"it was at: {where}")
    file = folder / RESULTS
    if state != "done" and file.is_file() and file.stat().st_mtime < record.get("started", math.inf):
        lines.append(f"{file} holds the results of an earlier run, until this one ends")
    return lines


def _since(record: Mapping[str, Any]) -> str:
    """How long ago the record was written; nothing where the clock was set back since."""
    return run_text.duration(max(0.0, time.time() - record["updated"]))


def _in_all(record: Mapping[str, Any]) -> str:
    """The time of all stages, where it is longer than that of the last command, which found some of them finished."""
    try:
        spent = sum(json.loads(Path(record["results"]).read_bytes())["seconds"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # tables and others have no such record
        return ""
    return f" (the stages took {run_text.duration(spent)} in all)" if spent > record["seconds"] + 1.0 else ""


def _still(record: Mapping[str, Any]) -> dict[str, Any]:
    """Without times left, which mean nothing where nothing moves."""
    return {**record, "stage_left": None, "left": None, "images_per_second": None}


def _without_file(folder: Path, record: Mapping[str, Any]) -> str:
    if record["state"] == "done":
        return f"{folder}: done; results: {record['results']}"
    begun = f"{folder}: begun {_since(record)} ago and not finished"
    return f"{begun}; whether it still runs is not known, because it has no {NAME}"
