"""Files of KServe's logger: three formats of the same records, and what is none."""

import base64
import csv
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.adapters import ImportFileError, kserve_blob
from sidelight.logger import CapturedEvent, identity, kind_of, parse
from sidelight.logger._journal import EventRecord
from sidelight.payloads import Event

COLUMNS = [
    *("url", "bytes", "contentType", "reqType", "id", "sourceUri", "inferenceService"),
    *("namespace", "component", "endpoint", "metadata", "annotations", "certName", "tlsSkipVerify"),
]
MODIFIED = "2026-05-01T10:00:11Z"
BODY = b'{"instances":[[1,2]]}'


def record(**changes: Any) -> dict[str, Any]:
    return {
        "url": "s3://logs/prefix",
        "bytes": base64.b64encode(BODY).decode(),
        "contentType": "application/json",
        "reqType": "org.kubeflow.serving.inference.request",
        "id": "id-1",
        "sourceUri": "http://localhost:9081/",
        "inferenceService": "iris",
        "namespace": "prod",
        "component": "predictor",
        "endpoint": "",
        "metadata": '{"X-Request-Id":["r-1"]}',
        "annotations": "",
        "certName": "",
        "tlsSkipVerify": "false",
        **changes,
    }


def as_csv(*records: dict[str, Any]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().encode()


def as_parquet(*records: dict[str, Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(records)), sink)
    return bytes(sink.getvalue())


def as_json(*records: dict[str, Any]) -> bytes:
    return json.dumps(records[0] if len(records) == 1 else list(records)).encode()


def events_of(captured: list[CapturedEvent]) -> list[Event]:
    events = []
    for item in captured:
        head = b"POST / HTTP/1.1\r\ncontent-type: application/cloudevents+json\r\n\r\n"
        found, rejected = parse(EventRecord(0, 0, 0, head, item.member()))
        assert rejected == []
        events += found
    return events


@pytest.mark.parametrize("form", [as_json, as_csv, as_parquet])
@pytest.mark.parametrize("n", [1, 3])
def test_each_format_gives_the_same_events(form: Any, n: int) -> None:
    records = [record(id=f"id-{number}") for number in range(n)]

    events = events_of(kserve_blob(form(*records), modified=MODIFIED))

    assert [tuple(identity(event)) for event in events] == [
        ("prod", "iris", "", "predictor", f"id-{number}") for number in range(n)
    ]
    for event in events:
        assert (kind_of(event.type), event.data, event.time) == ("request", BODY, MODIFIED)
        assert event.source == "http://localhost:9081/"
        assert json.loads(event.extensions["metadata"]) == {"X-Request-Id": ["r-1"]}


def test_json_has_a_time_and_addresses_in_parts() -> None:
    address = {"Scheme": "http", "Host": "localhost:9081", "Path": "/", "User": None}
    sent = record(sourceUri=address, metadata={"A": ["1"]}, occurrenceTime="2026-01-01T00:00:00Z")

    (event,) = events_of(kserve_blob(as_json(sent), modified=MODIFIED))

    assert (event.source, event.time) == ("http://localhost:9081/", "2026-01-01T00:00:00Z")
    assert event.extensions["metadata"] == '{"A":["1"]}'


def test_names_of_gos_fields_are_read() -> None:
    sent = {name[0].upper() + name[1:]: value for name, value in record().items()}

    (event,) = events_of(kserve_blob(as_json(sent)))

    assert (identity(event).name, event.data) == ("iris", BODY)


@pytest.mark.parametrize("kind", ["request", "response"])
def test_bare_kinds_are_read(kind: str) -> None:
    (event,) = events_of(kserve_blob(as_json(record(reqType=kind))))

    assert kind_of(event.type) == kind


@pytest.mark.parametrize(
    ("data", "what"),
    [
        pytest.param(b"{", "file", id="no JSON"),
        pytest.param(b"[1]", "record 0", id="no record"),
        pytest.param(b"PAR1" + b"x" * 20, "file", id="no Parquet"),
        pytest.param(b"\xff\xfe", "file", id="no text"),
        pytest.param(as_json(record(reqType="other")), "reqType of record 0", id="kind"),
        pytest.param(as_json(record(bytes="?")), "bytes of record 0", id="no base64"),
        pytest.param(as_json(record(id="")), "id of record 0", id="no id"),
    ],
)
def test_other_files_are_refused(data: bytes, what: str) -> None:
    with pytest.raises(ImportFileError) as caught:
        kserve_blob(data)

    assert caught.value.what == what


@pytest.mark.parametrize("form", [as_json, as_csv, as_parquet])
def test_records_that_cannot_be_read_are_left_out_and_told(form: Any) -> None:
    records = [record(), record(reqType="other"), record(id=""), record(id="id-2")]
    left: list[str] = []

    captured = kserve_blob(form(*records), bad=lambda error: left.append(error.what))

    assert [event.id for event in events_of(captured)] == ["id-1", "id-2"]
    assert left == ["reqType of record 1", "id of record 2"]


def test_files_put_together_are_read_line_by_line() -> None:
    data = b"\n".join([as_json(record()), b"", as_json(record(id="id-2"))])
    left: list[str] = []

    assert [event.id for event in events_of(kserve_blob(data))] == ["id-1", "id-2"]
    broken = data.replace(b"\n\n", b"\n[1\n[1]\n")
    with pytest.raises(ImportFileError, match="line 2"):
        kserve_blob(broken)
    captured = kserve_blob(broken, bad=lambda error: left.append(error.what))
    assert [event.id for event in events_of(captured)] == ["id-1", "id-2"]
    assert left == ["line 2", "line 3"]


def test_a_record_that_is_broken_off_is_no_file_of_lines() -> None:
    data = json.dumps(record(metadata={"a": {}}), indent=1).encode()

    with pytest.raises(ImportFileError, match="file: expected JSON"):
        kserve_blob(data[:-2])


@given(st.binary(max_size=60))
def test_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        kserve_blob(data)
    except ImportFileError as error:
        assert error.expected  # noqa: PT017 - both are right
