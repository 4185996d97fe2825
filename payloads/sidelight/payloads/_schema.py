"""Names, kinds and roles of a deployment's columns."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from sidelight.payloads.errors import SchemaError

Kind = Literal["numeric", "categorical", "boolean", "text", "image", "embedding", "timestamp"]
Role = Literal["feature", "output", "score", "label", "protected", "id"]

KINDS: tuple[Kind, ...] = get_args(Kind)
ROLES: tuple[Role, ...] = get_args(Role)

_FEATURE_ROLES = frozenset({"feature", "protected"})
_OUTPUT_ROLES = frozenset({"output", "score"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a deployment's rows.

    Parameters
    ----------
    name : str
        As the payload names it, without a prefix.
    kind : Kind
        Steers detectors and explainers; stored values keep their wire type.
    role : Role, default "feature"
        What the column is for. ``protected`` columns are features too.
    categories : tuple of str or None
        Known values of a categorical column, in a fixed order.

    Raises
    ------
    SchemaError
        If kind or role is none of the listed ones.

    """

    name: str
    kind: Kind
    role: Role = "feature"
    categories: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Reject what came from a file or from the API with a wrong word."""
        if self.kind not in KINDS:
            raise SchemaError(f"columns.{self.name}.kind", f"one of {', '.join(KINDS)}", self.kind)
        if self.role not in ROLES:
            raise SchemaError(f"columns.{self.name}.role", f"one of {', '.join(ROLES)}", self.role)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The columns of a deployment, in the order of its payloads: features first, then outputs.

    Examples
    --------
    >>> schema = Schema(columns=(
    ...     Column(name="age", kind="numeric"),
    ...     Column(name="y", kind="numeric", role="output"),
    ... ))
    >>> [column.name for column in schema.features]
    ['age']
    >>> Schema.from_json(schema.to_json()) == schema
    True

    """

    columns: tuple[Column, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a name that stands twice among the features, or twice among the outputs."""
        seen: set[tuple[str, bool]] = set()
        for column in self.columns:
            key = (column.name, column.role in _OUTPUT_ROLES)
            if key in seen:
                raise SchemaError("columns", "each name once", column.name)
            seen.add(key)

    @property
    def features(self) -> tuple[Column, ...]:
        """Columns the model is asked with."""
        return tuple(column for column in self.columns if column.role in _FEATURE_ROLES)

    @property
    def outputs(self) -> tuple[Column, ...]:
        """Columns the model answers with."""
        return tuple(column for column in self.columns if column.role in _OUTPUT_ROLES)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON form, as 64 hexadecimal digits."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the form of the API: ``{"columns": [{name, kind, role, categories}]}``."""
        return {
            "columns": [
                {
                    "name": column.name,
                    "kind": column.kind,
                    "role": column.role,
                    "categories": list(column.categories) if column.categories else None,
                }
                for column in self.columns
            ]
        }

    @classmethod
    def from_json(cls, value: object) -> "Schema":
        """Read the form of the API; raise ``SchemaError`` naming the path of what is wrong."""
        if not isinstance(value, Mapping) or not isinstance(value.get("columns"), list):
            raise SchemaError("schema", 'an object {"columns": [...]}', value)
        return cls(columns=tuple(_columns(value["columns"])))


def _columns(items: Iterable[object]) -> Iterable[Column]:
    for index, item in enumerate(items):
        path = f"columns[{index}]"
        if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
            raise SchemaError(path, "an object with a name", item)
        unknown = set(item) - {"name", "kind", "role", "categories"}
        if unknown:
            raise SchemaError(path, "the keys name, kind, role, categories", sorted(unknown))
        categories = item.get("categories")
        if categories is not None and not isinstance(categories, list):
            raise SchemaError(f"{path}.categories", "a list or null", categories)
        yield Column(
            name=item["name"],
            kind=cast("Kind", item.get("kind", "numeric")),
            role=cast("Role", item.get("role", "feature")),
            categories=tuple(str(value) for value in categories) if categories else None,
        )
