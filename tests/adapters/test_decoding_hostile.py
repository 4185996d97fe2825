"""Payloads made to break something: every golden body, damaged; declared sizes without values."""

import base64
import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters import Decoder
from sidelight.logger import Pair, identity, inference_id
from sidelight.payloads import Batch, Event

WIRE = Path(__file__).parents[1] / "wire"
TYPES = [
    "org.kubeflow.serving.inference.",
    "io.seldon.serving.inference.",
    "io.sidelight.seldoncore2.",
]
CONTENT = ["application/json", "application/protobuf", "text/csv", "application/jsonlines", None]
HUGE = 10**9


def _bodies() -> list[bytes]:
    found = []
    for path in sorted(WIRE.glob("*.json")):
        sample = json.loads(path.read_text())
        for key in ("http", "http_response", "kafka", "object"):
            part = sample.get(key) or {}
            value = part.get("body") or part.get("value")
            if value:
                data = value.get("text", "").encode() or base64.b64decode(value.get("base64", ""))
                found.append(data)
    return [body for body in found if body]


BODIES = _bodies()


def decoded(data: bytes, side: str, *, prefix: str = TYPES[0], **changes: Any) -> Batch:
    event = Event(
        id="r1",
        source="/s",
        type=prefix + side,
        datacontenttype=changes.pop("content_type", None),
        extensions=changes,
        data=data,
    )
    key = identity(event)
    request, response = (event, None) if side == "request" else (None, event)
    found = Decoder().decode([Pair(key, inference_id(key), request, response)])
    # The decoder would catch it, and a dialect must not rely on that.
    assert "unforeseen" not in {reason for _, reason in found.undecoded}
    (batch,) = found.batches
    assert len(batch) >= 1
    assert Batch.from_ipc(batch.to_ipc()).records.equals(batch.records)
    return batch


def _damaged(data: bytes, rng: random.Random) -> bytes:
    body = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(body) + 1)
        match rng.randrange(5):
            case 0:
                del body[place:]
            case 1:
                body[place:place] = rng.choice(
                    [b"NaN", b"-1", b"[", b"{", b"\x00", b"1e999", b"\\ud800"]
                )
            case 2:
                body[place : place + 1] = bytes([rng.randrange(256)])
            case 3:
                body[place:place] = rng.choice(BODIES)[: rng.randrange(40)]
            case _:
                del body[place : place + rng.randrange(8)]
        body = body or bytearray(b"{")
    return bytes(body)


@given(
    st.randoms(use_true_random=False),
    st.sampled_from(["request", "response"]),
    st.sampled_from(TYPES),
    st.sampled_from(CONTENT),
    st.sampled_from(["", "seldon", "tensorflow", "v2"]),
)
@settings(max_examples=400, deadline=None)
def test_damaged_payloads_are_read_or_kept(
    rng: random.Random, side: str, prefix: str, content_type: str | None, protocol: str
) -> None:
    data = _damaged(rng.choice(BODIES), rng)

    decoded(data, side, prefix=prefix, content_type=content_type, protocol=protocol)


KEYS = [
    *("inputs", "outputs", "instances", "predictions", "data", "ndarray", "tensor", "tftensor"),
    *("names", "shape", "values", "strData", "binData", "jsonData", "customData", "meta", "tags"),
    *("puid", "status", "dataframe_split", "dataframe_records", "columns", "params", "examples"),
    *("context", "results", "error", "features", "dtype", "tensorShape", "dim", "size", "floatVal"),
    *("halfVal", "tensorContent", "name", "datatype", "parameters", "binary_data_size", "b64"),
]
LEAVES = [None, True, 0, 1, -1, 2.5, HUGE, 2**70, "x", "FP32", "BYTES", "DT_FLOAT", "AAAA", "NaN"]


def _made_up(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.random()
    if depth and (depth > 5 or kind < 0.35):
        return rng.choice([*LEAVES, math.nan, math.inf])
    n = rng.randrange(4)
    if depth and kind < 0.65:
        return [_made_up(rng, depth + 1) for _ in range(n)]
    return {rng.choice(KEYS): _made_up(rng, depth + 1) for _ in range(n)}


@given(st.randoms(use_true_random=False), st.sampled_from(["request", "response"]))
@settings(max_examples=400, deadline=None)
def test_words_of_all_dialects_in_any_order_are_read_or_kept(rng: random.Random, side: str) -> None:
    decoded(json.dumps(_made_up(rng)).encode(), side)


def cells(batch: Batch) -> int:
    return sum(
        len(column) if not pa.types.is_list(column.type) else len(column.flatten()) + len(column)
        for column in batch.records.columns
    )


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"inputs": [_t]}, id=f"v2 {_t['shape']}")
        for _t in (
            {"name": "x", "shape": [HUGE, 0], "datatype": "FP64", "data": []},
            {"name": "x", "shape": [0, HUGE], "datatype": "FP64", "data": []},
            {"name": "x", "shape": [HUGE, HUGE, 0], "datatype": "FP64", "data": []},
            {"name": "x", "shape": [1, HUGE, 0], "datatype": "FP64", "data": []},
            {"name": "x", "shape": [0] * 32, "datatype": "BYTES", "data": []},
        )
    ]
    + [
        pytest.param({"inputs": {"a": [1] * 2000, **{f"s{n}": 1 for n in range(4000)}}}, id="once"),
        pytest.param({"instances": [{f"c{n}": 1 for n in range(4000)}, *[{}] * 20_000]}, id="gaps"),
        pytest.param({"data": {"tensor": {"shape": [HUGE, 0], "values": []}}}, id="seldon"),
        pytest.param(
            {"data": {"names": ["a"], "tensor": {"shape": [HUGE, 1], "values": []}}}, id="named"
        ),
        pytest.param(
            {"data": {"tftensor": {"dtype": 1, "tensorShape": {"dim": [{"size": HUGE}]}}}}, id="tf"
        ),
        pytest.param({"instances": [[]] * 50_000}, id="empty rows"),
        pytest.param({"dataframe_split": {"columns": [], "data": [[]] * 50_000}}, id="no columns"),
    ],
)
def test_a_short_payload_makes_no_large_table(body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()

    batch = decoded(data, "request")

    # The columns that every row has, and 32 cells for each value that was sent.
    assert cells(batch) <= 32 * max(len(data), 1 << 15)
