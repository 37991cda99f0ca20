"""Connections between the machines of a run: which variables name them, over which interface, when one is lost."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from pathlib import Path

from cgankd.core.errors import UserError

LOST_AFTER = 30  # seconds in which the system of the other machine, which also answers for a busy process, was silent
ADDRESS_OF_INTERFACE = 0x8915  # SIOCGIFADDR of Linux


def check_variables(nodes: int) -> None:
    """UserError where the environment does not tell which of ``nodes`` machines this is, and how to reach the first.

    It is for a command that a person starts on each machine. torchrun and srun set variables of their own.
    """
    needed = (
        "needed on each machine: MASTER_ADDR and MASTER_PORT (the first machine's address and a free port of it) and "
        f"NODE_RANK (0 to {nodes - 1}); torchrun and srun set them"
    )
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        value = os.environ.get(name)
        if not value:
            raise UserError(f"runtime.nodes = {nodes}, but the variable {name} is not set; {needed}")
        most = {"MASTER_PORT": 65535, "NODE_RANK": nodes - 1}.get(name)
        if most is not None and not (value.isdecimal() and int(value) <= most):
            raise UserError(f"runtime.nodes = {nodes}, but {name} = {value}; {needed}")
    try:
        socket.getaddrinfo(os.environ["MASTER_ADDR"], None)
    except OSError:  # torch would look for it for half an hour
        raise UserError(
            f"runtime.nodes = {nodes}, but no machine is found at MASTER_ADDR = {os.environ['MASTER_ADDR']}; {needed}"
        ) from None


def choose_interface(address: str) -> None:
    """Let gloo exchange by the interface that reaches ``address``, unless GLOO_SOCKET_IFNAME is set.

    Without it gloo takes the interface of this machine's own name, which often stands for 127.0.0.1 or 127.0.1.1.
    """
    if name := interface_to(address):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def interface_to(address: str) -> str | None:
    """The network interface by which this machine reaches ``address``; None: only itself, or the system can't tell.

    >>> interface_to("127.0.0.1") is None
    True
    """
    if sys.platform != "linux":
        return None
    import fcntl

    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # sends nothing, but chooses this machine's address
        own = socket.inet_aton(probe.getsockname()[0])
        for _, name in socket.if_nameindex() if own[0] != 127 else ():
            with contextlib.suppress(OSError):  # an interface without an address
                answer = fcntl.ioctl(probe, ADDRESS_OF_INTERFACE, struct.pack("256s", name.encode()))
                if answer[20:24] == own:
                    return name
    return None


def notice_losses() -> None:
    """From now on, this process's connections to other machines fail where these are silent for LOST_AFTER seconds.

    A process that ends closes its connections. A cut cable or a machine without power does not, and the others would
    wait for hours. The sockets belong to torch, which has no setting for this, so all of this process are set.
    Connections within a machine stay as they are: none is lost, and a user may stop all processes by Ctrl-Z for hours.
    """
    if sys.platform != "linux":
        return
    options = {
        socket.TCP_KEEPIDLE: LOST_AFTER // 3,
        socket.TCP_KEEPINTVL: LOST_AFTER // 6,
        socket.TCP_USER_TIMEOUT: LOST_AFTER * 1000,  # ms; also where something was sent and is not acknowledged
    }
    for descriptor in Path("/proc/self/fd").iterdir():
        with (
            contextlib.suppress(OSError),  # closed meanwhile, or no connection
            socket.fromfd(int(descriptor.name), socket.AF_INET, socket.SOCK_STREAM) as connection,
        ):
            if connection.getpeername()[:1] == connection.getsockname()[:1]:
                continue  # within this machine
            for option, value in options.items():
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
