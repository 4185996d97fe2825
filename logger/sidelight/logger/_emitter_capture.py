"""From a captured exchange to its two CloudEvents, in the vocabulary of KServe's logger."""

import itertools
import re
import secrets
from datetime import UTC, datetime
from typing import Final, TypeVar

import orjson

from sidelight.logger._emitter_event import CapturedEvent, is_embeddable
from sidelight.logger._emitter_route import route_of
from sidelight.logger._exchange import Exchange

REQUEST_TYPE: Final = "org.kubeflow.serving.inference.request"
RESPONSE_TYPE: Final = "org.kubeflow.serving.inference.response"

_ID_HEADERS: Final = (b"\r\nx-request-id:", b"\r\nce-id:", b"\r\nseldon-puid:")
_TRACEPARENT: Final = b"\r\ntraceparent:"
_CONTENT_TYPE: Final = b"\r\ncontent-type:"
_CONTENT_ENCODING: Final = b"\r\ncontent-encoding:"
# The id of an Open Inference Protocol body, when it comes first as the known clients write it.
_BODY_ID: Final = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"id"[ \t\r\n]*:[ \t\r\n]*("[^"\\]{1,256}")')
_MAX_ID: Final = 256
# An id behind that much is not worth the time that the parsing takes from the traffic.
_MAX_SEARCHED_BYTES: Final = 64 * 1024
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
    sampling_rate : float, default 1.0
        Share of the traffic that is captured, attribute ``samplingrate``.

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
        sampling_rate: float = 1.0,
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
        self._rate = orjson.dumps(f"{sampling_rate:g}")
        self._routes: dict[tuple[bytes, bytes], bytes] = {}
        self._heads: dict[bytes, _Facts] = {}
        self._second = (0, b"")
        # Unique without a lock or a system call: 72 random bits a process, then a number.
        self._prefix = secrets.token_urlsafe(9)
        self._numbers = itertools.count(1)

    def events(self, exchange: Exchange) -> tuple[CapturedEvent, CapturedEvent]:
        """Return the request and the response of one exchange, both with the same id."""
        given, trace, media, is_json = self._read(exchange.request_head)
        shared = b',"id":%b%b%b' % (
            given or self._body_id(exchange.request_body),
            self._route(exchange.method, exchange.target),
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
            media, is_json = _content_type(_header(head, lowered, _CONTENT_TYPE))
            coding = _header(head, lowered, _CONTENT_ENCODING)
            if coding and coding.lower() != _IDENTITY:
                media += b',"contentencoding":' + _string(coding)
            trace = _header(head, lowered, _TRACEPARENT)
            given = next(filter(None, (_header(head, lowered, name) for name in _ID_HEADERS)), b"")
            facts = (
                _string(given) if given else b"",
                b',"traceparent":' + _string(trace) if trace else b"",
                media,
                is_json,
            )
            if not given and not trace and len(head) <= _MAX_REMEMBERED_HEAD_BYTES:
                _remember(self._heads, head, facts)
        return facts

    def _body_id(self, body: bytes) -> bytes:
        if match := _BODY_ID.match(body, 0, 512):
            try:
                return orjson.dumps(orjson.loads(match[1]))
            except orjson.JSONDecodeError:  # bytes that are no UTF-8, or control characters
                pass
        elif given := _id_within(body):
            return given
        return b'"%b-%x"' % (self._prefix.encode(), next(self._numbers))

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
            known = b',%b,"samplingrate":%b' % (orjson.dumps(attributes)[1:-1], self._rate)
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


def _header(head: bytes, lowered: bytes, name: bytes) -> bytes:
    """Return the first header of that name, stripped; empty when there is none."""
    start = lowered.find(name)
    if start < 0:
        return b""
    start += len(name)
    return head[start : head.find(b"\r\n", start)].strip(b" \t")


def _id_within(body: bytes) -> bytes:
    """Return the id that stands further on in a body, as JSON; empty when there is none."""
    if b'"id"' not in body or len(body) > _MAX_SEARCHED_BYTES:
        return b""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return b""
    given = found.get("id") if isinstance(found, dict) else None
    if not isinstance(given, str) or not 0 < len(given) <= _MAX_ID:
        return b""
    is_usable = given.isprintable() and given == given.strip()
    return orjson.dumps(given) if is_usable else b""


def _string(value: bytes) -> bytes:
    try:
        return orjson.dumps(value.decode())
    except UnicodeDecodeError:
        return orjson.dumps(value.decode("latin-1"))
