"""Hot files: rows of many deployments that came within a moment, in one file.

A Parquet file for each deployment and half second would cost a millisecond and a half for a
handful of rows. A hot file is a sequence of Arrow streams, one for all rows that have the same
columns, whatever deployment they are of; its parts say which rows are whose. A little later its
rows move to Parquet files of their deployment and date, and it is deleted.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sidelight.adapters._lake_file import COLLECTION, MAX_VERSIONS, HotPlace, LakeFile, TableName
from sidelight.adapters._lake_kinds import Kind, digest
from sidelight.adapters._lake_writing import write_whole
from sidelight.adapters._query_time import format_time
from sidelight.logger._journal import Document

SCHEMAS: Final = "lake_schemas"
"""Collection of the columns that streams have, by their digest."""

_LAYOUTS: Final = b"sidelight.layouts"

Columns = tuple[tuple[str, str], ...]


class Owner(NamedTuple):
    """Whose the next rows are."""

    deployment: str
    layout: bytes
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HotRows:
    """Rows of one kind, to become one stream.

    Parameters
    ----------
    records : pyarrow.RecordBatch, shape (n_rows, n_columns)
        The rows of all owners, one after the other.
    owners : sequence of Owner
        At least one row each.

    """

    kind: Kind
    records: pa.RecordBatch
    owners: Sequence[Owner]


def hot_path(table: TableName, positions: tuple[int, int, int]) -> str:
    """Return the path of a hot file below ``lake/``: the same work gives the same path.

    Examples
    --------
    >>> hot_path("scores", (0, 17, 23))
    'hot/scores/0-000000000017-000000000023.arrows'

    """
    partition, first, last = positions
    return f"hot/{table}/{partition}-{first:012d}-{last:012d}.arrows"


def write_hot(
    folder: Path,
    table: TableName,
    groups: Sequence[HotRows],
    *,
    positions: tuple[int, int, int],
    order: str,
) -> list[Document]:
    """Write rows of many deployments as one file, durably; return its manifest entry.

    The entry comes last; before it stand the columns of its streams, which it names by digest.

    Raises
    ------
    OSError
        If it cannot be written; then nothing is there.

    """
    path = hot_path(table, positions)
    partition, first, last = positions
    streams = [_stream(group) for group in groups]
    write_whole(folder / path, streams)
    parts = [part for number, group in enumerate(groups) for part in _parts(group, number)]
    value = {
        "table": table,
        "streams": [
            [stream.size, group.kind.digest] for stream, group in zip(streams, groups, strict=True)
        ],
        "parts": parts,
        "min_time": format_time(min(part[5] for part in parts)),
        "max_time": format_time(max(part[6] for part in parts)),
        "partition": partition,
        "first": first,
        "last": last,
    }
    columns = {group.kind.digest: dict(group.kind.columns) for group in groups}
    return [
        *(
            Document(collection=SCHEMAS, key=name, value={"columns": found})
            for name, found in columns.items()
        ),
        Document(collection=COLLECTION, key=path, order=order, value=value),
    ]


def parts_of(
    path: str, value: Mapping[str, Any], columns: Callable[[str], Columns]
) -> tuple[LakeFile, ...]:
    """Read the manifest entry of a hot file; ``columns`` finds those of a digest."""
    places: list[tuple[int, int, Columns]] = []
    offset = 0
    for size, name in value["streams"]:
        places.append((offset, size, columns(name)))
        offset += size
    return tuple(
        LakeFile(
            path=f"{path}#{number}",
            deployment=deployment,
            table=value["table"],
            rows=rows,
            bytes=places[stream][1],
            min_us=min_us,
            max_us=max_us,
            columns=places[stream][2],
            partition=value["partition"],
            first=value["first"],
            last=value["last"],
            max_revision=max_revision,
            versions=None if versions is None else tuple(versions),
            layout=layout,
            hot=HotPlace(places[stream][0], places[stream][1], start),
        )
        for number, (
            stream,
            deployment,
            layout,
            start,
            rows,
            min_us,
            max_us,
            max_revision,
            versions,
        ) in enumerate(value["parts"])
    )


def read_stream(path: Path, place: HotPlace) -> pa.Table:
    """Map the stream that a part stands in; rows of other deployments are in it too."""
    with pa.memory_map(str(path)) as file:
        file.seek(place.offset)
        return pa.ipc.open_stream(file.read_buffer(place.length)).read_all()


def layout_of(stream: pa.Table, name: str) -> bytes:
    """Return the layout that a part of the stream names by its digest."""
    layouts: dict[str, str] = json.loads(stream.schema.metadata[_LAYOUTS])
    return layouts[name].encode()


def _stream(group: HotRows) -> pa.Buffer:
    layouts = {digest(owner.layout): owner.layout.decode() for owner in group.owners}
    schema = group.kind.schema.with_metadata({_LAYOUTS: json.dumps(layouts).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(group.records.columns, schema=schema))
    return sink.getvalue()


def _parts(group: HotRows, stream: int) -> list[list[Any]]:
    lengths = np.array([owner.rows for owner in group.owners])
    starts = np.cumsum(lengths) - lengths
    times: NDArray[np.int64] = group.records.column("time").cast(pa.int64()).to_numpy()
    revisions = group.records.column("revision").to_numpy()
    facts = zip(
        group.owners,
        starts.tolist(),
        np.minimum.reduceat(times, starts).tolist(),
        np.maximum.reduceat(times, starts).tolist(),
        np.maximum.reduceat(revisions, starts).tolist(),
        _versions(group, starts),
        strict=True,
    )
    return [
        [
            stream,
            owner.deployment,
            digest(owner.layout),
            start,
            owner.rows,
            min_us,
            max_us,
            max_revision,
            versions,
        ]
        for owner, start, min_us, max_us, max_revision, versions in facts
    ]


def _versions(group: HotRows, starts: NDArray[np.int64]) -> list[list[str | None] | None]:
    """Return the versions among the rows of each owner; None when they are too many to list."""
    if "version" not in group.kind.schema.names:
        return [None] * len(starts)
    encoded = group.records.column("version").dictionary_encode()
    codes: NDArray[np.int32] = encoded.indices.fill_null(-1).to_numpy()
    names = [*encoded.dictionary.to_pylist(), None]
    if len(names) == 2 and not encoded.null_count:  # noqa: PLR2004 - one version, and None
        return [names[:1]] * len(starts)
    found = [np.unique(part).tolist() for part in np.split(codes, starts[1:])]
    return [
        None
        if len(some) > MAX_VERSIONS
        else sorted(
            (names[code] for code in some), key=lambda version: (version is None, version or "")
        )
        for some in found
    ]
