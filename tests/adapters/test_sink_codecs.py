"""What the sinks write, read by the CloudEvents SDK and by readers of Parquet that are not ours."""

import base64
import gzip
import io
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.captured_events import ATTRIBUTES, captured, event_of

from sidelight.adapters._sink_files_lines import line, write_lines, write_zipped_lines
from sidelight.adapters._sink_files_parquet import COLUMNS, SCHEMA, records_of, write_parquet
from sidelight.adapters._sink_kafka_record import KafkaKey, KafkaMode, KafkaRecord, record_of
from sidelight.logger import CapturedEvent

JSON = "application/json"
BYTES = "application/octet-stream"
# The SDK invents a time where there is none.
EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
SET = {"time": "2026-01-31T10:20:30.000001Z"}
PAYLOADS = st.one_of(
    st.tuples(st.just(BYTES), st.binary(max_size=50)),
    st.tuples(
        st.just(JSON),
        st.recursive(
            st.one_of(st.integers(-(2**53), 2**53), st.text(max_size=5)),
            lambda inner: st.lists(inner, max_size=3),
        ).flatmap(
            lambda value: st.sampled_from(
                [orjson.dumps(value), orjson.dumps(value, option=orjson.OPT_INDENT_2)]
            )
        ),
    ),
)


def read_by_sdk(record: KafkaRecord) -> tuple[dict[str, Any], Any]:
    headers = {name: str(value).encode() for name, value in record.headers}
    event = from_kafka(KafkaMessage(headers, record.key, record.value), JSONFormat())
    attributes = dict(event.get_attributes())
    assert attributes.pop("partitionkey").encode() == record.key
    return attributes, event.get_data()


def as_sent(attributes: dict[str, Any]) -> dict[str, str]:
    """Undo what the SDK makes of times."""
    return {
        name: value.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
        if isinstance(value, datetime)
        else value
        for name, value in attributes.items()
    }


def meaning(content_type: str, data: bytes) -> Any:
    return json.loads(data) if content_type == JSON else data


def as_bytes(data: Any, content_type: str) -> Any:
    # The SDK gives bytes that happen to be UTF-8 as text.
    return data.encode() if isinstance(data, str) and content_type == BYTES else data


@settings(deadline=None)
@given(ATTRIBUTES, PAYLOADS, st.sampled_from(["binary", "structured"]))
def test_the_sdk_reads_from_a_record_what_was_captured(
    attributes: dict[str, str], payload: tuple[str, bytes], mode: KafkaMode
) -> None:
    content_type, data = payload
    attributes = {**SET, **attributes, "datacontenttype": content_type}

    found, value = read_by_sdk(record_of(event_of(attributes, data), mode=mode, key="deployment"))

    assert as_sent(found) == attributes
    if data:
        assert as_bytes(value, content_type) == meaning(content_type, data)


@settings(deadline=None)
@given(ATTRIBUTES)
def test_a_key_depends_on_nothing_but_the_deployment_or_the_request(
    attributes: dict[str, str],
) -> None:
    request, response = (
        event_of({**attributes, "type": kind, "time": time, "statuscode": "200"}, kind.encode())
        for kind, time in (
            ("request", "2026-01-01T00:00:00Z"),
            ("response", "2026-01-02T00:00:00Z"),
        )
    )

    for key in ("deployment", "request"):
        first, second = (record_of(half, mode="binary", key=key) for half in (request, response))
        assert first.key == second.key


@pytest.mark.parametrize(
    ("key", "attributes", "expected"),
    [
        ("deployment", {}, b"prod/flights"),
        ("deployment", {"namespace": None, "inferenceservicename": None}, b"default/flights"),
        ("deployment", {"inferenceservicename": "a/b c"}, b"prod/a%2Fb%20c"),
        ("request", {"id": "r/1"}, b"r/1"),
    ],
)
def test_a_key_is_the_deployment_or_the_request(
    key: KafkaKey, attributes: dict[str, Any], expected: bytes
) -> None:
    assert record_of(captured(**attributes), mode="binary", key=key).key == expected


def test_a_payload_stands_in_a_record_byte_for_byte() -> None:
    data = b'{"x": 1.50,\n "y": [1e3]}'

    assert record_of(captured(data), mode="binary", key="request").value == data


def test_an_empty_payload_is_no_deletion() -> None:
    assert record_of(captured(b""), mode="binary", key="request").value == b""


def test_a_payload_that_is_a_cloudevent_itself_does_not_pass_for_the_event() -> None:
    inner = b'{"specversion":"1.0","id":"inner","source":"/x","type":"y"}'
    event = captured(inner, datacontenttype="Application/CloudEvents+JSON")

    attributes, _ = read_by_sdk(record_of(event, mode="binary", key="request"))

    assert attributes["id"] == "1"


