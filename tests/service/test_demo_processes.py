"""Where the processes of the demo listen."""

import socket

from sidelight.service._demo_processes import free_ports


def test_ports_differ_are_free_and_no_client_takes_them() -> None:
    ports = free_ports(3)

    assert len(set(ports)) == 3
    assert max(ports) < 32_768  # where Linux begins to give ports to outgoing connections


def test_a_taken_port_is_not_given() -> None:
    (port,) = free_ports(1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))

        others = free_ports(20_000)

    assert others
    assert port not in others
