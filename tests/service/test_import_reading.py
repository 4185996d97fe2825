"""Rows of Parquet, whatever units its times have."""

from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidelight.service._import_reading import parquet_rows


@pytest.mark.parametrize(
    ("kind", "nanoseconds", "value"),
    [
        pytest.param(pa.timestamp("ns"), 1_000, datetime(1970, 1, 1, 0, 0, 0, 1), id="moment"),  # noqa: DTZ001 - as the file has it
        pytest.param(
            pa.timestamp("ns", "UTC"), 2_000, datetime(1970, 1, 1, 0, 0, 0, 2, UTC), id="of a zone"
        ),
        pytest.param(pa.timestamp("ns"), 1, "1970-01-01 00:00:00.000000001", id="fine moment"),
        pytest.param(
            pa.timestamp("ns", "UTC"), 1, "1970-01-01 00:00:00.000000001Z", id="fine of a zone"
        ),
        pytest.param(pa.time64("ns"), 1_000, time(0, 0, 0, 1), id="time"),
        pytest.param(pa.time64("ns"), 1, "00:00:00.000000001", id="fine time"),
        pytest.param(pa.duration("ns"), 1_000, timedelta(microseconds=1), id="duration"),
        pytest.param(pa.duration("ns"), 1, 1, id="fine duration"),
    ],
)
def test_nanoseconds_are_read_without_pandas(
    tmp_path: Path, kind: Any, nanoseconds: int, value: Any
) -> None:
    path = tmp_path / "rows.parquet"
    column = pa.array([nanoseconds, None], type=pa.int64()).cast(kind)
    pq.write_table(pa.table({"t": column}), path)

    rows = list(parquet_rows(path))

    assert rows == [{"t": value}, {"t": None}]
    assert type(rows[0]["t"]) is type(value)
