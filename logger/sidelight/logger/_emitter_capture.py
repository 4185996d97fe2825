"""From a captured exchange to its two CloudEvents, in the vocabulary of KServe's logger."""

from datetime import UTC, datetime
from typing import Final, TypeVar

import orjson

from sidelight.logger._emitter_event import CapturedEvent, is_embeddable
from sidelight.logger._emitter_route import route_of
from sidelight.logger._exchange import Exchange
from sidelight.logger._request_id import RequestIds, header, id_in_body, id_in_head

REQUEST_TYPE: Final = "org.kubeflow.serving.inference.request"
RESPONSE_TYPE: Final = "org.kubeflow.serving.inference.response"

_TRACEPARENT: Final = b"\r\ntraceparent:"
_CONTENT_TYPE: Final = b"\r\ncontent-type:"
_CONTENT_ENCODING: Final = b"\r\ncontent-encoding:"
_IDENTITY: Final = b"identity"
_MAX_REMEMBERED: Final = 1024
_MAX_REMEMBERED_BYTES: Final = 512
_MAX_REMEMBERED_HEAD_BYTES: Final = 2048

# What a head says, as JSON: the caller's id, the attributes traceparent and of the content, and
# whether the body is JSON.
_Facts = tuple[bytes, bytes, bytes, bool]

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Capture:
    """Encode exchanges as CloudEvents.

    Parameters
    ----------
    source : str, default "sidelight-proxy"
        Attribute ``source``, a URI reference.
    deployment : str or None
        ``namespace/name`` of everything that passes, or None to follow the path.
    namespace : str, default "default"
        For paths that name none.

    Raises
    ------
    ValueError
        When ``deployment`` is no ``namespace/name`` or ``source`` is empty.

    """

    def __init__(
        self,
        *,
        source: str = "sidelight-proxy",
        deployment: str | None = None,
        namespace: str = "default",
    ) -> None:
        parts = ("-", "-") if deployment is None else deployment.split("/")
        if len(parts) != 2 or not all(parts):  # noqa: PLR2004 - a pair
            raise ValueError(f"deployment: expected NAMESPACE/NAME, got {deployment!r}")
        if not source:
            raise ValueError("source: expected a URI reference, got an empty string")
        self._deployment = deployment
        self._namespace = namespace
        shared = b'"specversion":"1.0","source":%b,"type":%b'
        self._request = b"{" + shared % (orjson.dumps(source), orjson.dumps(REQUEST_TYPE))
        self._response = b"{" + shared % (orjson.dumps(source), orjson.dumps(RESPONSE_TYPE))
        self._routes: dict[tuple[bytes, bytes], bytes] = {}
        self._heads: dict[bytes, _Facts] = {}
        self._second = (-1, b"")
        self._ids = RequestIds()

    def identify(self, exchange: Exchange) -> bytes:
        """Return the id of an exchange, which is given one when it has none."""
        if not exchange.request_id:
            head = exchange.request_head
            exchange.request_id = (
                id_in_head(head, head.lower())
                or id_in_body(exchange.request_body)
                or self._ids.new()
            )
        return exchange.request_id

    def deployment_of(self, exchange: Exchange) -> str:
        """Return the deployment that an exchange belongs to, ``namespace/name``."""
        if self._deployment is not None:
            return self._deployment
        route = route_of(exchange.target, deployment=None, namespace=self._namespace)
        return f"{route.namespace}/{route.name}"

    def events(self, exchange: Exchange, rate: float = 1.0) -> tuple[CapturedEvent, CapturedEvent]:
        """Return the request and the response of one exchange, both with the same id.

        Parameters
        ----------
        exchange : Exchange
            Complete.
        rate : float, default 1.0
            The probability with which it was kept, attribute ``samplingrate``.

        """
        given, trace, media, is_json = self._read(exchange.request_head)
        shared = b',"id":%b%b,"samplingrate":"%b"%b' % (
            given or self._own_id(exchange),
            self._route(exchange.method, exchange.target),
            b"1" if rate == 1 else b"%.10g" % rate,
            trace,
        )
        request = self._event(
            b'%b%b,"time":"%b"%b' % (self._request, shared, self._time(exchange.started_ns), media),
            exchange.request_body,
            exchange.request_cut,
            is_json=is_json,
        )
        _, _, media, is_json = self._read(exchange.response_head)
        response = self._event(
            b'%b%b,"time":"%b","statuscode":"%d","latencyms":"%.3f"%b'
            % (
                self._response,
                shared,
                self._time(exchange.finished_ns),
                exchange.status,
                exchange.latency_ms,
                media,
            ),
            exchange.response_body,
            exchange.response_cut,
            is_json=is_json,
        )
        return request, response

    @staticmethod
    def _event(attributes: bytes, body: bytes, cut: int, *, is_json: bool) -> CapturedEvent:
        if cut:
            attributes += b',"truncated":"true","datalength":"%d"' % (len(body) + cut)
        return CapturedEvent(attributes, body, is_json and is_embeddable(body))

    def _read(self, head: bytes) -> _Facts:
        """Read a head, or remember it: the usual peer repeats itself."""
        facts = self._heads.get(head)
        if facts is None:
            lowered = head.lower()
            media, is_json = _content_type(header(head, lowered, _CONTENT_TYPE))
            coding = header(head, lowered, _CONTENT_ENCODING)
            if coding and coding.lower() != _IDENTITY:
                media += b',"contentencoding":' + _string(coding)
            trace = header(head, lowered, _TRACEPARENT)
            given = id_in_head(head, lowered)
            facts = (
                _string(given) if given else b"",
                b',"traceparent":' + _string(trace) if trace else b"",
                media,
                is_json,
            )
            if not given and not trace and len(head) <= _MAX_REMEMBERED_HEAD_BYTES:
                _remember(self._heads, head, facts)
        return facts

    def _own_id(self, exchange: Exchange) -> bytes:
        known = exchange.request_id or id_in_body(exchange.request_body) or self._ids.new()
        return _string(known)

    def _route(self, method: bytes, target: bytes) -> bytes:
        known = self._routes.get((method, target))
        if known is None:
            route = route_of(target, deployment=self._deployment, namespace=self._namespace)
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
            if route.protocol:
                attributes["protocol"] = route.protocol
            known = b"," + orjson.dumps(attributes)[1:-1]
            if len(target) <= _MAX_REMEMBERED_BYTES:
                _remember(self._routes, (method, target), known)
        return known

    def _time(self, nanoseconds: int) -> bytes:
        second, micro = divmod(nanoseconds // 1000, 1_000_000)
        if second != self._second[0]:
            text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = (second, text.encode())
        return b"%b.%06dZ" % (self._second[1], micro)


def _content_type(value: bytes) -> tuple[bytes, bool]:
    """Return the attribute, and whether the body is JSON by its media type."""
    essence = value.partition(b";")[0].strip().lower()
    # Without a media type, CloudEvents data is JSON (JSON format, section 3.1).
    is_json = essence in (b"", b"application/json", b"text/json") or essence.endswith(b"+json")
    return b',"datacontenttype":' + _string(value) if value else b"", is_json


def _remember(memory: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    # Clients choose paths and types: a bound, and a fresh start, keep the memory small.
    if len(memory) >= _MAX_REMEMBERED:
        memory.clear()
    memory[key] = value


def _string(value: bytes) -> bytes:
    try:
        return orjson.dumps(value.decode())
    except UnicodeDecodeError:
        return orjson.dumps(value.decode("latin-1"))
