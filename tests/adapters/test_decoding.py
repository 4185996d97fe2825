"""From pairs to batches: columns, facts, and payloads that must not cost others anything."""

import base64
import gzip
import json
import math
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.adapters import Decoder, Decoding, mlflow_schema
from sidelight.logger import Meeting, Pair, Pairing, identity, inference_id, parse
from sidelight.logger._journal import EventRecord
from sidelight.payloads import Batch, Column, Event, RawRef, Schema

WIRE = Path(__file__).parents[1] / "wire"
KSERVE = "org.kubeflow.serving.inference."


def body(value: dict[str, Any]) -> bytes:
    data = value["body"]
    return data["text"].encode() if "text" in data else base64.b64decode(data["base64"])


def sample(name: str, position: int = 0) -> tuple[Event, dict[str, Any]]:
    """Return the event of a sample; a bare call or answer is wrapped as the proxy does."""
    value = json.loads(next(WIRE.glob(f"{name}_*.json")).read_text())
    http = value.get("http") or value["http_response"]
    if value["transport"] == "http":
        lines = "".join(f"{key}: {text}\r\n" for key, text in http["headers"])
        head = f"POST / HTTP/1.1\r\n{lines}\r\n".encode()
        event = parse(EventRecord(0, position, 1000, head, body(http)))[0][0]
    else:
        event = half("response" if "http_response" in value else "request", body(http))
    return event, value["expect"]


def half(kind: str, data: bytes | dict[str, Any], request_id: str = "r1", **extra: Any) -> Event:
    return Event(
        id=request_id,
        source="/s",
        type=extra.pop("type", KSERVE + kind),
        time=extra.pop("time", "2026-05-01T10:00:00Z"),
        extensions={"namespace": "prod", "inferenceservicename": "m", **extra},
        data=data if isinstance(data, bytes) else json.dumps(data).encode(),
        received_ns=5_000_000,
        ref=RawRef(partition=0, position=1 if kind == "response" else 0),
    )


def pair(request: Event | None, response: Event | None = None, **rest: Any) -> Pair:
    first = request or response
    assert first
    key = identity(first)
    return Pair(key, inference_id(key), request, response, **rest)


def decode(*pairs: Pair | Meeting, schema: Schema | None = None) -> Decoding:
    return Decoder(lambda _: schema).decode(pairs)


def only(*pairs: Pair | Meeting, schema: Schema | None = None) -> Batch:
    batches = decode(*pairs, schema=schema).batches
    assert len(batches) == 1
    return batches[0]


def rows(batch: Batch, *names: str) -> list[Any]:
    found = batch.records.select(list(names)).to_pylist()
    return [tuple(row.values()) if len(names) > 1 else row[names[0]] for row in found]


def v2(*tensors: tuple[str, list[int], str, list[Any]], **rest: Any) -> dict[str, Any]:
    keys = ("name", "shape", "datatype", "data")
    return {"inputs": [dict(zip(keys, item, strict=True)) for item in tensors], **rest}


def features(batch: Batch) -> dict[str, list[Any]]:
    return {name: batch.feature(name).to_pylist() for name in batch.feature_names}


def outputs(batch: Batch) -> dict[str, list[Any]]:
    return {name: batch.output(name).to_pylist() for name in batch.output_names}


REQUESTS = ["ks01", "ks03", "ks06", "ks13", "ce02", "ce10", "ce16", "v201", "v202", "v204", "tf01"]


@pytest.mark.parametrize("name", REQUESTS)
def test_golden_requests_have_their_rows(name: str) -> None:
    event, expect = sample(name)

    batch = only(pair(event, orphan="request"))

    assert len(batch) == expect.get("rows", 1)
    assert rows(batch, "protocol")[0] == expect.get("payload_protocol", rows(batch, "protocol")[0])
    if expect.get("feature_names"):
        assert batch.feature_names == expect["feature_names"]
    for column, dtype in expect.get("dtypes", {}).items():
        assert batch.feature(column).type.to_pandas_dtype().__name__ == dtype
    if "dtype" in expect:
        first = batch.feature(batch.feature_names[0])
        assert first.type.to_pandas_dtype().__name__ == expect["dtype"]
    if "values" in expect:
        columns = features(batch).values()
        assert [list(row) for row in zip(*columns, strict=True)] == expect["values"]
    for column, values in (expect.get("columns", {}) | expect.get("columns_base64", {})).items():
        assert features(batch)[column] == values


