import gzip
import json
import logging
import math
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters._decoding_columns import arrays, column_names
from sidelight.adapters.dialects import DIALECTS, read_payload
from sidelight.logger import Redaction, RedactionRule
from sidelight.logger._binary_tensors import encode, split
from sidelight.logger._grpc_frames import frame, frames
from sidelight.logger._open_inference import ModelInferRequest, ModelInferResponse
from sidelight.logger._redaction import Body
from sidelight.logger._redaction_rule import Half
from sidelight.logger._redaction_values import Pseudonyms

KEY = b"0123456789abcdef"
DEPLOYMENT = ("prod/flights",)
PSEUDONYMS = Pseudonyms(KEY)
PROTOBUF = b"application/protobuf"


def redaction(*rules: dict[str, Any]) -> Redaction:
    return Redaction([RedactionRule(**rule) for rule in rules], key=KEY)


def left(body: Any, *rules: dict[str, Any], half: Half = "request") -> Any:
    found = redaction(*rules).body(half, DEPLOYMENT, Body(json.dumps(body).encode()))
    assert not found.withheld
    return json.loads(found.data)


def withheld(body: Body, *rules: dict[str, Any], half: Half = "request") -> str:
    found = redaction(*rules).body(half, DEPLOYMENT, body)
    assert not found.data
    return found.withheld


def mask(name: str, **rest: Any) -> dict[str, Any]:
    return {"action": "mask", "column": name, **rest}


def hashed(name: str) -> dict[str, Any]:
    return {"action": "hmac", "column": name}


def tensor(datatype: str, data: Any, shape: list[int], name: str = "x", **rest: Any) -> Any:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **rest}


def test_each_rule_is_applied_to_what_the_one_before_left() -> None:
    body = {"instances": [{"zip": "12345-678"}]}
    rules = ({"action": "truncate", "column": "zip", "length": 3}, hashed("zip"))

    assert left(body, *rules) == {"instances": [{"zip": PSEUDONYMS.of("123")}]}


def test_rules_are_about_a_half_and_a_deployment() -> None:
    body = {"instances": [{"a": 1}], "predictions": [{"a": 1}]}
    only_answers = mask("a", on="response")
    elsewhere = mask("a", deployment="test/*")

    assert left(body, only_answers) == left(body, elsewhere) == body
    assert left(body, only_answers, half="response")["predictions"] == [{"a": None}]
    either = redaction(elsewhere).body("request", ("prod/x", "test/x"), Body(b'{"instances":[]}'))
    assert either.data == b'{"instances":[]}'
    assert redaction(elsewhere).is_about("request", ("prod/x", "test/x"), is_failure=False)


def test_a_body_that_no_rule_is_about_stays_byte_for_byte() -> None:
    body = b' {"a" : 1.50, "a": NaN} '

    for rule in (
        mask("a", on="response"),
        mask("a", deployment="x/*"),
        {**mask("h"), "header": "h", "column": None},
    ):
        assert redaction(rule).body("request", DEPLOYMENT, Body(body, head_bytes=3)).data == body


@pytest.mark.parametrize(
    ("body", "column", "expected"),
    [
        ({"instances": [{"a": 1, "b": 2}]}, "a", {"instances": [{"b": 2}]}),
        ({"instances": [[1, 2], [3, 4]]}, "f1", {"instances": [[1, None], [3, None]]}),
        ({"instances": [{"a": [1, 2]}]}, "a_0", {"instances": [{"a": [None, 2]}]}),
        ({"inputs": {"a": [1], "b": [2]}}, "a", {"inputs": {"b": [2]}}),
        ({"inputs": {"a": [[1, 2]]}}, "a_1", {"inputs": {"a": [[1, None]]}}),
        (
            {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}},
            "b",
            {"dataframe_split": {"columns": ["a", "b"], "data": [[1, None]]}},
        ),
        (
            {"data": {"names": ["a", "b"], "tensor": {"shape": [1, 2], "values": [1, 2]}}},
            "b",
            {"data": {"names": ["a", "b"], "ndarray": [[1, None]]}},
        ),
        ({"strData": "a", "meta": {}}, "f0", {"meta": {}}),
        (
            {"inputs": [tensor("FP32", [1, 2], [1, 2]), tensor("FP32", [3], [1], "y")]},
            "y",
            {"inputs": [tensor("FP32", [1, 2], [1, 2])]},
        ),
        (
            {"inputs": [tensor("FP32", [[1, 2]], [1, 2])], "outputs": [{"name": "x_1"}]},
            "x_1",
            {"inputs": [tensor("FP32", [1, None], [1, 2])], "outputs": [{"name": "x_1"}]},
        ),
    ],
)
def test_what_is_dropped_goes_and_what_has_a_place_becomes_null(
    body: Any, column: str, expected: Any
) -> None:
    assert left(body, {"action": "drop", "column": column}) == expected


