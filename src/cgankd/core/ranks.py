"""One run on several processes: which one is the first, what all of them agree on, and how they end.

Every process runs the same program. They train networks (core/shared_rows.py), ask their teachers and score them
(:func:`in_turns`), and draw and read images (core/shared_calls.py) together, in the stages that :func:`together` runs.
Everything else is computed by the first process alone, inside :func:`first`, while the others wait for its result. So
only the first process writes files and prints. With one process, each function here just calls what it is given.
"""

from __future__ import annotations

import atexit
import dataclasses
import datetime
import functools
import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cgankd.core import connections, starting
from cgankd.core.errors import LostProcess, OutOfTime, TrainingError, UserError
from cgankd.core.status_file import same_command
from cgankd.core.stopping import ending_on_ctrl_c
from cgankd.core.terminal import on_one_line, plain_console

if TYPE_CHECKING:  # the commands ask :func:`is_first`, and must not import torch for it
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

S = TypeVar("S")
T = TypeVar("T")

WAIT = datetime.timedelta(days=365)  # the others wait as long as the first one works; a process that ends is noticed
SHARED = (UserError, TrainingError, OutOfTime, OSError)  # errors of the first process that the others raise as well


@dataclasses.dataclass
class _Here:
    """This process. together: it computes a stage with the others. alone: it is the first, and the others wait."""

    number: int = 0
    count: int = 1
    together: bool = False
    alone: bool = False
    control: Any = None  # the group for decisions, which are exchanged by processors and never wait for a GPU


_here = _Here()


class _Left(BaseException):
    """The rest of this stage is for the first process."""


def environment_of(fabric: Fabric) -> ClusterEnvironment:
    """What starts the processes and tells each which one it is: torchrun, Slurm, or Fabric itself."""
    return fabric.strategy.cluster_environment  # type: ignore[attr-defined]  # strategies of several processes have it


def join(fabric: Fabric) -> None:
    """Start the other processes, or meet those that torchrun, Slurm or a person started. Further calls change nothing.

    Raises UserError where they can't be reached, and LostProcess where one of this machine ends meanwhile.
    """
    import torch.distributed as dist

    if _here.control is not None:
        fabric.launch()
        return
    here = environment_of(fabric)
    first_machine = here.main_address
    connections.choose_interface(first_machine)
    start = starting.Start(not here.creates_processes_externally)
    try:
        with ending_on_ctrl_c(), start.watched(lambda: _end_alone(fabric)):
            fabric.launch()
            control = dist.new_group(backend="gloo", timeout=WAIT)
    except RuntimeError as error:
        if start.lost():
            raise _lost(*_number_of(fabric), _reason(error)) from error
        raise UserError(
            f"the processes of this run can't reach each other ({_reason(error)}); needed: the same command on each "
            f"machine within 30 minutes, MASTER_ADDR (here {first_machine}) that all of them reach, a free MASTER_PORT "
            "there, and GLOO_SOCKET_IFNAME where a machine reaches the others by another network interface"
        ) from error
    _here.number, _here.count, _here.control = fabric.global_rank, fabric.world_size, control
    _here.alone = False  # an earlier command in this process may have ended alone
    connections.notice_losses()
    atexit.register(dist.destroy_process_group)  # else gloo's threads abort a process that ends
    starting.ended_children_send(signal.SIGTERM)  # it saves its state and says why it stops


def _number_of(fabric: Fabric) -> tuple[int, int]:
    """The number of this process and how many there are, also before they have met."""
    here = environment_of(fabric)
    own: int = fabric.strategy.num_processes  # type: ignore[attr-defined]  # of this machine
    return here.node_rank() * own + here.local_rank(), fabric.world_size


def _end_alone(fabric: Fabric) -> None:
    """End this process, whose main thread waits for one that has ended."""
    error = _lost(*_number_of(fabric), "it ended before all of them had met")
    sentence = f"cgankd: {error}; the same command goes on: {same_command()}"
    plain_console(stderr=True).print(on_one_line(sentence), style="red", soft_wrap=True)
    os._exit(1)


def is_first() -> bool:
    """Whether this process is the one that writes files and prints."""
    return _here.number == 0


def written_by_first(path: Path) -> Path | None:
    """The path in the first process; None in the others, which write no files."""
    return path if is_first() else None


def count() -> int:
    """The number of processes of this run."""
    return _here.count


def share() -> tuple[int, int]:
    """The number of this process, from 0, and how many share each batch now: all of them inside :func:`together`."""
    return (_here.number, _here.count) if _here.together and not _here.alone else (0, 1)


def rows() -> slice:
    """The rows of a batch that this process computes."""
    number, count = share()
    return slice(number, None, count)


def first(function: Callable[[], T]) -> T:
    """The result of ``function()`` in every process; only the first process calls it. Every process must call this.

    The result is sent to the others by pickle. An error of a kind that users see is raised in every process.
    """
    if _here.count == 1 or _here.alone:
        return function()
    value, error = None, None
    if is_first():
        _here.alone = True
        try:
            value = function()
        except SHARED as raised:
            error = raised
        finally:
            _here.alone = False
    value, sent = from_first((value, error))
    if error is not None:
        raise error
    if sent is not None:
        sent.of_first = True  # type: ignore[union-attr]
        raise sent
    return value  # type: ignore[return-value]


def first_of_team(function: Callable[[], T]) -> T:
    """As :func:`first` inside of :func:`together`, and ``function()`` elsewhere."""
    return function() if share()[1] == 1 else first(function)


def each_of_team(function: Callable[[], T]) -> list[T]:
    """As :func:`each` inside of :func:`together`, and the result of ``function()`` alone elsewhere."""
    return [function()] if share()[1] == 1 else each(function)