@pytest.mark.parametrize("name", ["ks02", "ks09"])
def test_golden_responses_have_their_outputs(name: str) -> None:
    event, expect = sample(name)

    batch = only(pair(None, event, orphan="response"))

    assert outputs(batch) == {"y": expect["outputs"]}
    assert rows(batch, "orphan") == ["response"] * 2


def test_a_json_text_is_not_parsed_again() -> None:
    decoded = decode(pair(sample("ce03")[0]))

    assert [rows(batch, "protocol") for batch in decoded.batches] == [["opaque"]]
    assert sum(decoded.undecoded.values()) == 1


def test_named_inputs_keep_lists_and_bytes_and_lose_what_is_not_finite() -> None:
    batch = only(pair(sample("tf01")[0]))

    assert features(batch) == {
        "tag": ["foo", "bar"],
        "signal": [[1.0, 2.0, 3.0], [None, None, 5.0]],
        "image": ["aW1nMQ==", "aW1nMg=="],
    }


def test_columnar_answers_have_a_column_for_each_score() -> None:
    batch = only(pair(None, sample("tf03")[0]))

    assert outputs(batch) == {
        "scores_0": [0.1, 0.8],
        "scores_1": [0.9, 0.2],
        "classes": ["a", "b"],
    }


@pytest.mark.parametrize("names", [("ks01", "ks02"), ("ks02", "ks01"), ("sc01", "sc02")])
def test_golden_pairs_meet_in_both_orders(names: tuple[str, str]) -> None:
    events = [sample(name, position)[0] for position, name in enumerate(names)]
    pairing = Pairing(lambda _: None)

    batch = only(*pairing.step(events, lambda _: {}).pairs)

    assert set(rows(batch, "orphan")) == {None}
    assert batch.feature_names
    assert batch.output_names


def test_latency_is_the_difference_of_the_times_since_kserve_018() -> None:
    batch = only(pair(sample("ks01")[0], sample("ks02")[0]))

    assert rows(batch, "latency_ms")[0] == pytest.approx(16.543211)
    assert rows(batch, "time")[0].isoformat() == "2026-05-01T10:00:00.123456+00:00"


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("1.5", 1.5), ("-1", None), ("nan", None), ("fast", None), ("", None)],
)
def test_latency_of_the_proxy_wins(text: str, milliseconds: float | None) -> None:
    batch = only(pair(half("request", b""), half("response", b"", latencyms=text)))

    assert rows(batch, "latency_ms") == [milliseconds]


@pytest.mark.parametrize(
    ("text", "status"), [("200", 200), ("99999999999999", None), ("ok", None), ("²", None)]
)
def test_status(text: str, status: int | None) -> None:
    batch = only(pair(half("request", b""), half("response", b"", statuscode=text)))

    assert rows(batch, "status") == [status]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-05-01T10:00:00.123456789Z", "2026-05-01T10:00:00.123456+00:00"),
        ("2026-05-01T12:00:00+02:00", "2026-05-01T10:00:00+00:00"),
        ("2026-05-01T10:00:00", "2026-05-01T10:00:00+00:00"),
        ("2026-05-01t10:00:00.5z", "2026-05-01T10:00:00.500000+00:00"),
        ("yesterday", "1970-01-01T00:00:00.005000+00:00"),
        ("9999-01-01T00:00:00Z", "1970-01-01T00:00:00.005000+00:00"),
        ("1500-01-01T00:00:00Z", "1970-01-01T00:00:00.005000+00:00"),
        ("2262-04-11T00:00:00Z", "2262-04-11T00:00:00+00:00"),
        (None, "1970-01-01T00:00:00.005000+00:00"),
    ],
)
def test_times_are_read_or_those_of_receipt(text: str | None, expected: str) -> None:
    # A neighbour with a sound time keeps it, whatever the other one says.
    sound = pair(half("request", b"", "r2", time="2026-01-01T00:00:00Z"))

    batch = only(pair(half("request", b"", time=text)), sound)

    assert [time.isoformat() for time in rows(batch, "time")] == [
        expected,
        "2026-01-01T00:00:00+00:00",
    ]


