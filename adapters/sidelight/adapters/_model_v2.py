"""A live model that speaks V2, the Open Inference Protocol, in JSON."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from sidelight.adapters._model_endpoint import Endpoint
from sidelight.adapters._model_outputs import OutputChoice
from sidelight.adapters._model_tensors import TensorLayout, tensors_of
from sidelight.adapters.dialects._v2 import OpenInference
from sidelight.explainers import Answer, Columns


class V2Model:
    """Predictions of a V2 endpoint, asked with the layout and datatypes of its logged requests.

    Missing values (None, NaN) are null. Safe for threads.

    Parameters
    ----------
    endpoint : Endpoint
        Its URL is the infer route; see ``v2_url``.
    layout : mapping
        ``Batch.layout["request"]`` of the deployment.
    features : sequence of str
        Order in which columns are handed over.
    choice : OutputChoice
        Which output is explained.
    version : str or None
        The version that is expected to answer.

    Attributes
    ----------
    output_name : str or None
        The output that was read; None before the first answer.
    version_mismatch : str or None
        A version that answered in place of the expected one.

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
        version: str | None = None,
    ) -> None:
        self.output_name: str | None = None
        self.version_mismatch: str | None = None
        self._endpoint = endpoint
        self._tensors = tensors_of(layout, features)
        self._choice = choice or OutputChoice()
        self._version = version
        content_type = layout.get("content_type")
        self._extra = {"parameters": {"content_type": content_type}} if content_type else {}

    def predict(self, columns: Columns, *, timeout_s: float) -> Answer:
        """Ask the endpoint; see ``sidelight.explainers.Predict``."""
        n_rows = len(columns[0])
        inputs = [_written(tensor, columns, n_rows) for tensor in self._tensors]
        asked = {"inputs": inputs, **self._extra}
        body = self._endpoint.ask(asked, timeout_s=timeout_s, named=True)
        self.output_name, values, version = self._choice.read(OpenInference(), body, n_rows)
        if version and self._version and version != self._version:
            self.version_mismatch = version
        return Answer(values=values, version=version)


def v2_url(base: str, model: str) -> str:
    """Address of a model's infer route.

    Examples
    --------
    >>> v2_url("http://127.0.0.1:8080/", "a/b")
    'http://127.0.0.1:8080/v2/models/a%2Fb/infer'

    """
    return f"{base.rstrip('/')}/v2/models/{quote(model, safe='')}/infer"


def _written(tensor: TensorLayout, columns: Columns, n_rows: int) -> dict[str, Any]:
    item: dict[str, Any] = {
        "name": tensor.name or "",
        "shape": [n_rows, *(tensor.shape or ())],
        "datatype": tensor.datatype,
        "data": tensor.rows(columns) if tensor.is_nested else tensor.flat(columns),
    }
    if tensor.content_type:
        item["parameters"] = {"content_type": tensor.content_type}
    return item