@pytest.mark.parametrize(
    ("datatype", "data", "rule", "expected"),
    [
        ("INT32", [1, 2], {"action": "mask"}, ("INT32", [1, None])),
        ("INT32", [1, 2], {"action": "mask", "text": "-"}, ("BYTES", ["1", "-"])),
        ("INT8", [1, 2], {"action": "bucket", "edges": (200,)}, ("FP64", [1, 200])),
        ("INT8", [1, 2], {"action": "bucket", "edges": (1.5, 9)}, ("FP64", [1, 1.5])),
        ("UINT8", [1, 7], {"action": "round", "step": 5}, ("UINT8", [1, 5])),
        ("BOOL", [True, False], {"action": "mask", "text": "-"}, ("BYTES", ["true", "-"])),
        ("FP32", [0.5, 2], {"action": "hmac"}, ("BYTES", ["0.5", PSEUDONYMS.of(2)])),
        ("BYTES", ["a", "bcd"], {"action": "truncate", "length": 2}, ("BYTES", ["a", "bc"])),
        ("BYTES", ["a", None], {"action": "hmac"}, ("BYTES", ["a", None])),
    ],
)
def test_a_redacted_tensor_has_a_datatype_that_holds_its_values(
    datatype: str, data: list[Any], rule: dict[str, Any], expected: tuple[str, list[Any]]
) -> None:
    body = {"inputs": [tensor(datatype, data, [1, 2])]}

    assert left(body, {"column": "x_1", **rule}) == {"inputs": [tensor(*expected, [1, 2])]}


def binary(*tensors: tuple[str, list[int], str, list[Any]]) -> tuple[bytes, int]:
    chunks = [encode(datatype, values) for _, _, datatype, values in tensors]
    items = [
        {"name": name, "shape": shape, "datatype": datatype}
        | {"parameters": {"binary_data_size": len(chunk)}}
        for (name, shape, datatype, _), chunk in zip(tensors, chunks, strict=True)
    ]
    head = json.dumps({"inputs": items}).encode()
    return head + b"".join(chunks), len(head)


def test_bytes_of_tensors_are_written_anew_with_their_sizes() -> None:
    body, head_bytes = binary(("x", [2, 2], "FP32", [1, 2, 3, 4]), ("s", [1], "BYTES", [b"abc"]))

    found = redaction(mask("x_1"), hashed("s")).body(
        "request", DEPLOYMENT, Body(body, head_bytes=head_bytes)
    )

    read = split(found.data, found.head_bytes)
    x, s = read.chunks
    assert x == encode("FP32", [1, math.nan, 3, math.nan])
    assert s == encode("BYTES", [PSEUDONYMS.of("abc")])
    assert [item["parameters"]["binary_data_size"] for item in read.head["inputs"]] == [16, 68]


def test_a_number_of_hundreds_of_digits_is_rounded_and_stays_a_float() -> None:
    rule = {"action": "round", "column": "x", "step": 1000}

    (row,) = left({"instances": [{"x": 1e300}]}, rule)["instances"]

    assert row == {"x": pytest.approx(1e300)}
    assert isinstance(row["x"], float)


def test_whole_numbers_that_were_taken_move_into_the_json() -> None:
    big = (1 << 62) + 1
    body, head_bytes = binary(("x", [2], "INT64", [big, 2]), ("y", [1], "INT8", [5]))

    found = redaction({"action": "mask", "column": "x"}).body(
        "request", DEPLOYMENT, Body(body, head_bytes=head_bytes)
    )

    read = split(found.data, found.head_bytes)
    assert read.chunks == (None, b"\x05")
    assert read.head["inputs"][0] == tensor("INT64", [None, None], [2])