def test_versions_come_from_attribute_body_or_predictor() -> None:
    answer = {"model_version": "7", "outputs": v2(("y", [1], "FP64", [1.0]))["inputs"]}
    seldon = half("request", b"", type="io.seldon.serving.inference.request", endpoint="canary")

    assert rows(only(pair(half("request", b""), half("response", answer))), "version") == ["7"]
    stated = half("response", answer, modelversion="8")
    assert rows(only(pair(half("request", b""), stated)), "version") == ["8"]
    assert rows(only(pair(seldon)), "version") == ["canary"]
    assert rows(only(pair(half("request", b"", endpoint="x"))), "version") == [None]


def test_synthetic_requests_are_marked() -> None:
    asked = v2(("x", [1], "FP64", [1.0]))
    ignored = {**asked, "parameters": {"bias_ignore": "true"}}

    found = only(
        pair(half("request", asked, "explain-1")),
        pair(half("request", ignored)),
        pair(half("request", asked)),
    )

    assert rows(found, "synthetic") == [True, True, False]


def test_tags_say_what_else_is_known() -> None:
    request = half("request", b"", metadata="%7B%22a%22:[%221%22]%7D", requestpath="/p")
    response = half("response", b"\xff", annotations='{"team":"risk"}', truncated="true")

    assert json.loads(rows(only(pair(request, response)), "tags")[0]) == {
        "annotations": {"team": "risk"},
        "empty": ["request"],
        "metadata": {"a": ["1"]},
        "path": "/p",
        "truncated": "true",
        "undecoded": {"response": "truncated"},
    }


def test_rows_of_the_answer_join_by_number() -> None:
    request = half("request", {"instances": [[1], [2], [3]]})
    response = half("response", {"predictions": [10, 20]})

    batch = only(pair(request, response))

    assert rows(batch, "row", "features.f0", "outputs.y") == [(0, 1, 10), (1, 2, 20), (2, 3, None)]
    assert json.loads(rows(batch, "tags")[0]) == {"rows_mismatch": [3, 2]}


def test_rows_of_the_answer_beyond_the_request_are_not_invented_inputs() -> None:
    request = half("request", {"instances": [[1]]})
    response = half("response", {"predictions": [10, 20]})

    assert outputs(only(pair(request, response))) == {"y": [10]}


def test_an_opaque_request_takes_the_rows_of_its_answer() -> None:
    batch = only(pair(half("request", b"a,b"), half("response", {"predictions": [1, 2]})))

    assert rows(batch, "features.f0", "outputs.y") == [("a,b", 1), (None, 2)]


def test_each_datatype_keeps_its_type() -> None:
    request = v2(
        ("big", [2], "INT64", [2**63 - 1, None]),
        ("unsigned", [2], "UINT64", [2**64 - 1, 0]),
        ("whole", [2], "INT8", [1.0, -2]),
        ("half", [2], "FP16", [0.5, 1]),
        ("flag", [2], "BOOL", [True, None]),
        ("bit", [2], "BOOL", [1, 0]),
        ("text", [2], "BYTES", ["é", None]),
        ("image", [2, 2, 1], "UINT8", [1, 2, 3, 4]),
    )

    batch = only(pair(half("request", request)))

    assert features(batch) == {
        "big": [2**63 - 1, None],
        "unsigned": [2**64 - 1, 0],
        "whole": [1, -2],
        "half": [0.5, 1.0],
        "flag": [True, None],
        "bit": [True, False],
        "text": ["é", None],
        "image": [[1, 2], [3, 4]],
    }
    assert batch.feature("image").type == pa.list_(pa.uint8())


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("INT8", 300),
        ("INT64", 1.5),
        ("INT64", 2**63),
        ("INT32", True),
        ("FP64", "1.5"),
        ("BOOL", 2),
        ("BYTES", 1),
        ("FP64", {"a": 1}),
    ],
)
def test_a_value_that_is_not_its_datatype_costs_only_its_own_payload(
    datatype: str, value: object
) -> None:
    good = v2(("x", [1], datatype, [None]))
    bad = v2(("x", [1], datatype, [value]))

    decoded = decode(
        *[pair(half("request", item, str(n))) for n, item in enumerate([good, bad, good])]
    )

    assert decoded.undecoded == {("prod/m", "values"): 1}
    assert [rows(batch, "request_id") for batch in decoded.batches] == [["0"], ["1"], ["2"]]
    assert json.loads(rows(decoded.batches[1], "features.f0")[0]) == bad


