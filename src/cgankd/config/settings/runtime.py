"""Where and how a run computes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cgankd.config.settings.base import Settings


class RuntimeSettings(Settings):
    """Where and how a run computes; device and precision are part of every result's key."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto: cuda where there is one, else cpu")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where the device is fast at it")
    threads: int | None = Field(None, ge=1, description="CPU threads; none: all cores")
    checkpoint_seconds: float = Field(60.0, ge=0, description="seconds between two saves of a training loop's state")


class RunRuntimeSettings(RuntimeSettings):
    """Where and how a run computes; every result's key has device and precision, but not the number of devices."""

    devices: int = Field(1, ge=1, description="devices of each machine, one process each; networks are trained on all")
    nodes: int = Field(1, ge=1, description="machines, on each of which the command is started, see docs/clusters.md")
    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="ddp: each device holds whole networks; fsdp: a part of a teacher that is trained",
    )
