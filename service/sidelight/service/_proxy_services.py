"""What answers at the two doors of the proxy: the model's, and the admin's."""

from collections.abc import Callable

import orjson

from sidelight.logger import Emitter, Request, Respond, problem, response
from sidelight.service._proxy_metrics import ProxyState, proxy_metrics


class RelayAll:
    """The model's door: every request goes on to the model."""

    def admit(self, method: bytes, target: bytes, head: bytes) -> int | bytes | None:  # noqa: ARG002
        """Relay."""
        return None

    def handle(self, request: Request, respond: Respond) -> None:  # noqa: ARG002
        """Answer what cannot come."""
        respond(problem(404, "nothing is answered here"))


class Admin:
    """Health and metrics of the proxy.

    ``/readyz`` speaks of the proxy alone: a model that is away has its own probe, and taking its
    proxy out as well would hide the 502 that tells it.

    Parameters
    ----------
    emitter : Emitter
        Whose account is shown.
    state : ProxyState
        What else is shown.
    deployment : callable
        Returns ``namespace/name`` of now, or None; labels of the metrics.

    """

    def __init__(
        self, emitter: Emitter, state: ProxyState, deployment: Callable[[], str | None]
    ) -> None:
        self._emitter = emitter
        self._state = state
        self._deployment = deployment
        self._routes = {
            b"/healthz": self._health,
            b"/readyz": self._readiness,
            b"/metrics": self._metrics,
        }

    def admit(self, method: bytes, target: bytes, head: bytes) -> int | bytes | None:  # noqa: ARG002
        """Take reads of what is there."""
        if target.partition(b"?")[0] not in self._routes:
            return problem(404, "no such route", expected="/healthz, /readyz or /metrics")
        return 0 if method == b"GET" else problem(405, "only GET is answered here")

    def handle(self, request: Request, respond: Respond) -> None:
        """Answer."""
        respond(self._routes[request.route]())

    def _health(self) -> bytes:
        return _json(200, {"status": "ok"})

    def _readiness(self) -> bytes:
        if self._state.is_stopping:
            return _json(503, {"status": "stopping"})
        return _json(200, {"status": "ok", "configuration_valid": self._state.is_valid})

    def _metrics(self) -> bytes:
        namespace, _, name = (self._deployment() or "default/").partition("/")
        text = self._emitter.prometheus(namespace=namespace, deployment=name)
        text += proxy_metrics(self._state, namespace=namespace, deployment=name)
        return response(200, body=text, content_type=b"text/plain; version=0.0.4")


def _json(status: int, content: dict[str, object]) -> bytes:
    return response(status, body=orjson.dumps(content), content_type=b"application/json")
