"""Everything a deployment's detectors are calibrated on; immutable, named by its digest."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._archive import pack, unpack
from sidelight.detectors._categorical_reference import CategoricalReference
from sidelight.detectors._collection import Collection
from sidelight.detectors._mahalanobis import FittedMahalanobis, Mahalanobis
from sidelight.detectors._numeric_reference import NumericReference
from sidelight.detectors._settings import DetectionSettings
from sidelight.detectors._values import Values
from sidelight.detectors.errors import SampleError, SnapshotError
from sidelight.payloads import OUTPUT_PREFIX, Kind, Role, Schema

ColumnReference = NumericReference | CategoricalReference

_WHAT = "reference"
_CATEGORICAL: frozenset[Kind] = frozenset({"categorical", "boolean"})
_SKIPPED: frozenset[Kind] = frozenset({"text", "image", "embedding", "timestamp"})
_UNWATCHED: frozenset[Role] = frozenset({"id", "label"})
# Words of which more than half are different, and that are many, are text.
_TEXT_SHARE = 0.5
_TEXT_WORDS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Frozen summaries of the reference rows of one deployment.

    Attributes
    ----------
    rows : int
        Rows that were summarised.
    columns : mapping of str to NumericReference or CategoricalReference
        Monitored columns, in the order in which they came.
    skipped : mapping of str to str
        Columns that are not monitored, and why.
    outlier : FittedMahalanobis or None
        None when no feature varies.
    outlier_columns : tuple of str
        Features that the outlier detector sees, in its order.

    """

    rows: int
    columns: Mapping[str, ColumnReference]
    skipped: Mapping[str, str]
    outlier: FittedMahalanobis | None
    outlier_columns: tuple[str, ...]
    _bytes: list[bytes] = field(default_factory=list, compare=False, repr=False)

    @classmethod
    def fit(
        cls,
        columns: Mapping[str, NDArray[Any]],
        *,
        settings: DetectionSettings | None = None,
        schema: Schema | None = None,
    ) -> "Reference":
        """Summarise reference rows.

        Parameters
        ----------
        columns : mapping of str to ndarray, each of shape (n_rows,)
            As in ``Rows``.
        settings : DetectionSettings, optional
            Bins, categories, bounds.
        schema : Schema, optional
            Kinds of columns; those it does not name are told from their values.

        Raises
        ------
        SampleError
            If columns differ in length or have fewer than 50 rows.

        """
        lengths = {array.shape[0] for array in columns.values() if array.ndim}
        if len(lengths) != 1:
            raise SampleError(_WHAT, expected="columns of one length", got=sorted(lengths))
        collection = Collection(lengths.pop())
        collection.add(columns, collection.capacity)
        return fit_collection(collection, settings or DetectionSettings(), schema)

    @property
    def digest(self) -> str:
        """SHA-256 of the stored form, as 64 hexadecimal digits."""
        data = self.to_bytes()
        if len(self._bytes) == 1:
            self._bytes.append(hashlib.sha256(data).hexdigest().encode())
        return self._bytes[1].decode()

    def to_bytes(self) -> bytes:
        """Write the reference; equal references give equal bytes."""
        if not self._bytes:
            self._bytes.append(self._pack())
        return self._bytes[0]

    def _pack(self) -> bytes:
        heads: list[Any] = []
        arrays: dict[str, NDArray[Any]] = {}
        for index, (name, column) in enumerate(self.columns.items()):
            head, parts = column.to_parts()
            heads.append({"name": name, **head})
            arrays |= {f"{index}.{key}": part for key, part in parts.items()}
        if self.outlier is not None:
            for key in ("mean", "scale", "factor", "held_out"):
                arrays[f"outlier.{key}"] = getattr(self.outlier, key)
        head = {
            "rows": self.rows,
            "columns": heads,
            "skipped": dict(self.skipped),
            "outlier_columns": self.outlier_columns,
        }
        return pack(head, arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Reference":
        """Read what ``to_bytes`` wrote; raise ``SnapshotError`` for anything else."""
        head, arrays = unpack(data, _WHAT)
        try:
            columns = {
                item["name"]: _column(index, item, arrays)
                for index, item in enumerate(head["columns"])
            }
            return cls(
                rows=head["rows"],
                columns=columns,
                skipped=head["skipped"],
                outlier=_outlier(arrays),
                outlier_columns=tuple(head["outlier_columns"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SnapshotError(_WHAT, expected="its parts", got=repr(error)) from error

    def outlier_matrix(
        self, values: Mapping[str, Values], cells: Mapping[str, NDArray[np.uint16]], n_rows: int
    ) -> NDArray[np.float64]:
        """Rows as the outlier detector sees them, shape (n_rows, n_outlier_columns)."""
        # Written and scored column after column.
        matrix = np.full((len(self.outlier_columns), n_rows), np.nan)
        for index, name in enumerate(self.outlier_columns):
            if name not in values:
                continue
            column = self.columns[name]
            if isinstance(column, NumericReference):
                matrix[index] = values[name].numbers
            else:
                matrix[index] = column.surprises[cells[name]]
        return matrix.T


def fit_collection(
    collection: Collection, settings: DetectionSettings, schema: Schema | None
) -> Reference:
    """Summarise collected rows."""
    if collection.rows < 50:  # noqa: PLR2004 - as DetectionSettings.reference_rows
        raise SampleError(_WHAT, expected="at least 50 rows", got=collection.rows)
    kinds = _kinds(schema)
    columns: dict[str, ColumnReference] = {}
    skipped = dict(collection.skipped)
    for name, values in collection.columns.items():
        reason = _reason_to_skip(values, kinds.get(name))
        if reason is None and len(columns) == settings.max_features:
            reason = f"more than {settings.max_features} columns"
        if reason is not None:
            skipped[name] = reason
        elif _is_categorical(values, kinds.get(name)):
            columns[name] = CategoricalReference.fit(
                values, n_categories=settings.n_categories, n_bins=settings.n_bins
            )
        else:
            columns[name] = NumericReference.fit(values, n_bins=settings.n_bins)
    seen = tuple(
        name
        for name, column in columns.items()
        if not name.startswith(OUTPUT_PREFIX) and not column.constant
    )
    bare = Reference(
        rows=collection.rows, columns=columns, skipped=skipped, outlier=None, outlier_columns=seen
    )
    if not seen:
        return bare
    chosen = {name: collection.columns[name] for name in seen}
    cells = {name: columns[name].cells(values) for name, values in chosen.items()}
    matrix = bare.outlier_matrix(chosen, cells, collection.rows)
    return Reference(
        rows=collection.rows,
        columns=columns,
        skipped=skipped,
        outlier=Mahalanobis().fit(matrix),
        outlier_columns=seen,
    )


def _kinds(schema: Schema | None) -> dict[str, Kind]:
    if schema is None:
        return {}
    kinds: dict[str, Kind] = {column.name: column.kind for column in schema.features}
    kinds |= {OUTPUT_PREFIX + column.name: column.kind for column in schema.outputs}
    # Ids and labels are no part of what a model is asked or answers.
    return kinds | {column.name: "text" for column in schema.columns if column.role in _UNWATCHED}


def _is_categorical(values: Values, kind: Kind | None) -> bool:
    if kind is not None:
        return kind in _CATEGORICAL
    # A few words among numbers ("n/a") do not make categories; they count as missing.
    n_numbers = int((~np.isnan(values.numbers)).sum())
    return len(values.words) >= max(n_numbers, 1)


def _reason_to_skip(values: Values, kind: Kind | None) -> str | None:
    if kind in _SKIPPED:
        return f"{kind} columns are not monitored"
    categorical = _is_categorical(values, kind)
    present = int((~np.isnan(values.numbers)).sum())
    if categorical:
        present += len(values.words)
    if present == 0:
        return "no values in the reference"
    distinct = len(set(values.words.values()))
    if kind is None and categorical and distinct > max(_TEXT_WORDS, _TEXT_SHARE * present):
        return "text columns are not monitored"
    return None


def _column(
    index: int, head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> ColumnReference:
    counts, bins = arrays[f"{index}.counts"], arrays[f"{index}.bins"]
    if head["type"] == "categorical":
        surprises = arrays[f"{index}.surprises"]
        return CategoricalReference.build(head["categories"], counts, bins, surprises)
    return NumericReference.build(arrays[f"{index}.points"], counts, bins)


def _outlier(arrays: Mapping[str, NDArray[Any]]) -> FittedMahalanobis | None:
    if "outlier.mean" not in arrays:
        return None
    return FittedMahalanobis(
        mean=arrays["outlier.mean"],
        scale=arrays["outlier.scale"],
        factor=arrays["outlier.factor"],
        held_out=arrays["outlier.held_out"],
    )
