"""Consecutive rows of one deployment, as a monitor takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from sidelight.detectors.errors import SampleError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Consecutive rows of one deployment.

    Parameters
    ----------
    times : sequence of str, shape (n_rows,)
        Occurrence times, RFC 3339; they are passed through, never read.
    version : str or None
        Version of the model that served them.
    columns : mapping of str to numpy.ndarray, each of shape (n_rows,)
        Features under their bare name, outputs as ``outputs.<name>``. Numbers (NaN and infinities
        are missing), booleans, or objects (None is missing). A column that is absent is
        missing in all rows. Arrays of other shapes are not monitored.

    Raises
    ------
    SampleError
        If a column has another number of rows than ``times``.

    """

    times: Sequence[str]
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    version: str | None = None

    def __post_init__(self) -> None:
        """Refuse columns that do not belong together."""
        for name, values in self.columns.items():
            if values.ndim < 1 or values.shape[0] != len(self.times):
                raise SampleError(
                    f"column {name}", expected=f"{len(self.times)} rows", got=values.shape
                )

    def __len__(self) -> int:
        return len(self.times)