def in_turns(items: Sequence[S], compute: Callable[[S], T]) -> Iterator[T]:
    """``compute(item)`` of all items, in order; inside of :func:`together`, each process computes some of the items.

    All processes must come here with the same items, and take all results. These are sent as in :func:`each`, so
    tensors must be on the CPU. Elsewhere, this process computes all items.
    """
    count = share()[1]
    if count == 1:
        yield from map(compute, items)
        return
    for start in range(0, len(items), count):
        own = items[start : start + count][rows()]  # one, or none
        compute_own: Callable[[], list[T]] = functools.partial(list, map(compute, own))
        for results in each(compute_own):
            yield from results


def in_turn(function: Callable[[], T]) -> T:
    """``function()`` of every process itself: the first one before the others, which also raise its error."""
    results: list[T] = []
    first(lambda: results.append(function()))
    return results[0] if results else function()


def agreed(decide: Callable[[], bool]) -> bool:
    """As :func:`first_of_team`, for a yes or no at every step, and cheaper. ``decide`` must not raise."""
    if share()[1] == 1:
        return decide()
    import torch
    import torch.distributed as dist

    answer = torch.tensor([decide() if is_first() else False])
    with exchanging():
        dist.broadcast(answer, src=0, group=_here.control)
    return bool(answer)


def alike(number: int) -> bool:
    """Whether all processes of the team came here with the same number. All of them must come to some such call."""
    if share()[1] == 1:
        return True
    import torch
    import torch.distributed as dist

    largest = torch.tensor([number, -number])
    with exchanging():
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=_here.control)
    return int(largest[0]) == -int(largest[1])


def together(on_first: Callable[[], T], on_others: Callable[[], Any]) -> T:
    """The result of ``on_first()`` in every process, where the others help with ``on_others()``.

    Both run the same stage. They exchange what they compute until the stage calls :func:`leave`; the first process
    does the rest alone. An error that all of them raised before is not exchanged again.
    """
    if _here.count == 1 or _here.alone:
        return on_first()
    value, error = None, None
    _here.together = True
    try:
        with exchanges_of_torch():
            value = on_first() if is_first() else on_others()
    except _Left:
        pass
    except SHARED as raised:
        if not _here.alone:
            raise
        error = raised
    finally:
        _here.together = _here.alone = False

    def outcome() -> T:
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    return first(outcome)


def leave() -> None:
    """The rest of a stage that :func:`together` runs is for the first process; in the others the stage ends here."""
    if share()[1] > 1 and not is_first():
        raise _Left
    _here.alone = share()[1] > 1 or _here.alone


def goes_on_alone() -> bool:
    """Whether this is the first process, which goes on without the others, for they end now."""
    _here.alone = True
    starting.ended_children_send(None)  # whatever becomes of them
    return is_first()


def sentence_of(error: BaseException, sentence: str) -> str:
    """What this process says of an error that ends it: nothing, where the first process says it for all.

    From now on it goes to its own end, whatever becomes of the others.
    """
    starting.ended_children_send(None)
    if is_first() or isinstance(error, LostProcess):
        return sentence
    told = getattr(error, "of_first", False) or isinstance(error, KeyboardInterrupt)
    return "" if told else f"process {_here.number + 1} of {_here.count}: {sentence}"


def check_same(name: str, mine: str, of_first: str) -> None:
    """LostProcess where the first process computes another result than this one."""
    if mine != of_first:
        raise LostProcess(
            f"process {_here.number + 1} of {_here.count} stopped, because its {name} differs from that of process 1; "
            "all processes need the same code, files, settings and random weights"
        )


@contextmanager
def exchanging() -> Iterator[None]:
    """Put this around every exchange: if it fails, LostProcess is raised, because another process has ended."""
    try:
        yield
    except RuntimeError as error:
        raise _lost(_here.number, _here.count, _reason(error)) from error


@contextmanager
def exchanges_of_torch() -> Iterator[None]:
    """The same around what exchanges inside of torch, such as a pass of a network in parts, whose other errors stay."""
    import torch.distributed as dist

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "/gloo/" not in str(error):
            raise
        raise _lost(_here.number, _here.count, _reason(error)) from error


def _lost(number: int, count: int, reason: str) -> LostProcess:
    return LostProcess(
        f"process {number + 1} of {count} stopped, because another one has ended or can't be reached ({reason})"
    )


def _reason(error: RuntimeError) -> str:
    """What torch says of an exchange that failed, without the lines of its code and hints for programmers."""
    return re.sub(r"^\[[^]]*\] |\[\S+\.cc:\d+\] ", "", str(error)).partition(". ")[0].partition("\n")[0]


def control() -> Any:
    """The group of all processes for what they exchange by their processors."""
    return _here.control


def from_first(value: T) -> T:
    """The first process's ``value``, sent by pickle to all."""
    import torch.distributed as dist

    box = [value]
    with exchanging():
        dist.broadcast_object_list(box, src=0, group=_here.control)
    return box[0]


def each(function: Callable[[], T]) -> list[T]:
    """The result of ``function()`` of each process, sent by pickle to all. Every process must call this.

    An error of a kind that users see, of any process, is raised in every process.
    """
    import torch.distributed as dist

    value, error = None, None
    try:
        value = function()
    except SHARED as raised:
        error = raised
    results: list[Any] = [None] * _here.count
    with exchanging():
        dist.all_gather_object(results, (value, error), group=_here.control)
    for _, sent in results:
        if sent is not None:
            sent.of_first = True  # the first process raises it too, and says it for all
            raise sent
    return [value for value, _ in results]