def test_a_dropped_tensor_takes_its_bytes_along() -> None:
    body, _ = binary(("x", [1], "INT8", [1]), ("y", [1], "INT8", [5]))

    found = redaction({"action": "drop", "tensor": "x"}).body("request", DEPLOYMENT, Body(body))

    read = split(found.data, found.head_bytes)
    assert ([item["name"] for item in read.head["inputs"]], read.chunks) == (["y"], (b"\x05",))


def message(*, raw: bool) -> Any:
    body = ModelInferRequest(model_name="m", id="7")
    body.inputs.add(name="x", datatype="INT64", shape=[2, 2])
    body.inputs.add(name="y", datatype="BYTES", shape=[1])
    if raw:
        body.raw_input_contents.extend([encode("INT64", [1, 2, 3, 4]), encode("BYTES", [b"abc"])])
    else:
        body.inputs[0].contents.int64_contents.extend([1, 2, 3, 4])
        body.inputs[1].contents.bytes_contents.append(b"abc")
    return body


@pytest.mark.parametrize("raw", [True, False])
def test_messages_of_grpc_are_redacted_in_the_form_they_came_in(raw: bool) -> None:  # noqa: FBT001
    data = message(raw=raw).SerializeToString()

    found = redaction(mask("x_0"), hashed("y")).body("request", DEPLOYMENT, Body(data, PROTOBUF))

    body = ModelInferRequest.FromString(found.data)
    x, y = body.inputs
    assert (body.id, list(x.shape), x.datatype, y.datatype) == ("7", [2, 2], "FP64", "BYTES")
    if raw:
        assert not x.HasField("contents")
        assert body.raw_input_contents[0] == encode("FP64", [math.nan, 2, math.nan, 4])
    else:
        assert not body.raw_input_contents
        assert list(x.contents.fp64_contents)[1::2] == [2, 4]
        assert list(y.contents.bytes_contents) == [PSEUDONYMS.of("abc").encode()]


def test_whole_numbers_beyond_a_float_become_text_in_protobuf() -> None:
    body = ModelInferResponse(model_name="m")
    body.outputs.add(name="x", datatype="UINT64", shape=[1, 2])
    body.outputs[0].contents.uint64_contents.extend([1, (1 << 63) + 1])

    found = redaction(mask("x_0")).body(
        "response", DEPLOYMENT, Body(body.SerializeToString(), PROTOBUF)
    )

    (x,) = ModelInferResponse.FromString(found.data).outputs
    assert (x.datatype, list(x.contents.bytes_contents)) == ("BYTES", [b"", b"9223372036854775809"])


def test_frames_of_grpc_stay_frames_and_are_inflated() -> None:
    plain = message(raw=True).SerializeToString()
    data = frame(plain) + b"\x01" + frame(gzip.compress(plain))[1:]

    found = redaction({"action": "drop", "tensor": "x"}).body(
        "request", DEPLOYMENT, Body(data, b"application/grpc")
    )

    for part in frames(found.data):
        body = ModelInferRequest.FromString(part.message)
        assert not part.is_compressed
        assert [item.name for item in body.inputs] == ["y"]
        assert len(body.raw_input_contents) == 1


