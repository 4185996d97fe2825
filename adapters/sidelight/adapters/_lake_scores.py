"""Outlier scores of rows, a table of its own beside the inferences.

A score belongs to one revision of a row and has its time, so that it is found where the row is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from sidelight.payloads import ROW_SCHEMA, Batch

SCORE_SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("revision", pa.int16(), nullable=False),
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("outlier_score", pa.float64()),
        pa.field("p_value", pa.float64()),
        pa.field("outlier", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of rows of one deployment.

    Parameters
    ----------
    deployment : str
        ``namespace/name``.
    records : pyarrow.RecordBatch
        The columns of ``SCORE_SCHEMA``.

    """

    deployment: str
    records: pa.RecordBatch

    def by_deployment(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Yield the one deployment and its scores."""
        yield self.deployment, self.records

    @classmethod
    def of(
        cls, batch: Batch, *, outlier_score: ArrayLike, p_value: ArrayLike, outlier: ArrayLike
    ) -> "Scores":
        """Attach scores to the rows of a batch; a score that is not finite means none.

        Parameters
        ----------
        outlier_score, p_value : array_like of float, shape (n_rows,)
            The detector's own unit, and the conformal p-value in (0, 1].
        outlier : array_like of bool, shape (n_rows,)
            Whether the row counts as an outlier.

        """
        rows = batch.records
        columns = [rows.column(name) for name in ("id", "row", "revision", "time")]
        columns += [_finite(outlier_score), _finite(p_value)]
        columns.append(pa.array(np.asarray(outlier, dtype=np.bool_)))
        return cls(batch.deployment, pa.RecordBatch.from_arrays(columns, schema=SCORE_SCHEMA))

    @staticmethod
    def joined(
        items: Sequence[tuple[Batch, ArrayLike, ArrayLike, ArrayLike]],
    ) -> "JoinedScores":
        """Attach scores to batches of any deployments; cheaper than ``of`` for each of them.

        Parameters
        ----------
        items : sequence of (batch, outlier_score, p_value, outlier)
            As the parameters of ``of``.

        """
        names = ("id", "row", "revision", "time")
        found = [item for item in items if len(item[0])]
        if not found:
            return JoinedScores((), pa.RecordBatch.from_pylist([], schema=SCORE_SCHEMA))
        places = [ROW_SCHEMA.names.index(name) for name in names]
        keys = [[batch.records.column(place) for batch, *_ in found] for place in places]
        columns = [pa.concat_arrays(arrays) for arrays in keys]
        columns += [_finite(np.concatenate([item[place] for item in found])) for place in (1, 2)]
        columns.append(
            pa.array(np.concatenate([np.asarray(item[3], dtype=np.bool_) for item in found]))
        )
        return JoinedScores(
            tuple((batch.deployment, len(batch)) for batch, *_ in found),
            pa.RecordBatch.from_arrays(columns, schema=SCORE_SCHEMA),
        )


@dataclass(frozen=True, slots=True)
class JoinedScores:
    """Scores of rows of several deployments.

    Parameters
    ----------
    owners : tuple of (deployment, n_rows)
        Whose the next rows are.
    records : pyarrow.RecordBatch
        The columns of ``SCORE_SCHEMA``, the rows of all owners behind each other.

    """

    owners: tuple[tuple[str, int], ...]
    records: pa.RecordBatch

    def by_deployment(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Yield each deployment and its scores."""
        start = 0
        for deployment, n_rows in self.owners:
            yield deployment, self.records.slice(start, n_rows)
            start += n_rows


def _finite(values: ArrayLike) -> Any:
    numbers = np.asarray(values, dtype=np.float64)
    return pa.array(numbers, mask=~np.isfinite(numbers))
