"""Outlier scores of rows, a table of its own beside the inferences.

A score belongs to one revision of a row and has its time, so that it is found where the row is.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from sidelight.payloads import Batch

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


def _finite(values: ArrayLike) -> Any:
    numbers = np.asarray(values, dtype=np.float64)
    return pa.array(numbers, mask=~np.isfinite(numbers))