@pytest.mark.parametrize(
    ("coding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("", gzip.compress)],
)
def test_a_compressed_body_leaves_plain(coding: str, compress: Any) -> None:
    data = compress(b'{"instances":[{"a":1}]}')

    found = redaction(mask("a")).body("request", DEPLOYMENT, Body(data, coding=coding.encode()))

    assert found.data == b'{"instances":[{"a":null}]}'


@pytest.mark.parametrize(
    ("body", "rule", "reason"),
    [
        (Body(b'{"instances":[]}', is_cut=True), mask("a"), "cut"),
        (Body(b"", is_cut=True), mask("a"), "cut"),
        (Body(b'{"instances":[]}', coding=b"br"), mask("a"), "encoding coding"),
        (Body(gzip.compress(b"{}")[:-9], coding=b"gzip"), mask("a"), "encoding truncated"),
        (Body(gzip.compress(bytes(1 << 10))), mask("a"), "unreadable"),
        (Body(b"age\n7", b"text/csv"), mask("age"), "unreadable"),
        (Body(b'{"error":"7"}'), mask("age"), "error"),
        (Body(b'{"messages":[]}'), mask("age"), "unknown"),
        (Body(b"[[7]]"), mask("age"), "unknown"),
        (Body(b"\x0a\x01m", PROTOBUF), mask("age"), "unknown"),
        (Body(b"\x0a\x01", PROTOBUF), mask("age"), "unreadable"),
        (Body(b"\x0a\x01m", PROTOBUF), {"action": "mask", "path": "$.a"}, "protobuf"),
        (
            Body(b'{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1]}]}'),
            mask("x"),
            "unknown",
        ),
        (
            Body(b'{"inputs":[{"name":"x","shape":[-1],"datatype":"FP32","data":[]}]}'),
            mask("x"),
            "unknown",
        ),
        (Body(b"{}x", head_bytes=1), mask("x"), "unreadable"),
    ],
)
def test_what_cannot_be_read_is_withheld_with_the_reason(
    body: Body, rule: dict[str, Any], reason: str
) -> None:
    assert withheld(body, rule) == reason


@pytest.mark.parametrize(
    "body",
    [
        {"context": 7},
        {"dataframe_split": 7},
        {"dataframe_split": {"data": 7}},
        {"data": 7},
        {"data": {"names": ["x"]}},
        {"data": {"ndarray": 7}},
        {"data": {"tensor": 7}},
        {"data": {"tensor": {"shape": [], "values": [7]}}},
        {"data": {"tensor": {"shape": [3], "values": [7]}}},
        {"data": {"tensor": {"shape": [1], "values": [[7]]}}},
        {"inputs": [tensor("FP32", [7], [1]), 7]},
        {"inputs": [tensor("FP32", [7], [-1])]},
        {"inputs": [tensor("FP32", [{"a": 7}, 7], [1, 2])]},
        {"request": {"messages": [7]}},
        {"inputs": [{"name": "y", "datatype": "FP32", "data": [7]}]},
        {"inputs": [{"name": "y", "shape": [1], "data": [7]}]},
        {"inputs": [{"name": "y", "shape": [1], "datatype": "FP32", "contents": {"fp32": [7]}}]},
        {"inputs": [{"shape": [1], "datatype": "FP32", "data": [7]}]},
        {"dataframe_split": {"columns": "y", "data": [[7]]}},
        {"data": {"names": "y", "ndarray": [[7]]}},
    ],
)
def test_what_contradicts_its_dialect_is_withheld(body: Any) -> None:
    rules = [{"action": "mask", "column": name, "text": "-"} for name in ("x_1", "y")]

    assert withheld(Body(json.dumps(body).encode()), *rules) == "unknown"


@pytest.mark.parametrize(
    ("body", "name", "expected"),
    [
        ({"request": None, "reward": 1}, "x", {"request": None, "reward": 1}),
        ({"instances": [[0] * 1025]}, "f0", {"instances": [[None] * 1025]}),
        ({"instances": [[7]]}, "f0", {"instances": [[None]]}),
        (
            {"instances": [[{"age": 7}, [{"age": 7}]]]},
            "age",
            {"instances": [[{"age": None}, [{"age": None}]]]},
        ),
        ({"inputs": {"x": [{"age": 7}]}}, "age", {"inputs": {"x": [{"age": None}]}}),
        ({"inputs": {"x": [[True, 1]]}}, "x_1", {"inputs": {"x": [[True, None]]}}),
        (
            {"data": {"names": ["a", "b"], "ndarray": [[1, 2, 3]]}},
            "f2",
            {"data": {"names": ["a", "b"], "ndarray": [[1, 2, None]]}},
        ),
        (
            {"data": {"names": ["a"], "ndarray": [{"a": 1}]}},
            "a",
            {"data": {"names": ["a"], "ndarray": [{"a": None}]}},
        ),
        (
            {"data": {"tensor": {"shape": [1, 1, 2], "values": [1, 2]}}},
            "f0",
            {"data": {"ndarray": [[[None, None]]]}},
        ),
        (
            {"context": {"age": 7}, "examples": []},
            "age",
            {"context": {"age": None}, "examples": []},
        ),
        (
            {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]},
            "x",
            {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]},
        ),
    ],
)
def test_odd_bodies_lose_what_is_named_and_nothing_else(
    body: Any, name: str, expected: Any
) -> None:
    assert left(body, mask(name)) == expected


