"""A running service as the commands ``query`` and ``export`` ask it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import orjson

from sidelight.adapters import ExportFormat
from sidelight.service._http_client import http_client, refusal
from sidelight.service._query_source import Filters
from sidelight.service.errors import ServiceError

_CONNECT_S: Final = 10.0
# A search over everything may take as long as it takes; a service that is gone is noticed by TCP.
_READ_S: Final = 600.0
_ROLE: Final = "read"


class RemoteSource:
    """Asks the API of a service.

    Parameters
    ----------
    url : str
        Its address, as ``http://127.0.0.1:8090``.
    token_file : Path, optional
        File with a token of role read.
    reason : str or None
        Why it is asked, for the access log there.
    transport : httpx.BaseTransport, optional
        For tests.

    Raises
    ------
    ConfigurationError
        If the address or the file cannot be used.

    """

    def __init__(
        self,
        url: str,
        *,
        token_file: Path | None = None,
        reason: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._client = http_client(
            "--url",
            url,
            token_file=token_file,
            timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S),
            transport=transport,
        )
        if reason:
            self._client.headers["X-Sidelight-Reason"] = reason

    def find(self, filters: Filters) -> tuple[list[dict[str, Any]], str | None]:
        """Return one page as the API shows it, and the cursor of the next."""
        page = self._json("/v1/inferences", filters)
        return page["items"], page["next"]

    def get(self, inference_id: str, *, raw: bool) -> dict[str, Any]:
        """Return one inference; raise ``NotFound`` when there is none."""
        # What stands for an id must not become another path.
        path = f"/v1/inferences/{quote(inference_id, safe='')}"
        return self._json(path, {"raw": "true" if raw else None})

    def export(self, chosen: ExportFormat, filters: Filters) -> Iterator[bytes]:
        """Return everything that matches, as a stream that raises when it is cut."""
        parameters = _parameters({**filters, "format": chosen})
        try:
            with self._client.stream("GET", "/v1/inferences/export", params=parameters) as answer:
                if not answer.is_success:
                    answer.read()
                    raise refusal(answer, role=_ROLE)
                yield from answer.iter_bytes()
        except httpx.TransportError as error:
            raise ServiceError(f"the service does not answer to the end: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _json(self, path: str, filters: Filters) -> dict[str, Any]:
        try:
            answer = self._client.get(path, params=_parameters(filters))
        except httpx.TransportError as error:
            raise ServiceError(f"the service does not answer: {error}") from error
        if not answer.is_success:
            raise refusal(answer, role=_ROLE)
        try:
            value: dict[str, Any] = orjson.loads(answer.content)
        except orjson.JSONDecodeError as error:
            raise ServiceError("--url: expected Sidelight, got something else") from error
        return value


def _parameters(filters: Filters) -> dict[str, str]:
    return {name: str(value) for name, value in filters.items() if value is not None}