@settings(deadline=None)
@given(st.lists(st.tuples(ATTRIBUTES, PAYLOADS), min_size=1, max_size=4))
def test_the_sdk_reads_from_a_line_what_was_captured(
    content: list[tuple[dict[str, str], tuple[str, bytes]]],
) -> None:
    events = [
        event_of({**SET, **attributes, "datacontenttype": payload[0]}, payload[1])
        for attributes, payload in content
    ]

    lines = written(write_lines, events).split(b"\n")

    assert lines.pop() == b""
    for text, (attributes, (content_type, data)) in zip(lines, content, strict=True):
        event = JSONFormat().read(None, text)
        assert as_sent(dict(event.get_attributes())) == {
            **SET,
            **attributes,
            "datacontenttype": content_type,
        }
        found = event.get_data()
        if isinstance(found, bytes) and content_type == JSON:
            found = json.loads(found)
        assert (found or b"") == (meaning(content_type, data) or b"")


def test_json_stands_verbatim_on_its_line() -> None:
    assert line(captured(b'{"x": 1.50}')).endswith(b',"data":{"x": 1.50}}\n')


def test_a_payload_of_several_lines_is_kept_byte_for_byte_on_one() -> None:
    data = b'{"x":\r\n1}'

    assert base64.b64decode(json.loads(line(captured(data)))["data_base64"]) == data


def test_many_lines_are_written_in_pieces_and_compress_to_the_same_bytes_each_time() -> None:
    events = [captured(b"x" * 1000, id=str(number)) for number in range(3000)]

    zipped = written(write_zipped_lines, events)

    assert gzip.decompress(zipped) == written(write_lines, events)
    assert zipped == written(write_zipped_lines, events)


@settings(deadline=None)
@given(st.lists(st.tuples(ATTRIBUTES, st.binary(max_size=20)), min_size=1, max_size=4))
def test_an_event_can_be_made_again_from_its_row(
    content: list[tuple[dict[str, str], bytes]],
) -> None:
    events = [event_of(attributes, data) for attributes, data in content]

    table = pq.read_table(io.BytesIO(written(write_parquet, events)))

    for row, (attributes, data) in zip(table.to_pylist(), content, strict=True):
        assert row["data"] == data
        typed = {
            column.attribute: column.write(row[column.name])
            for column in COLUMNS
            if row[column.name] is not None
        }
        assert {**typed, **json.loads(row["attributes"])} == attributes


def test_attributes_have_columns_of_their_type() -> None:
    row = records_of([captured(b"[1]", datalength="12")]).to_pylist()[0]

    assert row == {
        "id": "1",
        "type": "org.kubeflow.serving.inference.response",
        "source": "sidelight-proxy",
        "time": datetime.fromisoformat("2026-01-31T10:20:30.123456Z"),
        "component": "predictor",
        "method": "POST",
        "path": "/v2/models/flights/infer",
        "status": 200,
        "latency_ms": 1.25,
        "model": "flights",
        "version": None,
        "sampling_rate": 1.0,
        "traceparent": None,
        "content_type": "application/json",
        "deployment_name": "prod/flights",
        "attributes": (
            '{"specversion":"1.0","namespace":"prod","inferenceservicename":"flights",'
            '"datalength":"12"}'
        ),
        "data": b"[1]",
    }


@pytest.mark.parametrize(
    ("name", "text", "column", "value"),
    [
        pytest.param("statuscode", "abc", "status", None, id="no number"),
        pytest.param("statuscode", "9" * 30, "status", None, id="too large a number"),
        pytest.param("statuscode", "0200", "status", 200, id="another spelling"),
        pytest.param("latencyms", "1e400", "latency_ms", float("inf"), id="beyond a double"),
        pytest.param("time", "yesterday", "time", None, id="no time"),
        pytest.param(
            "time",
            "2026-01-31T12:20:30+02:00",
            "time",
            datetime.fromisoformat("2026-01-31T10:20:30Z"),
            id="another zone",
        ),
        pytest.param("time", "0001-01-01T00:00:00+23:00", "time", None, id="before all time"),
    ],
)
def test_an_attribute_with_another_spelling_is_kept_as_it_came(
    name: str, text: str, column: str, value: object
) -> None:
    row = records_of([event_of({**EVENT, name: text}, b"[1]")]).to_pylist()[0]

    assert row[column] == value
    assert json.loads(row["attributes"])[name] == text


def test_the_page_on_sinks_names_every_column_and_its_attribute() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sinks.md").read_text()
    documented = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| (.*) \|$", page, re.MULTILINE))

    assert set(documented) >= set(SCHEMA.names)
    for column in COLUMNS:
        assert f"`{column.attribute}`" in documented[column.name]


def test_a_file_of_many_large_rows_has_several_groups() -> None:
    events = [captured(b"x" * 600_000, id=str(number)) for number in range(40)]

    file = pq.ParquetFile(io.BytesIO(written(write_parquet, events)))

    assert file.metadata.num_rows == 40
    assert file.metadata.num_row_groups == 5


def written(
    write: Callable[[Sequence[CapturedEvent], Any], None], events: Sequence[CapturedEvent]
) -> bytes:
    file = io.BytesIO()
    write(events, file)
    return file.getvalue()
