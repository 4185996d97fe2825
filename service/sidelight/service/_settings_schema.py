"""The key ``schema`` of a deployment: its columns, or where an MLflow model says them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from sidelight.payloads import Column, Schema

_MODEL: Final = "MLmodel"
_MAX_BYTES: Final = 16 << 20


def read_schema(value: Mapping[str, Any]) -> Schema:
    """Return the schema that a configuration means.

    Parameters
    ----------
    value : mapping
        ``columns``, or ``mlflow`` with the path of an MLmodel file, of its folder, or with the
        content itself; ``columns`` beside it replace those of the same name.

    Raises
    ------
    ValueError
        If it cannot be read; ``SchemaError`` when a column is wrong.

    """
    if "mlflow" not in value:
        return Schema.from_json(value)
    if unknown := sorted(set(value) - {"mlflow", "columns"}):
        raise ValueError(f"expected mlflow, and columns beside it, got {unknown[0]}")
    # The supervisor reads the configuration too, and needs nothing else of these.
    from sidelight.adapters import mlflow_schema  # noqa: PLC0415

    schema = mlflow_schema(_signature(value["mlflow"]))
    if value.get("columns") is None:
        return schema
    return _with(schema, Schema.from_json({"columns": value["columns"]}))


def _signature(value: object) -> Mapping[str, Any]:
    model = _read(Path(value)) if isinstance(value, str) else value
    if not isinstance(model, Mapping):
        raise ValueError(  # noqa: TRY004 - pydantic takes this one
            f"mlflow: expected an {_MODEL} file, got {type(model).__name__}"
        )
    signature = model.get("signature", model if "inputs" in model else None)
    if not isinstance(signature, Mapping):
        raise ValueError(  # noqa: TRY004 - as above
            "mlflow: expected a model with a signature, got one without; log it with "
            "signature=infer_signature(...), or write columns"
        )
    return signature


def _read(path: Path) -> object:
    path = path / _MODEL if path.is_dir() else path
    try:
        if not path.is_file():
            raise ValueError(f"mlflow: expected an {_MODEL} file or its folder, got {path}")
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"mlflow: {path} cannot be read: {error.strerror}") from error
    if len(text) > _MAX_BYTES:
        raise ValueError(f"mlflow: expected at most {_MAX_BYTES} bytes, got more: {path}")
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        # The parser's own words would show what is in the file.
        raise ValueError(f"mlflow: expected YAML, got something else: {path}") from None


def _with(schema: Schema, changes: Schema) -> Schema:
    """Replace columns by those of the same name: features by features, outputs by outputs."""
    outputs = {column.name: column for column in changes.outputs}
    others = {column.name: column for column in changes.columns if column.name not in outputs}
    columns: list[Column] = []
    for column in schema.columns:
        chosen = outputs if column in schema.outputs else others
        columns.append(chosen.pop(column.name, column))
    if left := [*others, *outputs]:
        raise ValueError(f"columns: expected names of the signature beside mlflow, got {left[0]!r}")
    return Schema(columns=tuple(columns))
