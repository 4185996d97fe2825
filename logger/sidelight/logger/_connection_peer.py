"""What the system knows of the other end of a connection that says nothing any more."""

import asyncio
import select
import socket as sockets
from typing import Final

# Ours. The system of a client that is gone answers the first of these that comes after it has
# forgotten the connection (60 s on Linux) with a reset.
_ASK_AFTER_S: Final = 30
_ASK_EVERY_S: Final = 15

_OPTIONS: Final = tuple(
    (getattr(sockets, name), seconds)
    for name, seconds in (("TCP_KEEPIDLE", _ASK_AFTER_S), ("TCP_KEEPINTVL", _ASK_EVERY_S))
    if hasattr(sockets, name)
)


def has_hung_up(transport: asyncio.BaseTransport) -> bool:
    """Whether the other end is known to be gone, not only silent.

    Of a Unix socket that is known at once; of TCP when it has sent a reset.
    """
    socket = transport.get_extra_info("socket")
    if socket is None:
        return False
    poll = select.poll()
    # What has hung up or failed is reported unasked.
    poll.register(socket.fileno(), 0)
    return bool(poll.poll(0))


def keep_asking(transport: asyncio.BaseTransport) -> None:
    """Have the system ask the other end now and then, so that it learns when that is gone."""
    socket = transport.get_extra_info("socket")
    if socket is None or socket.family == sockets.AF_UNIX:
        return
    socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)
    for option, seconds in _OPTIONS:
        socket.setsockopt(sockets.IPPROTO_TCP, option, seconds)