def test_a_tensor_of_pseudonyms_says_that_it_is_text() -> None:
    dated = tensor("BYTES", ["2026"], [1], parameters={"content_type": "datetime"})
    number = tensor("FP32", [1.5], [1], "y", parameters={"content_type": "np"})
    coded = tensor("BYTES", ["QQ=="], [1], "z", parameters={"content_type": "base64"})

    found = left({"inputs": [dated, number, coded]}, hashed("?"))["inputs"]

    assert [item["parameters"]["content_type"] for item in found] == ["str", "str", "str"]
    assert found[2]["data"] == [PSEUDONYMS.of(b"A")]


def test_a_tensor_in_the_json_of_a_binary_body_is_redacted_as_well() -> None:
    data, _ = binary(("x", [1], "INT8", [1]))
    head = split(data).head
    head["inputs"].append(tensor("INT8", [7], [1], "y"))
    body = Body(json.dumps(head).encode() + b"\x01")

    for action, expected in (("mask", [None]), ("drop", None)):
        found = redaction({"action": action, "tensor": "y"}).body("request", DEPLOYMENT, body)
        items = {item["name"]: item for item in split(found.data, found.head_bytes).head["inputs"]}
        assert items.get("y", {}).get("data") == expected
        assert found.data.endswith(b"\x01")


@pytest.mark.parametrize("spoil", ["raw", "typed", "kind", "count", "name"])
def test_a_message_that_contradicts_itself_is_withheld(spoil: str) -> None:
    body = message(raw=spoil == "raw")
    x = body.inputs[0]
    if spoil == "raw":
        body.raw_input_contents.append(b"")
    elif spoil == "typed":
        x.contents.fp64_contents.append(7)
    elif spoil == "kind":
        x.datatype = "FP32"
    elif spoil == "name":
        x.name = ""
    else:
        x.contents.int64_contents.append(7)

    assert withheld(Body(body.SerializeToString(), PROTOBUF), mask("x_0")) == "unknown"
    assert withheld(Body(b"\x00\x00\x00\x00\x09a", PROTOBUF), mask("x_0")) == "unreadable"


def test_an_inflated_flood_is_withheld() -> None:
    flood = Body(gzip.compress(b'{"instances":[]}' + b" " * 5000), coding=b"gzip")
    found = Redaction([RedactionRule(**mask("a"))], max_inflated_bytes=4096)

    assert found.body("request", DEPLOYMENT, flood).withheld == "encoding too_large"


def test_the_text_of_an_error_is_withheld_where_rules_are_about_the_request() -> None:
    error = Body(b'{"detail":"age 7 is odd"}', is_failure=True)

    assert withheld(error, mask("age", on="request"), half="response") == "error"
    found = redaction(mask("age", deployment="x/*")).body("response", DEPLOYMENT, error)
    assert found.data == error.data


def test_an_empty_body_is_nothing_to_redact() -> None:
    assert redaction(mask("a")).body("request", DEPLOYMENT, Body(b"")).withheld == ""


def test_what_fails_unforeseen_is_logged_without_what_it_says(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: bytes) -> None:
        raise KeyError("secret")

    monkeypatch.setattr("sidelight.logger._redaction.read_json", fail)
    with caplog.at_level(logging.DEBUG):
        assert withheld(Body(b"{}"), mask("a")) == "failed"

    (record,) = caplog.records
    assert (record.getMessage(), record.exc_info) == ("a body cannot be redacted", None)
    assert "secret" not in repr(record.__dict__)


