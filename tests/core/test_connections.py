"""Connections between machines: the variables that name them, the network interface, and which ones can be lost."""

from __future__ import annotations

import contextlib
import socket
import sys

import pytest

from cgankd.core.connections import LOST_AFTER, check_variables, interface_to, notice_losses
from cgankd.core.errors import UserError

GOOD = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "NODE_RANK": "1"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"NODE_RANK": None}, "the variable NODE_RANK is not set"),
        ({"MASTER_ADDR": ""}, "the variable MASTER_ADDR is not set"),
        ({"NODE_RANK": "2"}, "NODE_RANK = 2"),
        ({"NODE_RANK": "-1"}, "NODE_RANK = -1"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT = 70000"),
        ({"MASTER_ADDR": "no such host"}, "no machine is found at MASTER_ADDR = no such host"),
    ],
)
def test_variables_that_do_not_say_which_machine_this_is(
    change: dict[str, str | None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    check_variables(2)
    for name, changed in change.items():
        monkeypatch.delenv(name) if changed is None else monkeypatch.setenv(name, changed)
    with pytest.raises(UserError) as raised:
        check_variables(2)
    assert str(raised.value) == (
        f"runtime.nodes = 2, but {said}; needed on each machine: MASTER_ADDR and MASTER_PORT (the first machine's "
        "address and a free port of it) and NODE_RANK (0 to 1); torchrun and srun set them"
    )


def test_no_interface_is_chosen_for_this_machine_itself_or_for_an_unknown_one() -> None:
    assert interface_to("localhost") is None
    assert interface_to("no such host") is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's options of sockets")
def test_only_connections_to_other_machines_can_be_lost() -> None:
    """Two addresses of the loopback interface stand for two machines."""

    def connected(own: str) -> tuple[socket.socket, socket.socket]:
        return socket.create_connection(listening.getsockname(), source_address=(own, 0)), listening.accept()[0]

    with socket.create_server(("127.0.0.1", 0)) as listening:
        (away, its_end), (here, other_end) = connected("127.0.0.2"), connected("127.0.0.1")
        with away, its_end, here, other_end, contextlib.ExitStack() as pair:
            for end in socket.socketpair():
                pair.enter_context(end)
            notice_losses()
            for connection, seconds in ((away, LOST_AFTER), (its_end, LOST_AFTER), (here, 0), (other_end, 0)):
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == seconds * 1000
                assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == (seconds > 0)
            assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
