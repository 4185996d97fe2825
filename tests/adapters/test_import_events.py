"""Files of our own file sink, read back: every event is what it was."""

import io
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.adapters import ImportFileError, sink_events
from sidelight.adapters._sink_files_parquet import write_parquet
from sidelight.logger import CapturedEvent

texts = st.text(st.characters(codec="utf-8"), max_size=12)
values = texts | st.sampled_from(
    ["200", "0200", "1.500", "1.5", "nan", "2026-01-31T10:20:30.123456Z", "2026-01-31T10:20:30Z"]
)
attributes = st.fixed_dictionaries(
    {name: st.text(min_size=1, max_size=5) for name in ("id", "type", "source")}
    | {"specversion": st.just("1.0")},
    optional=dict.fromkeys(
        ("time", "statuscode", "latencyms", "samplingrate", "modelname", "namespace", "own"), values
    )
    | {"datacontenttype": st.just("application/json")},
)


def _captured(given_: dict[str, str], data: bytes = b"[1]") -> CapturedEvent:
    return CapturedEvent(orjson.dumps(given_)[:-1], data)


def _file(*events: CapturedEvent) -> pa.RecordBatch:
    file = io.BytesIO()
    write_parquet(events, file)
    return pq.read_table(pa.BufferReader(file.getvalue())).combine_chunks().to_batches()[0]


def _row(**changes: Any) -> dict[str, Any]:
    required = {"specversion": "1.0", "id": "1", "type": "t", "source": "/s"}
    (row,) = _file(_captured(required)).to_pylist()
    return {**row, **changes}


@given(st.lists(st.tuples(attributes, st.binary(max_size=8)), min_size=1, max_size=5))
def test_events_are_what_they_were(items: list[tuple[dict[str, str], bytes]]) -> None:
    events = list(sink_events(_file(*(_captured(of, data) for of, data in items))))

    assert [(orjson.loads(event.attributes + b"}"), event.data) for event in events] == items


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        pytest.param({"attributes": "{"}, "attributes of record 8", id="no JSON"),
        pytest.param({"attributes": "[1]"}, "attributes of record 8", id="no object"),
        pytest.param({"attributes": '{"a": 1}'}, "attributes of record 8", id="no strings"),
        pytest.param({"attributes": None}, "attributes of record 8", id="none"),
        pytest.param({"attributes": "{}"}, "specversion of record 8", id="no version"),
        pytest.param({"id": None}, "id of record 8", id="no id"),
    ],
)
def test_rows_that_are_no_event_are_named_or_left_out(changes: dict[str, Any], what: str) -> None:
    schema = _file(_captured({"specversion": "1.0"})).schema
    records = pa.RecordBatch.from_pylist([_row(), _row(**changes), _row(id="2")], schema=schema)
    left: list[str] = []

    with pytest.raises(ImportFileError) as caught:
        list(sink_events(records, first=7))
    events = list(sink_events(records, first=7, bad=lambda error: left.append(error.what)))

    assert caught.value.what == what
    assert left == [what]
    assert [orjson.loads(event.attributes + b"}")["id"] for event in events] == ["1", "2"]


@pytest.mark.parametrize("wrong", [{"status": "?"}, {"data": 1.5}])
def test_columns_of_another_type_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ImportFileError, match="columns of the file sink"):
        list(sink_events(pa.RecordBatch.from_pylist([_row(**wrong)])))
    with pytest.raises(ImportFileError, match="columns of the file sink"):
        list(sink_events(pa.RecordBatch.from_pylist([{"id": "1"}])))
