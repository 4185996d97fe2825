"""From a captured exchange to its two CloudEvents, in the vocabulary of KServe's logger."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import orjson

from sidelight.logger._emitter_body import EventRoute, plain_event, redacted_event, version_in
from sidelight.logger._emitter_event import CapturedEvent
from sidelight.logger._emitter_head import Claims, Facts, Heads, attributes_of, remember, string
from sidelight.logger._emitter_route import plain, route_of
from sidelight.logger._exchange import Exchange
from sidelight.logger._redaction import Redaction
from sidelight.logger._redaction_rule import Half
from sidelight.logger._request_id import RequestIds, id_in_body, id_in_head

REQUEST_TYPE: Final = "org.kubeflow.serving.inference.request"
RESPONSE_TYPE: Final = "org.kubeflow.serving.inference.response"

_MAX_REMEMBERED_BYTES: Final = 512
_ALL: Final = b',"samplingrate":"1"'


class Capture:
    """Encode exchanges as CloudEvents.

    Parameters
    ----------
    source : str, default "sidelight-proxy"
        Attribute ``source``, a URI reference.
    deployment : str or None
        ``namespace/name`` of everything that passes, or None to follow the path, and the
        platform's own ``ce-inferenceservicename`` and ``ce-namespace`` where the caller sends them.
    namespace : str, default "default"
        For paths that name none.
    headers : iterable of str, default ()
        Names of request headers that travel, as attributes of both events: ``X-Tenant`` as
        ``headerxtenant``. No others do.
    response_headers : iterable of str, default ()
        The same of answers, as ``responseheader...`` of the response event.
    redaction : Redaction, optional
        What is taken out of bodies and headers.
    trusts_request_ids : bool, default True
        Whether an exchange without an id of its own gets the one that its caller gave in a header
        or in the body.

    Raises
    ------
    ValueError
        When ``deployment`` is no ``namespace/name``, ``source`` is empty, two headers would be one
        attribute, or a header holds secrets and no rule hashes it.

    """

    def __init__(
        self,
        *,
        source: str = "sidelight-proxy",
        deployment: str | None = None,
        namespace: str = "default",
        headers: Iterable[str] = (),
        response_headers: Iterable[str] = (),
        redaction: Redaction | None = None,
        trusts_request_ids: bool = True,
    ) -> None:
        parts = ("-", "-") if deployment is None else deployment.split("/")
        if len(parts) != 2 or not all(parts):  # noqa: PLR2004 - a pair
            raise ValueError(f"deployment: expected NAMESPACE/NAME, got {deployment!r}")
        if not source:
            raise ValueError("source: expected a URI reference, got an empty string")
        self._deployment = deployment
        self._namespace = namespace
        self._redaction = redaction
        headers, response_headers = tuple(headers), tuple(response_headers)
        hashed = [
            name
            for name in (*headers, *response_headers)
            if redaction is not None and redaction.is_hashed(name)
        ]
        self._names: dict[Half, dict[str, str]] = {
            "request": attributes_of(headers, "header", hashed=hashed),
            "response": attributes_of(response_headers, "responseheader", hashed=hashed),
        }
        self._heads = Heads(headers)
        self._answers = Heads(response_headers)
        self._known_heads, self._known_answers = self._heads.known, self._answers.known
        shared = b'"specversion":"1.0","source":%b,"type":%b'
        self._request = b"{" + shared % (orjson.dumps(source), orjson.dumps(REQUEST_TYPE))
        self._response = b"{" + shared % (orjson.dumps(source), orjson.dumps(RESPONSE_TYPE))
        self._routes: dict[tuple[bytes, bytes, Claims], EventRoute] = {}
        self._second = (-1, b"")
        self._ids = RequestIds()
        self._trusts_ids = trusts_request_ids

    def identify(self, exchange: Exchange) -> bytes:
        """Return the id of an exchange, which is given one when it has none."""
        if not exchange.request_id:
            head = exchange.request_head
            exchange.request_id = self._id(id_in_head(head, head.lower()), exchange.request_body)
        return exchange.request_id

    def deployment_of(self, exchange: Exchange) -> str:
        """Return the deployment that an exchange belongs to, ``namespace/name``."""
        if self._deployment is not None:
            return self._deployment
        facts, _, _ = self._heads.read(exchange.request_head)
        return self._route(exchange.method, exchange.target, facts.claims).deployments[0]

    def events(self, exchange: Exchange, rate: float = 1.0) -> tuple[CapturedEvent, CapturedEvent]:
        """Return the request and the response of one exchange, both with the same id.

        Parameters
        ----------
        exchange : Exchange
            Complete.
        rate : float, default 1.0
            The probability with which it was kept, attribute ``samplingrate``.

        """
        # Without a call for what is known: this runs for every captured request.
        given = trace = b""
        asked = self._known_heads.get(exchange.request_head)
        if asked is None:
            asked, given, trace = self._heads.read(exchange.request_head)
        answered = self._known_answers.get(exchange.response_head)
        if answered is None:
            answered, _, _ = self._answers.read(exchange.response_head)
        route = self._routes.get((exchange.method, exchange.target, asked.claims))
        if route is None:
            route = self._route(exchange.method, exchange.target, asked.claims)
        request_id = exchange.request_id or self._id(given, exchange.request_body)
        shared = (
            string(request_id) + (_ALL if rate == 1 else b',"samplingrate":"%.10g"' % rate) + trace
        )
        if asked.headers:
            shared += self._headers("request", asked, route)
        if exchange.aborted_by:
            shared += b',"abortedby":' + orjson.dumps(exchange.aborted_by)
        redaction = self._redaction
        attributes = b'%b%b,"time":"%b","datasize":"%d"%b' % (
            route.request,
            shared,
            self._time(exchange.started_ns),
            len(exchange.request_body) + exchange.request_cut,
            asked.tail if redaction is None else asked.media_tail,
        )
        if redaction is None:
            request = plain_event(
                attributes,
                asked,
                exchange.request_body,
                exchange.request_cut,
                exchange.request_digest,
            )
        else:
            request = redacted_event(attributes, redaction, "request", route, asked, exchange)
        body = exchange.response_body
        attributes = b'%b%b,"time":"%b","statuscode":"%d","latencyms":"%.3f","datasize":"%d"%b' % (
            route.response,
            shared,
            self._time(exchange.finished_ns),
            exchange.status,
            exchange.latency_ms,
            len(body) + exchange.response_cut,
            answered.tail if redaction is None else answered.media_tail,
        )
        if answered.headers:
            attributes += self._headers("response", answered, route)
        if redaction is not None:
            return request, redacted_event(
                attributes, redaction, "response", route, answered, exchange
            )
        if not route.has_version:
            attributes += version_in(body)
        return request, plain_event(
            attributes, answered, body, exchange.response_cut, exchange.response_digest
        )

    def _id(self, given: bytes, body: bytes) -> bytes:
        """Return the caller's id, from its head or its body, or a new one."""
        return (self._trusts_ids and (given or id_in_body(body))) or self._ids.new()

    def _headers(self, half: Half, facts: Facts, route: EventRoute) -> bytes:
        names, redaction = self._names[half], self._redaction
        allowed: dict[str, str] = {}
        for name, value in facts.headers:
            left: str | None = value
            if redaction is not None:
                left = redaction.header(half, route.deployments, name, value)
            if left:
                allowed[names[name]] = left
        return b"," + orjson.dumps(allowed)[1:-1] if allowed else b""

    def _route(self, method: bytes, target: bytes, claims: Claims) -> EventRoute:
        known = self._routes.get((method, target, claims))
        if known is None:
            known = self._new_route(method, target, claims)
            if len(target) <= _MAX_REMEMBERED_BYTES:
                remember(self._routes, (method, target, claims), known)
        return known

    def _new_route(self, method: bytes, target: bytes, claims: Claims) -> EventRoute:
        route = route_of(target, deployment=self._deployment, namespace=self._namespace)
        meant = route_of(plain(target), deployment=self._deployment, namespace=self._namespace)
        attributes = {
            "inferenceservicename": route.name,
            "namespace": route.namespace,
            "component": "predictor",
            "requestpath": route.path,
            "requestmethod": method.decode("latin-1"),
        }
        if route.model:
            attributes["modelname"] = route.model
        if route.version:
            attributes["modelversion"] = route.version
        claimed = dict(claims)
        if self._deployment is not None:
            # What was configured is not the caller's to change.
            claimed.pop("inferenceservicename", None)
            claimed.pop("namespace", None)
        attributes |= claimed
        if route.protocol:
            # The method says it, whatever the caller claims.
            attributes["protocol"] = route.protocol
        name = "{namespace}/{inferenceservicename}".format_map(attributes)
        shared = b',%b,"id":' % orjson.dumps(attributes)[1:-1]
        names = [f"{one.namespace}/{one.name}" for one in (route, meant)]
        if route.protocol and not route.model:
            names.append("")  # the model stands in a message that nobody could read
        return EventRoute(
            self._request + shared,
            self._response + shared,
            # A rule about any of them applies, so that no caller gets out of it by a claim, or by
            # another spelling of the path that the server takes for the same.
            tuple(dict.fromkeys((name, *names))),
            bool(route.version),
        )

    def _time(self, nanoseconds: int) -> bytes:
        second, rest = divmod(nanoseconds, 1_000_000_000)
        if second != self._second[0]:
            text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = (second, text.encode())
        return b"%b.%06dZ" % (self._second[1], rest // 1000)
