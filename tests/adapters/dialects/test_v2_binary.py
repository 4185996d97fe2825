"""The binary tensor extension: every datatype, mixed with JSON, with and without the length."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters.dialects import DIALECTS, Half, Side, read_payload
from sidelight.payloads import Event

FORMS = {
    "BOOL": ("?", st.booleans()),
    "INT8": ("b", st.integers(-128, 127)),
    "INT16": ("h", st.integers(-(2**15), 2**15 - 1)),
    "INT32": ("i", st.integers(-(2**31), 2**31 - 1)),
    "INT64": ("q", st.integers(-(2**63), 2**63 - 1)),
    "UINT8": ("B", st.integers(0, 255)),
    "UINT16": ("H", st.integers(0, 2**16 - 1)),
    "UINT32": ("I", st.integers(0, 2**32 - 1)),
    "UINT64": ("Q", st.integers(0, 2**64 - 1)),
    "FP16": ("e", st.floats(width=16, allow_nan=False, allow_infinity=False)),
    "FP32": ("f", st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "FP64": ("d", st.floats(allow_nan=False, allow_infinity=False)),
}

STRATEGIES: dict[str, st.SearchStrategy[Any]] = {
    "BYTES": st.text(max_size=3),
    "BF16": st.sampled_from([0.5, -2.0, 1.0, 0.0]),
    **{datatype: strategy for datatype, (_, strategy) in FORMS.items()},
}


def binary(datatype: str, values: list[Any]) -> bytes:
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in values)
    if datatype == "BF16":
        return b"".join(struct.pack("<f", value)[2:] for value in values)
    return struct.pack(f"<{len(values)}{FORMS[datatype][0]}", *values)


def read(data: bytes, side: Side = "request", **extensions: str) -> Half:
    event = Event(id="1", source="/s", type="t", extensions=extensions)
    return read_payload(data, side, DIALECTS, event=event)


@given(
    st.lists(st.tuples(st.sampled_from(sorted(STRATEGIES)), st.booleans()), min_size=1),
    st.integers(1, 3),
    st.sampled_from(["inputs", "outputs"]),
    st.sampled_from(["", "right", "wrong", "rubbish"]),
    st.data(),
)
@settings(deadline=None)
def test_bytes_read_like_the_same_values_in_json(
    kinds: list[tuple[str, bool]], rows: int, key: str, stated: str, data: st.DataObject
) -> None:
    head: list[dict[str, Any]] = []
    plain: list[dict[str, Any]] = []
    rest = b""
    for number, (datatype, in_json) in enumerate([*kinds, ("INT8", False)]):
        strategy = STRATEGIES[datatype]
        values = data.draw(st.lists(strategy, min_size=rows, max_size=rows))
        tensor = {"name": f"t{number}", "shape": [rows], "datatype": datatype}
        plain.append({**tensor, "data": values})
        if in_json and datatype not in {"FP16", "BF16"}:
            head.append(plain[-1])
            continue
        chunk = binary(datatype, values)
        head.append({**tensor, "parameters": {"binary_data_size": len(chunk)}})
        rest += chunk
    text = json.dumps({"model_name": "m", "id": "7", key: head}).encode()
    lengths = {"right": str(len(text)), "wrong": str(len(text) // 2), "rubbish": "-1"}
    extensions = {"inferenceheadercontentlength": lengths[stated]} if stated else {}
    side: Side = "request" if key == "inputs" else "response"

    half = read(text + rest, side, **extensions)
    expected = read(json.dumps({"model_name": "m", "id": "7", key: plain}).encode(), side)

    assert (half.reason, half.layout.protocol) == (None, "v2-binary")
    assert (half.values, half.facts) == (expected.values, expected.facts)


def test_bytes_that_are_white_space_are_tensors_all_the_same() -> None:
    half = read(body(4, b"\r\n \t"), "request")

    assert (half.reason, half.layout.protocol) == (None, "v2-binary")
    assert half.values == ([2573, 2336],)


def body(size: Any, rest: bytes, **tensor: Any) -> bytes:
    item = {"name": "x", "shape": [2], "datatype": "INT16", **tensor}
    item["parameters"] = {"binary_data_size": size}
    return json.dumps({"inputs": [item]}).encode() + rest


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(body(4, b"\0" * 3), "not_json", id="too few bytes"),
        pytest.param(body(4, b"\0" * 5), "not_json", id="too many bytes"),
        pytest.param(body(-4, b"\0" * 4), "not_json", id="negative size"),
        pytest.param(body(4, b"\0" * 4, shape=[3]), "shape", id="another shape"),
        pytest.param(body(4, b"\0" * 4, shape=[-2]), "shape", id="negative shape"),
        pytest.param(body(4, b"\0" * 4, shape=[10**30]), "shape", id="huge shape"),
        pytest.param(body(4, b"\0" * 4, datatype="INT4"), "datatype", id="datatype"),
        pytest.param(
            body(4, b"\xff\xff\xff\xff", shape=[1], datatype="BYTES"), "shape", id="huge element"
        ),
        pytest.param(b'{"inputs": []}' + b"\0", "not_json", id="no tensors"),
    ],
)
def test_contradictions_stay_opaque(data: bytes, reason: str) -> None:
    assert read(data).reason == reason


def test_a_tensor_without_json_needs_the_model_to_be_understood() -> None:
    half = read(b"\0\0\x80\x3f", inferenceheadercontentlength="0")

    assert (half.layout.form, half.reason) == ("base64", "raw_tensor")


def test_elements_that_are_no_text_are_base64() -> None:
    data = body(6, b"\x02\0\0\0\xff\xfe", shape=[1], datatype="BYTES")

    assert read(data).values == (["//4="],)


@given(st.binary(max_size=40))
def test_no_bytes_behind_json_make_the_reader_raise(rest: bytes) -> None:
    assert read(body(4, rest)).rows >= 1
