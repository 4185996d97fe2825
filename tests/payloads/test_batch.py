"""Batches: their fixed columns, their Arrow IPC form, and the schema that traffic suggests."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.payloads import ROW_SCHEMA, Batch, BatchError, Column, Schema, infer_schema

LAYOUT = {"protocol": "v2", "tensors": [{"name": "age", "datatype": "INT64"}]}


def _batch(columns: dict[str, list[Any]], *, n_rows: int) -> Batch:
    fixed: dict[str, list[Any]] = {
        "id": [f"i{row}" for row in range(n_rows)],
        "row": [0] * n_rows,
        "revision": [0] * n_rows,
        "request_id": [f"r{row}" for row in range(n_rows)],
        "time": [datetime(2026, 5, 1, tzinfo=UTC)] * n_rows,
        "protocol": ["v2"] * n_rows,
        "synthetic": [False] * n_rows,
    }
    arrays = [
        pa.array(fixed.get(field.name, [None] * n_rows), type=field.type) for field in ROW_SCHEMA
    ]
    fields = list(ROW_SCHEMA)
    for name, values in columns.items():
        arrays.append(pa.array(values))
        fields.append(pa.field(name, arrays[-1].type))
    records = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
    return Batch.build(records, deployment="prod/income", layout=LAYOUT)


def test_batches_of_one_schema_are_read_with_their_own_rows() -> None:
    first = _batch({"features.age": [1.0, 2.0]}, n_rows=2)
    second = _batch({"features.age": [3.0]}, n_rows=1)

    again = [Batch.from_ipc(batch.to_ipc()) for batch in (first, second, first)]

    assert [batch.records for batch in again] == [first.records, second.records, first.records]
    assert [(batch.deployment, batch.layout) for batch in again] == [("prod/income", LAYOUT)] * 3


def test_a_long_batch_is_compressed_and_reads_back() -> None:
    batch = _batch({"features.age": [0.5] * 3000}, n_rows=3000)

    data = batch.to_ipc()

    assert len(data) < batch.records.nbytes / 2
    assert Batch.from_ipc(data).records.equals(batch.records, check_metadata=True)


@pytest.mark.parametrize("values", [[0], [0.5], [True]])
def test_a_long_batch_says_what_it_takes_in_memory(values: list[Any]) -> None:
    batch = _batch({f"features.{n}": values * 20_000 for n in range(4)}, n_rows=20_000)

    data = batch.to_ipc()

    assert Batch.held_bytes_of(data) == batch.held_bytes
    assert batch.held_bytes >= max(4 * 20_000 * 8, batch.records.nbytes)
    assert Batch.from_ipc(data).held_bytes == batch.held_bytes


def test_short_batches_of_many_bits_say_what_their_numbers_take() -> None:
    batch = _batch({f"features.{n}": [True] * 300 for n in range(300)}, n_rows=300)
    assert batch.records.nbytes < 100_000

    assert Batch.held_bytes_of(batch.to_ipc()) >= 300 * 300 * 8


def test_a_short_batch_and_what_is_none_take_their_length() -> None:
    data = _batch({"features.age": [0.5] * 3}, n_rows=3).to_ipc()

    assert Batch.held_bytes_of(data) == len(data)
    assert Batch.held_bytes_of(b"sidelit3") == 8
    assert Batch.held_bytes_of(b"") == 0


def test_two_streams_of_an_older_version_are_read() -> None:
    batch = _batch({"features.age": [0.5] * 3000}, n_rows=3000)
    data = batch.to_ipc()

    # Before, nothing stood between the length of the first stream and the stream.
    former = b"sidelit2" + data[8:16] + data[24:]

    assert Batch.from_ipc(former).records.equals(batch.records, check_metadata=True)


def _long_columns(n_columns: int, n_rows: int) -> dict[str, list[Any]]:
    """Numbers with nulls, under names of any length."""
    return {
        f"features.{'x' * (column % 70)}{column}": [
            None if (row + column) % 11 == 0 else row / (column + 1) for row in range(n_rows)
        ]
        for column in range(n_columns)
    }


@pytest.mark.parametrize("n_rows", [700, 1601])
@pytest.mark.parametrize("n_columns", [1, 7, 64, 257])
def test_a_long_batch_of_any_width_reads_back(n_columns: int, n_rows: int) -> None:
    batch = _batch(_long_columns(n_columns, n_rows), n_rows=n_rows)
    middle = Batch(batch.records.slice(3, n_rows - 5))

    for one in (batch, middle):
        again = Batch.from_ipc(one.to_ipc())
        assert again.records.equals(one.records, check_metadata=True)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(["text", None] * 1500, id="text"),
        pytest.param([7, 8, None] * 1000, id="integers"),
        pytest.param([[0.5, 1.5], None] * 1500, id="lists"),
        pytest.param([None] * 3000, id="nothing"),
        pytest.param([True, False] * 1500, id="flags"),
    ],
)
def test_a_long_batch_of_other_values_reads_back(values: list[Any]) -> None:
    columns = {"features.a": values, "features.b": [0.25] * 3000, "outputs.y": values}
    for names in (["features.a"], ["features.b", "outputs.y"], [*columns], []):
        batch = _batch({name: columns[name] for name in names}, n_rows=3000)

        again = Batch.from_ipc(batch.to_ipc())

        assert again.records.equals(batch.records, check_metadata=True)


def test_a_compressed_stream_of_an_older_version_is_read() -> None:
    batch = _batch({"features.age": [0.5] * 3000}, n_rows=3000)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, batch.records.schema, options=options) as writer:
        writer.write_batch(batch.records)

    again = Batch.from_ipc(bytes(sink.getvalue()))

    assert again.records.equals(batch.records, check_metadata=True)


def test_two_streams_without_a_fixed_column_are_refused_each_time() -> None:
    data = _batch({"features.age": [0.5] * 3000}, n_rows=3000).to_ipc()
    assert data.count(b"request_id") == 1

    for _ in range(2):
        with pytest.raises(BatchError):
            Batch.from_ipc(data.replace(b"request_id", b"request_ix"))


def test_columns_under_a_schema_that_was_checked_are_the_same_batch() -> None:
    batch = _batch({"features.age": [1.0]}, n_rows=1)

    again = Batch.of(batch.records.columns, batch.records.schema)

    assert again.records.equals(batch.records, check_metadata=True)


def test_batches_with_a_dictionary_are_read_twice_alike() -> None:
    batch = _batch({"features.sex": ["f"]}, n_rows=1)
    column = batch.records.column("features.sex").dictionary_encode()
    schema = batch.records.schema.set(
        len(ROW_SCHEMA), pa.field("features.sex", pa.list_(column.type))
    )
    lists = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), column)
    columns = [*batch.records.columns[: len(ROW_SCHEMA)], lists]
    nested = Batch(pa.RecordBatch.from_arrays(columns, schema=schema))

    assert Batch.from_ipc(nested.to_ipc()).records.equals(nested.records)
    assert Batch.from_ipc(nested.to_ipc()).records.equals(nested.records)


def test_bytes_without_a_fixed_column_are_refused_each_time() -> None:
    sink = pa.BufferOutputStream()
    rows = pa.record_batch({"id": ["a"]})
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)

    for _ in range(2):
        with pytest.raises(BatchError):
            Batch.from_ipc(bytes(sink.getvalue()))


numbers = st.lists(st.floats(allow_nan=False) | st.none(), min_size=1, max_size=20)


@given(numbers)
def test_ipc_form_reads_back_as_the_same_batch(values: list[float | None]) -> None:
    values = [0.5, *values]
    batch = _batch({"features.age": values, "outputs.y": values}, n_rows=len(values))

    again = Batch.from_ipc(batch.to_ipc())

    assert again.records.equals(batch.records)
    assert (again.deployment, again.layout) == ("prod/income", LAYOUT)


def test_names_come_without_their_prefix_in_payload_order() -> None:
    batch = _batch({"features.b": [1], "features.a": [2], "outputs.b": [3]}, n_rows=1)

    assert (batch.feature_names, batch.output_names) == (["b", "a"], ["b"])
    assert batch.output("b").to_pylist() == [3]


def test_a_missing_fixed_column_is_named() -> None:
    records = _batch({}, n_rows=1).records.drop_columns(["request_id"])

    with pytest.raises(BatchError) as caught:
        Batch(records)

    assert caught.value.column == "request_id"


def test_a_batch_without_a_deployment_is_refused() -> None:
    with pytest.raises(BatchError):
        Batch(_batch({}, n_rows=1).records.replace_schema_metadata(None))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        pytest.param([1, 2], "numeric", id="integers"),
        pytest.param([1.5, None], "numeric", id="floats"),
        pytest.param([True, False], "boolean", id="booleans"),
        pytest.param(["UA", "B6"], "categorical", id="short-strings"),
        pytest.param(["word " * 20, "x"], "text", id="long-strings"),
        pytest.param([f"user {n}" for n in range(60)], "text", id="strings-that-never-repeat"),
        pytest.param([[0.1, 0.2]], "embedding", id="lists"),
    ],
)
def test_kind_follows_from_the_values(values: list[Any], kind: str) -> None:
    batch = _batch({"features.x": values}, n_rows=len(values))

    assert infer_schema(batch).columns == (Column(name="x", kind=kind),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "role"),
    [
        pytest.param([0.2, 1.0], "score", id="fractions"),
        pytest.param([0.0, 1.0], "output", id="only-whole"),
        pytest.param([0.2, 3.0], "output", id="beyond-one"),
        pytest.param([0, 1], "output", id="integers"),
    ],
)
def test_an_output_of_fractions_is_a_score(values: list[Any], role: str) -> None:
    batch = _batch({"outputs.y": values}, n_rows=len(values))

    assert infer_schema(batch).columns[0].role == role


def test_a_registered_schema_wins_and_new_columns_join_it() -> None:
    known = Schema(columns=(Column(name="zip", kind="categorical", role="protected"),))
    batch = _batch({"features.zip": [8001, 8002], "features.age": [1, 2]}, n_rows=2)

    schema = infer_schema(batch, known)

    assert schema.columns == (*known.columns, Column(name="age", kind="numeric"))


def test_a_column_of_nulls_waits_for_a_batch_that_tells_its_kind() -> None:
    unknown = infer_schema(_batch({"features.x": [None, None]}, n_rows=2))

    known = infer_schema(_batch({"features.x": [1.5, None]}, n_rows=2), unknown)

    assert unknown.columns == ()
    assert known.columns == (Column(name="x", kind="numeric"),)