def test_numbers_beyond_a_double_are_null() -> None:
    data = b'{"inputs":[{"name":"x","shape":[3],"datatype":"FP64","data":[1e400,NaN,1]}]}'

    assert features(only(pair(half("request", data)))) == {"x": [None, None, 1.0]}


def test_integers_and_fractions_of_one_layout_share_a_column() -> None:
    batch = only(*[pair(half("request", {"instances": [[x]]}, str(x))) for x in (1, 2.5)])

    assert features(batch) == {"f0": [1.0, 2.5]}


LONG = 2**53 + 1


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        pytest.param([[LONG]], [{"f0": LONG}], id="alone"),
        pytest.param([[LONG, 0.5]], [{"f0": LONG, "f1": 0.5}], id="beside a fraction"),
        pytest.param([[-LONG, "a"], [1, "b"]], [{"f0": -LONG, "f1": "a"}, {"f0": 1, "f1": "b"}]),
        pytest.param([{"id": LONG}, {"id": None}], [{"id": LONG}, {"id": None}], id="named"),
        pytest.param([LONG], [{"f0": LONG}], id="scalar"),
        pytest.param([[2**63]], [{"f0": 2.0**63}], id="beyond 64 bits"),
    ],
)
def test_long_integers_stay_exact_whatever_stands_beside_them(
    instances: list[Any], expected: list[dict[str, Any]]
) -> None:
    kind = type(instances[0])
    other = {list: [0.5] * len(expected[0]), dict: {"id": 0.5}, int: 0.5}[kind]
    batches = decode(
        pair(half("request", {"instances": [other]}, "r0")),
        pair(half("request", {"instances": instances}, "r1")),
    ).batches

    found = [
        dict(zip(features(batch), row, strict=True))
        for batch in batches
        for row, request in zip(
            zip(*features(batch).values(), strict=True), rows(batch, "request_id"), strict=True
        )
        if request == "r1"
    ]
    assert found == expected


def test_columns_that_change_from_one_event_to_the_next_are_batches_of_their_own() -> None:
    bodies = [{"a": 1}, {"a": 1, "b": "x"}, {"a": 2}, {"b": "y"}]
    decoded = decode(
        *[pair(half("request", {"instances": [item]}, str(n))) for n, item in enumerate(bodies)]
    )

    assert [(batch.feature_names, rows(batch, "request_id")) for batch in decoded.batches] == [
        (["a"], ["0"]),
        (["a", "b"], ["1"]),
        (["a"], ["2"]),
        (["b"], ["3"]),
    ]


@pytest.mark.parametrize("form", ["object", "columns"])
def test_a_missing_value_does_not_cut_a_stream(form: str) -> None:
    values = [(None, "x"), (1.5, "y"), (None, None), (2.5, "z")]

    def body(number: float | None, word: str | None) -> dict[str, Any]:
        if form == "columns":
            return {"inputs": {"a": [number], "b": [word]}}
        return {"instances": [{"a": number, "b": word}]}

    batch = only(*[pair(half("request", body(*item), str(n))) for n, item in enumerate(values)])

    assert list(zip(*features(batch).values(), strict=True)) == values
    datatypes = [tensor["datatype"] for tensor in batch.layout["request"]["tensors"]]
    assert "NULL" not in datatypes


