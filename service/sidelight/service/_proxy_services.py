"""What answers at the two doors of the proxy: the model's, and the admin's."""

import hmac
import logging
from collections.abc import Callable

import orjson

from sidelight.logger import Emitter, Request, Respond, problem, response
from sidelight.service._authorization import token_text
from sidelight.service._proxy_metrics import ProxyState, proxy_metrics
from sidelight.service.errors import ConfigurationError

log = logging.getLogger(__name__)

_UNAUTHORIZED = problem(
    401,
    "the metrics ask for a token",
    expected="Authorization: Bearer TOKEN, with the token of proxy.admin_token_from",
    headers=((b"www-authenticate", b'Bearer realm="sidelight"'),),
)


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
    token : callable, optional
        Returns the token of now that the metrics ask for; raises ``ConfigurationError`` when it
        cannot be had, and then nobody sees them.

    """

    def __init__(
        self,
        emitter: Emitter,
        state: ProxyState,
        deployment: Callable[[], str | None],
        token: Callable[[], str] | None = None,
    ) -> None:
        self._token = token
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
        if method in {b"GET", b"HEAD"}:
            return 0
        allow = ((b"allow", b"GET, HEAD"),)
        return problem(405, "only GET and HEAD are answered here", headers=allow)

    def handle(self, request: Request, respond: Respond) -> None:
        """Answer."""
        if request.route == b"/metrics" and not self._may_see(request):
            respond(_UNAUTHORIZED)
            return
        respond(self._routes[request.route]())

    def _may_see(self, request: Request) -> bool:
        if self._token is None:
            return True
        given = token_text((request.header(b"authorization") or b"").decode("latin-1"))
        try:
            return hmac.compare_digest(given.encode(), self._token().encode())
        except ConfigurationError as error:
            log.error("%s", error)  # noqa: TRY400 - the message says all
            return False

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
