"""One relayed request at a time."""

from typing import Any

from sidelight.logger._exchange import Tap
from sidelight.logger._http_head import RequestHead
from sidelight.logger._upstream import Upstream


class Relay:
    """Passes requests on."""

    def __init__(self, client: Any, upstream: Upstream, tap: Tap | None) -> None:
        raise NotImplementedError

    def begin(self, head: RequestHead, data: bytes) -> bytes:
        """Begin."""
        raise NotImplementedError

    def request_data(self, data: bytes) -> bytes:
        """More."""
        raise NotImplementedError

    def client_lost(self) -> None:
        """Lost."""

    def client_full(self) -> None:
        """Full."""

    def client_ready(self) -> None:
        """Ready."""
