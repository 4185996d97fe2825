"""Files of Parquet that our own file sink writes, as the events that they were."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson
import pyarrow as pa

from sidelight.adapters._sink_files_parquet import COLUMNS, SCHEMA
from sidelight.adapters.errors import ImportFileError
from sidelight.logger import CapturedEvent

EVENT_COLUMNS: Final = frozenset({"id", "type", "source", "deployment_name", "attributes", "data"})
"""Columns by which such a file is known."""

_REQUIRED: Final = ("specversion", "id", "type", "source")


def sink_events(
    records: pa.RecordBatch,
    *,
    first: int = 0,
    bad: Callable[[ImportFileError], None] | None = None,
) -> Iterator[CapturedEvent]:
    """Yield the events of rows, with the attributes and the payload that they had.

    Parameters
    ----------
    records : pyarrow.RecordBatch
        Rows with the columns of the sink; others are left alone.
    first : int, default 0
        Number of the first row in its file, for errors.
    bad : callable, optional
        Called for each row that is no event, which is left out. Without it the first one is
        raised.

    Raises
    ------
    ImportFileError
        When a column is missing or has another type, or a row is no event.

    """
    try:
        rows = pa.Table.from_batches([records]).select(SCHEMA.names).cast(SCHEMA)
    except (KeyError, pa.ArrowException):
        raise ImportFileError(
            "file", expected="the columns of the file sink", got="other columns or types"
        ) from None
    for number, row in enumerate(rows.to_pylist(), start=first):
        try:
            yield _event(row, f"record {number}")
        except ImportFileError as error:
            if bad is None:
                raise
            bad(error)


def _event(row: dict[str, Any], place: str) -> CapturedEvent:
    try:
        others = orjson.loads(row["attributes"] or b"")
    except orjson.JSONDecodeError:
        others = None
    if not isinstance(others, dict) or not all(isinstance(of, str) for of in others.values()):
        raise ImportFileError(
            f"attributes of {place}", expected="a JSON object of strings", got="something else"
        )
    attributes = {
        column.attribute: column.write(row[column.name])
        for column in COLUMNS
        if row[column.name] is not None
    }
    # What stands there was spelt in another way than the typed column says.
    attributes |= others
    for name in _REQUIRED:
        if not attributes.get(name):
            raise ImportFileError(f"{name} of {place}", expected="a text", got="none")
    return CapturedEvent(orjson.dumps(attributes)[:-1], row["data"] or b"")
