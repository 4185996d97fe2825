"""A live model that speaks V1: KServe's and TF-Serving's REST."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from sidelight.adapters._model_endpoint import Endpoint
from sidelight.adapters._model_outputs import OutputChoice
from sidelight.adapters._model_tensors import tensors_of
from sidelight.adapters.dialects._v1 import Version1
from sidelight.explainers import Answer, Columns


class V1Model:
    """Predictions of a V1 endpoint, asked with rows or columns as its logged requests were.

    Missing values (None, NaN) are null. V1 tells no version. Safe for threads.

    Parameters
    ----------
    endpoint : Endpoint
        Its URL is the predict route; see ``v1_url``.
    layout : mapping
        ``Batch.layout["request"]`` of the deployment.
    features : sequence of str
        Order in which columns are handed over.
    choice : OutputChoice
        Which output is explained.
    version : str or None
        Accepted as in ``V2Model``; there is nothing to compare it with.

    Attributes
    ----------
    output_name : str or None
        The output that was read; None before the first answer.
    version_mismatch : None
        As in ``V2Model``.

    Raises
    ------
    RowError
        If the layout has columns that are no features, or no dimension of rows.

    """

    def __init__(
        self,
        endpoint: Endpoint,
        layout: Mapping[str, Any],
        features: Sequence[str],
        *,
        choice: OutputChoice | None = None,
        version: str | None = None,  # noqa: ARG002 - one signature for both protocols
    ) -> None:
        self.output_name: str | None = None
        self.version_mismatch: str | None = None
        self._endpoint = endpoint
        self._tensors = tensors_of(layout, features)
        self._is_columnar = layout.get("protocol") == "v1-columnar"
        self._form = layout.get("form")
        self._choice = choice or OutputChoice()
        self._wrapper = layout.get("wrapper")
        signature = layout.get("signature_name")
        self._extra = {"signature_name": signature} if signature else {}

    def predict(self, columns: Columns, *, timeout_s: float) -> Answer:
        """Ask the endpoint; see ``sidelight.explainers.Predict``."""
        key = "inputs" if self._is_columnar else "instances"
        asked = self._inputs(columns) if self._is_columnar else self._instances(columns)
        body = self._endpoint.ask({**self._extra, key: asked}, timeout_s=timeout_s)
        self.output_name, values, version = self._choice.read(Version1(), body, len(columns[0]))
        return Answer(values=values, version=version)

    def _instances(self, columns: Columns) -> list[Any]:
        rows = self._rows(columns)
        # SageMaker's form: {"features": [...]} for each row.
        return [{self._wrapper: row} for row in rows] if self._wrapper else rows

    def _rows(self, columns: Columns) -> list[Any]:
        written = [tensor.rows(columns) for tensor in self._tensors]
        if self._form == "object":
            names = [tensor.name for tensor in self._tensors]
            return [dict(zip(names, row, strict=True)) for row in zip(*written, strict=True)]
        if self._form == "list" and (len(written) > 1 or self._tensors[0].is_bare):
            # A row of mixed classes: each of its values is a tensor to the dialect.
            return [list(row) for row in zip(*written, strict=True)]
        return written[0]

    def _inputs(self, columns: Columns) -> Any:
        written = {tensor.name: tensor.rows(columns) for tensor in self._tensors}
        return written.get(None, written)


def v1_url(base: str, model: str) -> str:
    """Address of a model's predict route.

    Examples
    --------
    >>> v1_url("http://127.0.0.1:8501", "flights")
    'http://127.0.0.1:8501/v1/models/flights:predict'

    """
    return f"{base.rstrip('/')}/v1/models/{quote(model, safe='')}:predict"
