"""A file of the lake as its manifest entry describes it."""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from sidelight.adapters._query_time import format_time, parse_time
from sidelight.logger._journal import Document

COLLECTION = "lake_files"

TableName = Literal["inferences", "scores"]

# A file name has at most 255 bytes on every file system that matters; quoting triples a byte.
_MAX_QUOTED = 160
_DAY_US = 86_400_000_000
# Versions beyond that are not listed, and the file is read for any of them.
MAX_VERSIONS = 32


@dataclass(frozen=True, slots=True)
class HotPlace:
    """Where rows of one deployment stand in a hot file.

    Parameters
    ----------
    offset, length : int
        Bytes of the Arrow stream in the file.
    start : int
        The first row in the stream; the others follow it.

    """

    offset: int
    length: int
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeFile:
    """One visible Parquet file, or the part of a hot file that is of one deployment and layout.

    Neither changes once it is visible.

    Parameters
    ----------
    path : str
        Below ``lake/``, with ``/`` between folders; a part has ``#`` and its number behind it.
    min_us, max_us : int
        Times of the requests in it, microseconds since 1970 UTC, both included.
    columns : tuple of (name, type)
        Arrow types as text, in the order of the file.
    partition, first, last : int
        Journal positions whose records it holds; a compacted file has records of positions
        between ``first`` and ``last``, and others may have the rest.
    versions : tuple of str or None, or None
        Every model version in it; None when there are too many to list.
    layout : str
        Digest of the payloads' layout; the layout itself is in the file's metadata.
    ids : str, default ""
        Filter of the ids in it (``_lake_ids.py``); empty when there is none.
    hot : HotPlace or None
        Where a part of a hot file stands; None for a Parquet file.

    """

    path: str
    deployment: str
    table: TableName
    rows: int
    bytes: int
    min_us: int
    max_us: int
    columns: tuple[tuple[str, str], ...]
    partition: int
    first: int
    last: int
    max_revision: int
    versions: tuple[str | None, ...] | None
    layout: str = ""
    ids: str = ""
    hot: HotPlace | None = None

    @property
    def entry(self) -> str:
        """Key of its manifest entry, and path of the file itself."""
        return self.path if self.hot is None else self.path.partition("#")[0]

    @property
    def place(self) -> HotPlace:
        """Where it stands in a hot file; only a part of one has it."""
        if self.hot is None:
            raise LookupError(f"{self.path}: expected a part of a hot file, got a Parquet file")
        return self.hot

    @property
    def days(self) -> tuple[int, int]:
        """First and last day of its rows, counted from 1970 in UTC."""
        return self.min_us // _DAY_US, self.max_us // _DAY_US

    def document(self, order: str) -> Document:
        """Return the manifest entry that makes the file visible."""
        value = {
            "table": self.table,
            "deployment": self.deployment,
            "rows": self.rows,
            "bytes": self.bytes,
            "min_time": format_time(self.min_us),
            "max_time": format_time(self.max_us),
            "columns": dict(self.columns),
            "partition": self.partition,
            "first": self.first,
            "last": self.last,
            "max_revision": self.max_revision,
            "versions": None if self.versions is None else list(self.versions),
            "layout": self.layout,
            **({"ids": self.ids} if self.ids else {}),
        }
        return Document(
            collection=COLLECTION,
            key=self.path,
            deployment=self.deployment,
            order=order,
            value=value,
        )

    def removal(self, order: str) -> Document:
        """Return the entry that hides the file while readers may still hold it.

        Of a hot file that hides all parts.
        """
        return Document(
            collection=COLLECTION,
            key=self.entry,
            deployment=self.deployment if self.hot is None else "",
            order=order,
            value={"removed": True},
        )

    @classmethod
    def from_value(cls, path: str, value: Mapping[str, Any]) -> "LakeFile":
        """Read a manifest entry."""
        versions = value["versions"]
        # Thousands of files share a few hundred names: one string each instead of thousands.
        columns = tuple(
            (sys.intern(name), sys.intern(kind)) for name, kind in value["columns"].items()
        )
        return cls(
            path=path,
            deployment=sys.intern(value["deployment"]),
            table=value["table"],
            rows=value["rows"],
            bytes=value["bytes"],
            min_us=parse_time(value["min_time"], "min_time"),
            max_us=parse_time(value["max_time"], "max_time"),
            columns=columns,
            partition=value["partition"],
            first=value["first"],
            last=value["last"],
            max_revision=value["max_revision"],
            versions=None if versions is None else tuple(versions),
            layout=value["layout"],
            ids=value.get("ids", ""),
        )


def file_path(  # every part of the name is a fact of its own
    table: TableName, deployment: str, min_us: int, positions: tuple[int, int, int], digest: str
) -> str:
    """Return the path of a file below ``lake/``: the same work gives the same path.

    Examples
    --------
    >>> file_path("inferences", "prod/flights", 0, (0, 17, 23), "ab12")
    'inferences/prod%2Fflights/1970-01-01/0-000000000017-000000000023-ab12.parquet'

    """
    partition, first, last = positions
    name = f"{partition}-{first:012d}-{last:012d}-{digest}.parquet"
    return f"{table}/{quote_folder(deployment)}/{format_time(min_us)[:10]}/{name}"


def quote_folder(deployment: str) -> str:
    """Return a folder name that no deployment can use to leave its place.

    Examples
    --------
    >>> quote_folder("..")
    '%2E.'

    """
    quoted = quote(deployment, safe="")
    if quoted.startswith("."):
        quoted = "%2E" + quoted[1:]
    if not quoted or len(quoted) > _MAX_QUOTED:
        digest = hashlib.sha256(deployment.encode()).hexdigest()[:16]
        return f"{quoted[: _MAX_QUOTED - 17]}%{digest}"
    return quoted
