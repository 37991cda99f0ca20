"""The state of a loop in one safetensors file, so that a killed loop resumes exactly."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from cgankd.core import ranks
from cgankd.core.errors import UserError
from cgankd.core.files import is_whole, load_tensors, save_tensors
from cgankd.core.shared_weights import divided_as, gathered
from cgankd.core.stopping import reason_to_stop, stop_in_time


class Checkpoint:
    """Saves and restores modules, optimisers, tensors and a history.

    Random numbers need no saving: loops reseed from (seed, stage, step). ``path`` None saves nothing. Once
    ``deadline`` (in time.monotonic's seconds) has passed, or SIGTERM came, :meth:`save` raises OutOfTime after saving.
    Where several processes compute together, the first one decides, writes and reads for all.
    """

    def __init__(self, path: Path | None, every_seconds: float = 60.0, deadline: float = math.inf) -> None:
        self.path = path
        self.every_seconds = every_seconds
        self.deadline = deadline
        self.tensors: dict[str, Tensor] = {}  # what :meth:`load` read beside modules and optimisers
        self._saved_at = time.monotonic()

    @property
    def there(self) -> bool:
        """Whether there is a saved state."""
        return ranks.agreed(self._is_there)

    def _is_there(self) -> bool:
        """A file that was cut, as a crash of the machine may leave it, is removed: the loop begins anew, and ends with
        the same numbers."""
        if self.path is None or not self.path.is_file():
            return False
        if not is_whole(self.path):
            self.path.unlink()
            return False
        return True

    def due(self) -> bool:
        """Whether it is time to save again."""
        return ranks.agreed(self._is_due)

    def _is_due(self) -> bool:
        if self.path is None:
            return False
        return time.monotonic() - self._saved_at >= self.every_seconds or reason_to_stop(self.deadline) is not None

    def save(
        self,
        step: int,
        modules: Mapping[str, nn.Module] = MappingProxyType({}),
        optimizers: Mapping[str, torch.optim.Optimizer] = MappingProxyType({}),
        history: Any = (),
        tensors: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:
        """Write the state after ``step`` steps, then stop if it is time to. history: any JSON value."""

        state = _state(modules, optimizers, tensors)

        def save() -> None:
            if self.path is not None:
                self._write(step, state, history)
                stop_in_time(self.deadline)

        ranks.first_of_team(save)

    def write(
        self,
        step: int,
        modules: Mapping[str, nn.Module] = MappingProxyType({}),
        optimizers: Mapping[str, torch.optim.Optimizer] = MappingProxyType({}),
        history: Any = (),
        tensors: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:
        """The same as :meth:`save` of one process, but never stops."""
        if self.path is not None:
            self._write(step, _state(modules, optimizers, tensors), history)

    def _write(self, step: int, state: Mapping[str, Tensor], history: Any) -> None:
        assert self.path is not None
        save_tensors(self.path, state, {"step": str(step), "history": json.dumps(history)})
        self._saved_at = time.monotonic()

    def load(
        self,
        modules: Mapping[str, nn.Module] = MappingProxyType({}),
        optimizers: Mapping[str, torch.optim.Optimizer] = MappingProxyType({}),
    ) -> tuple[int, Any]:
        """Restore what was saved; returns (steps done, history), or (0, []) where nothing was saved.

        Raises UserError for a file that holds something else.
        """
        saved = ranks.first_of_team(self._read)
        if saved is None:
            return 0, []
        tensors, metadata = saved
        try:
            return self._restore(tensors, metadata, modules, optimizers)
        except (KeyError, ValueError, IndexError, TypeError, RuntimeError, RecursionError) as error:
            raise UserError(
                f"{self.path or 'the checkpoint'}: is not a saved state of this loop ({type(error).__name__}); delete "
                "it, and the same command begins this loop anew"
            ) from error

    def _restore(
        self,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, str],
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
    ) -> tuple[int, Any]:
        self.tensors = {k.removeprefix("tensor/"): v for k, v in tensors.items() if k.startswith("tensor/")}
        for name, module in modules.items():
            start = f"module/{name}/"
            own = module.state_dict()
            saved = {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}
            module.load_state_dict({k: divided_as(own[k], v) if k in own else v for k, v in saved.items()})
        for name, optimizer in optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                kind, owner, *rest = key.split("/")
                if kind == "optimizer" and owner == name:
                    state.setdefault(int(rest[0]), {})[rest[1]] = value
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
            for weight, entries in optimizer.state.items():
                for key, value in entries.items():
                    if value.shape == weight.shape:  # fused optimisers need the state in its weight's memory format
                        empty = torch.empty_like(weight, dtype=value.dtype)
                        entries[key] = empty.copy_(divided_as(weight, value))
        return int(metadata["step"]), json.loads(metadata["history"])

    def _read(self) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        return load_tensors(self.path) if self.path is not None and self._is_there() else None


def _state(
    modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What is saved, by the names in the file. Where weights lie in parts, all processes must call this."""
    state = {f"tensor/{name}": tensor for name, tensor in tensors.items()}
    for name, module in modules.items():
        state |= {f"module/{name}/{key}": value for key, value in module.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, entries in optimizer.state_dict()["state"].items():
            state |= {
                f"optimizer/{name}/{index}/{key}": torch.as_tensor(value)
                for key, value in entries.items()
                if value is not None
            }
    return gathered(state)
