"""The console that all commands print to."""

from __future__ import annotations

from cgankd.core.terminal import plain_console

console = plain_console()