@given(st.lists(st.sampled_from(["a", "b", "n", "?"]), max_size=12))
def test_rows_of_a_deployment_stay_in_order_whatever_their_layouts(kinds: list[str]) -> None:
    bodies = {"a": {"a": 1}, "b": {"a": "x"}, "n": {"a": None}, "?": {"z": 1}}
    pairs = [
        pair(half("request", {"instances": [bodies[kind]]}, str(n))) for n, kind in enumerate(kinds)
    ]

    found = [name for batch in decode(*pairs).batches for name in rows(batch, "request_id")]

    assert found == [str(n) for n in range(len(kinds))]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_an_inference_beside_orphans_keeps_both_halves(order: tuple[int, ...]) -> None:
    asked = half("request", v2(("a", [1, 1], "FP64", [1.0])))
    said = half(
        "response", {"outputs": [{"name": "y", "shape": [1, 1], "datatype": "FP64", "data": [2.0]}]}
    )
    pairs = [pair(asked), pair(None, said), pair(asked, said)]
    batches = decode(*[pairs[place] for place in order]).batches
    found = [
        {name: value for name, value in row.items() if name in {"features.a", "outputs.y"}}
        for batch in batches
        for row in batch.records.to_pylist()
    ]
    both = [{"features.a": 1.0}, {"outputs.y": 2.0}, {"features.a": 1.0, "outputs.y": 2.0}]
    assert found == [both[place] for place in order]


def test_a_registered_schema_names_columns_without_names() -> None:
    schema = Schema(
        columns=(
            Column(name="age", kind="numeric"),
            Column(name="hours", kind="numeric"),
            Column(name="late", kind="numeric", role="score"),
        )
    )
    answer = half("response", {"predictions": [0.5]})

    for request in (v2(("x", [1, 2], "FP64", [1, 2])), {"instances": [[1, 2]]}):
        batch = only(pair(half("request", request), answer), schema=schema)
        assert (batch.feature_names, batch.output_names) == (["age", "hours"], ["late"])
        assert batch.layout["request"]["tensors"][0]["columns"] == ["age", "hours"]
    assert only(pair(half("request", {"instances": [[1]]})), schema=schema).feature_names == ["f0"]
    named = v2(("a", [1], "FP64", [1]), ("b", [1], "FP64", [1]))
    assert only(pair(half("request", named)), schema=schema).feature_names == ["a", "b"]


def test_a_registered_schema_means_its_names_in_any_order_of_the_tensors() -> None:
    schema = mlflow_schema(
        {
            "inputs": [
                {"name": "age", "type": "long"},
                {
                    "name": "place",
                    "type": "tensor",
                    "tensor-spec": {"dtype": "float64", "shape": [-1, 2]},
                },
            ]
        }
    )

    for inputs in ({"age": [30], "place": [[1.0, 2.0]]}, {"place": [[1.0, 2.0]], "age": [30]}):
        batch = only(pair(half("request", {"inputs": inputs})), schema=schema)
        row = {name: batch.feature(name).to_pylist() for name in batch.feature_names}
        assert row == {"age": [30], "place_0": [1.0], "place_1": [2.0]}


def test_names_that_meet_are_told_apart() -> None:
    request = v2(
        ("a", [1, 2], "FP64", [1, 2]), ("a_0", [1], "FP64", [3]), ("a_0", [1], "FP64", [4])
    )

    assert features(only(pair(half("request", request)))) == {
        "a_0": [1.0],
        "a_1": [2.0],
        "a_0_2": [3.0],
        "a_0_3": [4.0],
    }


def test_several_answers_without_names_are_numbered() -> None:
    batch = only(pair(None, half("response", {"predictions": [[0.2, 0.8]]})))

    assert outputs(batch) == {"y0": [0.2], "y1": [0.8]}


def test_the_layout_says_how_to_ask_again() -> None:
    request = v2(("x", [1, 2], "FP32", [[1, 2]]), parameters={"content_type": "np"})

    layout = only(pair(half("request", request))).layout

    assert layout["response"] is None
    assert layout["request"] == {
        "protocol": "v2-json",
        "form": "",
        "whole": False,
        "content_type": "np",
        "tensors": [
            {
                "name": "x",
                "datatype": "FP32",
                "shape": [2],
                "list": False,
                "nested": True,
                "scalar": False,
                "content_type": None,
                "columns": ["x_0", "x_1"],
            }
        ],
    }


