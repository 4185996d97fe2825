"""What traffic says about the columns of a deployment."""

import pyarrow as pa
import pyarrow.compute as pc

from sidelight.payloads._batch import Batch
from sidelight.payloads._schema import Column, Kind, Role, Schema

# Text repeats less than categories do. The bounds are ours: up to 64 characters and, where
# enough rows are there to tell, fewer distinct values than half the rows.
_CATEGORY_CHARACTERS = 64
_ENOUGH_ROWS = 50


def infer_schema(batch: Batch, known: Schema | None = None) -> Schema:
    """Return the schema of a deployment after one more batch.

    Columns that are known keep their kind and role; new ones are added at the end of their
    group. A boolean column is ``boolean``, a number ``numeric``, a list ``embedding``; strings are
    ``categorical`` or, when long or hardly ever repeated, ``text``. An output is a ``score`` when
    its values are fractions between 0 and 1.

    Parameters
    ----------
    batch : Batch
        Rows as decoded.
    known : Schema or None
        What earlier batches said, or a registered schema.

    """
    features = {column.name: column for column in known.features} if known else {}
    outputs = {column.name: column for column in known.outputs} if known else {}
    others = [
        column
        for column in (known.columns if known else ())
        if column.name not in features and column.name not in outputs
    ]
    for name in batch.feature_names:
        if name not in features and not _is_unknown(batch.feature(name)):
            features[name] = _column(name, batch.feature(name), "feature")
    for name in batch.output_names:
        if name not in outputs and not _is_unknown(batch.output(name)):
            outputs[name] = _column(name, batch.output(name), "output")
    return Schema(columns=(*features.values(), *outputs.values(), *others))


def _is_unknown(values: pa.Array) -> bool:
    # JSON nulls alone do not tell what the column holds; a later batch will.
    return bool(pa.types.is_null(values.type))


def _column(name: str, values: pa.Array, role: Role) -> Column:
    kind = _kind(values)
    if role == "output" and kind == "numeric" and _is_score(values):
        role = "score"
    return Column(name=name, kind=kind, role=role)


def _kind(values: pa.Array) -> Kind:
    kind = values.type
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "numeric"
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return "embedding"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _kind_of_strings(values.drop_null())
    return "text"


def _kind_of_strings(values: pa.Array) -> Kind:
    if len(values) == 0:
        return "categorical"
    if pc.max(pc.utf8_length(values)).as_py() > _CATEGORY_CHARACTERS:
        return "text"
    many = len(values) >= _ENOUGH_ROWS and pc.count_distinct(values).as_py() > len(values) / 2
    return "text" if many else "categorical"


def _is_score(values: pa.Array) -> bool:
    if not pa.types.is_floating(values.type) or len(values) == values.null_count:
        return False
    bounds = pc.min_max(values).as_py()
    within = bounds["min"] >= 0 and bounds["max"] <= 1
    return within and bool(pc.any(pc.not_equal(values, pc.floor(values))).as_py())
