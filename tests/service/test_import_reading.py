"""Rows of Parquet, whatever units its times have."""

from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidelight.service._import_reading import parquet_rows
from sidelight.service.errors import BadRequest

MOMENT = datetime(1970, 1, 1, 0, 0, 0, 1)  # noqa: DTZ001 - as the files have it
NANOSECONDS = pa.timestamp("ns")


def _file(tmp_path: Path, column: pa.Array) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"t": column}), path)
    return path


@pytest.mark.parametrize(
    ("kind", "nanoseconds", "value"),
    [
        pytest.param(NANOSECONDS, 1_000, MOMENT, id="moment"),
        pytest.param(
            pa.timestamp("ns", "UTC"), 2_000, datetime(1970, 1, 1, 0, 0, 0, 2, UTC), id="of a zone"
        ),
        pytest.param(NANOSECONDS, 1_001, MOMENT, id="fine moment"),
        pytest.param(
            pa.timestamp("ns", "UTC"),
            2_999,
            datetime(1970, 1, 1, 0, 0, 0, 2, UTC),
            id="fine of a zone",
        ),
        pytest.param(pa.time64("ns"), 1_000, time(0, 0, 0, 1), id="time"),
        pytest.param(pa.time64("ns"), 1_001, time(0, 0, 0, 1), id="fine time"),
        pytest.param(pa.duration("ns"), 1_000, timedelta(microseconds=1), id="duration"),
        pytest.param(pa.duration("ns"), 1_001, timedelta(microseconds=1), id="fine duration"),
    ],
)
def test_nanoseconds_are_read_without_pandas(
    tmp_path: Path, kind: Any, nanoseconds: int, value: Any
) -> None:
    column = pa.array([nanoseconds, None], type=pa.int64()).cast(kind)

    rows = list(parquet_rows(_file(tmp_path, column)))

    assert rows == [{"t": value}, {"t": None}]
    # With pandas Arrow gives times of its own, which are equal.
    assert type(rows[0]["t"]) is type(value)


@pytest.mark.parametrize(
    ("kind", "cell", "value"),
    [
        pytest.param(pa.list_(NANOSECONDS), [1_001], [MOMENT], id="list"),
        pytest.param(pa.large_list(NANOSECONDS), [1_001], [MOMENT], id="large list"),
        pytest.param(pa.list_(NANOSECONDS, 1), [1_001], [MOMENT], id="list of one"),
        pytest.param(
            pa.struct({"a": NANOSECONDS, "b": pa.string()}),
            {"a": 1_001, "b": "text"},
            {"a": MOMENT, "b": "text"},
            id="structure",
        ),
        pytest.param(
            pa.struct({"a": pa.list_(pa.struct({"b": NANOSECONDS}))}),
            {"a": [{"b": 1_001}]},
            {"a": [{"b": MOMENT}]},
            id="deep",
        ),
        pytest.param(pa.map_(pa.string(), NANOSECONDS), [("k", 1_001)], [("k", MOMENT)], id="map"),
    ],
)
def test_nanoseconds_inside_of_values_are_read_without_pandas(
    tmp_path: Path, kind: Any, cell: Any, value: Any
) -> None:
    (row,) = parquet_rows(_file(tmp_path, pa.array([cell], type=kind)))

    assert row == {"t": value}
    assert _times_of(row) == {datetime}


def _times_of(value: Any) -> set[type]:
    """Return the types of all times inside of a value."""
    match value:
        case dict():
            return set().union(*(_times_of(item) for item in value.values()))
        case list() | tuple():
            return set().union(*(_times_of(item) for item in value))
        case datetime():
            return {type(value)}
    return set()


def test_times_of_a_column_have_one_form_whichever_of_them_have_nanoseconds(
    tmp_path: Path,
) -> None:
    # More rows than are read at once: the last alone is finer than Python's times.
    column = pa.array([*[1_000] * 4_096, 1_001], type=pa.int64()).cast(pa.timestamp("ns"))

    rows = list(parquet_rows(_file(tmp_path, column)))

    assert rows == [{"t": MOMENT}] * 4_097
    assert {type(row["t"]) for row in rows} == {datetime}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(pa.timestamp("s"), id="year"),
        pytest.param(pa.duration("s"), id="duration"),
        pytest.param(pa.timestamp("us", "Nowhere/At_All"), id="zone"),
    ],
)
def test_times_that_python_has_not_are_told_without_the_value(tmp_path: Path, kind: Any) -> None:
    column = pa.array([123_456_789_012_345], type=pa.int64()).cast(kind)

    with pytest.raises(BadRequest, match=r"rows 0 to 0: expected times of the years") as told:
        list(parquet_rows(_file(tmp_path, column)))

    assert "123456789012345" not in str(told.value)
