"""Which columns of a batch hold features and outputs, and which a body that nobody understood."""

from typing import Final

from sidelight.payloads import FEATURE_PREFIX, OUTPUT_PREFIX, Batch, Role, Schema

_PREFIXES: Final = {"request": FEATURE_PREFIX, "response": OUTPUT_PREFIX}
_ROLES: Final[dict[str, frozenset[Role]]] = {
    "request": frozenset({"feature", "protected"}),
    "response": frozenset({"output", "score"}),
}
_OPAQUE: Final = "opaque"
_WORD: Final = _OPAQUE.encode()


def opaque_sides(batch: Batch) -> frozenset[str]:
    """Return whose payloads nobody understood: a column, if any, that holds all of them."""
    # Most batches have none, and their layout need not be read.
    if not any(_WORD in value for value in (batch.records.schema.metadata or {}).values()):
        return frozenset()
    layout = batch.layout
    sides = (side for side in _PREFIXES if (layout.get(side) or {}).get("protocol") == _OPAQUE)
    return frozenset(sides)


def understood_sides(batch: Batch) -> frozenset[str]:
    """Return whose payloads were taken apart and have columns."""
    opaque = opaque_sides(batch)
    names = batch.records.schema.names
    return frozenset(
        side
        for side, prefix in _PREFIXES.items()
        if side not in opaque and any(name.startswith(prefix) for name in names)
    )


def without_sides(batch: Batch, sides: frozenset[str]) -> Batch:
    """Return a batch without the features, or the outputs, of some sides."""
    prefixes = tuple(_PREFIXES[side] for side in sides)
    names = batch.records.schema.names
    kept = [name for name in names if not name.startswith(prefixes)]
    return batch if len(kept) == len(names) else Batch(batch.records.select(kept))


def without_columns(schema: Schema, sides: frozenset[str]) -> Schema:
    """Return a schema without the columns of some sides."""
    roles = frozenset[Role]().union(*(_ROLES[side] for side in sides))
    return Schema(columns=tuple(column for column in schema.columns if column.role not in roles))