def test_names_that_no_url_can_carry_stay_one_deployment() -> None:
    event = half("request", b"", inferenceservicename="a/b\n")

    assert only(pair(event)).deployment == "prod/a%2Fb%0A"


def test_a_dialect_with_a_fault_loses_nothing() -> None:
    class Faulty:
        def claims(self, *_: object) -> bool:
            raise KeyError

        def decode(self, *_: object) -> Any:
            raise AssertionError

    decoded = Decoder(dialects=[Faulty()]).decode([pair(half("request", {"a": 1}))])

    assert decoded.undecoded == {("prod/m", "unforeseen"): 1}
    assert len(decoded.batches[0]) == 1


def test_compressed_rubbish_is_kept_as_it_came() -> None:
    cut = gzip.compress(b'{"instances": [1]}')[:-4]

    decoded = decode(pair(half("request", cut)))

    assert base64.b64decode(rows(decoded.batches[0], "features.f0")[0]) == cut
    assert decoded.undecoded == {("prod/m", "encoding_truncated"): 1}


floats = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=6), st.data())
@settings(deadline=None)
def test_every_value_is_found_in_its_row_and_column(
    shapes: list[tuple[int, int]], data: st.DataObject
) -> None:
    sent: dict[str, list[list[float]]] = {}
    pairs = []
    for number, (n, width) in enumerate(shapes):
        flat = data.draw(st.lists(floats, min_size=n * width, max_size=n * width))
        answer = {"predictions": list(range(n))}
        request = half("request", v2(("x", [n, width], "FP64", flat)), str(number))
        pairs.append(pair(request, half("response", answer, str(number))))
        sent[str(number)] = [flat[row * width : (row + 1) * width] for row in range(n)]

    found: dict[str, list[list[float]]] = {}
    for batch in decode(*pairs).batches:
        for row in batch.records.to_pylist():
            values = [row[f"features.{name}"] for name in batch.feature_names]
            found.setdefault(row["request_id"], []).append(values)
            assert row["outputs.y"] == row["row"]

    assert found == sent


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["instances", "inputs", "predictions", "outputs"]),
            st.lists(json_values, max_size=3) | st.dictionaries(st.text(max_size=2), json_values),
            max_size=2,
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=300, deadline=None)
def test_no_payload_is_lost_whatever_it_is(bodies: list[dict[str, Any]]) -> None:
    pairs = [
        pair(half("request", item, str(n)), half("response", item, str(n)))
        for n, item in enumerate(bodies)
    ]

    batches = decode(*pairs).batches

    seen = [
        request_id for batch in batches for request_id in dict.fromkeys(rows(batch, "request_id"))
    ]
    assert sorted(seen) == sorted(str(n) for n in range(len(bodies)))
    for batch in batches:
        assert Batch.from_ipc(batch.to_ipc()).records.equals(batch.records)
        for column in batch.records.columns:
            if pa.types.is_floating(column.type):
                assert all(value is None or math.isfinite(value) for value in column.to_pylist())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(b"0.5,1", {"y": [0.5, 1.0]}, id="one line of all"),
        pytest.param(b"0.5\n1\n", {"y": [0.5, 1.0]}, id="a line each"),
        pytest.param(b"1,2,3", {"y0": [1, None], "y1": [2, None], "y2": [3, None]}, id="neither"),
        pytest.param(b"0.5,a", {"y0": [0.5, None], "y1": ["a", None]}, id="of two kinds"),
    ],
)
def test_an_answer_of_one_line_has_a_value_for_each_row(
    answer: bytes, expected: dict[str, list[Any]]
) -> None:
    asked = replace(half("request", b"1,2\n3,4\n"), datacontenttype="text/csv")
    answered = replace(half("response", answer), datacontenttype="text/csv")

    batch = only(pair(asked, answered), pair(asked, answered))

    found = {name: batch.output(name).to_pylist() for name in batch.output_names}
    assert found == {name: values * 2 for name, values in expected.items()}
