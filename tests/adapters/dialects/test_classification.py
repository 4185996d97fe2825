"""Which dialect a body is written in: hints that mislead, compression, kinds that stay opaque."""

import gzip
import json
from typing import Any

import pyarrow as pa
import pytest

from sidelight.adapters.dialects import DIALECTS, Half, Side, read_payload
from sidelight.logger._open_inference import ModelInferRequest
from sidelight.payloads import Event

BODY = json.dumps({"predictions": [[0.25, 0.75]]}).encode()


def read(
    data: bytes, side: Side = "response", content_type: str | None = None, coding: str = ""
) -> Half:
    extensions = {"contentencoding": coding}
    event = Event(
        id="1", source="/s", type="t", datacontenttype=content_type, extensions=extensions
    )
    return read_payload(data, side, DIALECTS, event=event, max_inflated_bytes=1 << 20)


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/csv", "application/octet-stream", "application/x-protobuf", "text/html", "x"],
)
def test_json_is_json_whatever_its_label(content_type: str | None) -> None:
    assert read(BODY, content_type=content_type).values == ([0.25, 0.75],)


@pytest.mark.parametrize("codec", ["zstd", "brotli"])
def test_further_encodings_are_undone(codec: str) -> None:
    packed = pa.compress(BODY, codec=codec, asbytes=True)

    assert read(packed, coding="br" if codec == "brotli" else "").values == ([0.25, 0.75],)


@pytest.mark.parametrize("codec", ["zstd", "brotli", "gzip"])
def test_a_bomb_stays_as_it_came(codec: str) -> None:
    raw = bytes(8 << 20)
    packed = gzip.compress(raw) if codec == "gzip" else pa.compress(raw, codec=codec, asbytes=True)

    assert read(packed, coding="br" if codec == "brotli" else "").reason == "encoding_too_large"


def test_a_damaged_stream_is_said_to_be() -> None:
    packed = bytearray(pa.compress(BODY, codec="zstd", asbytes=True))
    packed[6:12] = b"\xff" * 6

    assert read(bytes(packed)).reason == "encoding_damaged"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"messages": []}, "language_model"),
        ({"choices": []}, "language_model"),
        ({"explanations": {}}, "explanation"),
        ({"meta": {}, "data": {"anchor": []}}, "explanation"),
        ({"data": {"is_outlier": [1]}}, "detector"),
        ({"data": {"is_drift": 1}}, "detector"),
        ({"data": 1}, "unknown_json"),
        ([], "unknown_json"),
    ],
)
def test_what_is_known_and_no_table_says_what_it_is(body: Any, reason: str) -> None:
    half = read(json.dumps(body).encode())

    assert (half.layout.protocol, half.layout.form, half.reason) == ("opaque", "json", reason)


def test_events_of_a_stream_stay_text() -> None:
    half = read(b'data: {"a": 1}\n\n', content_type="text/event-stream")

    assert (half.layout.form, half.reason) == ("text", "event_stream")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"error": "no such model"}, "no such model"),
        ({"error": {"message": "bad", "code": 3}}, "bad"),
        ({"detail": "not found"}, "not found"),
        ({"error_code": "X"}, "X"),
        ({"error": "x" * 5000}, "x" * 1000),
    ],
)
def test_an_error_has_no_outputs_and_keeps_its_text(body: dict[str, Any], error: str) -> None:
    half = read(json.dumps(body).encode())

    assert (half.layout.protocol, half.rows, half.values) == ("error", 1, ())
    assert half.facts == {"error": error}


def test_a_request_that_speaks_of_an_error_is_no_failure() -> None:
    assert read(b'{"error": "x"}', "request").reason == "unknown_json"


def test_halves_of_surrogate_pairs_do_not_reach_the_columns() -> None:
    half = read(b'{"instances": [{"\\ud800": "\\udfff", "b": NaN}]}', "request")

    names = [tensor.name for tensor in half.layout.tensors]
    assert names == ["\ufffd", "b"]
    assert half.values[0] == ["\ufffd"]


def test_rows_of_sagemaker_are_lists() -> None:
    half = read(b'{"instances": [{"features": [1, 2]}, {"features": [3, 4]}]}', "request")

    assert (half.rows, half.layout.form, half.values) == (2, "list", ([1, 2, 3, 4],))
    assert dict(half.layout.extra) == {"wrapper": "features"}


def test_sparse_features_of_sagemaker_stay_documents() -> None:
    inner = {"keys": [0, 3], "values": [1, 2], "shape": [5]}
    body = {"instances": [{"data": {"features": inner}}]}

    half = read(json.dumps(body).encode(), "request")

    assert half.layout.tensors[0].datatype == "JSON"


@pytest.mark.parametrize(
    "opening", ["[", '{"a":', '{"inputs":[{"shape":', '{"data":{"ndarray":', '{"jsonData":']
)
def test_json_that_nests_ten_thousand_times_costs_nothing(opening: str) -> None:
    data = (opening + "[" * 10_000).encode()

    for whole in (data, data + b"]" * 10_000, data + b"]" * 10_000 + b"}" * 3):
        assert read(whole, "request").layout.protocol == "opaque"


@pytest.mark.parametrize("depth", [40, 900, 1000])
def test_json_that_nests_deeply_is_no_error(depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    for key in (b"instances", b"jsonData", b"inputs", b"dataframe_records"):
        half = read(b'{"%b": %b}' % (key, nested), "request")
        assert half.rows >= 1


def test_frames_share_the_bound_of_their_body() -> None:
    message = ModelInferRequest(raw_input_contents=[bytes(400 << 10)])
    message.inputs.add(name="x", datatype="UINT8", shape=[1, 400 << 10])
    packed = gzip.compress(message.SerializeToString())
    body = b"".join(b"\x01" + len(packed).to_bytes(4, "big") + packed for _ in range(3))

    assert read(body[: len(body) // 3], "request", "application/grpc").reason is None
    assert read(body, "request", "application/grpc").reason == "encoding_too_large"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"inputs": {str(number): [1] for number in range(5000)}}, "columns"),
        ({"inputs": [[{"b64": "AA=="}], [{"b64": "AA=="}, {"b64": "AA=="}]]}, "shape"),
        ({"inputs": [{"shape": [1], "datatype": "INT8", "data": [1]}, 5]}, "shape"),
        ({"inputs": [{"shape": [1], "datatype": 7, "data": [1]}]}, "datatype"),
        ({"inputs": [{"shape": [1], "datatype": "INT8"}]}, "shape"),
    ],
)
def test_what_contradicts_itself_stays_opaque(body: Any, reason: str) -> None:
    assert read(json.dumps(body).encode(), "request").reason == reason


def test_the_id_of_a_batch_of_requests_is_kept() -> None:
    half = read(b'{"message": "", "batchId": "b-1", "predictions": [[1], [2]]}')

    assert (half.layout.protocol, half.rows, half.facts) == ("v1-row", 2, {"batch_id": "b-1"})


def test_synthetic_requests_may_say_so_of_a_tensor() -> None:
    parameters = {"bias_ignore": "true"}
    tensor = {"shape": [1], "datatype": "INT8", "data": [1], "parameters": parameters}

    assert read(json.dumps({"inputs": [tensor]}).encode(), "request").facts == {"synthetic": True}


def test_old_executors_of_seldon_did_not_say_the_protocol() -> None:
    event = Event(id="1", source="/s", type="io.seldon.serving.inference.request")

    half = read_payload(b"\x2a\x02hi", "request", DIALECTS, event=event)

    assert (half.layout.protocol, half.values) == ("seldon-proto", (["hi"],))
