"""MLflow's scoring server: data frames by row or by record.

``instances``, ``inputs`` and ``predictions`` have the form of V1 and are read there, CSV is read
by its content type. Reference: mlflow, docs "Local inference server specification".
"""

from typing import Any, Final

from sidelight.adapters.dialects._half import Half, Side, Undecodable
from sidelight.adapters.dialects._values import (
    Column,
    of_columns,
    of_lists,
    of_named_lists,
    of_objects,
)

_SPLIT: Final = "dataframe_split"
_RECORDS: Final = "dataframe_records"


class DataFrames:
    """Requests of MLflow with a data frame."""

    def claims(self, body: dict[str, Any], side: Side) -> bool:  # noqa: ARG002 - the interface
        """Whether the object has one of the two keys."""
        return _SPLIT in body or _RECORDS in body

    def decode(self, body: dict[str, Any], side: Side) -> Half:  # noqa: ARG002 - the interface
        """Read columns; cells that a record leaves out, and null, are missing."""
        params = body.get("params")
        facts = {"params": params} if type(params) is dict and params else {}
        if _SPLIT in body:
            columns, rows = _split(body[_SPLIT])
            return of_columns("mlflow-split", "list", columns, rows=rows, facts=facts)
        records = body[_RECORDS]
        if type(records) is not list or not all(type(item) is dict for item in records):
            raise Undecodable("shape")
        columns = of_objects(records)
        return of_columns("mlflow-records", "object", columns, rows=len(records), facts=facts)


def _split(frame: Any) -> tuple[list[Column], int]:
    data = frame.get("data") if type(frame) is dict else None
    if type(data) is not list or not all(type(row) is list for row in data):
        raise Undecodable("shape")
    names = frame.get("columns")
    if names is None:
        return (of_lists(data) if data else []), len(data)
    if type(names) is not list:
        raise Undecodable("shape")
    columns = of_named_lists(data, [_name(name) for name in names])
    if columns is None:
        raise Undecodable("shape")
    return columns, len(data)


def _name(name: Any) -> str:
    # Columns may be numbers, or several levels of names.
    if type(name) is list:
        return "_".join(map(str, name))
    return str(name)