def test_values_that_no_rule_names_are_the_same_afterwards() -> None:
    body = '{"instances":[{"a":1,"b":12345678901234567890123,"c":1e400,"d":"\\ud800","e":0.1}]}'

    found = redaction(mask("a")).body("request", DEPLOYMENT, Body(body.encode()))

    expected = json.loads(body)
    expected["instances"][0]["a"] = None
    assert json.loads(found.data) == expected


def test_of_a_doubled_key_only_the_last_value_leaves() -> None:
    found = redaction(mask("a")).body(
        "request", DEPLOYMENT, Body(b'{"instances":[1],"instances":[]}')
    )

    assert found.data == b'{"instances":[]}'


def test_equal_values_have_equal_pseudonyms_whatever_the_wire_form() -> None:
    bodies: list[tuple[bytes, bytes, int | None]] = [
        (json.dumps({"instances": [{"x": 7.25}]}).encode(), b"", None),
        (json.dumps({"inputs": [tensor("FP32", [7.25], [1])]}).encode(), b"", None),
        (json.dumps({"inputs": [tensor("BYTES", ["7.25"], [1])]}).encode(), b"", None),
        (binary(("x", [1], "FP16", [7.25]))[0], b"", None),
    ]
    grpc = ModelInferRequest(model_name="m")
    grpc.inputs.add(name="x", datatype="FP64", shape=[1]).contents.fp64_contents.append(7.25)
    bodies.append((grpc.SerializeToString(), PROTOBUF, None))

    for data, media, head_bytes in bodies:
        found = redaction(hashed("x")).body(
            "request", DEPLOYMENT, Body(data, media, head_bytes=head_bytes)
        )
        assert PSEUDONYMS.of(7.25).encode() in found.data


cells = st.integers(-1000, 1000) | st.floats(-1e3, 1e3).map(lambda value: round(value, 3))


@st.composite
def tables(draw: st.DrawFn) -> tuple[Half, bytes, bytes]:
    """Draw a body of some dialect; half, content type and the bytes."""
    n_rows, n_columns = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    rows = [[float(draw(cells)) for _ in range(n_columns)] for _ in range(n_rows)]
    names = [f"c{number}" for number in range(n_columns)]
    columns = [[row[place] for row in rows] for place in range(n_columns)]
    flat = [value for row in rows for value in row]
    grpc = ModelInferRequest(model_name="m")
    grpc.inputs.add(name="x", datatype="FP64", shape=[n_rows, n_columns])
    grpc.raw_input_contents.append(encode("FP64", flat))
    records = [dict(zip(names, row, strict=True)) for row in rows]
    bodies: list[tuple[Half, Any]] = [
        ("request", {"instances": rows}),
        ("request", {"instances": records}),
        ("request", {"instances": [{"x": row} for row in rows]}),
        ("request", {"inputs": dict(zip(names, columns, strict=True))}),
        ("request", {"inputs": {"x": rows}}),
        ("request", {"inputs": [tensor("FP64", flat, [n_rows, n_columns])]}),
        ("request", {"inputs": [tensor("FP64", rows, [n_rows, n_columns])]}),
        (
            "request",
            {
                "inputs": [
                    tensor("FP64", data, [n_rows, 1], name)
                    for name, data in zip(names, columns, strict=True)
                ]
            },
        ),
        ("request", {"dataframe_split": {"columns": names, "data": rows}}),
        ("request", {"dataframe_records": records}),
        ("request", {"data": {"names": names, "ndarray": rows}}),
        ("request", {"data": {"ndarray": rows}}),
        ("request", {"data": {"tensor": {"shape": [n_rows, n_columns], "values": flat}}}),
        ("response", {"predictions": rows}),
        ("response", {"predictions": [row[0] for row in rows]}),
        ("response", {"outputs": [tensor("FP64", flat, [n_rows, n_columns])]}),
    ]
    choice = draw(st.integers(0, len(bodies) + 1))
    if choice == len(bodies):
        return "request", PROTOBUF, grpc.SerializeToString()
    if choice > len(bodies):
        return "request", b"", binary(("x", [n_rows, n_columns], "FP64", flat))[0]
    half, body = bodies[choice]
    return half, b"", json.dumps(body).encode()


