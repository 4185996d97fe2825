"""Captured events for the tests of the sinks, and strategies that make odd ones."""

import orjson
from hypothesis import strategies as st

from sidelight.logger import CapturedEvent

RESPONSE = "org.kubeflow.serving.inference.response"

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
_NUMBERS = st.integers(0, 10**7)
_TIMES = st.datetimes().map(lambda time: time.isoformat(timespec="microseconds") + "Z")

ATTRIBUTES: st.SearchStrategy[dict[str, str]] = st.fixed_dictionaries(
    {"specversion": st.just("1.0"), "id": _TEXTS, "source": _TEXTS, "type": _TEXTS},
    optional={
        "time": _TIMES,
        "namespace": _TEXTS,
        "inferenceservicename": _TEXTS,
        "modelname": _TEXTS,
        "requestpath": _TEXTS,
        "statuscode": st.one_of(_TEXTS, _NUMBERS.map(str)),
        "latencyms": st.one_of(_TEXTS, st.floats(0, 1e6).map("{:.3f}".format)),
        "samplingrate": st.one_of(_TEXTS, st.floats(0, 1).map("{:g}".format)),
        "traceparent": _TEXTS,
        "datalength": _NUMBERS.map(str),
        "something": _TEXTS,
    },
)


def captured(data: bytes = b"[1]", **attributes: str | None) -> CapturedEvent:
    """Return an event of our proxy with some attributes of another value; None leaves one away."""
    usual = {
        "specversion": "1.0",
        "source": "sidelight-proxy",
        "type": RESPONSE,
        "id": "1",
        "namespace": "prod",
        "inferenceservicename": "flights",
        "component": "predictor",
        "requestpath": "/v2/models/flights/infer",
        "requestmethod": "POST",
        "modelname": "flights",
        "samplingrate": "1",
        "time": "2026-01-31T10:20:30.123456Z",
        "statuscode": "200",
        "latencyms": "1.250",
        "datacontenttype": "application/json",
    }
    return event_of({k: v for k, v in {**usual, **attributes}.items() if v is not None}, data)


def event_of(attributes: dict[str, str], data: bytes) -> CapturedEvent:
    """Return an event of any attributes; JSON data is embedded as the emitter does."""
    try:
        orjson.loads(data)
        is_json = attributes.get("datacontenttype", "application/json") == "application/json"
    except orjson.JSONDecodeError:
        is_json = False
    is_embedded = is_json and data == data.strip() and data != b"null"
    return CapturedEvent(orjson.dumps(attributes)[:-1], data, is_embedded)
