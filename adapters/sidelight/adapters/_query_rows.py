"""Second half of a query: the rows of the found inferences, as they were stored."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidelight.adapters._lake_file import LakeFile
from sidelight.adapters._lake_reading import LakeReader
from sidelight.payloads import FEATURE_PREFIX, OUTPUT_PREFIX, ROW_SCHEMA

_FIXED = tuple(ROW_SCHEMA.names)
# Arrow's own cast of a timestamp to Python needs a time zone database; integers do not.
_TIME = _FIXED.index("time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one row stands."""

    id: str
    row: int
    revision: int
    path: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRow:
    """One row as it was stored; ``own`` are the values of ``ROW_SCHEMA`` by name."""

    deployment: str
    own: Mapping[str, Any]
    features: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)


def winners(places: Sequence[Place]) -> list[Place]:
    """Return the rows of the highest revision of every inference.

    A revision replaces the inference as a whole: what an orphan had more rows than the pair that
    it became is not a part of the answer.
    """
    newest: dict[str, int] = {}
    for place in places:
        newest[place.id] = max(place.revision, newest.get(place.id, 0))
    best = {(place.id, place.row): place for place in places if place.revision == newest[place.id]}
    return list(best.values())


def read_rows(reader: LakeReader, file: LakeFile, numbers: Sequence[int]) -> list[StoredRow]:
    """Read rows of one file by their numbers, in the order of the numbers."""
    if file.hot is not None:
        table = reader.part(file).take(pa.array(numbers, pa.int64()))
    else:
        with pq.ParquetFile(reader.path(file), memory_map=True) as parquet:
            table = _taken(parquet, numbers)
    columns = [plain_values(column) for column in table.columns]
    own = list(zip(*columns[: len(_FIXED)], strict=True))
    features = _named(table.schema, columns, FEATURE_PREFIX)
    outputs = _named(table.schema, columns, OUTPUT_PREFIX)
    return [
        StoredRow(
            deployment=file.deployment,
            own=dict(zip(_FIXED, own[index], strict=True)),
            features={name: column[index] for name, column in features},
            outputs={name: column[index] for name, column in outputs},
        )
        for index in range(len(numbers))
    ]


def tags_of(text: str | None) -> dict[str, Any]:
    """Read the stored tags."""
    value = json.loads(text) if text else {}
    return value if isinstance(value, dict) else {}


def _taken(file: pq.ParquetFile, numbers: Sequence[int]) -> pa.Table:
    """Read the row groups that hold the rows, and nothing else."""
    starts: list[int] = [0]
    for group in range(file.metadata.num_row_groups):
        starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
    places: dict[int, int] = {}
    needed: list[int] = []
    offset = 0
    for group in range(file.metadata.num_row_groups):
        inside = [number for number in numbers if starts[group] <= number < starts[group + 1]]
        if inside:
            needed.append(group)
            places.update({number: number - starts[group] + offset for number in inside})
            offset += starts[group + 1] - starts[group]
    table = file.read_row_groups(needed, use_threads=False)
    return table.take(pa.array([places[number] for number in numbers], pa.int64()))


def _named(schema: pa.Schema, columns: list[list[Any]], prefix: str) -> list[tuple[str, list[Any]]]:
    return [
        (name[len(prefix) :], columns[place])
        for place, name in enumerate(schema.names)
        if place >= len(_FIXED) and name.startswith(prefix)
    ]


def plain_values(column: pa.ChunkedArray) -> list[Any]:
    """Return JSON values: not finite is None, bytes are base64, times RFC 3339 or microseconds."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind == ROW_SCHEMA.field(_TIME).type:
        return list(column.cast(pa.int64()).to_pylist())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_time(kind):
        return list(pc.cast(column, pa.string()).to_pylist())
    if pa.types.is_float16(kind):
        # pyarrow before 23 makes values of numpy of them.
        column = column.cast(pa.float32())
    elif pa.types.is_float32(kind):
        # As it came: what was sent as 0.1 is 0.1, not 0.10000000149011612.
        column = column.cast(pa.string()).cast(pa.float64())
    elif pa.types.is_list(kind) and pa.types.is_float32(kind.value_type):
        column = column.cast(pa.list_(pa.string())).cast(pa.list_(pa.float64()))
    values = column.to_pylist()
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_boolean(kind):
        return list(values)
    return [plain_value(value) for value in values]


def plain_value(value: Any) -> Any:
    """Return a JSON value: not finite is None at any depth, bytes are base64.

    Examples
    --------
    >>> plain_value([1.5, float("nan"), {"a": float("inf"), "b": 2**70}])
    [1.5, None, {'a': None, 'b': 1180591620717411303424}]

    """
    match value:
        case float():
            plain: Any = value if math.isfinite(value) else None
        case bytes():
            plain = base64.b64encode(value).decode()
        case list():
            plain = [plain_value(item) for item in value]
        case dict():
            plain = {key: plain_value(item) for key, item in value.items()}
        case Decimal():
            plain = float(value)
        case None | bool() | int() | str():
            plain = value
        case _:
            plain = str(value)
    return plain