def collected(data: bytes, half: Half) -> dict[str, list[Any]]:
    """Return what the collector makes of a body: columns by name."""
    event = None
    read = read_payload(data, half, DIALECTS, event=event)
    assert read.reason is None, read.reason
    names = column_names(read.layout, "f" if half == "request" else "y", ())
    values = [
        array.to_pylist()
        for spec, part in zip(read.layout.tensors, read.values, strict=True)
        for array in arrays(spec, [part])
    ]
    return dict(zip(names, values, strict=True))


@settings(max_examples=200, deadline=None)
@given(tables(), st.data())
def test_a_rule_takes_exactly_the_column_that_the_collector_gives_its_name(
    table: tuple[Half, bytes, bytes], data: st.DataObject
) -> None:
    half, media, body = table
    if media:
        return  # protobuf has no names in the collector's reader without its event
    before = collected(body, half)
    name = data.draw(st.sampled_from(sorted(before)))

    found = redaction(mask(name)).body(half, DEPLOYMENT, Body(body))

    assert not found.withheld
    after = collected(found.data, half)
    assert after.keys() == before.keys()
    assert {None} == {
        one for value in after[name] for one in (value if isinstance(value, list) else [value])
    }
    assert {key: value for key, value in after.items() if key != name} == {
        key: value for key, value in before.items() if key != name
    }


@settings(max_examples=100, deadline=None)
@given(tables())
def test_every_action_leaves_a_body_that_the_collector_can_read(
    table: tuple[Half, bytes, bytes],
) -> None:
    half, media, body = table
    for action in ("mask", "hmac"):
        found = redaction(
            {"action": action, "column": "*_1"}, {"action": action, "column": "?1"}
        ).body(half, DEPLOYMENT, Body(body, media))
        assert not found.withheld
        if not media:
            collected(found.data, half)


def header(value: str, **rule: Any) -> str | None:
    return redaction({"header": "X-Tenant", **rule}).header(
        "request", DEPLOYMENT, "x-tenant", value
    )


def test_headers_are_redacted_by_their_names() -> None:
    assert header("red", action="hmac") == PSEUDONYMS.of("red")
    assert header("red", action="drop") is None
    assert header("red", action="mask") is None
    assert header("red", action="mask", text="-") == "-"
    assert header("red", action="truncate", length=1) == "r"
    assert header("17", action="bucket", edges=(0, 10)) == "10"
    assert header("red", action="bucket", edges=(0, 10)) is None
    assert header("red", action="hmac", on="response") == "red"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"action": "mask"}, "rule"),
        ({"action": "mask", "column": ""}, "rule"),
        ({"action": "mask", "column": "a", "tensor": "b"}, "rule"),
        ({"action": "erase", "column": "a"}, "action"),
        ({"action": "mask", "column": "a", "on": "none"}, "on"),
        ({"action": "mask", "column": "a", "deployment": ""}, "deployment"),
        ({"action": "mask", "column": "a", "length": 3}, "length"),
        ({"action": "drop", "column": "a", "text": "-"}, "text"),
        ({"action": "bucket", "column": "a"}, "edges"),
        ({"action": "bucket", "column": "a", "edges": (2, 1)}, "edges"),
        ({"action": "bucket", "column": "a", "edges": (1, math.inf)}, "edges"),
        ({"action": "round", "column": "a"}, "round"),
        ({"action": "round", "column": "a", "step": 1, "digits": 1}, "round"),
        ({"action": "round", "column": "a", "step": 0}, "step"),
        ({"action": "truncate", "column": "a"}, "length"),
        ({"action": "truncate", "column": "a", "length": -1}, "length"),
        ({"action": "mask", "path": "a.b"}, "path"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}: expected"):
        RedactionRule(**fields)


def test_a_key_is_long_enough_and_there_where_it_is_needed() -> None:
    with pytest.raises(ValueError, match="at least 16 bytes, got 3"):
        Redaction([], key=b"abc")
    with pytest.raises(ValueError, match="got none"):
        Redaction([RedactionRule(action="hmac", column="a")])
    with pytest.raises(ValueError, match="spelling"):
        Redaction([], spelling="base32")  # type: ignore[arg-type]  # the point of the test
    assert Redaction([]).digest(b"a") == ""
