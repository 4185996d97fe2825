"""Which columns the files of a lake have, and what can be compared with them."""

from collections.abc import Iterable
from itertools import groupby

from sidelight.adapters._lake_file import LakeFile
from sidelight.adapters._where import ColumnName
from sidelight.adapters._where_sql import Kind, Source
from sidelight.payloads import ROW_SCHEMA

OWN_COLUMNS = (
    "time",
    "version",
    "status",
    "latency_ms",
    "request_id",
    "orphan",
    "synthetic",
    "protocol",
    "component",
    "endpoint",
    "id",
)
"""Columns of an inference that ``where`` may name, beside ``outlier_score``."""

SCORE = "outlier_score"

_NUMBERS = ("int", "uint", "float", "double", "halffloat", "decimal")
_TEXTS = ("string", "large_string", "string_view")
# Stored values may be NaN where the payload said so; the API shows null, so `where` sees null.
_FLOATS = frozenset({"float", "double", "halffloat"})


def kind_of(arrow_type: str) -> Kind | None:
    """Return what a stored column can be compared with; None for one that holds only nulls.

    Examples
    --------
    >>> kind_of("int64"), kind_of("list<item: double>"), kind_of("null")
    ('number', 'other', None)

    """
    if arrow_type.startswith("dictionary<values="):
        return kind_of(arrow_type.removeprefix("dictionary<values=").split(",")[0])
    if arrow_type == "null":
        return None
    if arrow_type == "bool":
        return "boolean"
    if arrow_type in _TEXTS:
        return "text"
    if arrow_type.startswith(_NUMBERS):
        return "number"
    return "other"


def source_of(file: LakeFile, column: ColumnName) -> Source:
    """Return how a file's column is read, as ``c<place>``; an empty source when it has none."""
    name = str(column)
    for place, (found, arrow_type) in enumerate(file.columns):
        if found == name:
            kind: Kind | None = "time" if name == "time" else kind_of(arrow_type)
            sql = f"c{place}"
            if arrow_type in _FLOATS:
                sql = f"(CASE WHEN isfinite({sql}) THEN {sql} END)"
            return Source(sql={kind: sql} if kind else {}, single=arrow_type == "float")
    return Source()


def grouped(files: Iterable[LakeFile], columns: Iterable[ColumnName]) -> list[list[LakeFile]]:
    """Split files into groups that can be read by one statement.

    The asked columns have the same types everywhere in a group. DuckDB finds a column by its
    name whatever its case, so files with names that differ in case alone must agree on everything.
    """
    names = {str(column) for column in columns}
    layouts: dict[tuple[tuple[str, str], ...], str] = {}

    def key(file: LakeFile) -> tuple[str, str, str]:
        known = layouts.get(file.columns)
        if known is None:
            asked = tuple(item for item in file.columns if item[0] in names)
            folded = {name.casefold() for name, _ in file.columns}
            clash = file.columns if len(folded) < len(file.columns) else ()
            known = layouts[file.columns] = repr((asked, clash))
        # Parts of hot files become one table, and a table has the same columns in all its rows.
        hot = repr(file.columns) if file.hot is not None else ""
        # Labels and scores are joined by deployment, so each has a statement of its own.
        return file.deployment if names else "", known, hot

    ordered = sorted(files, key=key)
    return [list(group) for _, group in groupby(ordered, key=key)]


def places(file: LakeFile) -> str:
    """Return the list of aliases: columns are read by place, so that no name becomes SQL."""
    return ", ".join(f"c{place}" for place in range(len(file.columns)))


def own_kind(name: str) -> Kind | None:
    """Return the kind of one of the inference's own columns, or None when there is none."""
    if name == SCORE:
        return "number"
    if name not in OWN_COLUMNS:
        return None
    return "time" if name == "time" else kind_of(str(ROW_SCHEMA.field(name).type))
