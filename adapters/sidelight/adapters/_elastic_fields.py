"""How the columns of ``where`` stand in the indices."""

from typing import Any, Final

from sidelight.adapters._elastic_columns import KnownColumns
from sidelight.adapters._elastic_documents import ANY_COLUMN
from sidelight.adapters._elastic_names import field_name
from sidelight.adapters._query_columns import kind_of, own_kind
from sidelight.adapters._where import ColumnName
from sidelight.adapters._where_elastic_clauses import Field
from sidelight.adapters._where_sql import Kind

_PATHS: Final = {"id": "inference_id", "time": "time_us"}
_INT32_MAX: Final = float((1 << 31) - 1)


def field_of(column: ColumnName, known: KnownColumns) -> Field:
    """Return where a column is found, and which documents have it without being found."""
    if not column.section:
        return _own(column.name)
    path = f"{column.section}.{field_name(column.name)}"
    ignored: dict[str, Any] = {"term": {"_ignored": path}}
    # A mapping has refused what they hold: all of it is kept, none of it is found.
    reduced: dict[str, Any] = {"exists": {"field": "reduced"}}
    if column.section == "labels":
        unfound: dict[str, Any] = {"term": {"unfound_labels": field_name(column.name)}}
        kinds = known.kinds(column.name) or frozenset()
        return Field(path=path, kinds=kinds, unfound=(unfound, ignored), doubtful=(reduced,))
    types = known.types(str(column))
    kinds = frozenset(kind for kind in map(kind_of, types) if kind is not None)
    anything: dict[str, Any] = {"term": {"unfound": ANY_COLUMN}}
    return Field(
        path=path,
        kinds=kinds,
        single="float" in types,
        unfound=({"term": {"unfound": path}}, ignored),
        doubtful=(anything, reduced),
    )


def _own(name: str) -> Field:
    kind: Kind | None = own_kind(name)
    path = _PATHS.get(name, name)
    unfound = ({"term": {"unfound": name}},) if kind == "text" and name != "id" else ()
    return Field(
        path=path,
        kinds=frozenset({kind} if kind else ()),
        limit=_INT32_MAX if name == "status" else float("inf"),
        unfound=unfound,
    )
